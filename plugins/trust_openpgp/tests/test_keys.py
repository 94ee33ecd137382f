"""What a key file says about itself before it is trusted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import openpgp_forge as forge
import pytest
from openpgp_forge import CERTIFY, MADE, UID, Recipe, binding, certification, packet, simple

from podctl.errors import KeyInvalid
from podctl_trust_openpgp.hooks import openpgp

if TYPE_CHECKING:
    from openpgp_lab import Lab


def refusal(data: bytes) -> str:
    with pytest.raises(KeyInvalid) as caught:
        openpgp.trust_key(data)
    return str(caught.value)


def test_description_tells_what_gpg_shows(lab: Lab) -> None:
    fingerprint = lab.key("shown", expire="20990101T000000")
    subkey = lab.subkey("shown", "rsa2048", "sign")
    described = openpgp.trust_key(lab.export("shown"))
    assert described.scheme == "openpgp"
    assert described.fingerprint == fingerprint
    assert described.subkeys == (subkey,)
    assert described.identities == ("shown <shown@example.com>",)
    assert time.gmtime(described.created)[:3] == (2024, 1, 1)
    assert described.expires is not None
    assert time.gmtime(described.expires)[:3] == (2099, 1, 1)
    assert not described.revoked


def test_armored_and_binary_are_one_key(lab: Lab) -> None:
    lab.key("ed25519")
    assert openpgp.trust_key(lab.export("ed25519")) == openpgp.trust_key(
        lab.export("ed25519", armor=False)
    )


def test_expired_key_is_described_with_its_expiry(lab: Lab) -> None:
    key = simple(lab.rsa, hashed=[forge.subpacket(9, forge.u32(86400))])
    assert openpgp.trust_key(key).expires == MADE + 86400


def test_revoked_key_is_described_as_revoked(lab: Lab) -> None:
    revocation = Recipe(lab.rsa, kind=0x20, content=lab.rsa.framed).packet()
    assert openpgp.trust_key(simple(lab.rsa, revocation)).revoked
    assert not openpgp.trust_key(simple(lab.rsa)).revoked


def test_revocation_of_another_key_does_not_count(lab: Lab) -> None:
    foreign = Recipe(lab.ed, kind=0x20, content=lab.ed.framed).packet()
    assert not openpgp.trust_key(simple(lab.rsa, foreign)).revoked


def test_user_ids_nobody_certified_are_not_shown(lab: Lab) -> None:
    forged = packet(13, b"President <president@example.org>")
    by_stranger = certification(lab.rsa, b"President <president@example.org>", signer=lab.other)
    described = openpgp.trust_key(simple(lab.rsa, forged, by_stranger))
    assert described.identities == (UID.decode(),)


def test_signatures_of_a_photo_do_not_count_for_the_user_id_before_it(lab: Lab) -> None:
    revocation = Recipe(
        lab.rsa, kind=0x30, content=forge.uid_content(lab.rsa, UID), created=MADE + 5
    ).packet()
    described = openpgp.trust_key(simple(lab.rsa, packet(17, b"photo"), revocation))
    assert described.identities == (UID.decode(),)


def test_user_id_that_is_no_utf8_stays_printable_text(lab: Lab) -> None:
    described = openpgp.trust_key(simple(lab.rsa, uid=b"J\xf6rg"))
    assert described.identities == ("J\\xf6rg",)


def test_packets_that_readers_skip_are_skipped(lab: Lab) -> None:
    extra = (packet(10, b"PGP"), packet(12, b"\0\0"), packet(60, b"private"))
    assert openpgp.trust_key(simple(lab.rsa, *extra)) == openpgp.trust_key(simple(lab.rsa))


def test_foreign_certifications_are_skipped(lab: Lab) -> None:
    """Also by algorithms and of versions that are not supported."""
    foreign = [
        certification(lab.rsa, UID, signer=lab.other),
        certification(lab.rsa, UID, signer=lab.other, version=6),
        packet(2, b"\x03\x05\x13" + bytes(4) + b"strangr!" + b"\x01\x01\0\0\0\x01\x01"),
    ]
    assert openpgp.trust_key(simple(lab.rsa, *foreign)) == openpgp.trust_key(simple(lab.rsa))


def test_revocation_of_version_3_counts_though_it_is_not_checked(lab: Lab) -> None:
    old = packet(
        2, b"\x03\x05\x20" + bytes(4) + lab.rsa.fingerprint[-8:] + b"\x01\x01\0\0\0\x01\x01"
    )
    assert openpgp.trust_key(simple(lab.rsa, old)).revoked
    foreign = packet(2, b"\x03\x05\x20" + bytes(4) + b"strangr!" + b"\x01\x01\0\0\0\x01\x01")
    assert not openpgp.trust_key(simple(lab.rsa, foreign)).revoked


def test_weak_keys_are_refused_with_the_rule(lab: Lab) -> None:
    assert "RSA key of 1024 bits, at least 2048 are required" in refusal(simple(lab.weak))
    lab.key("dsa1024", "dsa1024")
    assert "at least 2048/224 are required" in refusal(lab.export("dsa1024"))


@pytest.mark.parametrize("version", [2, 3, 5, 6])
def test_other_key_versions_are_refused(lab: Lab, version: int) -> None:
    body = bytes([version]) + lab.rsa.body[1:]
    assert f"version {version}" in refusal(packet(6, body) + packet(13, UID))


def test_two_keys_are_refused(lab: Lab) -> None:
    assert "more than one public key" in refusal(simple(lab.rsa) + simple(lab.ed))
    both = [forge.armored(simple(key), "PUBLIC KEY BLOCK") for key in (lab.rsa, lab.ed)]
    assert "more than one public key" in refusal(b"".join(both))
    assert "more than one public key" in refusal(simple(lab.rsa) * 2)


def test_secret_keys_are_refused(lab: Lab) -> None:
    lab.key("ed25519")
    armored = lab.export("ed25519", command="--export-secret-keys")
    assert "secret key" in refusal(armored)
    assert "secret key" in refusal(forge.dearmored(armored))
    assert "secret subkey" in refusal(simple(lab.rsa, packet(7, lab.rsa.body)))


def test_subkey_alone_is_refused(lab: Lab) -> None:
    assert "starts with a public subkey" in refusal(
        packet(14, lab.ed.body) + binding(lab.rsa, lab.ed)
    )


def test_message_packets_in_a_key_file_are_refused(lab: Lab) -> None:
    assert "literal data" in refusal(simple(lab.rsa, packet(11, b"b\0\0\0\0\0")))


def test_malformed_signature_in_a_key_file_is_refused_with_a_remedy(lab: Lab) -> None:
    assert "export-minimal" in refusal(simple(lab.rsa, packet(2, b"\x04\x13\x01")))


def test_key_that_says_nothing_of_signing_is_still_described(lab: Lab) -> None:
    assert openpgp.trust_key(simple(lab.rsa, flags=CERTIFY)).fingerprint


def test_armor_and_packets_are_recognised_and_pem_is_not(lab: Lab) -> None:
    """Keys of all schemes lie in the same directories; what is ours is refused or read by us."""
    lab.key("ed25519")
    for armor in (True, False):
        assert openpgp.trust_recognises(lab.export("ed25519", armor=armor))
    for label in (b"PGP PRIVATE KEY BLOCK", b"PGP MESSAGE"):
        assert openpgp.trust_recognises(b"\n-----BEGIN " + label + b"-----\n")
    for other in (b"-----BEGIN PUBLIC KEY-----\n", b"-----BEGIN CERTIFICATE-----\n", b"", b"\x7f"):
        assert not openpgp.trust_recognises(other)
