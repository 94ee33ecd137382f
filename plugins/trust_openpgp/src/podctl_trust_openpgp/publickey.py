"""Public keys and subkeys, version 4, and the check of one digest against one of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.exceptions import (  # noqa: TID253
    InternalError,
    InvalidSignature,
    UnsupportedAlgorithm,
)
from cryptography.hazmat.primitives import hashes  # noqa: TID253
from cryptography.hazmat.primitives.asymmetric import (  # noqa: TID253
    dsa,
    ec,
    ed25519,
    padding,
    rsa,
    utils,
)

from podctl.errors import KeyInvalid
from podctl_trust_openpgp import signature as sig
from podctl_trust_openpgp.packets import Reader

if TYPE_CHECKING:
    from typing import Any

SHA1 = 2
#: Hash algorithm id -> hashlib's name. MD5 (1) and RIPEMD-160 (3) are left out for good.
HASHES = {2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224"}
_HASH_NAMES = {
    1: "MD5",
    2: "SHA-1",
    3: "RIPEMD-160",
    8: "SHA-256",
    9: "SHA-384",
    10: "SHA-512",
    11: "SHA-224",
    12: "SHA3-256",
    14: "SHA3-512",
}
_ALGORITHM_NAMES = {
    1: "RSA",
    2: "RSA (encrypt only)",
    3: "RSA",
    16: "ElGamal",
    17: "DSA",
    18: "ECDH",
    19: "ECDSA",
    20: "ElGamal",
    22: "EdDSA",
    25: "X25519",
    26: "X448",
    27: "Ed25519",
    28: "Ed448",
}

MIN_RSA_BITS = 2048
MIN_DSA_BITS = 2048
MIN_DSA_ORDER_BITS = 224

_P256 = bytes.fromhex("2a8648ce3d030107")
_P384 = bytes.fromhex("2b81040022")
_P521 = bytes.fromhex("2b81040023")
_ED25519_OID = bytes.fromhex("2b06010401da470f01")
#: OID -> (curve, bits a hash must have at least: RFC 9580 section 9.2.1).
_CURVES: dict[bytes, tuple[type[ec.EllipticCurve], int]] = {
    _P256: (ec.SECP256R1, 256),
    _P384: (ec.SECP384R1, 384),
    _P521: (ec.SECP521R1, 512),
}
_SIGNING = frozenset((sig.RSA, sig.RSA_SIGN, sig.DSA, sig.ECDSA, sig.EDDSA, sig.ED25519))


def hash_name(hash_id: int) -> str:
    """Return a hash algorithm's usual name, for messages."""
    return _HASH_NAMES.get(hash_id, f"hash algorithm {hash_id}")


def new_hash(hash_id: int) -> Any:
    """Return a hashlib context of an algorithm that is in HASHES."""
    return hashlib.new(HASHES[hash_id], usedforsecurity=hash_id != SHA1)


class PublicKey:
    """One key or subkey packet.

    Attributes:
        body: the packet's body, which fingerprints and certifications hash.
        created: seconds since the epoch.
        algorithm: public-key algorithm id.
        fingerprint: 40 lower-case hexadecimal digits.
        objection: why no signature by this key is accepted; None when it may sign.

    Raises:
        KeyInvalid: malformed, or of another version than 4.
    """

    __slots__ = (
        "_key",
        "_min_hash_bits",
        "algorithm",
        "body",
        "created",
        "fingerprint",
        "objection",
    )

    def __init__(self, body: bytes) -> None:
        reader = Reader(body, "public key packet")
        version = reader.number(1)
        if version != 4:
            raise KeyInvalid(f"public key is of version {version}, only version 4 is supported")
        if len(body) > 0xFFFF:
            raise KeyInvalid("public key packet is larger than its fingerprint can cover")
        self.body = body
        self.created = reader.number(4)
        self.algorithm = reader.number(1)
        self.fingerprint = hashlib.sha1(self.framed(), usedforsecurity=False).hexdigest()
        self.objection: str | None = None
        self._min_hash_bits = 224
        self._key: Any = None
        try:
            self._read_material(reader)
        except UnsupportedAlgorithm:
            self.objection = f"{self._name()} is not supported by this host's cryptography library"
        except (ValueError, InternalError):
            raise KeyInvalid(f"public key {self.fingerprint} has impossible values") from None

    def framed(self) -> bytes:
        """Return the key as fingerprints and certifications hash it (RFC 9580 section 5.2.4)."""
        return b"\x99" + len(self.body).to_bytes(2, "big") + self.body

    def accepts(self, signature: sig.Signature) -> str | None:
        """Say why a signature cannot be by this key whatever it signs, None when it can be."""
        if self.objection is not None:
            return self.objection
        if signature.algorithm != self.algorithm:
            return f"signature algorithm is not the {self._name()} of key {self.fingerprint}"
        if signature.hash_id not in HASHES:
            return f"{hash_name(signature.hash_id)} is not accepted"
        bits = 8 * int(new_hash(signature.hash_id).digest_size)
        # SHA-1 has its own rule, by date: see certificate.py.
        if signature.hash_id != SHA1 and bits < self._min_hash_bits:
            return f"{hash_name(signature.hash_id)} is too short for this {self._name()} key"
        return None

    def verifies(self, signature: sig.Signature, digest: bytes) -> bool:
        """Whether `signature` is this key's over `digest`. Call `accepts` first."""
        assert signature.numbers is not None
        if digest[:2] != signature.check:
            return False
        try:
            self._verify(signature.numbers, signature.hash_id, digest)
        except (InvalidSignature, ValueError, OverflowError, InternalError):
            return False
        return True

    def _name(self) -> str:
        return _ALGORITHM_NAMES.get(self.algorithm, f"public-key algorithm {self.algorithm}")

    def _read_material(self, reader: Reader) -> None:
        if self.algorithm not in _SIGNING:
            self.objection = f"{self._name()} keys cannot sign"
            return
        if self.algorithm in (sig.RSA, sig.RSA_SIGN):
            self._read_rsa(reader)
        elif self.algorithm == sig.DSA:
            self._read_dsa(reader)
        elif self.algorithm == sig.ED25519:
            self._key = ed25519.Ed25519PublicKey.from_public_bytes(reader.take(32))
            self._min_hash_bits = 256
            reader.end()
        else:
            self._read_curve(reader)

    def _read_rsa(self, reader: Reader) -> None:
        modulus, exponent = reader.mpi(), reader.mpi()
        reader.end()
        bits = modulus.bit_length()
        if bits < MIN_RSA_BITS:
            self.objection = f"RSA key of {bits} bits, at least {MIN_RSA_BITS} are required"
            return
        # A public exponent is small; a huge one only serves to keep the verifier busy.
        if exponent.bit_length() > 64 or exponent < 3 or not exponent & 1 or not modulus & 1:
            raise ValueError
        self._key = rsa.RSAPublicNumbers(exponent, modulus).public_key()

    def _read_dsa(self, reader: Reader) -> None:
        p, q, g, y = reader.mpi(), reader.mpi(), reader.mpi(), reader.mpi()
        reader.end()
        bits, order = p.bit_length(), q.bit_length()
        if bits < MIN_DSA_BITS or order < MIN_DSA_ORDER_BITS:
            self.objection = (
                f"DSA key of {bits}/{order} bits, "
                f"at least {MIN_DSA_BITS}/{MIN_DSA_ORDER_BITS} are required"
            )
            return
        if not (p & 1 and q & 1 and 1 < y < p):
            raise ValueError
        self._min_hash_bits = order
        self._key = dsa.DSAPublicNumbers(y, dsa.DSAParameterNumbers(p, q, g)).public_key()

    def _read_curve(self, reader: Reader) -> None:
        oid = reader.take(reader.number(1))
        point = reader.mpi(octets=True)
        reader.end()
        encoded = point.to_bytes((point.bit_length() + 7) // 8, "big")
        if self.algorithm == sig.EDDSA:
            if oid != _ED25519_OID:
                self.objection = "EdDSA on a curve other than Ed25519 is not supported"
                return
            # RFC 9580 section 11.2: the native point after a 0x40 octet.
            if len(encoded) != 33 or encoded[0] != 0x40:
                raise ValueError
            self._min_hash_bits = 256
            self._key = ed25519.Ed25519PublicKey.from_public_bytes(encoded[1:])
            return
        if oid not in _CURVES:
            self.objection = "ECDSA on a curve other than NIST P-256, P-384, P-521 is not supported"
            return
        curve, self._min_hash_bits = _CURVES[oid]
        if encoded[:1] != b"\x04":
            raise ValueError
        self._key = ec.EllipticCurvePublicKey.from_encoded_point(curve(), encoded)

    def _verify(self, numbers: tuple[int, ...], hash_id: int, digest: bytes) -> None:
        if self.algorithm in (sig.EDDSA, sig.ED25519):
            self._key.verify(b"".join(n.to_bytes(32, "big") for n in numbers), digest)
            return
        prehashed = utils.Prehashed(_HASH_OBJECTS[hash_id]())
        if self.algorithm in (sig.RSA, sig.RSA_SIGN):
            raw = numbers[0].to_bytes((self._key.key_size + 7) // 8, "big")
            self._key.verify(raw, digest, padding.PKCS1v15(), prehashed)
            return
        encoded = utils.encode_dss_signature(numbers[0], numbers[1])
        if self.algorithm == sig.DSA:
            self._key.verify(encoded, digest, prehashed)
        else:
            self._key.verify(encoded, digest, ec.ECDSA(prehashed))


_HASH_OBJECTS: dict[int, type[hashes.HashAlgorithm]] = {
    2: hashes.SHA1,
    8: hashes.SHA256,
    9: hashes.SHA384,
    10: hashes.SHA512,
    11: hashes.SHA224,
}
