"""Files that survive a crash whole or not at all, and trees removed without following links."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys

from podctl.sys import constants as c
from podctl.sys.calls import libc, openat2, oserror

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def write_atomic(
    path: str, data: bytes, *, mode: int = 0o644, dir_fd: int | None = None, durable: bool = True
) -> None:
    """Make `path` a file of exactly `data` and `mode`; readers see the old file or the new.

    Args:
        path: a relative one is taken from `dir_fd` if given.
        durable: fsync file and directory (off for records that mean nothing after a reboot).

    Raises:
        OSError: nothing was replaced, no temporary file is left.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.urandom(8).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
    try:
        try:
            write_all(fd, data)
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        _unlink(dir_fd, temporary)
        raise
    if durable:
        fsync_directory(directory or ".", dir_fd=dir_fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """write(2) until everything is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def flush_streams() -> None:
    """Write out what print() has buffered, before a fork or execve; a stream that is closed, or
    whose reader is gone, is no reason to stop."""
    for stream in (sys.__stdout__, sys.__stderr__, sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                continue


def fsync_directory(path: str, *, dir_fd: int | None = None) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, _DIRECTORY, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def rename_durable(src: str, dst: str) -> None:
    """rename(2), then fsync of both parent directories."""
    os.rename(src, dst)
    source, target = os.path.dirname(src) or ".", os.path.dirname(dst) or "."
    fsync_directory(target)
    if source != target:
        fsync_directory(source)


def make_directory(path: str, mode: int, *, dir_fd: int | None = None) -> bool:
    """mkdir(2) with exactly this mode whatever the umask; False when something stands there.

    The mode is right from the first instant (a kill between mkdir and chmod would leave a
    directory nobody else can enter). Only the setgid bit, where the parent does not pass it on,
    takes a second call.
    """
    before = os.umask(0)
    try:
        os.mkdir(path, mode & 0o777, dir_fd=dir_fd)
    except FileExistsError:
        return False
    finally:
        os.umask(before)
    status = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    if stat.S_IMODE(status.st_mode) != mode:
        os.chmod(path, mode, dir_fd=dir_fd)
    return True


def rename_new(src: str, dst: str) -> None:
    """renameat2(2) with RENAME_NOREPLACE: FileExistsError when anything stands at `dst`."""
    _renameat2(src, dst, c.RENAME_NOREPLACE)


def rename_exchange(src: str, dst: str) -> None:
    """renameat2(2) with RENAME_EXCHANGE: both names change places at once, links included."""
    _renameat2(src, dst, c.RENAME_EXCHANGE)


def _renameat2(src: str, dst: str, flags: int) -> None:
    old, new = os.fsencode(src), os.fsencode(dst)
    if libc.renameat2(c.AT_FDCWD, old, c.AT_FDCWD, new, ctypes.c_uint(flags)) < 0:
        raise oserror("renameat2", dst)


def read_small(path: str, limit: int, *, dir_fd: int | None = None) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; never follows a link at the
    end of `path`, never blocks on a FIFO.

    Raises:
        OSError: it cannot be opened, or is a symbolic link (ELOOP).
        ValueError: it is not a regular file, or is longer than `limit`.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        return read_descriptor(fd, limit, path)
    finally:
        os.close(fd)


def read_descriptor(fd: int, limit: int, name: str) -> bytes:
    """Read a regular file of at most `limit` bytes from its start; ValueError as `read_small`."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise ValueError(f"{name} is not a regular file")
    parts: list[bytes] = []
    size = 0
    while size <= limit:
        part = os.read(fd, min(limit + 1 - size, 1 << 20))
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
    raise ValueError(f"{name} is longer than {limit} bytes")


def syncfs(fd: int) -> None:
    """syncfs(2): write everything of the filesystem `fd` lies on to the disk."""
    if libc.syncfs(ctypes.c_int(fd)) < 0:
        raise oserror("syncfs")


def remove_tree(path: str) -> None:
    """Remove a file or a whole directory tree; what is already gone is fine.

    Walks by descriptor, one open at a time whatever the depth, never through a symbolic link and
    never into another mount. Directories that deny their owner access are opened up first.

    Raises:
        OSError: EBUSY for a mount point below `path`; whatever else the kernel says.
    """
    path = path.rstrip("/") or "/"
    directory, name = os.path.split(path)
    try:
        fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not _unlink(fd, name):
            _remove_directory(fd, name)
    finally:
        os.close(fd)


def _unlink(dir_fd: int | None, name: str) -> bool:
    """Remove anything but a directory; False when it is one."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True


def _rmdir(dir_fd: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return


def _remove_directory(dir_fd: int, name: str) -> None:
    """Depth-first, climbing back by `..` and checking that it leads where we came from."""
    fd = _open_to_empty(dir_fd, name)
    if fd == -1:
        return
    #: one per directory on the way down: its name, its inode, subdirectories still to do
    trail: list[tuple[str, os.stat_result, list[str]]] = []
    try:
        trail.append((name, os.fstat(fd), _remove_files(fd)))
        while True:
            pending = trail[-1][2]
            if pending:
                down = _open_to_empty(fd, pending[-1])
                if down == -1:
                    pending.pop()
                    continue
                os.close(fd)
                fd = down
                trail.append((pending[-1], os.fstat(fd), _remove_files(fd)))
                continue
            done = trail.pop()[0]
            if not trail:
                break
            up = os.open("..", _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = up
            if not os.path.samestat(os.fstat(fd), trail[-1][1]):
                raise OSError(errno.EAGAIN, "the tree was moved while it was being removed", name)
            _rmdir(fd, done)
            trail[-1][2].pop()
    finally:
        os.close(fd)
    _rmdir(dir_fd, name)


def _open_to_empty(dir_fd: int, name: str) -> int:
    """Open a directory for listing and changing; -1 when it is gone."""
    resolve = c.RESOLVE_NO_XDEV | c.RESOLVE_NO_SYMLINKS
    try:
        fd = openat2(dir_fd, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, 0, resolve)
    except FileNotFoundError:
        return -1
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EBUSY, "a filesystem is mounted here", name) from None
        raise
    try:
        if os.fstat(fd).st_mode & 0o700 != 0o700 and os.geteuid() != 0:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
        return os.open(".", _DIRECTORY, dir_fd=fd)
    finally:
        os.close(fd)


def _remove_files(fd: int) -> list[str]:
    """Unlink everything in the directory that is no directory; return the names of those."""
    return [name for name in os.listdir(fd) if not _unlink(fd, name)]
