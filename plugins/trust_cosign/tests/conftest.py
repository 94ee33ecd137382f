"""Keys and signatures for the tests of this distribution: made as cosign makes them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# pytest imports test modules without their directory on the path; these helpers are theirs alone.
sys.path.insert(0, str(Path(__file__).parent))

from cosign_lab import Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """Signers of every kind, made on demand."""
    return Lab()
