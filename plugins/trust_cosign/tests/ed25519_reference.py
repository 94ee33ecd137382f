"""Signing with Ed25519ph, for tests: RFC 8032 section 5.1 word for word, slow and readable.

Nothing of it is shared with the verifier that it tests; the RFC's own vector tests it.
"""

from __future__ import annotations

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
BASE_Y = 4 * pow(5, P - 2, P) % P
DOMAIN = b"SigEd25519 no Ed25519 collisions" + bytes([1, 0])

Affine = tuple[int, int]


def base() -> Affine:
    """The base point; its x is the even root."""
    square = (BASE_Y**2 - 1) * pow(D * BASE_Y**2 + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x if x % 2 == 0 else P - x), BASE_Y


def add(left: Affine, right: Affine) -> Affine:
    """The addition law of the twisted Edwards curve, in affine coordinates."""
    (x1, y1), (x2, y2) = left, right
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, P - 2, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - product, P - 2, P) % P
    return x, y


def times(scalar: int, point: Affine) -> Affine:
    result = 0, 1
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def encode(point: Affine) -> bytes:
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def sign_prehashed(seed: bytes, message: bytes) -> bytes:
    """Ed25519ph without a context."""
    hashed = hashlib.sha512(seed).digest()
    secret = int.from_bytes(hashed[:32], "little") & ~7 & (2**254 - 1) | 2**254
    public = encode(times(secret, base()))
    digest = hashlib.sha512(message).digest()
    nonce = _number(DOMAIN + hashed[32:] + digest)
    commitment = encode(times(nonce, base()))
    challenge = _number(DOMAIN + commitment + public + digest)
    return commitment + ((nonce + challenge * secret) % L).to_bytes(32, "little")


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.sha512(data).digest(), "little") % L
