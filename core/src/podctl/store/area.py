"""Work in a directory tree that somebody less trusted writes as well.

Members of the store's group may put anything anywhere below `cas`: a symbolic link to /etc in
place of a directory, a FIFO in place of a record, a hard link to a file of root's. So every name
is resolved in one step that follows no link (openat2, RESOLVE_NO_SYMLINKS) and stays below the
data directory, and what was opened is checked before it is used.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from podctl.store.layout import (
    FRESH,
    OWN_FILE,
    OWN_MODE,
    PRIVATE_FILE,
    SHARED_FILE,
    SHARED_MODE,
    TEMPORARY,
    UNFINISHED,
)
from podctl.sys.calls import openat2
from podctl.sys.constants import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS
from podctl.sys.files import (
    fsync_directory,
    make_directory,
    read_descriptor,
    remove_tree,
    rename_exchange,
    write_all,
)
from podctl.sys.locks import lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.store.layout import Layout

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


class Area:
    """The data directory; every `name` is relative to it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def open(self, name: str, flags: int = _READ, mode: int = 0) -> int:
        """open(2) below the data directory, through no symbolic link.

        Raises:
            OSError: FileNotFoundError, ELOOP for a link on the way or at the end, and so on.
        """
        top = os.open(self._layout.top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return openat2(top, name or ".", flags, mode, _RESOLVE)
        finally:
            os.close(top)

    @contextmanager
    def directory(self, name: str) -> Iterator[int]:
        """A directory's descriptor while the context lasts."""
        fd = self.open(name, _DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    def names(self, name: str) -> list[str]:
        """Sorted names in a directory; none when there is no such directory."""
        try:
            with self.directory(name) as fd:
                return sorted(os.listdir(fd))
        except FileNotFoundError:
            return []

    def read(self, name: str, limit: int) -> bytes:
        """Content of a regular file of at most `limit` bytes; never waits for a FIFO.

        Raises:
            OSError: it cannot be opened.
            ValueError: it is no regular file, or longer.
        """
        fd = self.open(name)
        try:
            return read_descriptor(fd, limit, name)
        finally:
            os.close(fd)

    def status(self, name: str) -> os.stat_result:
        """lstat(2)."""
        parent, leaf = os.path.split(name)
        with self.directory(parent) as fd:
            return os.stat(leaf, dir_fd=fd, follow_symlinks=False)

    def exists(self, name: str) -> bool:
        """Whether anything stands there."""
        try:
            self.status(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def make_directory(self, name: str) -> None:
        """mkdir(2) with the mode this store shares with; one that exists is left alone."""
        parent, leaf = os.path.split(name)
        with self.directory(parent) as fd:
            make_directory(leaf, self.directory_mode(), dir_fd=fd)

    def create(self, name: str) -> int:
        """A new, empty file, open for reading and writing.

        Raises:
            FileExistsError: something stands there.
        """
        fd = self.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.fchmod(fd, self.file_mode())
        return fd

    def write_new(self, name: str, data: bytes) -> None:
        """A new file of this content; durable with the next sync."""
        fd = self.create(name)
        try:
            write_all(fd, data)
        finally:
            os.close(fd)

    def write_atomic(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Make `name` a file of exactly `data`; readers see the old file or the new."""
        while True:
            temporary = f"{TEMPORARY}/{os.urandom(8).hex()}{FRESH}"
            fd = self.create(temporary)
            try:
                # Locked while it is ours: leftovers of the killed are those nobody holds.
                lock(fd, exclusive=True)
                if not self.is_at(fd, temporary):
                    continue
                write_all(fd, data)
                if durable:
                    os.fsync(fd)
                self.rename(temporary, name)
            finally:
                os.close(fd)
            break
        if durable:
            self.sync_directory(os.path.dirname(name))

    def rename(self, source: str, target: str) -> None:
        """rename(2)."""
        source_parent, source_leaf = os.path.split(source)
        target_parent, target_leaf = os.path.split(target)
        with self.directory(source_parent) as here, self.directory(target_parent) as there:
            os.rename(source_leaf, target_leaf, src_dir_fd=here, dst_dir_fd=there)

    def exchange(self, first: str, second: str) -> None:
        """Swap two existing names in one step."""
        first_parent, first_leaf = os.path.split(first)
        second_parent, second_leaf = os.path.split(second)
        with self.directory(first_parent) as here, self.directory(second_parent) as there:
            rename_exchange(
                f"/proc/self/fd/{here}/{first_leaf}", f"/proc/self/fd/{there}/{second_leaf}"
            )

    def unlink(self, name: str) -> None:
        """unlink(2); what is gone is fine."""
        parent, leaf = os.path.split(name)
        try:
            with self.directory(parent) as fd:
                os.unlink(leaf, dir_fd=fd)
        except FileNotFoundError:
            return

    def remove(self, name: str) -> None:
        """Remove a file or a tree, following nothing; what is gone is fine."""
        parent, leaf = os.path.split(name)
        try:
            with self.directory(parent) as fd:
                remove_tree(f"/proc/self/fd/{fd}/{leaf}")
        except FileNotFoundError:
            return

    def sync_directory(self, name: str) -> None:
        """Make the names in a directory durable."""
        with self.directory(name) as fd:
            os.fsync(fd)

    def is_at(self, fd: int, name: str) -> bool:
        """Whether `name` still is the file or directory that is open as `fd`."""
        try:
            return os.path.samestat(os.fstat(fd), self.status(name))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def directory_mode(self) -> int:
        """Mode of directories made here."""
        return SHARED_MODE if self._layout.shared() else OWN_MODE

    def file_mode(self) -> int:
        """Mode of files made here."""
        return SHARED_FILE if self._layout.shared() else OWN_FILE


def write_private(path: str, data: bytes, *, durable: bool = True) -> None:
    """Make `path`, in a directory of root's alone, a file of exactly `data`.

    Not by way of `cas/tmp`, where somebody else could exchange it before it is renamed.
    """
    parent = os.path.dirname(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        temporary = f"{parent}/{UNFINISHED}{os.urandom(8).hex()}"
        fd = os.open(temporary, flags, PRIVATE_FILE)
        try:
            os.fchmod(fd, PRIVATE_FILE)
            lock(fd, exclusive=True)
            write_all(fd, data)
            if durable:
                os.fsync(fd)
            os.rename(temporary, path)
        except FileNotFoundError:
            continue  # taken for a leftover before it was locked
        finally:
            os.close(fd)
        break
    if durable:
        fsync_directory(parent)


def is_own_file(fd: int) -> bool:
    """Whether an open file is a regular one that only this user can have put there.

    A hard link to a file of ours that somebody else made has a second name (and writing to it
    would write to that file); a file of somebody else may be open for writing elsewhere.
    """
    status = os.fstat(fd)
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()
