"""Packet framing of OpenPGP (RFC 9580 section 4): every length is checked before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import KeyInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNATURE = 2
SECRET_KEY = 5
PUBLIC_KEY = 6
SECRET_SUBKEY = 7
MARKER = 10
TRUST = 12
USER_ID = 13
PUBLIC_SUBKEY = 14
USER_ATTRIBUTE = 17
#: Packets from here on are non-critical: readers skip the ones they do not know.
FIRST_NONCRITICAL = 40

_NAMES = {
    1: "an encrypted session key",
    2: "a signature",
    3: "an encrypted session key",
    4: "the start of an inline signature",
    5: "a secret key",
    6: "a public key",
    7: "a secret subkey",
    8: "compressed data",
    9: "encrypted data",
    10: "a marker",
    11: "literal data",
    12: "a trust record",
    13: "a user id",
    14: "a public subkey",
    17: "a user attribute",
    18: "encrypted data",
    20: "encrypted data",
    21: "padding",
}

#: An MPI of 16 Kibit is larger than any accepted key needs.
MAX_MPI_BITS = 16384


def packet_name(tag: int) -> str:
    """Say what a packet of this type is, for messages."""
    return _NAMES.get(tag, f"a packet of type {tag}")


class Reader:
    """Bytes read from the front; reading past the end is KeyInvalid, never a short result.

    Args:
        data: all there is.
        what: named in messages.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._at = 0

    def remaining(self) -> int:
        """Return the number of unread bytes."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise KeyInvalid(f"{self._what} is truncated")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, octets: int) -> int:
        """Return the next octets as a big-endian number."""
        return int.from_bytes(self.take(octets), "big")

    def mpi(self, *, octets: bool = False) -> int:
        """Return a multiprecision integer (RFC 9580 section 3.2), whose bit count must be right.

        Args:
            octets: it is an octet string in the clothes of a number (a point, an EdDSA value), for
                which some writers count whole octets.
        """
        bits = self.number(2)
        if bits > MAX_MPI_BITS:
            raise KeyInvalid(f"{self._what} has a number of {bits} bits, more than {MAX_MPI_BITS}")
        value = self.number((bits + 7) // 8)
        actual = value.bit_length()
        if actual != bits and not (octets and actual < bits and bits % 8 == 0):
            raise KeyInvalid(f"{self._what} has a number whose bit count is wrong")
        return value

    def end(self) -> None:
        """Insist that nothing is left."""
        if self.remaining():
            raise KeyInvalid(f"{self._what} has bytes after its end")


def packets(data: bytes, *, what: str, limit: int) -> Iterator[tuple[int, bytes]]:
    """Yield (type, body) of each packet.

    Partial and indeterminate lengths are refused: they are for streamed data, keys and signatures
    have no use for them.

    Args:
        data: a sequence of packets, nothing around it.
        what: the object, for messages.
        limit: how many packets there may be.

    Raises:
        KeyInvalid: malformed, or too many.
    """
    reader = Reader(data, what)
    count = 0
    while reader.remaining():
        count += 1
        if count > limit:
            raise KeyInvalid(f"{what} has more than {limit} packets")
        header = reader.number(1)
        if not header & 0x80:
            raise KeyInvalid(f"{what} is no OpenPGP data")
        if header & 0x40:
            tag, length = header & 0x3F, _new_length(reader, what)
        else:
            tag, length = (header >> 2) & 0x0F, _old_length(reader, header & 3, what)
        if tag == 0:
            raise KeyInvalid(f"{what} has a packet of type 0")
        yield tag, reader.take(length)


def _new_length(reader: Reader, what: str) -> int:
    first = reader.number(1)
    if first < 192:
        return first
    if first < 224:
        return ((first - 192) << 8) + reader.number(1) + 192
    if first == 255:
        return reader.number(4)
    raise KeyInvalid(f"{what} has a packet of partial length")


def _old_length(reader: Reader, kind: int, what: str) -> int:
    if kind == 3:
        raise KeyInvalid(f"{what} has a packet of indeterminate length")
    return reader.number(1 << kind)
