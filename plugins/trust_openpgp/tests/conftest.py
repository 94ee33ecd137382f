"""Keys and signatures for the tests of this distribution: made by gpg, or built octet by octet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# pytest imports test modules without their directory on the path; these helpers are theirs alone.
sys.path.insert(0, str(Path(__file__).parent))

from openpgp_lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A GnuPG home with the keys of the corpus, made on demand, and nothing left of it after."""
    with Lab() as made:
        yield made
