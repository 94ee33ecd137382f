"""Everything a directory tree is, as a value: to compare what two programs have made."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any, NamedTuple


class Row(NamedTuple):
    """What lstat(2), the extended attributes and the content say of one path.

    Args:
        mode: as ls(1) prints it, with the kind.
        mtime: nanoseconds.
        content: SHA-256 of a file, target of a link, number of a device.
        first: the first path of the same inode, for hard links; else the path itself.
    """

    mode: str
    uid: int
    gid: int
    mtime: int
    content: Any
    xattrs: tuple[tuple[str, bytes], ...]
    first: str


Snapshot = dict[str, Row]


def snapshot(root: str | os.PathLike[str]) -> Snapshot:
    """Read a tree; the keys are paths from its root, which is the empty path itself."""
    result: Snapshot = {}
    inodes: dict[tuple[int, int], str] = {}
    top, pending = os.fspath(root), [""]
    while pending:
        path = pending.pop()
        full = os.path.join(top, path)
        try:
            status = os.lstat(full)
        except FileNotFoundError:
            # Overlayfs lists a whiteout where no lower layer has its directory; it is not there.
            continue
        if stat.S_ISDIR(status.st_mode):
            pending += [os.path.join(path, name) for name in sorted(os.listdir(full), reverse=True)]
        first = path
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            first = inodes.setdefault((status.st_dev, status.st_ino), path)
        result[path] = Row(
            stat.filemode(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            _content(full, status),
            _xattrs(full),
            first,
        )
    return result


def differences(ours: Snapshot, theirs: Snapshot) -> list[str]:
    """One line for each path that is not the same in both."""
    lines = []
    for path in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(path), theirs.get(path)
        if one is None or other is None:
            lines.append(f"{path!r}: only in {'theirs' if one is None else 'ours'}")
        elif one != other:
            unequal = [
                f"{field} {mine!r} != {its!r}"
                for field, mine, its in zip(Row._fields, one, other, strict=True)
                if mine != its
            ]
            lines.append(f"{path!r}: {', '.join(unequal)}")
    return lines


def _content(path: str, status: os.stat_result) -> Any:
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        return status.st_rdev
    return None


def _xattrs(path: str) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
