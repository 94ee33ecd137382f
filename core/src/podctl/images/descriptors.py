"""Small helpers for walking trees by descriptor alone."""

from __future__ import annotations

import os
import resource

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: open directories from which on the usual soft limit of 1024 descriptors may be too few. Paths
#: (PATH_MAX) are at most 2048 components deep.
_DEEP = 200
_ENOUGH = 8192
#: sub-directories of one directory remembered at a time while a tree is removed.
_BATCH = 10_000


class DescriptorLimit:
    """Raises the soft limit of open descriptors when a walk gets deep, and puts it back."""

    def __init__(self) -> None:
        self._saved: tuple[int, int] | None = None

    def need(self, depth: int) -> None:
        """Say how many directories are open."""
        if depth < _DEEP or self._saved is not None:
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._saved = soft, hard
        ceiling = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
        if soft != resource.RLIM_INFINITY and soft < ceiling:
            resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))

    def restore(self) -> None:
        """Put the limit back."""
        if self._saved is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._saved)
            self._saved = None


def remove(parent: int, name: bytes, limit: DescriptorLimit) -> None:
    """Remove what `name` is in the directory `parent`: a tree without following anything."""
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        _remove_tree(parent, name, limit)


def _remove_tree(parent: int, name: bytes, limit: DescriptorLimit) -> None:
    opened: list[tuple[int, str | bytes, int]] = []
    pending: list[list[str]] = []
    try:
        _open(opened, pending, parent, name)
        while opened:
            above, own, fd = opened[-1]
            if not pending[-1]:
                pending[-1] = _empty(fd)
            if pending[-1]:
                _open(opened, pending, fd, pending[-1].pop())
                limit.need(len(opened))
                continue
            opened.pop()
            pending.pop()
            os.close(fd)
            os.rmdir(own, dir_fd=above)
    finally:
        for _, _, fd in opened:
            os.close(fd)


def _open(
    opened: list[tuple[int, str | bytes, int]],
    pending: list[list[str]],
    parent: int,
    name: str | bytes,
) -> None:
    opened.append((parent, name, os.open(name, DIRECTORY, dir_fd=parent)))
    pending.append([])


def _empty(fd: int) -> list[str]:
    """Unlink the non-directories in `fd`; return sub-directories, at most a batch of them."""
    names: list[str] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=fd)
            elif len(names) < _BATCH:
                names.append(entry.name)
    return names
