"""Writes what a tar stream holds into a directory, over what is there, as cp(1) would.

The stream may come from a hostile pod, or go into one that changes its files meanwhile: every path
is walked by the kernel inside the directory and without links, nothing that stands there is
written to, and a directory is never replaced by anything else.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import ArchiveInvalid, Refused
from podctl.images import tarstream
from podctl.images.tarstream import TarStream, display
from podctl.model.layout import ArchiveLimits
from podctl.sys import constants as c
from podctl.sys.inroot import open_in_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.images.compression import Source
    from podctl.images.tarstream import Entry

    #: (uid, gid) of an entry -> those the file gets
    Owner = Callable[[int, int], tuple[int, int]]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: as of a user's own copy: what it holds is not ours to cap
_LIMITS = ArchiveLimits(max_bytes=1 << 62, max_entries=1 << 62)


def receive(stream: Source, target_fd: int, owner: Owner) -> tuple[str, ...]:
    """Read a tar to its end and write its members below `target_fd`; returns what was left out.

    Raises:
        ArchiveInvalid: the stream is malformed, or a member would leave the directory.
        Refused: something else stands where a directory is to be, or the other way round.
    """
    before = os.umask(0)
    try:
        receiver = _Receiver(TarStream(stream, _LIMITS), target_fd, owner)
        receiver.run()
    finally:
        os.umask(before)
    return tuple(receiver.skipped)


class _Made(NamedTuple):
    """A directory that was made; its attributes are set when everything is in it."""

    path: str
    mode: int
    owner: tuple[int, int]
    mtime: int


class _Receiver:
    def __init__(self, archive: TarStream, target_fd: int, owner: Owner) -> None:
        self._archive = archive
        self._target = target_fd
        self._owner = owner
        self._made: list[_Made] = []
        self.skipped: list[str] = []

    def run(self) -> None:
        while (entry := self._archive.next_entry()) is not None:
            components = _components(entry.name, entry)
            if components:
                self._place(components, entry)
        for made in reversed(self._made):
            self._settle(made)

    def _place(self, components: list[str], entry: Entry) -> None:
        parent = self._open(components[:-1])
        try:
            name = components[-1]
            if entry.kind == tarstream.DIRECTORY:
                self._directory(parent, name, "/".join(components), entry)
            elif entry.kind == tarstream.DEVICE:
                self.skipped.append(f"{display(entry.name)}: device left out")
            else:
                self._clear(parent, name, entry)
                self._make(parent, name, entry)
        finally:
            os.close(parent)

    def _open(self, components: list[str]) -> int:
        """The directory with this path; one that no member described is made."""
        path = "/".join(components) or "."
        flags = os.O_RDONLY | os.O_DIRECTORY
        try:
            return open_in_root(self._target, path, flags, resolve=c.RESOLVE_NO_SYMLINKS)
        except FileNotFoundError:
            above = self._open(components[:-1])
            try:
                os.mkdir(components[-1], 0o755, dir_fd=above)
            finally:
                os.close(above)
            return open_in_root(self._target, path, flags, resolve=c.RESOLVE_NO_SYMLINKS)

    def _directory(self, parent: int, name: str, path: str, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise Refused(f"{display(entry.name)}: what is there is no directory") from None
            return
        owner = self._owner(entry.uid, entry.gid)
        self._made.append(_Made(path, entry.mode, owner, entry.mtime))

    def _clear(self, parent: int, name: str, entry: Entry) -> None:
        """Remove what stands in the way, unless that is a directory."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            raise Refused(f"{display(entry.name)}: what is there is a directory") from None

    def _make(self, parent: int, name: str, entry: Entry) -> None:
        uid, gid = self._owner(entry.uid, entry.gid)
        if entry.kind == tarstream.FILE:
            self._file(parent, name, entry, uid, gid)
        elif entry.kind == tarstream.HARDLINK:
            self._link(parent, name, entry)
        else:
            if entry.kind == tarstream.SYMLINK:
                os.symlink(entry.linkname, os.fsencode(name), dir_fd=parent)
            else:
                os.mkfifo(name, entry.mode & 0o777, dir_fd=parent)
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
            times = (entry.mtime, entry.mtime)
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _file(self, parent: int, name: str, entry: Entry, uid: int, gid: int) -> None:
        fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            self._archive.copy_to(fd)
            # chown(2) clears set-id bits and capabilities: it comes first.
            os.fchown(fd, uid, gid)
            os.fchmod(fd, entry.mode)
            for attribute, value in entry.xattrs.items():
                self._set_attribute(fd, attribute, value, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _set_attribute(self, fd: int, name: bytes, value: bytes, entry: Entry) -> None:
        if not name.startswith((b"user.", b"security.capability")):
            return
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            self.skipped.append(f"{display(entry.name)}: {display(name)}: {error.strerror}")

    def _link(self, parent: int, name: str, entry: Entry) -> None:
        target = _components(entry.linkname, entry)
        if not target:
            raise ArchiveInvalid(f"{entry}: a hard link to the top")
        above = self._open(target[:-1])
        try:
            os.link(target[-1], name, src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            raise ArchiveInvalid(f"{entry}: hard link: {error.strerror}") from None
        finally:
            os.close(above)

    def _settle(self, made: _Made) -> None:
        try:
            fd = open_in_root(self._target, made.path, _DIRECTORY, resolve=c.RESOLVE_NO_SYMLINKS)
        except OSError:
            # Somebody has moved it away.
            return
        try:
            os.fchown(fd, *made.owner)
            os.fchmod(fd, made.mode)
            os.utime(fd, ns=(made.mtime, made.mtime))
        finally:
            os.close(fd)


def _components(name: bytes, entry: Entry) -> list[str]:
    """A member's path without empty components and `.`; empty for the top itself."""
    parts = [part for part in os.fsdecode(name).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveInvalid(f"{entry}: leads out of the directory")
    return parts
