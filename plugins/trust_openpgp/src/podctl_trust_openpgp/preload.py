"""Everything the children will need, imported while the privileges to read it are still there."""

from __future__ import annotations

import contextlib


def exercise() -> None:
    """Import the parsers and make one (failing) check per algorithm.

    The cryptography library imports parts of itself on first use, and a child without privileges
    may not be able to read a virtual environment below a private directory.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa, utils

    from podctl_trust_openpgp import verify  # noqa: F401

    digest = bytes(32)
    prehashed = utils.Prehashed(hashes.SHA256())
    pair = utils.encode_dss_signature(1, 1)
    failures = (InvalidSignature, UnsupportedAlgorithm, ValueError)
    with contextlib.suppress(*failures):
        rsa_key = rsa.RSAPublicNumbers(65537, (1 << 2048) - 1).public_key()
        rsa_key.verify(bytes(256), digest, padding.PKCS1v15(), prehashed)
    with contextlib.suppress(*failures):
        parameters = dsa.DSAParameterNumbers((1 << 2048) - 1, (1 << 256) - 1, 2)
        dsa.DSAPublicNumbers(3, parameters).public_key().verify(pair, digest, prehashed)
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
        with contextlib.suppress(*failures):
            ec_key = ec.generate_private_key(curve).public_key()
            # The verifier builds keys from points.
            encoded = ec_key.public_numbers()
            encoded.public_key().verify(pair, digest, ec.ECDSA(prehashed))
    with contextlib.suppress(*failures):
        ed25519.Ed25519PublicKey.from_public_bytes(bytes([1, *bytes(31)])).verify(bytes(64), digest)
