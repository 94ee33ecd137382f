"""Registries, hostile and real, and podctl beside them."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "support")]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clean_home import Clean
    from registry_world import World

    from podctl.testing.dockerregistry import DockerRegistry
    from podctl.testing.httpserver import Handler, Server
    from podctl.testing.realimages import Workshop
    from podctl.testing.registry import Registry


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Namespaces with hosts, an authority, and no container configuration."""
    from registry_world import World

    world = World(tmp_path_factory.mktemp("world"))
    yield world
    world.close()


@pytest.fixture
def serve(world: World) -> Iterator[Callable[..., Server]]:
    """Serve a host of the world until the test is over."""
    with ExitStack() as stack:

        def start(handler: Handler, *words: str, **settings: object) -> Server:
            return stack.enter_context(world.serve(handler, *words, **settings))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def registry(serve: Callable[..., Server]) -> Registry:
    """A scripted registry at registry.example, empty."""
    from podctl.testing.registry import Registry

    registry = Registry()
    serve(registry)
    return registry


@pytest.fixture
def home(tmp_path: Path, world: World) -> Iterator[Clean]:
    """An empty installation that is watched, and no configuration for registries."""
    from clean_home import Clean

    yield Clean(tmp_path / "installation", world)
    for path in sorted(world.containers.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Images by real tools, each built once."""
    from podctl.testing.realimages import Workshop

    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def real(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Debian's docker-registry at real.example, with TLS and a password."""
    from registry_world import HOSTS, REAL

    from podctl.testing.dockerregistry import DockerRegistry

    with DockerRegistry(
        tmp_path_factory.mktemp("docker-registry"),
        world.authority,
        REAL,
        address=HOSTS[REAL],
        prefix=world.inside(),
    ) as registry:
        yield registry
