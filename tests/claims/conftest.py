"""What podctl is claimed to do, row by row: a site, people, and pods of the default flavor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

_TESTS = Path(__file__).parents[1]
_PLACES = ("claims", "support", "registry", "journeys", "layouts")
sys.path[:0] = [str(_TESTS / name) for name in _PLACES]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from box_world import World as Boxes
    from clean_home import Clean
    from privilege_world import Scene
    from registry_world import World
    from site_world import Site

#: whose names the claims have
_CLAIMED = {"quay.io": "192.0.2.6", "coreos.com": "192.0.2.7"}


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all of them."""
    from site_world import Site

    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.close()


@pytest.fixture(scope="session")
def scene(published: Site) -> Iterator[Scene]:
    """A host with people, images, and a pod in each state."""
    from privilege_world import Scene

    scene = Scene(published)
    try:
        scene.set_up()
        yield scene
    finally:
        scene.close()


@pytest.fixture(scope="session")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Namespaces with the hosts whose names the claims have."""
    from registry_world import HOSTS, World

    world = World(tmp_path_factory.mktemp("internet"), HOSTS | _CLAIMED)
    yield world
    world.close()


@pytest.fixture
def home(tmp_path: Path, internet: World) -> Clean:
    """An empty installation in that network."""
    from clean_home import Clean

    return Clean(tmp_path / "installation", internet)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the images of the behaviour suite."""
    from box_world import fetch_images

    return fetch_images(tmp_path_factory.mktemp("claims"))


@pytest.fixture
def world(data: Path, tmp_path: Path) -> Iterator[Boxes]:
    """The data directory without pods; whatever is run in it leaves nothing on the host."""
    from box_world import World

    tmp_path.chmod(0o755)
    world = World(tmp_path, data)
    yield world
    world.end()
    world.collect()
    assert world.left() == []
