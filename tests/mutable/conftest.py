"""Pods whose apps come and go, through the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mutable_world import MutableWorld, Sandbox


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the images in its store."""
    from mutable_world import fetch_images

    if os.geteuid() != 0:
        pytest.skip("needs root to run pods")
    return fetch_images(tmp_path_factory.mktemp("mutable"))


@pytest.fixture
def world(data: Path, tmp_path: Path) -> Iterator[MutableWorld]:
    """The data directory without pods; whatever is run in it leaves nothing on the host."""
    from mutable_world import MutableWorld

    tmp_path.chmod(0o755)
    world = MutableWorld(tmp_path, data)
    yield world
    world.end()
    world.collect()
    assert world.left() == []


@pytest.fixture
def pod(world: MutableWorld) -> Sandbox:
    """A running pod without apps."""
    return world.sandbox()
