"""Archives and canaries for the tests of this directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# pytest imports test modules without their directory on the path; these helpers are theirs alone.
sys.path.insert(0, str(Path(__file__).parent))

from archive_lab import Canary

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _root_and_no_leaks() -> Iterator[None]:
    """The tests set owners and devices; none may leave a descriptor or a changed umask behind."""
    assert os.geteuid() == 0, "these tests need root"
    before = len(os.listdir("/proc/self/fd"))
    umask = os.umask(0o022)
    yield
    assert os.umask(umask) == 0o022
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    """A tree beside the target (`tmp_path / "target"`)."""
    return Canary(tmp_path)
