"""Bringing to disk what is being written, while more of it arrives.

Images are synced before they count. What reaches the disk while the processors are busy with the
rest need not be waited for at the end.
"""

from __future__ import annotations

import os
import select
from contextlib import contextmanager
from typing import TYPE_CHECKING

from podctl.sys.child import Privileges, spawn
from podctl.sys.files import syncfs

if TYPE_CHECKING:
    from collections.abc import Iterator

#: seconds between two times; more often only makes the writers wait for the journal
INTERVAL = 0.4
#: bytes below which nothing is to be gained
WORTH_IT = 16 << 20


@contextmanager
def settling(directory: str, size: int) -> Iterator[None]:
    """Sync the file system of `directory` now and then, until the context ends.

    Nothing depends on it: what matters is synced again by who commits it.

    Args:
        size: bytes that are about to arrive, as published.
    """
    if size < WORTH_IT:
        yield
        return
    stop_read, stop_write = os.pipe2(os.O_CLOEXEC)
    try:
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            keep = (stop_read, directory_fd)
            child = spawn(
                lambda: _settle(stop_read, directory_fd),
                privileges=Privileges.SAME,
                keep=keep,
                name="settle",
            )
        finally:
            os.close(directory_fd)
        with child:
            yield
    finally:
        os.close(stop_read)
        os.close(stop_write)


def _settle(stop_fd: int, directory_fd: int) -> None:
    poller = select.poll()
    poller.register(stop_fd, select.POLLIN)
    while not poller.poll(INTERVAL * 1000):
        syncfs(directory_fd)
