"""A tar archive read front to back as entries, each with its data, from a stream of any origin.

The reader folds extension headers (GNU long names, PAX) into the entry they precede and decides
where each entry's data ends. It follows POSIX where that is clear (a PAX size wins over the
header's: CVE-2025-62518) and refuses what readers disagree about. Memory is bounded by the caps.

Two zero blocks end an archive and only zeros may follow. An archive that just stops after an
entry's last block is taken as well: several tools write no end, and the digest of the whole
stream is checked elsewhere. One zero block between entries is refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.errors import ArchiveInvalid
from podctl.images import tarheader
from podctl.images.tarheader import BLOCK, Header

if TYPE_CHECKING:
    from podctl.images.compression import Source
    from podctl.model.layout import ArchiveLimits

CHUNK = 256 << 10
#: zeros after the end; GNU tar's blocking factor can ask for as much.
MAX_PADDING = 16 << 20
#: bytes of a path or link target, and of one component (PATH_MAX without NUL, NAME_MAX).
MAX_PATH = 4095

FILE = "file"
DIRECTORY = "directory"
SYMLINK = "symbolic link"
HARDLINK = "hard link"
FIFO = "FIFO"
DEVICE = "device"

_KINDS = {
    b"\0": FILE,
    b"0": FILE,
    b"7": FILE,  # contiguous: POSIX treats it as a regular file
    b"1": HARDLINK,
    b"2": SYMLINK,
    b"3": DEVICE,
    b"4": DEVICE,
    b"5": DIRECTORY,
    b"6": FIFO,
}
_UNSUPPORTED = {
    b"S": "sparse files are not supported",
    b"M": "multi-volume archives are not supported",
    b"V": "volume labels are not supported",
    b"D": "incremental dumps are not supported",
    b"N": "old GNU long names are not supported",
    b"X": "Solaris extended headers are not supported",
}
_XATTR = b"SCHILY.xattr."
_LIBARCHIVE_XATTR = b"LIBARCHIVE.xattr."
#: records that change how the archive is cut or named; a global header may not carry them.
_LOCAL_ONLY = (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"hdrcharset")


class Entry:
    """One member of an archive.

    Attributes:
        name: as in the archive.
        kind: FILE, DIRECTORY, SYMLINK, HARDLINK, FIFO or DEVICE.
        size: bytes of data that follow; 0 for all but files.
        mode: permission bits, set-id bits and sticky bit.
        mtime: nanoseconds since the epoch.
        linkname: target of a link.
        device: typeflag is a block device's, major, minor.
        xattrs: extended attributes by name.
    """

    __slots__ = (
        "device",
        "gid",
        "kind",
        "linkname",
        "mode",
        "mtime",
        "name",
        "size",
        "uid",
        "xattrs",
    )

    def __init__(self, header: Header, kind: str) -> None:
        self.name = header.name
        self.kind = kind
        self.size = header.size
        self.mode = header.mode
        self.uid = header.uid
        self.gid = header.gid
        self.mtime = tarheader.clamp_time(header.mtime * 1_000_000_000)
        self.linkname = header.linkname
        self.device = None if header.device is None else (header.typeflag == b"4", *header.device)
        self.xattrs: dict[bytes, bytes] = {}

    def __str__(self) -> str:
        return f"archive entry {display(self.name)}"


def display(name: bytes) -> str:
    """A name for a message; undecodable bytes survive as surrogates (PEP 383)."""
    return "'" + name.decode("utf-8", "surrogateescape") + "'"


class TarStream:
    """Iterate with `next_entry`; between two calls `read`, `copy_to` or nothing takes the data."""

    def __init__(self, source: Source, limits: ArchiveLimits) -> None:
        self._source = source
        self._limits = limits
        self._buffer = b""
        self._at = 0
        self._offset = 0  # of the buffer's first byte in the stream
        self._left = 0  # data of the current entry not taken yet
        self._padding = 0  # zeros up to the next block
        self._ended = False

    def next_entry(self) -> Entry | None:
        """Return the next entry, or None at a proper end.

        Raises:
            ArchiveInvalid: the archive is malformed, cut short or passes a cap.
        """
        self.skip()
        position = self._offset + self._at
        try:
            return self._next()
        except ArchiveInvalid as error:
            raise ArchiveInvalid(f"tar header at byte {position}: {error.message}") from None

    def read(self, limit: int) -> bytes:
        """Return all data of the current entry, which is at most `limit` bytes."""
        assert self._left <= limit
        data = self._take(self._left)
        if len(data) < self._left:
            raise _cut_short()
        self._left = 0
        return data

    def copy_to(self, descriptor: int) -> None:
        """Write the current entry's data to a file."""
        while self._left:
            if self._at == len(self._buffer):
                self._refill()
            end = min(self._at + self._left, len(self._buffer))
            piece = (
                memoryview(self._buffer)[self._at : end]
                if end - self._at > 65536
                else self._buffer[self._at : end]
            )
            self._left -= end - self._at
            self._at = end
            written = os.write(descriptor, piece)
            while written < len(piece):
                piece = piece[written:]
                written = os.write(descriptor, piece)

    def skip(self) -> None:
        """Pass over what is left of the current entry and its padding.

        The last entry may lack its padding, as it may lack the zeros that end an archive: `umoci
        insert` leaves out both.
        """
        while self._left:
            if self._at == len(self._buffer):
                self._refill()
            step = min(self._left, len(self._buffer) - self._at)
            self._at += step
            self._left -= step
        padding, self._padding = self._padding, 0
        if self._at + padding <= len(self._buffer):
            self._at += padding
            return
        taken = len(self._take(padding))
        if 0 < taken < padding:
            raise _cut_short()
        self._ended = not taken

    def _refill(self) -> None:
        data = self._source.read(CHUNK)
        if not data:
            raise _cut_short()
        self._offset += len(self._buffer)
        self._buffer = data
        self._at = 0

    def _take(self, size: int) -> bytes:
        """Return `size` bytes, fewer where the stream ends."""
        end = self._at + size
        if end <= len(self._buffer):
            data = self._buffer[self._at : end]
            self._at = end
            return data
        pieces = [self._buffer[self._at :]]
        have = len(pieces[0])
        self._offset += len(self._buffer)
        self._buffer, self._at = b"", 0
        while have < size:
            data = self._source.read(CHUNK)
            if not data:
                break
            needed = size - have
            if len(data) > needed:
                self._buffer, self._at = data, needed
                data = data[:needed]
            else:
                self._offset += len(data)
            pieces.append(data)
            have += len(data)
        return b"".join(pieces)

    def _next(self) -> Entry | None:
        if self._ended:
            return None
        extensions: dict[bytes, bytes] = {}
        headers = 0
        while True:
            block = self._take(BLOCK)
            if len(block) < BLOCK or not block.strip(b"\0"):
                if extensions:
                    raise ArchiveInvalid("the archive ends after an extension header")
                self._finish(block)
                return None
            header = tarheader.parse_header(block)
            if header.typeflag not in b"xgLK":
                return self._entry(header, extensions)
            headers += 1
            if headers > self._limits.max_headers:
                raise ArchiveInvalid(f"more than {self._limits.max_headers} extension headers")
            payload = self._extension(header)
            if header.typeflag == b"g":
                _check_global(tarheader.parse_pax(payload))
            elif header.typeflag in extensions:
                raise ArchiveInvalid("two extension headers of one kind before an entry")
            else:
                extensions[header.typeflag] = payload

    def _finish(self, block: bytes) -> None:
        """Check how the archive ends: `block` is short (nothing more came) or zeros."""
        self._ended = True
        if not block:
            if self._offset == 0:
                raise ArchiveInvalid("the archive is empty")
            return
        if len(block) < BLOCK:
            raise ArchiveInvalid("cut short")
        if self._take(BLOCK) != bytes(BLOCK):
            raise ArchiveInvalid("no second zero block ends the archive")
        padding = 0
        while data := self._take(65536):
            padding += len(data)
            if data.count(0) != len(data):
                raise ArchiveInvalid("bytes after the end of the archive")
            if padding > MAX_PADDING:
                raise ArchiveInvalid(f"more than {MAX_PADDING} zeros after the end")

    def _extension(self, header: Header) -> bytes:
        size = header.size
        if size > self._limits.max_extension:
            raise ArchiveInvalid(f"extension header over {self._limits.max_extension} bytes")
        padded = size + -size % BLOCK
        payload = self._take(padded)
        if len(payload) < padded:
            raise ArchiveInvalid("cut short")
        return payload[:size]

    def _entry(self, header: Header, extensions: dict[bytes, bytes]) -> Entry:
        kind = _KINDS.get(header.typeflag)
        if kind is None:
            raise ArchiveInvalid(_unsupported(header.typeflag))
        entry = Entry(header, kind)
        if extensions:
            _apply_gnu(entry, extensions)
            if b"x" in extensions:
                records = tarheader.parse_pax(extensions[b"x"])
                if (b"L" in extensions and b"path" in records) or (
                    b"K" in extensions and b"linkpath" in records
                ):
                    raise ArchiveInvalid("a GNU long name and a PAX name for one entry")
                _apply_pax(entry, records)
        if kind is FILE and entry.name.endswith(b"/"):
            # v7 has no typeflag for directories; other formats do, and readers disagree.
            if header.typeflag != b"\0":
                raise ArchiveInvalid(f"file {display(entry.name)} is named like a directory")
            entry.kind = kind = DIRECTORY
        if entry.size and kind is not FILE:
            raise ArchiveInvalid(f"{kind} {display(entry.name)} has data")
        if not entry.name:
            raise ArchiveInvalid("an entry without a name")
        self._left = entry.size
        self._padding = -entry.size % BLOCK
        return entry


def _cut_short() -> ArchiveInvalid:
    return ArchiveInvalid("tar archive: cut short")


def _unsupported(typeflag: bytes) -> str:
    return _UNSUPPORTED.get(typeflag, f"unknown entry type {typeflag!r}")


def _check_global(records: dict[bytes, bytes]) -> None:
    """Refuse global records that would change later entries: readers disagree on whether they do
    (Go's ignores all, GNU tar applies all). A comment, as `git archive` writes, is harmless."""
    for key in records:
        if key in _LOCAL_ONLY or key.startswith((_XATTR, _LIBARCHIVE_XATTR, b"GNU.", b"SCHILY.")):
            raise ArchiveInvalid(f"global PAX header sets {display(key)}")


def _apply_gnu(entry: Entry, extensions: dict[bytes, bytes]) -> None:
    for typeflag, attribute in ((b"L", "name"), (b"K", "linkname")):
        payload = extensions.get(typeflag)
        if payload is not None:
            name = payload.partition(b"\0")[0]
            # GNU tar counts the NUL in; anything but NULs behind it would be hidden.
            if payload[len(name) :].strip(b"\0"):
                raise ArchiveInvalid("bytes behind a long name")
            _check_path(name, "long name")
            setattr(entry, attribute, name)


def _check_path(path: bytes, what: str) -> None:
    if not path or b"\0" in path:
        raise ArchiveInvalid(f"{what} is empty or holds a NUL")


def _apply_pax(entry: Entry, records: dict[bytes, bytes]) -> None:
    for key, value in records.items():
        if key == b"path":
            _check_path(value, "PAX path")
            entry.name = value
        elif key == b"linkpath":
            _check_path(value, "PAX linkpath")
            entry.linkname = value
        elif key == b"size":
            entry.size = tarheader.decimal(value, "size", tarheader.MAX_SIZE)
        elif key == b"uid":
            entry.uid = tarheader.decimal(value, "uid", tarheader.MAX_ID)
        elif key == b"gid":
            entry.gid = tarheader.decimal(value, "gid", tarheader.MAX_ID)
        elif key == b"mtime":
            entry.mtime = tarheader.timestamp(value)
        elif key.startswith(_XATTR):
            entry.xattrs[_xattr_name(key[len(_XATTR) :])] = value
        elif key.startswith(_LIBARCHIVE_XATTR):
            name = _xattr_name(_percent_decoded(key[len(_LIBARCHIVE_XATTR) :]))
            entry.xattrs.setdefault(name, _base64_decoded(value))
        elif key == b"hdrcharset":
            if value not in (b"BINARY", b"ISO-IR 10646 2000 UTF-8"):
                raise ArchiveInvalid(f"unknown PAX character set {display(value)}")
        elif key.startswith((b"GNU.sparse.", b"SCHILY.realsize")):
            raise ArchiveInvalid(_UNSUPPORTED[b"S"])
        elif key.startswith((b"GNU.volume.", b"GNU.dumpdir")):
            raise ArchiveInvalid(_UNSUPPORTED[b"M"])


def _xattr_name(name: bytes) -> bytes:
    if not name or b"\0" in name or len(name) > 255:
        raise ArchiveInvalid("bad name of an extended attribute")
    return name


def _percent_decoded(text: bytes) -> bytes:
    head, *rest = text.split(b"%")
    pieces = [head]
    for piece in rest:
        try:
            pieces.append(bytes.fromhex(piece[:2].decode("ascii")))
        except ValueError:
            raise ArchiveInvalid("bad name of an extended attribute") from None
        pieces.append(piece[2:])
    return b"".join(pieces)


def _base64_decoded(text: bytes) -> bytes:
    import binascii

    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        raise ArchiveInvalid("bad value of an extended attribute") from None
