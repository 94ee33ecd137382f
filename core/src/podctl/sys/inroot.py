"""Paths inside somebody else's root filesystem, resolved by the kernel and never leaving it.

Absolute symbolic links and `..` mean the root given, as after chroot(2); magic links (those of
/proc/PID) are refused. openat2(2) does the walk, so a concurrent rename cannot lead it out.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from podctl.sys import constants as c
from podctl.sys.calls import openat2
from podctl.sys.files import read_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable

_IN_ROOT = c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS
#: as in the kernel (MAXSYMLINKS)
_MAX_LINKS = 40
#: openat2(2) answers EAGAIN when a rename or mount raced with a `..`
_MAX_RACES = 256


def open_in_root(
    root_fd: int, path: str | bytes, flags: int, mode: int = 0, *, resolve: int = 0
) -> int:
    """Open `path` inside `root_fd`; close-on-exec.

    Args:
        path: absolute or relative, both start at the root.
        resolve: further RESOLVE_ flags.

    Raises:
        OSError: as open(2); ELOOP for a magic link, EAGAIN when races do not end.
    """
    for _ in range(_MAX_RACES):
        try:
            return openat2(root_fd, path, flags, mode, _IN_ROOT | resolve)
        except BlockingIOError as error:
            if error.errno != errno.EAGAIN:
                raise
    raise OSError(errno.EAGAIN, "the path keeps changing while it is resolved", path)


def read_file_in_root(root_fd: int, path: str | bytes, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes inside `root_fd`.

    Links are followed inside the root; a FIFO or device is never waited for.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is not a regular file, or is longer than `limit`.
    """
    fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        return read_descriptor(fd, limit, os.fsdecode(path))
    finally:
        os.close(fd)


def make_directories(
    root_fd: int,
    path: str | bytes,
    mode: int = 0o755,
    *,
    before: Callable[[int], None] | None = None,
) -> int:
    """mkdir -p inside `root_fd`; returns an O_PATH descriptor of the last directory.

    Links on the way are followed inside the root, and where one dangles its target is made.
    `before` is called with the directory something is about to be made in; it may raise.

    Raises:
        OSError: ENOTDIR where something else stands; as mkdir(2).
    """
    try:
        return open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        done = _walk(root_fd, os.fsdecode(path), mode, None, before)
        return open_clean(root_fd, done, os.O_DIRECTORY)


def make_file(
    root_fd: int,
    path: str | bytes,
    mode: int = 0o644,
    *,
    before: Callable[[int], None] | None = None,
) -> int:
    """O_PATH descriptor of whatever `path` leads to inside `root_fd`; an empty file is made,
    with its parent directories, where nothing stands. Raises OSError as `make_directories`."""
    try:
        return open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        return open_clean(root_fd, _walk(root_fd, os.fsdecode(path), 0o755, mode, before), 0)


def open_clean(root_fd: int, components: list[str], flags: int) -> int:
    """O_PATH descriptor of a path already free of links; ELOOP when one has appeared."""
    path = "/".join(components) or "."
    return open_in_root(root_fd, path, os.O_PATH | flags, resolve=c.RESOLVE_NO_SYMLINKS)


def _walk(
    root_fd: int,
    path: str,
    mode: int,
    file_mode: int | None,
    before: Callable[[int], None] | None,
) -> list[str]:
    """Resolve `path` making what is missing; returns components free of links.

    Every step opens the components found so far anew and without links, so a name that is
    swapped meanwhile makes the step fail or land elsewhere inside the root, never outside.
    """
    done: list[str] = []
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    while todo:
        name = todo.pop()
        if name == "..":
            del done[-1:]
            continue
        parent = open_clean(root_fd, done, os.O_DIRECTORY)
        try:
            target = _enter(parent, name, mode, None if todo else file_mode, before)
        finally:
            os.close(parent)
        if target is None:
            done.append(name)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            done.clear()
        todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    return done


def _enter(
    parent: int,
    name: str,
    mode: int,
    file_mode: int | None,
    before: Callable[[int], None] | None,
) -> str | None:
    """Make `name` unless something stands there; returns its target when that is a link."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        if before is not None:
            before(parent)
        _make(parent, name, mode, file_mode)
        return None
    if stat.S_ISLNK(found):
        return os.readlink(name, dir_fd=parent)
    if file_mode is None and not stat.S_ISDIR(found):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
    return None


def _make(parent: int, name: str, mode: int, file_mode: int | None) -> None:
    """Make a directory or an empty file; somebody else's, made meanwhile, will do."""
    try:
        if file_mode is None:
            os.mkdir(name, mode, dir_fd=parent)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(name, flags, file_mode, dir_fd=parent))
    except FileExistsError:
        return
