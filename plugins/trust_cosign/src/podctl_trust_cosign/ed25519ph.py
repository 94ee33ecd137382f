"""Ed25519ph (RFC 8032 section 5.1): what cosign signs payloads with when the key is Ed25519.

The cryptography library knows Ed25519 alone, so the equation is checked here. It takes public
values only: neither secrets nor constant time are at stake, and an error refuses what is good or
accepts what is bad, nothing more. The tests compare it with the library on plain Ed25519, where
both have to say the same.
"""

from __future__ import annotations

import hashlib

#: dom2(phflag=1, context="")
_DOMAIN = b"SigEd25519 no Ed25519 collisions\x01\x00"

_P = (1 << 255) - 19
#: order of the base point
_L = (1 << 252) + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_1 = pow(2, (_P - 1) // 4, _P)

#: extended coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, x*y = T/Z
_Point = tuple[int, int, int, int]
_NEUTRAL: _Point = (0, 1, 1, 0)


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is the key's Ed25519ph signature of `message`, without a context.

    Args:
        public: the 32 octets of a key that `is_sound`.
    """
    digest = hashlib.sha512(message).digest()
    return equation_holds(public, signature, _DOMAIN, digest)


def equation_holds(public: bytes, signature: bytes, domain: bytes, content: bytes) -> bool:
    """Check [s]B = R + [k]A without the cofactor, as OpenSSL and Go do."""
    point = _decompress(public)
    if len(signature) != 64 or point is None:
        return False
    scalar = int.from_bytes(signature[32:], "little")
    if scalar >= _L:
        return False
    hashed = hashlib.sha512(domain + signature[:32] + public + content).digest()
    challenge = int.from_bytes(hashed, "little") % _L
    # The result is encoded again, so that R has to be in its one canonical form.
    return _compress(_combination(scalar, _BASE, challenge, _negative(point))) == signature[:32]


def is_sound(public: bytes) -> bool:
    """Whether a public key is the canonical form of a point whose multiples are not just eight.

    For a key of such a small order signatures can be made without any secret.
    """
    point = _decompress(public)
    if point is None:
        return False
    for _ in range(3):
        point = _double(point)
    return point[0] % _P != 0


def _decompress(encoded: bytes) -> _Point | None:
    """Read a point (RFC 8032 section 5.1.3); None for what is none, or not canonical."""
    if len(encoded) != 32:
        return None
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * _ROOT_OF_MINUS_1 % _P
    if x * x % _P != square or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _compress(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _negative(point: _Point) -> _Point:
    x, y, z, t = point
    return -x % _P, y, z, -t % _P


def _add(left: _Point, right: _Point) -> _Point:
    """Add two points (RFC 8032 section 5.1.4); complete, so it doubles as well."""
    x1, y1, z1, t1 = left
    x2, y2, z2, t2 = right
    a = (y1 - x1) * (y2 - x2) % _P
    b = (y1 + x1) * (y2 + x2) % _P
    c = 2 * t1 * t2 * _D % _P
    d = 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(point: _Point) -> _Point:
    x, y, z, _ = point
    a, b = x * x % _P, y * y % _P
    c = 2 * z * z % _P
    h = a + b
    e = h - (x + y) * (x + y) % _P
    g = a - b
    f = c + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _combination(first: int, left: _Point, second: int, right: _Point) -> _Point:
    """[first]left + [second]right, with one doubling a bit for both."""
    table = {1: left, 2: right, 3: _add(left, right)}
    result = _NEUTRAL
    for bit in range(max(first.bit_length(), second.bit_length()) - 1, -1, -1):
        result = _double(result)
        choice = (first >> bit & 1) | (second >> bit & 1) << 1
        if choice:
            result = _add(result, table[choice])
    return result


def _base_point() -> _Point:
    y = 4 * pow(5, -1, _P) % _P
    point = _decompress(y.to_bytes(32, "little"))
    assert point is not None
    return point


_BASE = _base_point()
