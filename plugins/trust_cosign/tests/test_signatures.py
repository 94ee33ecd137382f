"""Signatures have one spelling, and any change of theirs is noticed (row K14)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from cosign_lab import Image, b64, payload, refusal, simple, verify
from cryptography.hazmat.primitives.asymmetric import utils  # noqa: TID253

from podctl.model.imagedocument import RegistrySignature

if TYPE_CHECKING:
    from cosign_lab import Lab, Signer

IMAGE = Image()
#: order of the P-256 group
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
def alice(lab: Lab) -> Signer:
    return lab.signer("p256-alice")


def test_signatures_must_be_canonical_base64(lab: Lab) -> None:
    # 64 bytes: their base64 is padded, and two bits of it are free.
    alice = lab.signer("ed25519-alice")
    good = simple(alice, payload(IMAGE.digest))
    verify([good], [alice], IMAGE)
    stem = good.signature.rstrip("=")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    free = stem[:-1] + letters[letters.index(stem[-1]) | 1] + "=="
    assert base64.b64decode(free) == base64.b64decode(good.signature)
    for text in (
        stem,
        free,
        good.signature + "=",
        good.signature + "\n",
        f" {good.signature}",
        good.signature[:8] + "\n" + good.signature[8:],
        good.signature[:-4] + "====",
        "!" * 96,
        "\u00e9" * 8,
        stem[:-1] + "-==",
        "QR==",
    ):
        assert "no canonical base64" in refusal([good._replace(signature=text)], [alice]), text
    for text in ("", b64(b""), b64(b"0"), b64(bytes(64)), b64(bytes(10000))):
        assert "changed since" in refusal([good._replace(signature=text)], [alice]), text


def test_any_flipped_bit_of_signature_or_payload_is_refused(lab: Lab) -> None:
    for kind in ("p256", "ed25519", "rsa2048"):
        signer = lab.signer(kind)
        content = payload(IMAGE.digest)
        signature = signer.sign(content)
        for at in range(0, len(signature) * 8, 3):
            altered = bytearray(signature)
            altered[at // 8] ^= 1 << at % 8
            bad = RegistrySignature("simple", content, b64(bytes(altered)))
            assert "changed since" in refusal([bad], [signer])
        for at in range(0, len(content) * 8, 7):
            altered = bytearray(content)
            altered[at // 8] ^= 1 << at % 8
            try:
                altered.decode()
            except UnicodeDecodeError:
                continue
            bad = RegistrySignature("simple", bytes(altered), b64(signature))
            refusal([bad], [signer])


def test_ecdsa_signatures_are_malleable_in_s_alone(alice: Signer) -> None:
    """(r, n - s) is good whenever (r, s) is: to cosign, to Go, and here.

    Nothing is known by its signature, so a second form of it is of no use to anybody.
    """
    content = payload(IMAGE.digest)
    r, s = utils.decode_dss_signature(alice.sign(content))
    mirrored = utils.encode_dss_signature(r, P256_ORDER - s)
    verify([RegistrySignature("simple", content, b64(mirrored))], [alice], IMAGE)
    for bad_r, bad_s in (
        *((r, s + P256_ORDER), (r + P256_ORDER, s), (0, s), (r, 0), (0, 0), (s, r)),
        *((r, P256_ORDER), (P256_ORDER, s), (r, s + 1)),
    ):
        signature = utils.encode_dss_signature(bad_r, bad_s)
        bad = RegistrySignature("simple", content, b64(signature))
        assert "changed since" in refusal([bad], [alice])


def der_forms(signature: bytes) -> dict[str, bytes]:
    """Other encodings of a DER signature that a lax parser would read the same."""
    r_length = signature[3]
    r, s = signature[4 : 4 + r_length], signature[6 + r_length :]

    def sequence(content: bytes) -> bytes:
        return b"\x30" + bytes([len(content)]) + content

    def integer(content: bytes) -> bytes:
        return b"\x02" + bytes([len(content)]) + content

    return {
        "trailing": signature + b"\0",
        "inner trailing": sequence(integer(r) + integer(s) + b"\0"),
        "long length": b"\x30\x81" + signature[1:],
        "indefinite": b"\x30\x80" + signature[2:] + b"\0\0",
        "padded r": sequence(integer(b"\0" + r) + integer(s)),
        "padded s": sequence(integer(r) + integer(b"\0" + s)),
        "third integer": sequence(integer(r) + integer(s) + integer(b"\1")),
        "negative": sequence(integer(bytes([r[0] | 0x80]) + r[1:]) + integer(s)),
        "set": b"\x31" + signature[1:],
        "raw": r.rjust(32, b"\0")[-32:] + s.rjust(32, b"\0")[-32:],
    }


def test_ecdsa_signatures_have_one_encoding(alice: Signer) -> None:
    content = payload(IMAGE.digest)
    for _ in range(20):
        signature = alice.sign(content)
        for name, form in der_forms(signature).items():
            if form == signature:
                continue
            bad = RegistrySignature("simple", content, b64(form))
            assert "changed since" in refusal([bad], [alice]), name


def test_weaker_hashes_are_not_tried(lab: Lab) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    content = payload(IMAGE.digest)
    elliptic, modular = lab.signer("p256"), lab.signer("rsa2048")
    assert isinstance(elliptic.key, ec.EllipticCurvePrivateKey)
    assert isinstance(modular.key, rsa.RSAPrivateKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    for signer, signature in (
        (elliptic, elliptic.key.sign(content, ec.ECDSA(hashes.SHA224()))),
        (elliptic, elliptic.key.sign(content, ec.ECDSA(hashes.SHA384()))),
        (modular, modular.key.sign(content, padding.PKCS1v15(), hashes.SHA1())),
        (modular, modular.key.sign(content, padding.PKCS1v15(), hashes.SHA512())),
        (modular, modular.key.sign(content, pss, hashes.SHA256())),
    ):
        bad = RegistrySignature("simple", content, b64(signature))
        assert "changed since" in refusal([bad], [signer])
