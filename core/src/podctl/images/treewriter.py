"""Write entries below a directory descriptor, following no symbolic link and leaving no way out.

Every component is opened with O_NOFOLLOW from its parent's descriptor, so neither what the
archive made before nor a second writer swapping names can lead outside. The descriptors of the
current directory and its ancestors are kept: entries of one directory cost no walk.

A directory's mtime, and a mode without owner access, are settled when the walk leaves it; coming
back reads them from the file system first. So nothing is remembered per entry.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from podctl.images.descriptors import CREATE, DIRECTORY, DescriptorLimit, remove
from podctl.images.tarstream import display
from podctl.images.tree import IMPLIED, Implied, Paths, Settled, bad_link, not_a_directory

if TYPE_CHECKING:
    from podctl.images.tarstream import Entry, TarStream
    from podctl.images.tree import Attributes, Budget, Warnings

_ALL_OF_OWNER = 0o700
#: errno of open(2) with O_DIRECTORY|O_NOFOLLOW on what is no directory.
_NO_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)


class _Frame:
    """An open directory: its name, and what to settle when it is left."""

    __slots__ = ("changed", "fd", "gives_group", "mode", "mtime", "name")

    def __init__(
        self, name: bytes, fd: int, mtime: int, mode: int | None, *, gives_group: bool = False
    ) -> None:
        self.name = name
        self.fd = fd
        self.mtime = mtime
        #: a mode without owner access, put back at the end; None: it is set already.
        self.mode = mode
        #: it has the set-group-ID bit: what is made inside belongs to its group (mkdir(2)).
        self.gives_group = gives_group
        self.changed = False


class TreeWriter:
    """A `podctl.images.tree.Tree` on disk.

    Args:
        root_fd: readable directory descriptor; stays open.
        whiteouts: whether overlayfs whiteouts are made, and directories that replace something
            become opaque.
        budget: counts the directories made without an entry.
        warnings: takes what could not be set.
    """

    def __init__(self, root_fd: int, whiteouts: bool, budget: Budget, warnings: Warnings) -> None:
        self._whiteouts = whiteouts
        self._budget = budget
        self._warnings = warnings
        self._opaque = Paths("opaque directories")
        self._implied = Implied()
        self._owns = os.geteuid() == 0
        gives_group = bool(os.fstat(root_fd).st_mode & stat.S_ISGID)
        self._root = _Frame(b"", root_fd, 0, None, gives_group=gives_group)
        self._root_attributes = IMPLIED
        if whiteouts:
            self._implied.add(b"")
        self._frames: list[_Frame] = []
        self._top = self._root
        self._path = b""
        self._limit = DescriptorLimit()

    def root(self, entry: Entry, xattrs: dict[bytes, bytes]) -> None:
        self._root_attributes = _attributes(entry)
        self._implied.describe(b"")
        self._replace_xattrs(self._root.fd, xattrs)

    def directory(self, path: bytes, entry: Entry, xattrs: dict[bytes, bytes]) -> None:
        parent, _, name = path.rpartition(b"/")
        self._enter(parent)
        try:
            self._make(name, path, _attributes(entry))
        except FileExistsError:
            self._make_over(name, path, _attributes(entry), xattrs)
        else:
            self._set_xattrs(self._top.fd, xattrs)

    def file(
        self, path: bytes, entry: Entry, xattrs: dict[bytes, bytes], archive: TarStream
    ) -> None:
        parent, _, name = path.rpartition(b"/")
        directory = self._enter(parent)
        mode = entry.mode & 0o777  # the umask is 0
        try:
            fd = os.open(name, CREATE, mode, dir_fd=directory)
        except FileExistsError:
            self._remove(name)
            fd = os.open(name, CREATE, mode, dir_fd=directory)
        self._top.changed = True
        try:
            if entry.size:
                archive.copy_to(fd)
            # chown(2) clears set-id bits and capabilities, so it comes first; utimes last.
            if self._owns and (entry.uid or entry.gid or self._top.gives_group):
                os.fchown(fd, entry.uid, entry.gid)
            if xattrs:
                self._set_xattrs(fd, xattrs)
            if self._owns and entry.mode != mode:
                os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def symlink(self, path: bytes, entry: Entry) -> None:
        directory, name = self._place(path)
        os.symlink(entry.linkname, name, dir_fd=directory)
        self._set_by_name(directory, name, entry)

    def fifo(self, path: bytes, entry: Entry) -> None:
        directory, name = self._place(path)
        os.mkfifo(name, entry.mode, dir_fd=directory)
        self._set_by_name(directory, name, entry)

    def hardlink(self, path: bytes, target: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        directory = self._enter(parent)
        target_parent, _, target_name = target.rpartition(b"/")
        try:
            target_fd = self._open_existing(target_parent)
        except OSError as error:
            raise _bad_link_or(error, path, target) from None
        try:
            self._check_link(path, target, target_fd, target_name)
            self._link(directory, name, target_fd, target_name)
        except FileNotFoundError:
            raise bad_link(path, target, "no earlier entry made") from None
        finally:
            os.close(target_fd)

    def discard(self, path: bytes) -> None:
        self._place(path)

    def whiteout(self, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        directory = self._enter(parent)
        try:
            # 0/0 is the one device mknod(2) makes without CAP_MKNOD (Linux 5.8).
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
                self._opaque.add(path)
                # What it could look like is gone.
                self._implied.describe(path)
            return
        os.utime(name, ns=(0, 0), dir_fd=directory, follow_symlinks=False)
        self._top.changed = True

    def opaque(self, path: bytes) -> None:
        self._enter(path)
        self._opaque.add(path)

    def finish(self) -> Settled:
        self._leave_down_to(0)
        settled = Settled(self._standing(self._opaque), self._implied.standing())
        mode, uid, gid, mtime = self._root_attributes
        fd = self._root.fd
        if self._owns:
            os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
        os.utime(fd, ns=(mtime, mtime))
        return settled

    def close(self) -> None:
        """Close every descriptor, settling nothing."""
        for frame in self._frames:
            os.close(frame.fd)
        self._frames.clear()
        self._limit.restore()

    def _enter(self, path: bytes) -> int:
        """Make `path` the current directory, missing components included; return its descriptor."""
        if path == self._path:
            return self._top.fd
        names = path.split(b"/") if path else []
        common = self._common(names)
        self._leave_down_to(common)
        self._budget.walk(len(names) - common)
        for count in range(common, len(names)):
            self._descend(names[count], b"/".join(names[: count + 1]))
        return self._top.fd

    def _common(self, names: list[bytes]) -> int:
        common = 0
        for frame, name in zip(self._frames, names, strict=False):
            if frame.name != name:
                break
            common += 1
        return common

    def _leave_down_to(self, depth: int) -> None:
        while len(self._frames) > depth:
            frame = self._frames.pop()
            try:
                if frame.mode is not None:
                    os.fchmod(frame.fd, frame.mode)
                if frame.changed:
                    os.utime(frame.fd, ns=(frame.mtime, frame.mtime))
            finally:
                os.close(frame.fd)
        self._top = self._frames[-1] if self._frames else self._root
        self._path = b"/".join([frame.name for frame in self._frames])

    def _descend(self, name: bytes, path: bytes) -> None:
        frame = self._existing(name)
        if frame is not None:
            self._push(frame, path)
            return
        # Without whiteouts there are no lower layers it could look like.
        looks_as_below = self._whiteouts
        if self._is_there(name):
            if not self._is_whiteout(name):
                raise not_a_directory(path + b"/")
            self._remove(name)
            self._hide_lower(path)
            looks_as_below = False
        self._budget.take()
        self._make(name, path, IMPLIED)
        if looks_as_below:
            self._implied.add(path)

    def _make_over(
        self, name: bytes, path: bytes, attributes: Attributes, xattrs: dict[bytes, bytes]
    ) -> None:
        frame = self._existing(name)
        if frame is None:
            self._remove(name)
            # Lower layers' content went away with what stood here in between.
            self._hide_lower(path)
            self._make(name, path, attributes)
            self._set_xattrs(self._top.fd, xattrs)
        else:
            self._push(frame, path)
            self._set_directory(frame, attributes)
            self._replace_xattrs(frame.fd, xattrs)
        self._implied.describe(path)

    def _push(self, frame: _Frame, path: bytes) -> None:
        self._frames.append(frame)
        self._top = frame
        self._path = path
        self._limit.need(len(self._frames))

    def _existing(self, name: bytes) -> _Frame | None:
        """Open a directory that is there already; None where no directory is."""
        try:
            fd = os.open(name, DIRECTORY, dir_fd=self._top.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NO_DIRECTORY:
                return None
            if error.errno != errno.EACCES or self._owns:
                raise
            return self._forced_open(name)
        status = os.fstat(fd)
        mode = stat.S_IMODE(status.st_mode)
        gives_group = bool(mode & stat.S_ISGID)
        if mode & _ALL_OF_OWNER == _ALL_OF_OWNER:
            return _Frame(name, fd, status.st_mtime_ns, None, gives_group=gives_group)
        os.fchmod(fd, mode | _ALL_OF_OWNER)
        return _Frame(name, fd, status.st_mtime_ns, mode, gives_group=gives_group)

    def _forced_open(self, name: bytes) -> _Frame:
        """Open our own directory that forbids its owner to: only who is not root meets it."""
        handle = os.open(name, DIRECTORY | os.O_PATH, dir_fd=self._top.fd)
        try:
            status = os.fstat(handle)
            mode = stat.S_IMODE(status.st_mode)
            # fchmod(2) refuses O_PATH; the magic link is the descriptor itself, not a name.
            os.chmod(f"/proc/self/fd/{handle}", mode | _ALL_OF_OWNER)
            fd = os.open(name, DIRECTORY, dir_fd=self._top.fd)
        finally:
            os.close(handle)
        return _Frame(name, fd, status.st_mtime_ns, mode)

    def _make(self, name: bytes, path: bytes, attributes: Attributes) -> None:
        os.mkdir(name, _ALL_OF_OWNER, dir_fd=self._top.fd)
        self._top.changed = True
        frame = _Frame(name, os.open(name, DIRECTORY, dir_fd=self._top.fd), 0, None)
        self._push(frame, path)
        self._set_directory(frame, attributes)

    def _set_directory(self, frame: _Frame, attributes: Attributes) -> None:
        mode, uid, gid, frame.mtime = attributes
        frame.changed = True
        frame.gives_group = bool(mode & stat.S_ISGID)
        if self._owns:
            os.fchown(frame.fd, uid, gid)
        if mode & _ALL_OF_OWNER == _ALL_OF_OWNER:
            os.fchmod(frame.fd, mode)
            frame.mode = None
        else:
            # Below a directory with the set-group-ID bit mkdir(2) has set it here as well.
            os.fchmod(frame.fd, mode | _ALL_OF_OWNER)
            frame.mode = mode

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """Return the parent's descriptor and the name, which is free now."""
        parent, _, name = path.rpartition(b"/")
        directory = self._enter(parent)
        if self._is_there(name):
            self._remove(name)
        self._top.changed = True
        return directory, name

    def _is_there(self, name: bytes) -> bool:
        try:
            os.lstat(name, dir_fd=self._top.fd)
        except FileNotFoundError:
            return False
        return True

    def _is_whiteout(self, name: bytes) -> bool:
        """Whether we put a whiteout there: no other device is ever made."""
        return self._whiteouts and stat.S_ISCHR(os.lstat(name, dir_fd=self._top.fd).st_mode)

    def _hide_lower(self, path: bytes) -> None:
        if self._whiteouts:
            self._opaque.add(path)

    def _remove(self, name: bytes) -> None:
        if self._whiteouts and stat.S_ISDIR(os.lstat(name, dir_fd=self._top.fd).st_mode):
            self._implied.remove(self._path + b"/" + name if self._path else name)
        remove(self._top.fd, name, self._limit)
        self._top.changed = True

    def _set_by_name(self, directory: int, name: bytes, entry: Entry) -> None:
        if self._owns:
            os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

    def _open_existing(self, path: bytes) -> int:
        """Open a directory by its path without leaving the current one."""
        names = path.split(b"/") if path else []
        common = self._common(names)
        self._budget.walk(len(names) - common)
        fd = os.dup(self._frames[common - 1].fd if common else self._root.fd)
        for name in names[common:]:
            try:
                below = os.open(name, DIRECTORY | os.O_PATH, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _standing(self, paths: Paths) -> tuple[bytes, ...]:
        return tuple(path for path in sorted(paths.paths) if self._is_directory(path))

    def _is_directory(self, path: bytes) -> bool:
        try:
            os.close(self._open_existing(path))
        except OSError as error:
            if error.errno in (errno.ENOENT, *_NO_DIRECTORY):
                return False
            raise
        return True

    def _check_link(self, path: bytes, target: bytes, parent: int, name: bytes) -> None:
        mode = os.lstat(name, dir_fd=parent).st_mode
        if path == target:
            raise bad_link(path, target, "is the entry itself")
        if stat.S_ISDIR(mode):
            raise bad_link(path, target, "is a directory")
        if stat.S_ISCHR(mode):
            raise bad_link(path, target, "no earlier entry made")

    def _link(self, directory: int, name: bytes, target_fd: int, target: bytes) -> None:
        """linkat(2) without AT_SYMLINK_FOLLOW: a symbolic link is linked, not what it names."""
        try:
            os.link(target, name, src_dir_fd=target_fd, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            self._remove(name)
            os.link(target, name, src_dir_fd=target_fd, dst_dir_fd=directory, follow_symlinks=False)
        self._top.changed = True

    def _replace_xattrs(self, fd: int, xattrs: dict[bytes, bytes]) -> None:
        for name in os.listxattr(fd):
            if name.startswith("user."):
                os.removexattr(fd, name)
        self._set_xattrs(fd, xattrs)

    def _set_xattrs(self, fd: int, xattrs: dict[bytes, bytes]) -> None:
        for name, value in xattrs.items():
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                    raise
                self._warnings.add(
                    f"extended attributes {display(name)} are left out: {error.strerror}"
                )


def _attributes(entry: Entry) -> Attributes:
    return entry.mode, entry.uid, entry.gid, entry.mtime


def _bad_link_or(error: OSError, path: bytes, target: bytes) -> Exception:
    if isinstance(error, FileNotFoundError) or error.errno in _NO_DIRECTORY:
        return bad_link(path, target, "no earlier entry made")
    return error
