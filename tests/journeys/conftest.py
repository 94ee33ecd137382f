"""Journeys of a user on real components."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "support")]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from home import Home
    from live_world import Discovery
    from site_world import Site

    from podctl.testing.httpserver import Server


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all journeys."""
    from site_world import Site

    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.close()


@pytest.fixture
def site(published: Site) -> Iterator[Site]:
    """The site with an empty store and no trusted key."""
    published.forget()
    yield published
    published.forget()


@pytest.fixture(scope="session")
def live_server(published: Site) -> Iterator[Server]:
    """The second host, up for all journeys."""
    from live_world import serve

    with serve(published) as server:
        yield server


@pytest.fixture
def live(live_server: Server) -> Discovery:
    """What the second host answers, empty at first."""
    from live_world import Discovery

    live_server.log.clear()
    discovery = Discovery()
    live_server.routes = {"": discovery}
    return discovery


@pytest.fixture
def home(tmp_path: Path, published: Site) -> Home:
    """An empty installation inside the site's world."""
    from home import Home

    return Home(tmp_path, published.inside())
