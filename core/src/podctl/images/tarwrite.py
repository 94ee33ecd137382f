"""Write an ACI or a layer from a directory descriptor: streaming, the same bytes for the same tree.

The tree may come from a hostile image and may be changing: it is walked by descriptor, symbolic
links are recorded and not followed, nothing but regular files and directories is ever opened.
Headers are ustar's where a value fits and PAX's where it does not; the end is two zero blocks.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Protocol

from podctl.errors import Refused, StoreCorrupt
from podctl.images.descriptors import DIRECTORY, DescriptorLimit
from podctl.images.tarheader import BLOCK
from podctl.images.tarstream import display

if TYPE_CHECKING:
    from collections.abc import Callable

#: bytes of what `sized_header` makes.
SIZED_HEADER = 3 * BLOCK
_CHUNK = 1 << 20
#: O_NONBLOCK: were a FIFO swapped in after lstat(2), open(2) would otherwise wait for a writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


class Output(Protocol):
    """Where the tar goes."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


def write_aci(
    output: Output,
    manifest: bytes,
    rootfs_fd: int,
    *,
    owner: Callable[[int, int], tuple[int, int]] | None = None,
) -> tuple[str, ...]:
    """Write `manifest` and the tree of `rootfs_fd` as `rootfs/`, uncompressed.

    Names are sorted; the manifest's time is 0. Sockets and what overlayfs uses as whiteouts are
    left out. Extended attributes `user.*` and `security.capability` are kept.

    Args:
        owner: maps (uid, gid) of a file to those to record.

    Returns:
        what was left out, one line each.

    Raises:
        StoreCorrupt: a file changed its kind or shrank while it was read.
    """
    writer = _Writer(output, owner)
    try:
        writer.manifest(manifest)
        writer.tree(rootfs_fd)
    finally:
        writer.close()
    output.write(bytes(2 * BLOCK))
    return tuple(writer.skipped)


def write_layer(output: Output, rootfs_fd: int) -> tuple[str, ...]:
    """Write the tree of `rootfs_fd` as a layer of a layered image, uncompressed; see write_aci.

    Raises:
        StoreCorrupt: a file changed its kind or shrank while it was read.
        Refused: a name begins with `.wh.`, which in a layer would delete something.
    """
    writer = _Writer(output, None, reserved=b".wh.")
    try:
        writer.tree(rootfs_fd, b"")
    finally:
        writer.close()
    output.write(bytes(2 * BLOCK))
    return tuple(writer.skipped)


def write_entry(
    output: Output,
    parent_fd: int,
    name: bytes,
    path: bytes,
    *,
    owner: Callable[[int, int], tuple[int, int]] | None = None,
    plain: bool = False,
) -> tuple[str, ...]:
    """Write what `name` is in a directory (a link as a link), and all below it, as `path`; see
    write_aci.

    Args:
        path: empty for the members of a directory alone.
        plain: leave out set-id and sticky bits, and extended attributes.

    Raises:
        StoreCorrupt: a file changed its kind or shrank while it was read.
    """
    writer = _Writer(output, owner, plain=plain)
    try:
        writer.entry(parent_fd, name, path)
    finally:
        writer.close()
    output.write(bytes(2 * BLOCK))
    return tuple(writer.skipped)


class _Level:
    """A directory being written: its path in the archive, descriptor and names still to come."""

    __slots__ = ("fd", "names", "path")

    def __init__(self, path: bytes, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.names = sorted((os.fsencode(name) for name in os.listdir(fd)), reverse=True)

    def join(self, name: bytes) -> bytes:
        """The path of a member; the top of a layer has none."""
        return self.path + b"/" + name if self.path else name


class _Writer:
    def __init__(
        self,
        output: Output,
        owner: Callable[[int, int], tuple[int, int]] | None,
        reserved: bytes = b"",
        *,
        plain: bool = False,
    ) -> None:
        self._output = output
        self._owner = owner
        self._reserved = reserved
        self._plain = plain
        self._links: dict[tuple[int, int], bytes] = {}
        self._levels: list[_Level] = []
        self._limit = DescriptorLimit()
        self.skipped: list[str] = []

    def close(self) -> None:
        for level in self._levels:
            os.close(level.fd)
        self._levels.clear()
        self._limit.restore()

    def manifest(self, data: bytes) -> None:
        self._output.write(header(b"manifest", b"0", len(data), 0o644, 0, 0, 0, b"", {}))
        self._output.write(data + bytes(-len(data) % BLOCK))

    def tree(self, rootfs_fd: int, path: bytes = b"rootfs") -> None:
        """Write the root and all below it, depth first."""
        self._descend(path, os.open(".", DIRECTORY, dir_fd=rootfs_fd))
        self._members()

    def entry(self, parent_fd: int, name: bytes, path: bytes) -> None:
        """Write one entry of a directory and all below it."""
        if not path:
            fd = os.open(name, DIRECTORY, dir_fd=parent_fd)
            self._levels.append(_Level(path, fd))
        else:
            self._one(path, parent_fd, name)
        self._members()

    def _members(self) -> None:
        while self._levels:
            level = self._levels[-1]
            if level.names:
                self._member(level, level.names.pop())
            else:
                os.close(level.fd)
                self._levels.pop()

    def _descend(self, path: bytes, fd: int) -> None:
        try:
            level = _Level(path, fd)
            self._header((path or b".") + b"/", os.fstat(fd), b"5", xattrs=_xattrs(fd))
        except BaseException:
            os.close(fd)
            raise
        self._levels.append(level)
        self._limit.need(len(self._levels))

    def _member(self, level: _Level, name: bytes) -> None:
        path = level.join(name)
        if self._reserved and name.startswith(self._reserved):
            raise Refused(f"{display(path)}: a layer cannot hold a file of that name")
        self._one(path, level.fd, name)

    def _one(self, path: bytes, parent: int, name: bytes) -> None:
        status = os.lstat(name, dir_fd=parent)
        kind = _TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            self.skipped.append(f"{display(path)}: socket left out")
        elif kind == b"3" and status.st_rdev == 0:
            self.skipped.append(f"{display(path)}: overlay whiteout left out")
        elif kind == b"5":
            self._descend(path, self._opened(path, parent, name, status, DIRECTORY))
        elif kind not in (b"3", b"4") and self._linked(path, status):
            pass
        elif kind == b"0":
            self._file(path, parent, name, status)
        elif kind == b"2":
            self._header(path, status, kind, os.readlink(name, dir_fd=parent))
        else:
            self._header(path, status, kind)

    def _linked(self, path: bytes, status: os.stat_result) -> bool:
        """Write a hard link if another name of the inode is in the archive already."""
        if status.st_nlink < 2:
            return False
        first = self._links.setdefault((status.st_dev, status.st_ino), path)
        if first is path:
            return False
        self._header(path, status, b"1", first)
        return True

    def _opened(
        self, path: bytes, parent: int, name: bytes, status: os.stat_result, flags: int
    ) -> int:
        """Open a member and make sure that it is the inode lstat(2) saw."""
        fd = os.open(name, flags, dir_fd=parent)
        now = os.fstat(fd)
        if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino):
            os.close(fd)
            raise _changed(path)
        return fd

    def _file(self, path: bytes, parent: int, name: bytes, status: os.stat_result) -> None:
        fd = self._opened(path, parent, name, status, _READ)
        try:
            status = os.fstat(fd)
            self._header(path, status, b"0", xattrs=_xattrs(fd))
            left = status.st_size
            while left:
                data = os.read(fd, min(left, _CHUNK))
                if not data:
                    raise _changed(path)
                self._output.write(data)
                left -= len(data)
        finally:
            os.close(fd)
        if status.st_size % BLOCK:
            self._output.write(bytes(-status.st_size % BLOCK))

    def _header(
        self,
        path: bytes,
        status: os.stat_result,
        kind: bytes,
        target: bytes = b"",
        *,
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        uid, gid = status.st_uid, status.st_gid
        if self._owner is not None:
            uid, gid = self._owner(uid, gid)
        device = (0, 0)
        if kind in (b"3", b"4"):
            device = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._output.write(
            header(
                path,
                kind,
                status.st_size if kind == b"0" else 0,
                stat.S_IMODE(status.st_mode) & (0o777 if self._plain else 0o7777),
                uid,
                gid,
                status.st_mtime_ns,
                target,
                xattrs if xattrs and not self._plain else {},
                device,
            )
        )


def header(
    path: bytes,
    kind: bytes,
    size: int,
    mode: int,
    uid: int,
    gid: int,
    mtime: int,
    target: bytes,
    xattrs: dict[bytes, bytes],
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """Make a member's header, with a PAX header before it where ustar's fields are too small.

    Args:
        mtime: nanoseconds since the epoch.
    """
    records: dict[bytes, bytes] = {}
    seconds, fraction = divmod(mtime, 10**9)
    if fraction or not 0 <= seconds < 8**11:
        records[b"mtime"] = _decimal_time(mtime)
        seconds = max(0, min(seconds, 8**11 - 1))
    if len(path) > 100:
        records[b"path"] = path
    if len(target) > 100:
        records[b"linkpath"] = target
    for key, value, digits in ((b"size", size, 11), (b"uid", uid, 7), (b"gid", gid, 7)):
        if value >= 8**digits:
            records[key] = b"%d" % value
    for name, content in sorted(xattrs.items()):
        records[b"SCHILY.xattr." + name] = content
    plain = _ustar(
        path[:100],
        kind,
        size if b"size" not in records else 0,
        mode,
        uid if b"uid" not in records else 0,
        gid if b"gid" not in records else 0,
        seconds,
        target[:100],
        device,
    )
    return _extension(records) + plain if records else plain


def sized_header(path: bytes, size: int) -> bytes:
    """Make the header of a plain file, which takes SIZED_HEADER bytes whatever the size is: room
    can be left for it until that is known.

    Args:
        path: at most 100 bytes.
    """
    plain = _ustar(path, b"0", size if size < 8**11 else 0, 0o644, 0, 0, 0, b"", (0, 0))
    return _extension({b"size": b"%d" % size}) + plain


def _extension(records: dict[bytes, bytes]) -> bytes:
    payload = b"".join(_record(key, value) for key, value in records.items())
    extension = _ustar(b"././@PaxHeader", b"x", len(payload), 0o644, 0, 0, 0, b"", (0, 0))
    return extension + payload + bytes(-len(payload) % BLOCK)


def _ustar(
    name: bytes,
    kind: bytes,
    size: int,
    mode: int,
    uid: int,
    gid: int,
    mtime: int,
    target: bytes,
    device: tuple[int, int],
) -> bytes:
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            b"%07o\0%07o\0%07o\0%011o\0%011o\0        " % (mode, uid, gid, size, mtime),
            kind,
            target.ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"%07o\0%07o\0" % device,
            bytes(167),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """A PAX record, whose length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if rest + len(str(length)) != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _decimal_time(nanoseconds: int) -> bytes:
    sign = "-" if nanoseconds < 0 else ""
    whole, fraction = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{whole}.{fraction:09d}".rstrip("0").rstrip(".").encode()


def _xattrs(fd: int) -> dict[bytes, bytes]:
    return {
        os.fsencode(name): os.getxattr(fd, name)
        for name in os.listxattr(fd)
        if (name.startswith("user.") and not name.startswith("user.overlay."))
        or name == "security.capability"
    }


def _changed(path: bytes) -> StoreCorrupt:
    return StoreCorrupt(f"{display(path)}: changed while it was read")
