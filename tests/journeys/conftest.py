"""Journeys of a user on real components."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_world import Site


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
