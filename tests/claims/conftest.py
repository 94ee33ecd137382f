"""What podctl is claimed to do, row by row: a site, people, and pods of the default flavor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "support")]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from privilege_world import Scene
    from site_world import Site


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
