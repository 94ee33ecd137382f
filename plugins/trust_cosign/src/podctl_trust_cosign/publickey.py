"""One public key: a PEM file (RFC 7468), what it may be, and whether a signature is its own."""

from __future__ import annotations

import binascii
import hashlib
from functools import partial
from typing import TYPE_CHECKING

# This module is itself imported only where a key is looked at.
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: TID253
from cryptography.hazmat.primitives import hashes, serialization  # noqa: TID253
from cryptography.hazmat.primitives.asymmetric import (  # noqa: TID253
    ec,
    ed25519,
    padding,
    rsa,
)

from podctl.errors import KeyInvalid
from podctl.model.trusting import KeyDescription
from podctl_trust_cosign import ed25519ph

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEME = "cosign"
MAX_KEY_BYTES = 64 << 10
#: what cosign makes and takes (its key check follows Let's Encrypt's), up to a cap on the work
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
#: FIPS 186-5 section A.1.1 (a)
MIN_RSA_EXPONENT = 65537

_BLANK = " \t\r\n"
_SPKI, _PKCS1 = "PUBLIC KEY", "RSA PUBLIC KEY"
_CERTIFICATES = ("CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE")
#: accepted curves: how people call them, and the hashes used with them. Simple signing takes
#: SHA-256 whatever the key, bundles the hash of the curve's own size.
_CURVES: dict[str, tuple[str, tuple[type[hashes.HashAlgorithm], ...]]] = {
    "secp256r1": ("P-256", (hashes.SHA256,)),
    "secp384r1": ("P-384", (hashes.SHA384, hashes.SHA256)),
    "secp521r1": ("P-521", (hashes.SHA512, hashes.SHA256)),
}

AcceptedKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


class PublicKey:
    """A public key that may be trusted.

    Args:
        data: the file, PEM of a SubjectPublicKeyInfo, or of PKCS #1 for RSA.

    Attributes:
        fingerprint: SHA-256 of the SubjectPublicKeyInfo in DER, 64 lower-case digits. It is what
            cosign writes, in base64, as the hint of a bundle.
        kind: algorithm and size, for people.

    Raises:
        KeyInvalid: anything but one public key, or one of a kind or size that is not accepted.
    """

    __slots__ = ("_key", "fingerprint", "kind")

    def __init__(self, data: bytes) -> None:
        label, der = _read_pem(data)
        self._key = _load(label, der)
        self.kind = _check(self._key)
        encoded = self._key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.fingerprint = hashlib.sha256(encoded).hexdigest()

    def describe(self) -> KeyDescription:
        """Return what is shown before the key is trusted; there are no names or dates in it."""
        return KeyDescription(
            scheme=SCHEME,
            fingerprint=self.fingerprint,
            identities=(f"cosign key, {self.kind}",),
            subkeys=(),
            created=0,
            expires=None,
            revoked=False,
        )

    def made(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's over `message`, in one of the forms cosign makes."""
        key = self._key
        if isinstance(key, ed25519.Ed25519PublicKey):
            return _made_by_ed25519(key, signature, message)
        if isinstance(key, rsa.RSAPublicKey):
            scheme = padding.PKCS1v15(), hashes.SHA256()
            return _verifies(partial(key.verify, signature, message, *scheme))
        return any(
            _verifies(partial(key.verify, signature, message, ec.ECDSA(kind())))
            for kind in _CURVES[key.curve.name][1]
        )


def _made_by_ed25519(key: ed25519.Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    # Envelopes and older payloads are signed with plain Ed25519, newer payloads with Ed25519ph.
    if _verifies(partial(key.verify, signature, message)):
        return True
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return ed25519ph.verify(raw, signature, message)


def _verifies(check: Callable[[], None]) -> bool:
    try:
        check()
    except (InvalidSignature, ValueError, OverflowError):
        return False
    return True


def _read_pem(data: bytes) -> tuple[str, bytes]:
    """Return label and content of the one PEM block that `data` is."""
    if len(data) > MAX_KEY_BYTES:
        raise KeyInvalid(
            f"a public key was expected, the file is larger than {MAX_KEY_BYTES} bytes"
        )
    try:
        text = data.decode("ascii").strip(_BLANK)
    except UnicodeDecodeError:
        raise KeyInvalid("a public key in PEM was expected, the file is no ASCII text") from None
    if not text:
        raise KeyInvalid("a public key was expected, the file is empty")
    lines = [line.strip(_BLANK) for line in text.split("\n")]
    label = lines[0].removeprefix("-----BEGIN ").removesuffix("-----")
    if lines[0] != f"-----BEGIN {label}-----":
        raise KeyInvalid("a public key in PEM was expected, the file does not begin as PEM does")
    _check_label(label)
    end = f"-----END {label}-----"
    if end not in lines:
        raise KeyInvalid(f"PEM has no line {end}")
    last = lines.index(end)
    if last != len(lines) - 1:
        more = any(line.startswith("-----BEGIN ") for line in lines[last:])
        raise KeyInvalid(f"file holds {'more than one key' if more else 'text behind the key'}")
    return label, _decode("".join(lines[1:last]))


def _check_label(label: str) -> None:
    if label in (_SPKI, _PKCS1):
        return
    if label.endswith("PRIVATE KEY"):
        raise KeyInvalid(
            "a public key was expected, this is a private key",
            hint="keep it to yourself; cosign public-key --key writes its public half",
        )
    if label in _CERTIFICATES:
        raise KeyInvalid(
            "a public key was expected, this is a certificate",
            hint="its key alone: openssl x509 -pubkey -noout",
        )
    raise KeyInvalid(f"a public key was expected, this is PEM of {label[:40]!r}")


def _decode(text: str) -> bytes:
    try:
        content = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise KeyInvalid("PEM holds something that is not base64") from None
    if not content or binascii.b2a_base64(content, newline=False).decode() != text:
        raise KeyInvalid("PEM is empty or its base64 is not canonical")
    return content


def _load(label: str, der: bytes) -> AcceptedKey:
    """Load what the label promises; a key has one encoding here, so that it has one fingerprint."""
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm, OverflowError):
        raise KeyInvalid("PEM holds no public key of a known kind") from None
    if not isinstance(key, AcceptedKey):
        raise KeyInvalid(
            f"{type(key).__name__.strip('_').removesuffix('PublicKey')} keys are not accepted",
            hint="use ECDSA, Ed25519 or RSA",
        )
    if label == _PKCS1 and not isinstance(key, rsa.RSAPublicKey):
        raise KeyInvalid(f"PEM of {label!r} holds another kind of key")
    if not _is_canonical(key, label, der):
        raise KeyInvalid("the key is not in its canonical encoding")
    return key


def _is_canonical(key: AcceptedKey, label: str, der: bytes) -> bool:
    form = serialization.PublicFormat
    chosen = form.SubjectPublicKeyInfo if label == _SPKI else form.PKCS1
    if isinstance(key, ec.EllipticCurvePublicKey):
        # Older OpenSSL writes a compressed point as it has read it.
        point = key.public_bytes(serialization.Encoding.X962, form.UncompressedPoint)
        if not der.endswith(point):
            return False
    return key.public_bytes(serialization.Encoding.DER, chosen) == der


def _check(key: AcceptedKey) -> str:
    """Say what kind of key it is, or refuse it as too weak."""
    if isinstance(key, rsa.RSAPublicKey):
        return _check_rsa(key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        if not ed25519ph.is_sound(raw):
            raise KeyInvalid("Ed25519 key is no point of the group that signatures are made in")
        return "Ed25519"
    if key.curve.name not in _CURVES:
        raise KeyInvalid(
            f"ECDSA keys on the curve {key.curve.name} are not accepted",
            hint="use P-256, P-384 or P-521",
        )
    return f"ECDSA on {_CURVES[key.curve.name][0]}"


def _check_rsa(key: rsa.RSAPublicKey) -> str:
    bits = key.key_size
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise KeyInvalid(f"RSA key of {bits} bits, {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")
    exponent = key.public_numbers().e
    # A public exponent is small; a huge one only serves to keep the verifier busy.
    if exponent < MIN_RSA_EXPONENT or exponent.bit_length() > 64:
        raise KeyInvalid(f"RSA key has an exponent that is not {MIN_RSA_EXPONENT} or somewhat more")
    return f"RSA of {bits} bits"
