"""Pod directories without images: only places, locks and files."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from podctl.pods.directories import PodDirectories

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

UUIDS = [f"{number:x}" * 8 + "-0000-4000-8000-000000000000" for number in range(16)]
UUIDS += [f"{number:08x}-1111-4000-8000-000000000000" for number in range(1000)]


class Yard:
    """A data directory in which pods are put where a test wants them."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.pods = PodDirectories(str(top))
        self._left = list(UUIDS)

    def put(self, place: str, *, instance: dict[str, Any] | None = None) -> str:
        """Make a pod in a place, unlocked; returns its UUID."""
        uuid = self._left.pop(0)
        directory = self.top / "pods" / place / uuid
        directory.mkdir(parents=True)
        (directory / "lock").touch(mode=0o600)
        (directory / "pod").write_text('{"acKind":"PodManifest","acVersion":"0.8.11","apps":[]}')
        if instance is not None:
            (directory / "instance").write_text(json.dumps(instance))
        return uuid

    def path(self, place: str, uuid: str) -> Path:
        """Where a pod is."""
        return self.top / "pods" / place / uuid

    def hold(self, place: str, uuid: str) -> Callable[[], None]:
        """Hold a pod's lock in another process until the returned function is called."""
        return hold(str(self.path(place, uuid) / "lock"))

    def all(self) -> dict[str, str]:
        """UUID -> place of every pod there is."""
        return {path.name: path.parent.name for path in (self.top / "pods").glob("*/*")}


_holders: list[Callable[[], None]] = []


def hold(path: str) -> Callable[[], None]:
    import fcntl

    ready_read, ready_write = os.pipe()
    end_read, end_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(end_write)
            fd = os.open(path, os.O_RDONLY)
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.write(ready_write, b"x")
            os.read(end_read, 1)
        finally:
            os._exit(0)
    os.close(ready_write)
    os.close(end_read)
    assert os.read(ready_read, 1) == b"x"
    os.close(ready_read)
    done = False

    def end() -> None:
        nonlocal done
        if not done:
            done = True
            os.close(end_write)
            os.waitpid(pid, 0)

    _holders.append(end)
    return end


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yield Yard(tmp_path)
    while _holders:
        _holders.pop()()


@pytest.fixture
def soon() -> Callable[[Callable[[], bool]], None]:
    """Wait until something that is about to happen has happened."""

    def wait(happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not happened():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    return wait
