"""The arithmetic of Ed25519ph against the RFC's vector, its own signer, and the library."""

from __future__ import annotations

import hashlib

import ed25519_reference as reference
import pytest
from cryptography.exceptions import InvalidSignature  # noqa: TID253
from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: TID253
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (  # noqa: TID253
    Encoding,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from podctl_trust_cosign import ed25519ph

# RFC 8032 section 7.3, TEST abc.
SECRET = bytes.fromhex("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42")
PUBLIC = bytes.fromhex("ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf")
SIGNATURE = bytes.fromhex(
    "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41"
    "31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406"
)


def test_the_rfc_s_vector_is_verified_and_made() -> None:
    assert ed25519ph.verify(PUBLIC, SIGNATURE, b"abc")
    assert reference.sign_prehashed(SECRET, b"abc") == SIGNATURE


@pytest.mark.parametrize("message", [b"", b"abd", b"abc\0", hashlib.sha512(b"abc").digest()])
def test_other_messages_are_refused(message: bytes) -> None:
    assert not ed25519ph.verify(PUBLIC, SIGNATURE, message)


def test_any_flipped_bit_of_the_signature_is_refused() -> None:
    for bit in range(512):
        altered = bytearray(SIGNATURE)
        altered[bit // 8] ^= 1 << bit % 8
        assert not ed25519ph.verify(PUBLIC, bytes(altered), b"abc"), bit


def test_a_scalar_beyond_the_order_is_refused() -> None:
    scalar = int.from_bytes(SIGNATURE[32:], "little")
    for more in range(1, 15):
        other = SIGNATURE[:32] + (scalar + more * reference.L).to_bytes(32, "little")
        assert not ed25519ph.verify(PUBLIC, other, b"abc")


@pytest.mark.parametrize("length", [0, 32, 63, 65, 128])
def test_other_lengths_are_refused(length: int) -> None:
    assert not ed25519ph.verify(PUBLIC, (SIGNATURE * 2)[:length], b"abc")
    assert not ed25519ph.verify((PUBLIC * 4)[:length] if length != 32 else b"", SIGNATURE, b"abc")


def test_plain_and_prehashed_signatures_are_told_apart() -> None:
    key = Ed25519PrivateKey.from_private_bytes(SECRET)
    assert not ed25519ph.verify(PUBLIC, key.sign(b"abc"), b"abc")
    with pytest.raises(InvalidSignature):
        key.public_key().verify(SIGNATURE, b"abc")


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def plain_both(public: bytes, signature: bytes, message: bytes) -> tuple[bool, bool]:
    """What this module and the library say of a plain Ed25519 signature."""
    ours = ed25519ph.equation_holds(public, signature, b"", message)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return ours, False
    return ours, True


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.integers(0, 1023))
def test_on_plain_ed25519_it_agrees_with_the_library(seed: bytes, text: bytes, bit: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = raw(key), key.sign(text)
    assert plain_both(public, signature, text) == (True, True)
    altered = bytearray(signature + public)
    altered[bit // 8 % 96] ^= 1 << bit % 8
    ours, theirs = plain_both(bytes(altered[64:]), bytes(altered[:64]), text)
    assert (ours, theirs) == (False, False)


#: encodings of the points of order 1, 2, 4 and 8 that are canonical, and some that are not
SMALL = [
    bytes([1, *bytes(31)]),
    (reference.P - 1).to_bytes(32, "little"),
    bytes(32),
    bytes([*bytes(31), 0x80]),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]
NOT_CANONICAL = [
    bytes([1, *bytes(30), 0x80]),
    reference.P.to_bytes(32, "little"),
    (reference.P + 1).to_bytes(32, "little"),
    b"\xff" * 32,
]


@pytest.mark.parametrize("public", [*SMALL, *NOT_CANONICAL, b"", bytes(31), bytes([2, *bytes(31)])])
def test_weak_and_malformed_keys_are_not_sound(public: bytes) -> None:
    assert not ed25519ph.is_sound(public)


def test_ordinary_keys_are_sound() -> None:
    assert ed25519ph.is_sound(PUBLIC)
    for _ in range(50):
        assert ed25519ph.is_sound(raw(Ed25519PrivateKey.generate()))


def test_with_a_weak_key_anybody_signs_anything() -> None:
    """Control: why `is_sound` is asked. The identity as key and commitment, and nought."""
    weak, forged = SMALL[0], SMALL[0] + bytes(32)
    assert ed25519ph.verify(weak, forged, b"anything")
