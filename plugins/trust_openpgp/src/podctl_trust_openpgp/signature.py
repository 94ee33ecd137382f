"""Signature packets, version 4 (RFC 9580 section 5.2.3), taken apart but not yet believed."""

from __future__ import annotations

from dataclasses import dataclass

from podctl.errors import KeyInvalid
from podctl_trust_openpgp.packets import Reader

BINARY = 0x00
CERTIFICATIONS = frozenset((0x10, 0x11, 0x12, 0x13))
SUBKEY_BINDING = 0x18
PRIMARY_BINDING = 0x19
DIRECT_KEY = 0x1F
KEY_REVOCATION = 0x20
SUBKEY_REVOCATION = 0x28
CERTIFICATION_REVOCATION = 0x30

RSA = 1
RSA_SIGN = 3
DSA = 17
ECDSA = 19
EDDSA = 22
ED25519 = 27

_CREATED = 2
_LIFETIME = 3
_KEY_LIFETIME = 9
_REVOCATION_KEY = 12
_ISSUER = 16
_KEY_FLAGS = 27
_EMBEDDED = 32
_ISSUER_FINGERPRINT = 33

#: Subpackets a signer may mark critical: the ones obeyed here, and the ones that have no bearing on
#: whether a detached signature is good (preferences, exportability, policy and the like). Notations
#: are not among them: RFC 9580 section 5.2.3.24 wants an unknown critical notation refused, and no
#: notation is known here.
_UNDERSTOOD = frozenset(
    (2, 3, 4, 5, 6, 7, 9, 11, 12, 16, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32, 33, 34)
)
#: At most once, or all alike: two that differ would let two readers see two signatures.
_SINGLE = frozenset((_CREATED, _LIFETIME, _KEY_LIFETIME, _KEY_FLAGS))
_FIXED_LENGTH = {_CREATED: 4, _LIFETIME: 4, _KEY_LIFETIME: 4, _ISSUER: 8}
_MAX_SUBPACKETS = 256


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature packet.

    Args:
        kind: signature type, e.g. 0x00 for binary data.
        algorithm: public-key algorithm id.
        hash_id: hash algorithm id.
        created: seconds since the epoch, None when the signature does not say.
        expires: seconds since the epoch, None for never.
        key_lifetime: seconds from the key's creation to its expiry, 0 for never; None: not said.
        key_flags: first octet of the key flags; None when the signature has none.
        fingerprints: issuer fingerprints, lower-case hexadecimal, protected ones first.
        key_ids: issuer key ids, 16 digits each.
        revokers: fingerprints of designated revokers (protected subpackets only).
        embedded: bodies of embedded signatures, from both areas (they prove themselves).
        critical: type of a critical subpacket that is not understood, None when there is none.
        trailer: what the signature hashes after the signed content.
        check: first two octets of the digest, as the signature claims.
        numbers: the algorithm's values; None for an algorithm that is not known here.
    """

    kind: int
    algorithm: int
    hash_id: int
    created: int | None
    expires: int | None
    key_lifetime: int | None
    key_flags: int | None
    fingerprints: tuple[str, ...]
    key_ids: tuple[str, ...]
    revokers: tuple[str, ...]
    embedded: tuple[bytes, ...]
    critical: int | None
    trailer: bytes
    check: bytes
    numbers: tuple[int, ...] | None

    def named(self) -> tuple[str, ...]:
        """Return who the signature says made it; a key id only where no fingerprint is given."""
        return self.fingerprints or self.key_ids

    def may_be_by(self, fingerprint: str) -> bool:
        """Whether the key of this (40-digit) fingerprint is one of those named."""
        if self.fingerprints:
            return fingerprint in self.fingerprints
        return fingerprint[-16:] in self.key_ids


class UnsupportedVersion(Exception):
    """A signature packet of another version: not malformed, and never good.

    Args:
        version: its number.
        kind: signature type and
        key_ids: issuers, where the version's layout (3) is known.
    """

    def __init__(self, version: int, kind: int | None, key_ids: tuple[str, ...]) -> None:
        super().__init__(f"version {version} signature")
        self.version = version
        self.kind = kind
        self.key_ids = key_ids


def parse_signature(body: bytes) -> Signature:
    """Take one signature packet's body apart.

    Raises:
        KeyInvalid: malformed.
        UnsupportedVersion: of another version than 4.
    """
    what = "signature packet"
    reader = Reader(body, what)
    version = reader.number(1)
    if version != 4:
        raise _unsupported(version, body)
    kind, algorithm, hash_id = reader.number(1), reader.number(1), reader.number(1)
    hashed_area = reader.take(reader.number(2))
    hashed_length = len(body) - reader.remaining()
    hashed = _subpackets(hashed_area)
    unhashed = _subpackets(reader.take(reader.number(2)))
    check = reader.take(2)
    numbers = _numbers(reader, algorithm)
    created = _number(hashed, _CREATED)
    lifetime = _number(hashed, _LIFETIME)
    return Signature(
        kind=kind,
        algorithm=algorithm,
        hash_id=hash_id,
        created=created,
        expires=created + lifetime if created is not None and lifetime else None,
        key_lifetime=_number(hashed, _KEY_LIFETIME),
        key_flags=_flags(hashed),
        fingerprints=_fingerprints(hashed + unhashed),
        key_ids=_all(hashed + unhashed, _ISSUER),
        revokers=_revokers(hashed),
        embedded=tuple(v for _, t, v in hashed + unhashed if t == _EMBEDDED),
        critical=next((t for c, t, _ in hashed + unhashed if c and t not in _UNDERSTOOD), None),
        trailer=body[:hashed_length] + b"\x04\xff" + hashed_length.to_bytes(4, "big"),
        check=check,
        numbers=numbers,
    )


_Subpacket = tuple[bool, int, bytes]


def _unsupported(version: int, body: bytes) -> UnsupportedVersion:
    if version in (2, 3) and len(body) >= 15:
        # RFC 4880 section 5.2.2: version, 5, type, time (4), key id (8).
        return UnsupportedVersion(version, body[2], (body[7:15].hex(),))
    return UnsupportedVersion(version, None, ())


def _subpackets(area: bytes) -> list[_Subpacket]:
    """Return (critical, type, value) of each subpacket."""
    reader = Reader(area, "signature subpacket")
    found: list[_Subpacket] = []
    while reader.remaining():
        if len(found) == _MAX_SUBPACKETS:
            raise KeyInvalid(f"signature has more than {_MAX_SUBPACKETS} subpackets")
        length = reader.number(1)
        if length >= 192:
            length = (
                reader.number(4)
                if length == 255
                else ((length - 192) << 8) + reader.number(1) + 192
            )
        if length == 0:
            raise KeyInvalid("signature subpacket has no type")
        kind = reader.number(1)
        value = reader.take(length - 1)
        kind, critical = kind & 0x7F, bool(kind & 0x80)
        if kind in _FIXED_LENGTH and len(value) != _FIXED_LENGTH[kind]:
            raise KeyInvalid(f"signature subpacket of type {kind} has a wrong length")
        found.append((critical, kind, value))
    return found


def _single(subpackets: list[_Subpacket], kind: int) -> bytes | None:
    values = {value for _, t, value in subpackets if t == kind}
    if len(values) > 1:
        raise KeyInvalid(f"signature contradicts itself in subpackets of type {kind}")
    return values.pop() if values else None


def _number(subpackets: list[_Subpacket], kind: int) -> int | None:
    value = _single(subpackets, kind)
    return None if value is None else int.from_bytes(value, "big")


def _flags(subpackets: list[_Subpacket]) -> int | None:
    value = _single(subpackets, _KEY_FLAGS)
    if value is None:
        return None
    return value[0] if value else 0


def _all(subpackets: list[_Subpacket], kind: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value.hex() for _, t, value in subpackets if t == kind))


def _fingerprints(subpackets: list[_Subpacket]) -> tuple[str, ...]:
    """Issuer fingerprints of version 4 keys; other versions cannot have made the signature."""
    named = _all(subpackets, _ISSUER_FINGERPRINT)
    return tuple(text[2:] for text in named if text[:2] == "04" and len(text) == 42)


def _revokers(subpackets: list[_Subpacket]) -> tuple[str, ...]:
    """RFC 9580 section 5.2.3.23: class (bit 7 set), algorithm, fingerprint."""
    return tuple(
        value[2:].hex()
        for _, t, value in subpackets
        if t == _REVOCATION_KEY and len(value) == 22 and value[0] & 0x80
    )


def _numbers(reader: Reader, algorithm: int) -> tuple[int, ...] | None:
    if algorithm in (RSA, RSA_SIGN):
        numbers: tuple[int, ...] = (reader.mpi(),)
    elif algorithm in (DSA, ECDSA):
        numbers = (reader.mpi(), reader.mpi())
    elif algorithm == EDDSA:
        numbers = (reader.mpi(octets=True), reader.mpi(octets=True))
    elif algorithm == ED25519:
        numbers = (reader.number(32), reader.number(32))
    else:
        return None
    reader.end()
    return numbers
