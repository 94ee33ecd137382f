"""A store that is pulled into."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulling import Puller


@pytest.fixture
def puller(tmp_path: Path) -> Iterator[Puller]:
    """An empty store."""
    from pulling import Puller

    yield Puller(tmp_path / "data")
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
