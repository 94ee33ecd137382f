"""OpenPGP packets built by hand: what gpg would refuse to make, signed with real keys."""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization  # noqa: TID253
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa, utils  # noqa: TID253

MD5, SHA1, RIPEMD, SHA256, SHA384, SHA512, SHA224 = 1, 2, 3, 8, 9, 10, 11
_HASHLIB = {1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224"}
_HASHES: dict[int, hashes.HashAlgorithm] = {
    1: hashes.MD5(),
    2: hashes.SHA1(),
    8: hashes.SHA256(),
    9: hashes.SHA384(),
    10: hashes.SHA512(),
    11: hashes.SHA224(),
}
_OIDS = {"secp256r1": "2a8648ce3d030107", "secp384r1": "2b81040022", "secp521r1": "2b81040023"}
ED25519_OID = bytes.fromhex("2b06010401da470f01")

#: 2024-06-01: when forged keys were made, unless a test says otherwise.
MADE = 1717200000
CERTIFY, SIGN, ENCRYPT = 0x01, 0x02, 0x0C


def mpi(value: int) -> bytes:
    """Encode a multiprecision integer."""
    bits = value.bit_length()
    return struct.pack(">H", bits) + value.to_bytes((bits + 7) // 8, "big")


def packet(tag: int, body: bytes) -> bytes:
    """Frame a body with a new-format header and the shortest length."""
    size = len(body)
    if size < 192:
        length = bytes([size])
    elif size < 8384:
        length = bytes([((size - 192) >> 8) + 192, (size - 192) & 0xFF])
    else:
        length = b"\xff" + struct.pack(">I", size)
    return bytes([0xC0 | tag]) + length + body


def old_packet(tag: int, body: bytes) -> bytes:
    """Frame a body with an old-format header of a two-octet length."""
    return bytes([0x80 | tag << 2 | 1]) + struct.pack(">H", len(body)) + body


def subpacket(kind: int, value: bytes, *, critical: bool = False) -> bytes:
    """Frame a signature subpacket."""
    size = len(value) + 1
    length = bytes([size]) if size < 192 else b"\xff" + struct.pack(">I", size)
    return length + bytes([kind | (0x80 if critical else 0)]) + value


def u32(value: int) -> bytes:
    """Encode a time or lifetime."""
    return struct.pack(">I", value)


def armored(data: bytes, label: str = "SIGNATURE", *, crc: bytes | None = None) -> bytes:
    """Wrap in ASCII armor; `crc` replaces the checksum line (b"" leaves it out)."""
    text = base64.b64encode(data).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    head, foot = f"-----BEGIN PGP {label}-----", f"-----END PGP {label}-----"
    check = "=" + base64.b64encode(_crc24(data).to_bytes(3, "big")).decode()
    if crc is not None:
        check = crc.decode()
    body = [head, "", *lines, *([check] if check else []), foot, ""]
    return "\n".join(body).encode()


def dearmored(data: bytes) -> bytes:
    """Undo armor without any check (for gpgv, which wants binary keyrings)."""
    if data[:1] and data[0] & 0x80:
        return data
    out = b""
    data = data.replace(b"\r\n", b"\n")
    for block in data.split(b"-----BEGIN PGP ")[1:]:
        body = block.split(b"\n\n", 1)[-1].split(b"-----END")[0]
        lines = [line for line in body.split() if not (line.startswith(b"=") and len(line) == 5)]
        out += base64.b64decode(b"".join(lines))
    return out


def _crc24(data: bytes) -> int:
    crc = 0xB704CE
    for octet in data:
        crc ^= octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc & 0xFFFFFF


@dataclass
class Key:
    """A private key and the public packet body that goes with it."""

    algorithm: int
    secret: Any
    material: bytes
    created: int = MADE

    @property
    def body(self) -> bytes:
        return b"\x04" + u32(self.created) + bytes([self.algorithm]) + self.material

    @property
    def framed(self) -> bytes:
        return b"\x99" + struct.pack(">H", len(self.body)) + self.body

    @property
    def fingerprint(self) -> bytes:
        return hashlib.sha1(self.framed).digest()

    def sign(self, hash_id: int, digest: bytes) -> bytes:
        """Return the algorithm-specific part of a signature over `digest`."""
        if self.algorithm in (1, 2, 3):
            prehashed = utils.Prehashed(_HASHES[hash_id])
            raw = self.secret.sign(digest, padding.PKCS1v15(), prehashed)
            return mpi(int.from_bytes(raw, "big"))
        if self.algorithm == 27:
            return bytes(self.secret.sign(digest))
        if self.algorithm == 22:
            raw = self.secret.sign(digest)
            return mpi(int.from_bytes(raw[:32], "big")) + mpi(int.from_bytes(raw[32:], "big"))
        prehashed = utils.Prehashed(_HASHES[hash_id])
        arguments = (prehashed,) if self.algorithm == 17 else (ec.ECDSA(prehashed),)
        r, s = utils.decode_dss_signature(self.secret.sign(digest, *arguments))
        return mpi(r) + mpi(s)


def rsa_key(bits: int = 2048, *, algorithm: int = 1, created: int = MADE) -> Key:
    """Make an RSA key."""
    secret = rsa.generate_private_key(65537, bits)
    numbers = secret.public_key().public_numbers()
    return Key(algorithm, secret, mpi(numbers.n) + mpi(numbers.e), created)


def dsa_key(bits: int = 2048, *, created: int = MADE) -> Key:
    """Make a DSA key (q has 256 bits at 2048)."""
    secret = dsa.generate_private_key(bits)
    y = secret.public_key().public_numbers()
    p = y.parameter_numbers
    return Key(17, secret, mpi(p.p) + mpi(p.q) + mpi(p.g) + mpi(y.y), created)


def ecdsa_key(curve: ec.EllipticCurve, *, created: int = MADE) -> Key:
    """Make an ECDSA key."""
    secret = ec.generate_private_key(curve)
    oid = bytes.fromhex(_OIDS[curve.name])
    point = secret.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return Key(19, secret, bytes([len(oid)]) + oid + mpi(int.from_bytes(point, "big")), created)


def ed25519_key(*, algorithm: int = 22, created: int = MADE) -> Key:
    """Make an Ed25519 key, in the legacy form (22) or the one of RFC 9580 (27)."""
    secret = ed25519.Ed25519PrivateKey.generate()
    point = secret.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    if algorithm == 27:
        return Key(27, secret, point, created)
    material = bytes([len(ED25519_OID)]) + ED25519_OID + mpi(int.from_bytes(b"\x40" + point, "big"))
    return Key(22, secret, material, created)


@dataclass
class Recipe:
    """How to make one signature packet; every field can be wrong on purpose."""

    signer: Key
    kind: int = 0x00
    content: bytes = b""
    hash_id: int = SHA256
    created: int | None = MADE + 86400
    hashed: list[bytes] = field(default_factory=list)
    unhashed: list[bytes] = field(default_factory=list)
    issuer: bytes | None = None
    fingerprint: bool = True
    key_id: bool = True
    version: int = 4
    algorithm: int | None = None

    def body(self) -> bytes:
        """Return the packet's body."""
        head, digest = self.hashed_part()
        unhashed = b"".join(self.unhashed)
        issuer = self.issuer or self.signer.fingerprint
        if self.key_id:
            unhashed += subpacket(16, issuer[-8:])
        head += struct.pack(">H", len(unhashed)) + unhashed
        return head + digest[:2] + self.signer.sign(self.hash_id, digest)

    def hashed_part(self) -> tuple[bytes, bytes]:
        """Return the protected part and the digest to sign."""
        area = subpacket(2, u32(self.created)) if self.created is not None else b""
        if self.fingerprint:
            area += subpacket(33, b"\x04" + (self.issuer or self.signer.fingerprint))
        area += b"".join(self.hashed)
        algorithm = self.signer.algorithm if self.algorithm is None else self.algorithm
        head = bytes([self.version, self.kind, algorithm, self.hash_id])
        head += struct.pack(">H", len(area)) + area
        trailer = head + b"\x04\xff" + u32(len(head))
        digest = hashlib.new(_HASHLIB[self.hash_id], self.content + trailer).digest()
        return head, digest

    def packet(self) -> bytes:
        """Return the whole packet."""
        return packet(2, self.body())


def detached(signer: Key, content: bytes, **changes: Any) -> bytes:
    """Sign data; `changes` are fields of Recipe."""
    return Recipe(signer, content=content, **changes).packet()


def uid_content(primary: Key, uid: bytes) -> bytes:
    """Return what a certification of a user id signs."""
    return primary.framed + b"\xb4" + u32(len(uid)) + uid


def certification(
    primary: Key, uid: bytes, *, flags: int | None = CERTIFY | SIGN, **changes: Any
) -> bytes:
    """Certify a user id by the key itself."""
    changes.setdefault("created", MADE)
    changes.setdefault("kind", 0x13)
    hashed = [*([subpacket(27, bytes([flags]))] if flags is not None else [])]
    hashed += changes.pop("hashed", [])
    content = uid_content(primary, uid)
    signer = changes.pop("signer", primary)
    return Recipe(signer, content=content, hashed=hashed, **changes).packet()


def binding(
    primary: Key,
    subkey: Key,
    *,
    flags: int | None = SIGN,
    back: bytes | None | bool = True,
    **changes: Any,
) -> bytes:
    """Bind a subkey; `back` is the body of the embedded signature, True for a right one."""
    content = primary.framed + subkey.framed
    changes.setdefault("created", MADE)
    hashed = [*([subpacket(27, bytes([flags]))] if flags is not None else [])]
    hashed += changes.pop("hashed", [])
    if back is True:
        back = Recipe(subkey, kind=0x19, content=content, created=MADE).body()
    unhashed = [subpacket(32, back)] if back else []
    return Recipe(
        primary, kind=0x18, content=content, hashed=hashed, unhashed=unhashed, **changes
    ).packet()


UID = b"Forged <forged@example.com>"


def simple(primary: Key, *more: bytes, uid: bytes = UID, **changes: Any) -> bytes:
    """Return a key file: primary, one user id, its certification, and then `more` packets."""
    return b"".join(
        [packet(6, primary.body), packet(13, uid), certification(primary, uid, **changes), *more]
    )


def with_subkey(primary: Key, subkey: Key, binding_packet: bytes, *more: bytes) -> bytes:
    """Return a key file with one subkey and the signatures given for it."""
    return simple(primary, packet(14, subkey.body), binding_packet, *more, flags=CERTIFY)
