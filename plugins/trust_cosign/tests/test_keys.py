"""Which files are taken for keys, which keys are accepted, and what is said of the others."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from typing import TYPE_CHECKING

import pytest
from cosign_lab import KINDS, Signer, make_key
from cryptography.hazmat.primitives import serialization  # noqa: TID253
from cryptography.hazmat.primitives.asymmetric import (  # noqa: TID253
    dsa,
    ed448,
    rsa,
    x25519,
)

from podctl.errors import KeyInvalid
from podctl_trust_cosign.hooks import cosign
from podctl_trust_cosign.publickey import MAX_KEY_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from cosign_lab import Lab

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def refusal(data: bytes) -> str:
    with pytest.raises(KeyInvalid) as caught:
        cosign.trust_key(data)
    return str(caught.value)


def pem(label: str, content: bytes) -> bytes:
    text = base64.encodebytes(content).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()


@pytest.mark.parametrize("kind", KINDS)
def test_accepted_kinds_are_described(lab: Lab, kind: str) -> None:
    signer = lab.signer(kind)
    described = cosign.trust_key(signer.public)
    assert described.scheme == "cosign"
    assert described.fingerprint == signer.fingerprint
    assert described.identities[0].startswith("cosign key, ")
    assert (described.subkeys, described.created, described.expires) == ((), 0, None)
    assert not described.revoked


def test_the_fingerprint_is_what_openssl_shows(lab: Lab, tmp_path: Path) -> None:
    """The command in the documentation, so that a reviewer can compare."""
    file = tmp_path / "cosign.pub"
    file.write_bytes(lab.signer("p256").public)
    command = f"openssl pkey -pubin -in {file} -outform DER | sha256sum"
    shown = subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout
    assert cosign.trust_key(file.read_bytes()).fingerprint == shown.split()[0]


def test_white_space_and_line_ends_make_no_difference(lab: Lab) -> None:
    public = lab.signer("p256").public
    expected = cosign.trust_key(public)
    for data in (public.replace(b"\n", b"\r\n"), b"\n \n" + public, public + b"\n\n \t\n"):
        assert cosign.trust_key(data) == expected
    assert cosign.trust_key(public.rstrip()) == expected


def test_rsa_keys_may_come_in_pkcs_1(lab: Lab) -> None:
    signer = lab.signer("rsa2048")
    data = signer.key.public_key().public_bytes(PEM, serialization.PublicFormat.PKCS1)
    assert data.startswith(b"-----BEGIN RSA PUBLIC KEY")
    assert cosign.trust_key(data).fingerprint == signer.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_private_keys_are_refused_by_name(lab: Lab, kind: str) -> None:
    key = lab.signer(kind).key
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        if kind == "ed25519" and form is serialization.PrivateFormat.TraditionalOpenSSL:
            continue
        data = key.private_bytes(PEM, form, serialization.NoEncryption())
        assert "this is a private key" in refusal(data)
        assert cosign.trust_recognises(data)


@pytest.mark.parametrize(
    "label", ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"]
)
def test_cosign_s_own_private_keys_are_refused_by_name(label: str) -> None:
    assert "this is a private key" in refusal(pem(label, b'{"kdf":{"name":"scrypt"}}'))


def test_a_certificate_is_refused_by_name() -> None:
    assert "this is a certificate" in refusal(pem("CERTIFICATE", b"0\x82"))
    assert "openssl x509 -pubkey" in refusal(pem("CERTIFICATE", b"0\x82"))


def test_several_keys_are_refused(lab: Lab) -> None:
    one, other = lab.signer("p256").public, lab.signer("ed25519").public
    assert "more than one key" in refusal(one + other)
    assert "more than one key" in refusal(one + one)
    assert "more than one key" in refusal(one + pem("CERTIFICATE", b"0"))


def test_text_around_a_key_is_refused(lab: Lab) -> None:
    public = lab.signer("p256").public
    assert "text behind the key" in refusal(public + b"trusted by everybody\n")
    assert "does not begin as PEM" in refusal(b"Our key:\n" + public)
    assert "no line -----END" in refusal(public.rsplit(b"-----END", 1)[0])
    assert "no line -----END" in refusal(public.replace(b"END PUBLIC", b"END PRIVATE"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("rsa1024", "RSA key of 1024 bits"),
        ("p224", "curve secp224r1"),
        ("k256", "curve secp256k1"),
    ],
)
def test_weak_and_unusual_keys_are_refused(kind: str, reason: str) -> None:
    # Made by openssl: the library will not make the smallest itself.
    if kind == "rsa1024":
        command = ["openssl", "genrsa", "1024"]
        private = subprocess.run(command, check=True, capture_output=True).stdout
        command = ["openssl", "rsa", "-pubout"]
        public = subprocess.run(command, input=private, check=True, capture_output=True).stdout
    else:
        public = Signer(make_key(kind)).public
    assert reason in refusal(public)


def rsa_key(exponent: int, bits: int) -> bytes:
    modulus = (1 << bits) - 1 - (1 << 8)
    return rsa.RSAPublicNumbers(exponent, modulus).public_key().public_bytes(PEM, SPKI)


def test_rsa_exponents_and_sizes_have_bounds() -> None:
    assert "exponent" in refusal(rsa_key(3, 2048))
    assert "exponent" in refusal(rsa_key((1 << 70) + 1, 2048))
    assert "RSA key of 8200 bits" in refusal(rsa_key(65537, 8200))
    # Control.
    assert cosign.trust_key(rsa_key(65537, 8192)).fingerprint


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (x25519.X25519PrivateKey.generate(), "X25519"),
        (ed448.Ed448PrivateKey.generate(), "Ed448"),
        (dsa.generate_private_key(2048), "DSA"),
    ],
)
def test_other_algorithms_are_refused_by_name(
    key: x25519.X25519PrivateKey | ed448.Ed448PrivateKey | dsa.DSAPrivateKey, name: str
) -> None:
    assert f"{name} keys are not accepted" in refusal(key.public_key().public_bytes(PEM, SPKI))


def test_an_ed25519_key_without_a_secret_is_refused() -> None:
    """With a point of small order as key anybody can sign (test_ed25519ph has the control)."""
    prefix = bytes.fromhex("302a300506032b6570032100")
    for point in (bytes([1, *bytes(31)]), bytes(32), bytes([2, *bytes(31)])):
        assert "no point of the group" in refusal(pem("PUBLIC KEY", prefix + point))


def test_a_key_has_one_encoding(lab: Lab) -> None:
    """A second encoding of a key would be a second fingerprint of it."""
    signer = lab.signer("p256")
    compressed = signer.key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    header = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    assert "canonical" in refusal(pem("PUBLIC KEY", header + compressed))
    refusal(pem("PUBLIC KEY", signer.spki + b"\0"))
    # RSA's PKCS #1 behind the label of a SubjectPublicKeyInfo, and the other way round.
    key = lab.signer("rsa2048").key.public_key()
    inner = key.public_bytes(DER, serialization.PublicFormat.PKCS1)
    assert "canonical" in refusal(pem("PUBLIC KEY", inner))
    assert "canonical" in refusal(pem("RSA PUBLIC KEY", key.public_bytes(DER, SPKI)))
    assert "another kind" in refusal(pem("RSA PUBLIC KEY", signer.spki))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "no ASCII"),
        (b"<html>", "does not begin as PEM"),
        (b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", "PEM is empty"),
        (b"-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n", "not base64"),
        (b"-----BEGIN PUBLIC KEY-----\nQQ=\n-----END PUBLIC KEY-----\n", "not base64"),
        (b"-----BEGIN PUBLIC KEY-----\nQR==\n-----END PUBLIC KEY-----\n", "canonical"),
        (b"-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n", "no public key"),
        (b"-----BEGIN SSH KEY-----\nMAA=\n-----END SSH KEY-----\n", "PEM of 'SSH KEY'"),
        (b"a" * (MAX_KEY_BYTES + 1), "larger than"),
    ],
)
def test_what_is_no_key_is_refused(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


def test_pem_headers_are_refused(lab: Lab) -> None:
    head, _, rest = lab.signer("p256").public.partition(b"\n")
    assert "not base64" in refusal(head + b"\nProc-Type: 4,ENCRYPTED\n\n" + rest)


@pytest.mark.parametrize(
    ("data", "ours"),
    [
        (b"-----BEGIN PUBLIC KEY-----\n", True),
        (b"\n\n-----BEGIN RSA PUBLIC KEY-----\n", True),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", False),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", False),
        (b"\x99\x01\x0d\x04", False),
        (b"\xc6\x33\x04", False),
        (b"", False),
        (b"ssh-ed25519 AAAA", False),
        (b"<html>-----BEGIN PUBLIC KEY-----", False),
    ],
)
def test_only_pem_that_is_not_openpgp_s_is_recognised(data: bytes, ours: bool) -> None:
    assert cosign.trust_recognises(data) is ours


def test_fingerprints_are_of_the_key_alone(lab: Lab) -> None:
    signer = lab.signer("ed25519")
    assert hashlib.sha256(signer.spki).hexdigest() == cosign.trust_key(signer.public).fingerprint
