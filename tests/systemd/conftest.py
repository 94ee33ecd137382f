"""Pods on a real host with systemd, booted once for all tests of this directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "support")]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from systemd_world import SystemdWorld


@pytest.fixture(scope="session")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdWorld]:
    """The host, with an image in its store."""
    from systemd_world import SystemdWorld

    from podctl.testing.systemdhost import SystemdHost

    with SystemdHost(tmp_path_factory.mktemp("systemd") / "host") as host:
        world = SystemdWorld(host)
        world.install()
        yield world


@pytest.fixture
def world(booted: SystemdWorld) -> Iterator[SystemdWorld]:
    """The host as it was booted: without pods, without units of a test's."""
    yield booted
    booted.clean()
