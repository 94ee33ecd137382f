"""Everything the children will need, imported while the privileges to read it are still there."""

from __future__ import annotations

import contextlib


def exercise() -> None:
    """Import the parsers and make one (failing) check per kind of key.

    The cryptography library imports parts of itself on first use, and a child without privileges
    may not be able to read a virtual environment below a private directory.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    from podctl.errors import KeyInvalid
    from podctl_trust_cosign import verify  # noqa: F401
    from podctl_trust_cosign.publickey import AcceptedKey, PublicKey

    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    curves = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
    keys: list[AcceptedKey] = [
        rsa.RSAPublicNumbers(65537, (1 << 2048) - 1).public_key(),
        ed25519.Ed25519PublicKey.from_public_bytes(bytes([88, *b"\x66" * 31])),
        *(ec.generate_private_key(curve).public_key() for curve in curves),
    ]
    for key in keys:
        with contextlib.suppress(KeyInvalid):
            PublicKey(key.public_bytes(serialization.Encoding.PEM, spki)).made(b"", b"")
