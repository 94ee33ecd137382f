"""A published site, and a host of its own for each document."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doc_world import World
    from site_world import Site


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that serves a signed redis, registries beside it, and `site.top/files` with what
    readers have: the packager's key, the company's authority."""
    from doc_registry import serve_registries
    from doc_world import publish_redis
    from site_world import Site

    site = Site(tmp_path_factory.mktemp("docs-site"))
    files = site.top / "files"
    files.mkdir()
    publish_redis(site, files)
    with serve_registries(site, files):
        yield site
    site.close()


@pytest.fixture
def world(published: Site, tmp_path: Path) -> Iterator[World]:
    """A host on which nothing was fetched and nobody is trusted."""
    from doc_world import World

    pristine = shutil.copytree(published.public, tmp_path / "pristine", symlinks=True)
    yield World(published, tmp_path, published.top / "files")
    for name in published.public.iterdir():
        shutil.rmtree(name) if name.is_dir() else name.unlink()
    shutil.copytree(pristine, published.public, symlinks=True, dirs_exist_ok=True)
