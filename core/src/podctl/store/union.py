"""Directories of a stack of layers, found as an overlay of them would show them.

What copying.merge is for whole trees, this is for a path: links are followed inside the union and
never leave it, and every look is through descriptors that follow none.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from podctl.store.copying import OPAQUE, is_whiteout, marked, open_below

if TYPE_CHECKING:
    from collections.abc import Sequence

#: as in the kernel (MAXSYMLINKS)
_MAX_LINKS = 40


class Place(NamedTuple):
    """A directory of the union.

    Args:
        path: free of links, no leading slash; empty for the root.
        layers: which of the trees have a say in it, the highest first.
    """

    path: str
    layers: tuple[int, ...]


class _Link(NamedTuple):
    target: str


def find_directory(roots: Sequence[int], path: str) -> Place | None:
    """The directory at `path` in the union of the trees `roots` (descriptors, highest first).

    Returns:
        None where nothing is, or a link dangles.

    Raises:
        OSError: ENOTDIR for what is no directory, ELOOP for too many links.
    """
    trail = [Place("", tuple(range(len(roots))))]
    todo = _parts(path)
    links = 0
    while todo:
        name = todo.pop()
        if name == "..":
            # The root is its own parent.
            trail = trail[:-1] or trail
            continue
        found = _look(roots, trail[-1], name)
        if found is None:
            return None
        if isinstance(found, Place):
            trail.append(found)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if found.target.startswith("/"):
            del trail[1:]
        todo += _parts(found.target)
    return trail[-1]


def _parts(path: str) -> list[str]:
    """The components, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _look(roots: Sequence[int], parent: Place, name: str) -> Place | _Link | None:
    """What a directory of the union has under a name."""
    path = f"{parent.path}/{name}" if parent.path else name
    layers: list[int] = []
    for index in parent.layers:
        fd = open_below(roots[index], parent.path)
        try:
            status = _status(fd, name)
            if status is not None and not stat.S_ISDIR(status.st_mode):
                # It hides what lower layers have, and is hidden itself by a directory above.
                return Place(path, tuple(layers)) if layers else _leaf(fd, name, status)
            if status is not None:
                layers.append(index)
            if marked(fd, OPAQUE):
                break
        finally:
            os.close(fd)
    return Place(path, tuple(layers)) if layers else None


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _leaf(directory: int, name: str, status: os.stat_result) -> _Link | None:
    if is_whiteout(status):
        return None
    if stat.S_ISLNK(status.st_mode):
        return _Link(os.readlink(name, dir_fd=directory))
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
