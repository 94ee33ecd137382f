"""Merge directory trees into one, by descriptor, following no link.

The rules are overlayfs's, so that a copied root filesystem is what an overlay of the same layers
would show: the highest layer that has a name decides what it is; directories merge down to the
first layer that has something else there; a whiteout (a 0/0 character device) and an opaque
directory end the merge. Beyond them, a directory its layer does not describe looks as the one
below it. FIFOs are made anew and never opened (CVE-2018-15664 and its kin).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple, Protocol

from podctl.sys.calls import openat2
from podctl.sys.constants import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS
from podctl.sys.files import write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: overlayfs's mark (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories")
OPAQUE = "trusted.overlay.opaque"
#: a directory that no entry of its layer's archive describes
IMPLIED = "trusted.podctl.implied"
_OURS = ("trusted.overlay.", "trusted.podctl.", "system.nfs")
_CHUNK = 1 << 20
_FICLONE = 0x40049409
#: errno of linkat(2) and of FICLONE that mean: copy instead
_NO_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP)


class Choice(Protocol):
    """Which entries of a source count."""

    def keeps(self, path: str, is_directory: bool) -> bool:
        """Whether the entry `path` (no leading slash) counts."""


class Source(NamedTuple):
    """One tree to merge: its root directory, and what of it counts (None: all)."""

    root_fd: int
    choice: Choice | None = None


class _Found(NamedTuple):
    """A name, as one source has it."""

    source: int
    status: os.stat_result


def merge(
    sources: Sequence[Source],
    target_fd: int,
    *,
    link: bool = False,
    warn: Callable[[str], None] | None = None,
) -> int:
    """Fill the empty directory `target_fd` with the union of `sources`, highest first.

    Args:
        link: make hard links to the files of the sources where the file system can.
        warn: told what could not be kept (extended attributes, devices).

    Returns:
        Bytes on disk of what was made anew (links cost nothing).

    Raises:
        OSError: it cannot be made; the target is left unfinished.
    """
    return _Merge(sources, target_fd, link, warn or (lambda text: None)).run()


class _Merge:
    def __init__(
        self,
        sources: Sequence[Source],
        target_fd: int,
        link: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._sources = sources
        self._target = target_fd
        self._link = link
        self._warn = warn
        #: (source, device, inode) of files with several names -> where the first was put
        self._linked: dict[tuple[int, int, int], str] = {}
        self._size = 0

    def run(self) -> int:
        pending = [("", list(range(len(self._sources))))]
        while pending:
            path, contributors = pending.pop()
            pending += self._directory(path, contributors)
        return self._size

    def _directory(self, path: str, contributors: list[int]) -> list[tuple[str, list[int]]]:
        """Make the entries of one directory; return its sub-directories, still empty."""
        opened: dict[int, int] = {}
        below: list[tuple[str, list[int]]] = []
        target = open_below(self._target, path)
        try:
            for index in contributors:
                opened[index] = open_below(self._sources[index].root_fd, path)
                if marked(opened[index], OPAQUE):
                    break
            for name, founds in self._entries(path, opened).items():
                inside = f"{path}/{name}" if path else name
                first = founds[0]
                if stat.S_ISDIR(first.status.st_mode):
                    os.mkdir(name, 0o700, dir_fd=target)
                    below.append((inside, [found.source for found in founds]))
                else:
                    self._leaf(opened[first.source], first, name, target, inside)
            top = self._described(path, contributors, opened)
            self._copy_attributes(top, target, os.fstat(top), path)
            self._size += os.fstat(target).st_blocks * 512
        finally:
            for fd in (target, *opened.values()):
                os.close(fd)
        return below

    def _described(self, path: str, contributors: list[int], opened: dict[int, int]) -> int:
        """The directory that gives its owner, mode and times: the highest that its layer describes.

        It may lie below an opaque one, which hides what lower layers have inside, not how they say
        it looks.
        """
        for index in contributors:
            if index not in opened:
                opened[index] = open_below(self._sources[index].root_fd, path)
            if not marked(opened[index], IMPLIED):
                return opened[index]
        return opened[contributors[0]]

    def _entries(self, path: str, opened: dict[int, int]) -> dict[str, list[_Found]]:
        """Each name of the union, and the sources that have a say in it, highest first."""
        entries: dict[str, list[_Found]] = {}
        closed: set[str] = set()
        for index, fd in opened.items():
            choice = self._sources[index].choice
            for name in os.listdir(fd):
                if name in closed:
                    continue
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                is_directory = stat.S_ISDIR(status.st_mode)
                inside = f"{path}/{name}" if path else name
                if choice is not None and not choice.keeps(inside, is_directory):
                    continue
                if not is_directory:
                    closed.add(name)
                    if name in entries or is_whiteout(status):
                        continue
                entries.setdefault(name, []).append(_Found(index, status))
        return entries

    def _leaf(self, source: int, found: _Found, name: str, target: int, path: str) -> None:
        """Make what is no directory."""
        status = found.status
        mode = status.st_mode
        if self._try_link(source, name, target):
            return
        if self._link_again(found, name, target, path):
            return
        if stat.S_ISREG(mode):
            self._file(source, status, name, target, path)
            return
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISFIFO(mode):
            os.mkfifo(name, 0o600, dir_fd=target)
        else:
            self._warn(f"{path}: devices and sockets are left out")
            return
        if os.geteuid() == 0:
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        if stat.S_ISFIFO(mode):
            # Nobody else writes here, and fchmodat(2) knows no flag against following.
            os.chmod(name, stat.S_IMODE(mode), dir_fd=target)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
        self._size += os.stat(name, dir_fd=target, follow_symlinks=False).st_blocks * 512

    def _try_link(self, source: int, name: str, target: int) -> bool:
        if not self._link:
            return False
        try:
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return False
        return True

    def _link_again(self, found: _Found, name: str, target: int, path: str) -> bool:
        """Keep two names of one file two names of one file."""
        status = found.status
        if status.st_nlink < 2:
            return False
        identity = (found.source, status.st_dev, status.st_ino)
        first = self._linked.setdefault(identity, path)
        if first == path:
            return False
        parent, _, leaf = first.rpartition("/")
        fd = open_below(self._target, parent)
        try:
            os.link(leaf, name, src_dir_fd=fd, dst_dir_fd=target, follow_symlinks=False)
        finally:
            os.close(fd)
        return True

    def _file(self, source: int, status: os.stat_result, name: str, target: int, path: str) -> None:
        reader = os.open(name, _READ, dir_fd=source)
        try:
            if not os.path.samestat(os.fstat(reader), status):
                raise OSError(errno.EAGAIN, "the tree changed while it was being copied", path)
            writer = os.open(name, _CREATE, 0o600, dir_fd=target)
            try:
                copy_content(reader, writer, status.st_size)
                self._copy_attributes(reader, writer, status, path)
                self._size += os.fstat(writer).st_blocks * 512
            finally:
                os.close(writer)
        finally:
            os.close(reader)

    def _copy_attributes(self, source: int, target: int, status: os.stat_result, path: str) -> None:
        """Owner first: chown(2) clears set-id bits and file capabilities."""
        if os.geteuid() == 0:
            os.fchown(target, status.st_uid, status.st_gid)
        for name in os.listxattr(source):
            if name.startswith(_OURS):
                continue
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                    raise
                self._warn(f"{path or '/'}: attribute {name} is left out: {error.strerror}")
        os.fchmod(target, stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def copy_content(reader: int, writer: int, size: int) -> None:
    """Copy a file's bytes, holes kept as holes, sharing extents where the file system can."""
    import fcntl

    if size == 0:
        return
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
        return
    except OSError:
        # Which errno says "not here" differs by file system; a real fault shows below as well.
        pass
    os.ftruncate(writer, size)
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(reader, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(reader, offset, os.SEEK_HOLE)
        os.lseek(reader, offset, os.SEEK_SET)
        os.lseek(writer, offset, os.SEEK_SET)
        while offset < end:
            data = os.read(reader, min(_CHUNK, end - offset))
            if not data:
                return
            write_all(writer, data)
            offset += len(data)


def open_below(root_fd: int, path: str) -> int:
    """Open a directory below another, following no link; close-on-exec."""
    if not path:
        return os.open(".", _DIRECTORY, dir_fd=root_fd)
    return openat2(root_fd, path, _DIRECTORY, 0, _RESOLVE)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether an entry of a layer says that those of lower layers are gone."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def marked(directory: int | str, name: str) -> bool:
    """Whether an unpacked layer's directory (descriptor or path) has a mark."""
    try:
        return os.getxattr(directory, name) == b"y"
    except OSError:
        return False
