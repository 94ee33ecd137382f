"""Three real services, in images of Debian's packages."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "support")]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from box_world import World


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the images in its store."""
    from box_world import World
    from service_images import make, services

    if os.geteuid() != 0:
        pytest.skip("needs root to run pods")
    top = tmp_path_factory.mktemp("services")
    world = World(top, top / "data")
    world.must("fetch", *(str(make(top, name)) for name in services()))
    return world.data


@pytest.fixture
def world(data: Path, tmp_path: Path) -> Iterator[World]:
    """The data directory without pods; nothing is left on the host."""
    from box_world import World

    tmp_path.chmod(0o755)
    world = World(tmp_path, data)
    yield world
    world.end()
    world.collect()
    assert world.left() == []
