"""Real pods through the command line, the same under every flavor."""

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
    from flavor_columns import Flavor


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the images in its store."""
    from box_world import fetch_images

    if os.geteuid() != 0:
        pytest.skip("needs root to run pods")
    return fetch_images(tmp_path_factory.mktemp("behaviour"))


@pytest.fixture
def world(data: Path, tmp_path: Path) -> Iterator[World]:
    """The data directory without pods; whatever is run in it leaves nothing on the host."""
    from box_world import World

    # Pods with users of their own pass through it.
    tmp_path.chmod(0o755)
    world = World(tmp_path, data)
    yield world
    world.end()
    world.collect()
    assert world.left() == []


@pytest.fixture(params=["fly", "nspawn"])
def flavor(request: pytest.FixtureRequest) -> Flavor:
    """Each flavor in turn."""
    from flavor_columns import Flavor

    return Flavor(request.param)
