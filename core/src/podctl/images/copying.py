"""Copying trees by descriptor: several merged into one, filtered, links never followed.

Sources are layers that root has unpacked; the higher a source's priority, the earlier it is added.
What an earlier one has provided stays: a later file, directory or link of the same path gives way,
except that two directories become one with the earlier one's attributes.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from podctl.sys.inroot import open_in_root

if TYPE_CHECKING:
    from collections.abc import Callable

    #: (path below the root, is it a directory) -> whether to take it.
    Filter = Callable[[str, bool], bool]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 30


class _Pending(NamedTuple):
    """A directory whose attributes wait until its content is there."""

    path: str
    status: os.stat_result


class TreeCopy:
    """Builds one tree below `target_fd` out of several.

    Args:
        link: make hard links of regular files instead of copies; right where neither side is
            ever written, and both lie on one filesystem.
    """

    def __init__(self, target_fd: int, *, link: bool) -> None:
        self._target = target_fd
        self._link = link
        self._provided: dict[str, bool] = {}
        self._inodes: dict[tuple[int, int], str] = {}
        self._pending: list[_Pending] = []
        self._root_done = False

    def add(self, source: str, accept: Filter | None = None) -> None:
        """Merge the tree at `source` below what is there already.

        Raises:
            OSError: it cannot be read, or the copy not written.
        """
        root = os.open(source, _DIRECTORY)
        try:
            if not self._root_done:
                self._pending.append(_Pending(".", os.fstat(root)))
                self._copy_xattrs(root, self._target)
                self._root_done = True
            waiting = ["."]
            while waiting:
                waiting += self._add_directory(root, waiting.pop(), accept)
        finally:
            os.close(root)
        self._inodes.clear()

    def finish(self) -> None:
        """Set owner, mode and times of directories, deepest first."""
        for path, status in reversed(self._pending):
            fd = open_in_root(self._target, path, _DIRECTORY)
            try:
                os.fchown(fd, status.st_uid, status.st_gid)
                os.fchmod(fd, stat.S_IMODE(status.st_mode))
                os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(fd)

    def _add_directory(self, root: int, path: str, accept: Filter | None) -> list[str]:
        """Copy one directory's entries; return the sub-directories to go on with."""
        source = open_in_root(root, path, _DIRECTORY)
        try:
            target = open_in_root(self._target, path, _DIRECTORY)
            try:
                return [
                    child
                    for name in sorted(os.listdir(source))
                    if self._add_entry(source, target, name, child := _join(path, name), accept)
                ]
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _add_entry(
        self, source: int, target: int, name: str, path: str, accept: Filter | None
    ) -> bool:
        """Copy one entry; True if it is a directory to descend into."""
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        is_directory = stat.S_ISDIR(status.st_mode)
        if accept is not None and not accept(path, is_directory):
            return False
        if path in self._provided:
            return is_directory and self._provided[path]
        self._provided[path] = is_directory
        if is_directory:
            self._make_directory(source, target, name, path, status)
        else:
            self._make_other(source, target, name, path, status)
        return is_directory

    def _make_directory(
        self, source: int, target: int, name: str, path: str, status: os.stat_result
    ) -> None:
        os.mkdir(name, 0o700, dir_fd=target)
        self._pending.append(_Pending(path, status))
        from_fd = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            to_fd = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                self._copy_xattrs(from_fd, to_fd)
            finally:
                os.close(to_fd)
        finally:
            os.close(from_fd)

    def _make_other(
        self, source: int, target: int, name: str, path: str, status: os.stat_result
    ) -> None:
        inode = (status.st_dev, status.st_ino)
        earlier = self._inodes.get(inode) if status.st_nlink > 1 else None
        if earlier is not None:
            os.link(earlier, path, src_dir_fd=self._target, dst_dir_fd=self._target,
                    follow_symlinks=False)  # fmt: skip
            return
        if self._link and stat.S_ISREG(status.st_mode):
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        elif stat.S_ISREG(status.st_mode):
            self._copy_file(source, target, name, status)
        else:
            _make_special(source, target, name, status)
        self._inodes[inode] = path

    def _copy_file(self, source: int, target: int, name: str, status: os.stat_result) -> None:
        from_fd = os.open(name, _READ, dir_fd=source)
        try:
            to_fd = os.open(name, _CREATE, 0o600, dir_fd=target)
            try:
                while os.copy_file_range(from_fd, to_fd, _PIECE):
                    pass
                os.fchown(to_fd, status.st_uid, status.st_gid)
                # After chown, which clears setuid and file capabilities.
                os.fchmod(to_fd, stat.S_IMODE(status.st_mode))
                self._copy_xattrs(from_fd, to_fd)
                os.utime(to_fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(to_fd)
        finally:
            os.close(from_fd)

    @staticmethod
    def _copy_xattrs(source: int, target: int) -> None:
        for name in os.listxattr(source):
            if not name.startswith(("trusted.overlay.", "system.posix_acl")):
                os.setxattr(target, name, os.getxattr(source, name))


def _make_special(source: int, target: int, name: str, status: os.stat_result) -> None:
    """Copy a symbolic link, FIFO or device node; nothing is opened."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISSOCK(status.st_mode):
        return
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(
        name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False
    )


def _join(path: str, name: str) -> str:
    return name if path == "." else f"{path}/{name}"
