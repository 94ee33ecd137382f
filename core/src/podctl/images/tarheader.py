"""One 512-byte tar header, and the records of a PAX extension header, decoded strictly.

Formats: v7, ustar (POSIX.1-1988), GNU (tar manual, "Basic Tar Format"), PAX (POSIX.1-2001, pax).
Where two common readers disagree about bytes, the bytes are refused: what is verified, what is
unpacked and what another tool would have shown must be one. Names stay bytes throughout.

Every function raises ArchiveInvalid with the bare rule; the caller knows the place.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from podctl.errors import ArchiveInvalid

BLOCK = 512
#: the largest id; -1 as an unsigned number means "leave it" to chown(2).
MAX_ID = 0xFFFFFFFE
MAX_SIZE = 0x7FFFFFFFFFFFFFFF
#: seconds ext4 can store (inodes of 256 bytes); other times are clamped to these.
TIME_RANGE = (-0x80000000, 0x37FFFFFFF)

_FIELDS = Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_BLANK_SUM = 8 * 0x20


class Header:
    """The fields of one header; `name` has ustar's prefix joined on."""

    __slots__ = ("device", "gid", "linkname", "mode", "mtime", "name", "size", "typeflag", "uid")

    def __init__(
        self,
        name: bytes,
        typeflag: bytes,
        size: int,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        linkname: bytes,
        device: tuple[int, int] | None,
    ) -> None:
        self.name = name
        self.typeflag = typeflag
        self.size = size
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.linkname = linkname
        self.device = device


def parse_header(block: bytes) -> Header:
    """Decode a header that is not all zeros."""
    fields = _FIELDS.unpack(block)
    name, mode, uid, gid, size, mtime, checksum, typeflag, linkname, magic = fields[:10]
    _check_sum(block, checksum)
    name = _text(name)
    if magic[:6] == b"ustar\0":
        prefix = _text(fields[14])
        if prefix:
            name = prefix + b"/" + name
    elif magic != b"ustar  \0" and magic.strip(b"\0"):
        raise ArchiveInvalid("unknown tar format (magic)")
    device = None
    if typeflag in b"34":
        device = _unsigned(fields[12], "device number"), _unsigned(fields[13], "device number")
    return Header(
        name,
        typeflag,
        _unsigned(size, "size"),
        _repeated(mode, "mode") & 0o7777,
        _repeated(uid, "uid"),
        _repeated(gid, "gid"),
        number(mtime, "modification time"),
        _text(linkname),
        device,
    )


def number(field: bytes, what: str) -> int:
    """Decode octal text, or GNU's base-256 (two's complement, marked by the first bit)."""
    first = field[0]
    if first & 0x80:
        if first not in (0x80, 0xFF):
            raise ArchiveInvalid(f"{what} is out of range")
        return int.from_bytes(field[1:], "big") - (1 << 8 * (len(field) - 1) if first & 0x40 else 0)
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    # int() alone would take signs, underscores and a prefix.
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            pass
    elif not digits:
        return 0
    raise ArchiveInvalid(f"{what} is not an octal number")


def parse_pax(payload: bytes) -> dict[bytes, bytes]:
    """Split a PAX header's payload into its records (POSIX.1-2001 pax, "pax Header Block")."""
    records: dict[bytes, bytes] = {}
    at, total = 0, len(payload)
    while at < total:
        space = payload.find(b" ", at, at + 9)
        digits = payload[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        equals = payload.find(b"=", space + 1, end)
        if not space + 1 < equals < end <= total or payload[end - 1] != 0x0A:
            raise ArchiveInvalid("malformed PAX record")
        key = payload[space + 1 : equals]
        if key in records:
            raise ArchiveInvalid(f"PAX record '{key.decode('utf-8', 'surrogateescape')}' twice")
        records[key] = payload[equals + 1 : end - 1]
        at = end
    return records


def decimal(value: bytes, what: str, limit: int) -> int:
    """Decode an unsigned decimal number of a PAX record."""
    if not value.isdigit() or len(value) > 20:
        raise ArchiveInvalid(f"PAX {what} is not a number")
    result = int(value)
    if result > limit:
        raise ArchiveInvalid(f"{what} is out of range")
    return result


def timestamp(value: bytes) -> int:
    """Decode a PAX time, seconds with an optional fraction, to nanoseconds, clamped."""
    sign = -1 if value[:1] == b"-" else 1
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 20 or (fraction and not fraction.isdigit()):
        raise ArchiveInvalid("PAX modification time is not a number")
    return clamp_time(sign * (int(whole) * 10**9 + int(fraction[:9].ljust(9, b"0"))))


def clamp_time(nanoseconds: int) -> int:
    """Bring a time into what file systems can store."""
    low, high = TIME_RANGE
    return max(low * 10**9, min(nanoseconds, high * 10**9))


def _check_sum(block: bytes, field: bytes) -> None:
    expected = number(field, "checksum")
    actual = sum(block) - sum(field) + _BLANK_SUM
    if actual != expected:
        # Old Sun and GNU tars summed signed characters; names beyond ASCII show it.
        negative = sum(1 for byte in block if byte & 0x80)
        if actual - 256 * negative != expected or any(byte & 0x80 for byte in field):
            raise ArchiveInvalid("checksum does not match (not a tar header)")


def _unsigned(field: bytes, what: str) -> int:
    value = number(field, what)
    if value < 0 or value > (MAX_ID if what in ("uid", "gid") else MAX_SIZE):
        raise ArchiveInvalid(f"{what} is out of range")
    return value


#: for fields that hold the same few values in every header.
_repeated = lru_cache(256)(_unsigned)


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]
