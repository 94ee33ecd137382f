"""flock(2): advisory locks that belong to an open file and vanish with its last descriptor.

Only flock is used, never a pid file: a lock cannot go stale, survives rename, and is inherited
by execve when the descriptor is (which is how a pod stays locked while its app lives).
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


def lock(fd: int, *, exclusive: bool, blocking: bool = True) -> bool:
    """Take or convert the lock of `fd`'s open file. False when not `blocking` and it is held."""
    mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(fd, mode if blocking else mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Give the lock up without closing."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def open_lock_file(path: str, *, create: bool = True, mode: int = 0o640) -> int:
    """Open a lock file: read-only, close-on-exec, never through a symbolic link.

    Read-only is enough for flock(2), and the descriptor may outlive us inside a pod. `mode` holds
    whatever the umask, so that every member of the store's group can open it.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            if not create:
                raise
        try:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            continue
        os.fchmod(fd, mode)
        return fd


def _is_at(fd: int, path: str) -> bool:
    """Whether `path` still names the file that is open as `fd`."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


class LockedFile:
    """A lock file, held while the context lasts; `fd` is -1 outside of it.

    When the file was replaced or removed between open and lock, the new one is locked instead:
    whoever deletes a lock file holds its lock, so the name alone proves nothing.

    Raises (on entry):
        BlockingIOError: not `blocking`, and somebody holds the lock.
        OSError: the file cannot be opened or made.
    """

    def __init__(
        self,
        path: str,
        *,
        exclusive: bool = True,
        blocking: bool = True,
        create: bool = True,
        mode: int = 0o640,
    ) -> None:
        self.path = path
        self.exclusive = exclusive
        self.blocking = blocking
        self.create = create
        self.mode = mode
        self.fd = -1

    def acquire(self) -> None:
        """Take the lock; see the class for what is raised."""
        while True:
            fd = open_lock_file(self.path, create=self.create, mode=self.mode)
            try:
                if not lock(fd, exclusive=self.exclusive, blocking=self.blocking):
                    raise BlockingIOError(f"{self.path} is locked by another process")
                if _is_at(fd, self.path):
                    self.fd, fd = fd, -1
                    return
            finally:
                if fd != -1:
                    os.close(fd)

    def release(self) -> None:
        """Close the descriptor (copies in other processes keep the lock)."""
        if self.fd != -1:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> LockedFile:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def held(path: str) -> bool:
    """Whether somebody holds an exclusive lock on the file (or directory) at `path`.

    Probes with a shared, non-blocking lock, given back at once. A missing file is not held.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        return False
    try:
        return not lock(fd, exclusive=False, blocking=False)
    finally:
        os.close(fd)
