"""Sigstore bundles: what they must hold, and what they bring that proves nothing (row K15)."""

from __future__ import annotations

import base64
import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from cosign_lab import (
    BUNDLE_TYPE,
    KINDS,
    REGISTRY,
    REPOSITORY,
    STATEMENT_TYPE,
    Image,
    b64,
    bundle,
    bundle_value,
    compact,
    envelope,
    material,
    message_value,
    payload,
    refusal,
    simple,
    statement,
    verify,
)

from podctl.errors import TrustRefused
from podctl.model.imagedocument import digest_of, dump_signatures
from podctl_trust_cosign.hooks import cosign

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosign_lab import Lab, Signer

IMAGE = Image()
INDEXED = Image(indexed=True)
HEX = IMAGE.digest.partition(":")[2]


@pytest.fixture
def alice(lab: Lab) -> Signer:
    return lab.signer("p256-alice")


# Good ones.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own_hash", [True, False])
def test_a_signed_statement_is_good(lab: Lab, kind: str, own_hash: bool) -> None:
    signer = lab.signer(kind)
    content = statement(IMAGE.digest)
    value = bundle_value(signer, content, dsseEnvelope=envelope(signer, content, own_hash=own_hash))
    verdict = verify([bundle(value)], [signer], IMAGE)
    assert verdict.fingerprint == verdict.signer == signer.fingerprint
    assert verdict.identities == (IMAGE.digest,)
    assert (verdict.signed_at, verdict.expires, verdict.notes) == (0, None, ())


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_manifest_is_good(lab: Lab, kind: str) -> None:
    signer = lab.signer(kind)
    for how in ({}, {"own_hash": True}, {"prehashed": True}):
        value = message_value(signer, IMAGE.manifest, **how)
        assert verify([bundle(value)], [signer], IMAGE).identities == (IMAGE.digest,)


def test_the_index_or_the_manifest_may_be_signed(alice: Signer) -> None:
    assert INDEXED.image_index is not None
    for part in (INDEXED.image_index, INDEXED.manifest):
        verify([bundle(bundle_value(alice, statement(digest_of(part))))], [alice], INDEXED)
        verify([bundle(message_value(alice, part))], [alice], INDEXED.pinned())


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.dev.sigstore.bundle+json;version=0.1",
        "application/vnd.dev.sigstore.bundle+json;version=0.2",
        "application/vnd.dev.sigstore.bundle+json;version=0.3",
        "application/vnd.dev.sigstore.bundle.v0.3+json",
    ],
)
def test_versions_0_1_to_0_3_are_read(alice: Signer, kind: str) -> None:
    value = bundle_value(alice, statement(IMAGE.digest), mediaType=kind)
    verify([bundle(value)], [alice], IMAGE)


@pytest.mark.parametrize("hint", [{}, {"hint": ""}, {"hint": "key of the build server"}])
def test_the_hint_decides_nothing(alice: Signer, hint: dict[str, str]) -> None:
    value = bundle_value(alice, statement(IMAGE.digest), verificationMaterial={"publicKey": hint})
    verify([bundle(value)], [alice], IMAGE)


def test_what_proves_a_time_is_left_alone(alice: Signer) -> None:
    value = bundle_value(alice, statement(IMAGE.digest))
    value["verificationMaterial"] |= {
        "tlogEntries": [{"logIndex": "1", "canonicalizedBody": "AAAA"}],
        "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": "AAAA"}]},
    }
    verify([bundle(value)], [alice], IMAGE)


@pytest.mark.parametrize(
    "subject",
    [
        {"name": REPOSITORY},
        {"name": f"{REPOSITORY}:1.0"},
        {"name": f"{REPOSITORY}@{IMAGE.digest}"},
        {"name": ""},
        {"name": "_"},
        {"name": "the image of the App"},
        {"uri": "pkg:oci/app", "annotations": {"build": "7"}},
        {"digest": {"sha256": HEX, "sha512": "0" * 128}},
    ],
    ids=str,
)
def test_a_subject_may_be_named(alice: Signer, subject: dict[str, Any]) -> None:
    content = statement(IMAGE.digest, subject=[{"digest": {"sha256": HEX}, **subject}])
    verify([bundle(bundle_value(alice, content))], [alice], IMAGE)


def test_one_of_several_subjects_is_enough(alice: Signer) -> None:
    others = [{"digest": {"sha256": f"{number:064x}"}} for number in range(63)]
    content = statement(IMAGE.digest, subject=[*others, {"digest": {"sha256": HEX}}])
    verify([bundle(bundle_value(alice, content))], [alice], IMAGE)
    content = statement(IMAGE.digest, subject=[*others, others[0], {"digest": {"sha256": HEX}}])
    assert "1 to 64 subjects" in refusal([bundle(bundle_value(alice, content))], [alice])


def test_both_forms_may_lie_beside_an_image(lab: Lab, alice: Signer) -> None:
    bob = lab.signer("ed25519-bob")
    signatures = [
        simple(bob, payload(IMAGE.digest), prehashed=True),
        bundle(bundle_value(alice, statement(IMAGE.digest))),
    ]
    assert verify(signatures, [alice], IMAGE).fingerprint == alice.fingerprint
    assert verify(signatures, [bob], IMAGE).fingerprint == bob.fingerprint


# Bad ones.


def test_another_key_s_signature_is_refused(lab: Lab, alice: Signer) -> None:
    mallory = lab.signer("p256-mallory")
    for value in (
        bundle_value(mallory, statement(IMAGE.digest)),
        message_value(mallory, IMAGE.manifest),
    ):
        # With a hint that names a trusted key, too.
        for hints in (material(mallory), material(alice)):
            bad = bundle({**value, "verificationMaterial": hints})
            assert "by no key that is trusted here" in refusal([bad], [alice])


def test_a_key_in_the_bundle_counts_for_nothing(lab: Lab, alice: Signer) -> None:
    """GHSA-fx35-mq7g-6g98: cosign once took the key that a bundle brought."""
    mallory = lab.signer("p256-mallory")
    brought = {"hint": "", "rawBytes": b64(mallory.spki), "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    for key in (brought, {"rawBytes": b64(mallory.spki)}):
        value = bundle_value(mallory, statement(IMAGE.digest))
        value["verificationMaterial"] = {"publicKey": key}
        assert "unknown key" in refusal([bundle(value)], [alice])
    # In the log entry, which holds the signer's key as well.
    value = bundle_value(mallory, statement(IMAGE.digest))
    value["verificationMaterial"]["tlogEntries"] = [
        {"canonicalizedBody": b64(compact({"spec": {"publicKey": b64(mallory.public)}}))}
    ]
    assert "by no key that is trusted here" in refusal([bundle(value)], [alice])


@pytest.mark.parametrize(
    "found",
    [
        {"certificate": {"rawBytes": "MAA="}},
        {"x509CertificateChain": {"certificates": [{"rawBytes": "MAA="}]}},
        {"certificate": {"rawBytes": "MAA="}, "publicKey": {"hint": "x"}},
    ],
    ids=str,
)
def test_keyless_signatures_are_refused_by_name(alice: Signer, found: dict[str, Any]) -> None:
    value = bundle_value(alice, statement(IMAGE.digest), verificationMaterial=found)
    reason = refusal([bundle(value)], [alice])
    assert "keyless signatures (by certificate) are not supported, a key is needed" in reason
    # It is said before anything is downloaded.
    with pytest.raises(TrustRefused, match="keyless"):
        cosign.trust_signers(dump_signatures([bundle(value)]))


@pytest.mark.parametrize(
    "predicate",
    [
        "https://slsa.dev/provenance/v1",
        "https://cyclonedx.org/bom",
        "https://cosign.sigstore.dev/attestation/v1",
        "https://cosign.sigstore.dev/attestation/vuln/v1",
        "https://sigstore.dev/cosign/sign/v1/",
        "https://sigstore.dev/cosign/sign/v2",
        "",
    ],
)
def test_an_attestation_is_no_signature(alice: Signer, predicate: str) -> None:
    """That something was found out about an image does not mean that it may be used."""
    content = statement(IMAGE.digest, predicateType=predicate)
    assert "is no signature of the image" in refusal(
        [bundle(bundle_value(alice, content))], [alice]
    )


def test_a_signature_of_another_image_is_refused(alice: Signer) -> None:
    other = Image(seed="other")
    for value in (
        bundle_value(alice, statement(other.digest)),
        message_value(alice, other.manifest),
    ):
        assert "neither this image nor its index" in refusal([bundle(value)], [alice])
        verify([bundle(value)], [alice], other)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"{REGISTRY}/team/other", "not for registry.example:5000/team/app"),
        ("team/app", "not for registry.example:5000/team/app"),
        ("app", "is for registry-1.docker.io/library/app"),
        (f"{REPOSITORY}:1.1", "is for the tag 1.1"),
        (f"{REPOSITORY}@sha256:{'0' * 64}", "contradicts itself"),
    ],
)
def test_a_statement_about_another_name_is_refused(alice: Signer, name: str, reason: str) -> None:
    content = statement(IMAGE.digest, subject=[{"name": name, "digest": {"sha256": HEX}}])
    assert reason in refusal([bundle(bundle_value(alice, content))], [alice])


def change(value: dict[str, Any], path: str, new: object) -> dict[str, Any]:
    """A copy with one place changed; `...` removes it."""
    copied = copy.deepcopy(value)
    *parents, last = path.split(".")
    place: Any = copied
    for step in parents:
        place = place[int(step) if step.isdigit() else step]
    if new is ...:
        del place[last]
    else:
        place[last] = new
    return copied


@pytest.mark.parametrize(
    ("path", "new", "reason"),
    [
        ("mediaType", ..., "mediaType is required"),
        ("mediaType", "application/vnd.dev.sigstore.bundle.v0.4+json", "versions 0.1 to 0.3"),
        ("mediaType", "application/json", "versions 0.1 to 0.3"),
        ("verificationMaterial", ..., "verificationMaterial is required"),
        ("verificationMaterial", {}, "publicKey is required"),
        ("verificationMaterial", {"publicKey": None}, "publicKey is required"),
        ("verificationMaterial.publicKey", "x", "must be an object"),
        ("verificationMaterial.publicKey.hint", 1, "must be a string"),
        ("verificationMaterial.tlogEntries", {}, "must be an array"),
        ("verificationMaterial.other", {}, "unknown key 'other'"),
        ("dsseEnvelope", ..., "either dsseEnvelope or messageSignature"),
        ("messageSignature", {}, "either dsseEnvelope or messageSignature"),
        ("more", 1, "unknown key 'more'"),
        ("DsseEnvelope", {}, "must be spelt"),
        ("dsseEnvelope.payloadType", "application/json", "payloadType"),
        ("dsseEnvelope.payloadType", ..., "payloadType is required"),
        ("dsseEnvelope.payload", "e30=", "_type is required"),
        ("dsseEnvelope.payload", "e30", "payload is no canonical base64"),
        ("dsseEnvelope.payload", "", "line 1"),
        ("dsseEnvelope.signatures", [], "exactly one signature"),
        ("dsseEnvelope.signatures", [{"sig": "AAAA"}] * 2, "exactly one signature"),
        ("dsseEnvelope.signatures.0.sig", ..., "sig is required"),
        ("dsseEnvelope.signatures.0.sig", "AAA", "sig is no canonical base64"),
        ("dsseEnvelope.signatures.0.sig", "AAAA", "changed since"),
        ("dsseEnvelope.signatures.0.keyid", 1, "must be a string"),
        ("dsseEnvelope.signatures.0.cert", "x", "unknown key 'cert'"),
    ],
)
def test_a_bundle_that_holds_something_else_is_refused(
    alice: Signer, path: str, new: object, reason: str
) -> None:
    value = change(bundle_value(alice, statement(IMAGE.digest)), path, new)
    assert reason in refusal([bundle(value)], [alice])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "_type"),
        ({"_type": None}, "_type is required"),
        ({"subject": []}, "1 to 64 subjects"),
        ({"subject": None}, "1 to 64 subjects"),
        ({"subject": [{}]}, "no sha256 digest"),
        ({"subject": [{"digest": {"sha512": "0" * 128}}]}, "no sha256 digest"),
        ({"subject": [{"digest": {"sha256": HEX.upper()}}]}, "neither this image"),
        ({"subject": [{"digest": {"sha256": 1}}]}, "must be a string"),
        ({"subject": [{"digest": {"sha256": HEX}, "name": 1}]}, "must be a string"),
        ({"subject": [{"Digest": {"sha256": HEX}}]}, "must be spelt"),
        ({"predicateType": None}, "predicateType is required"),
        ({"predicate": []}, "must be an object"),
        ({"PredicateType": STATEMENT_TYPE}, "must be spelt"),
    ],
    ids=str,
)
def test_a_statement_that_says_something_else_is_refused(
    alice: Signer, changes: dict[str, Any], reason: str
) -> None:
    content = statement(IMAGE.digest, **changes)
    assert reason in refusal([bundle(bundle_value(alice, content))], [alice])


def test_keys_that_stand_twice_are_refused(alice: Signer) -> None:
    """Parsers disagree about which of them counts."""
    content = statement(IMAGE.digest).replace(b'"subject"', b'"subject":[],"subject"')
    assert "twice" in refusal([bundle(bundle_value(alice, content))], [alice])
    text = compact(bundle_value(alice, statement(IMAGE.digest)))
    doubled = text.replace(b'"dsseEnvelope"', b'"dsseEnvelope":{},"dsseEnvelope"')
    bad = bundle({})._replace(content=doubled)
    assert "twice" in refusal([bad], [alice])


@pytest.mark.parametrize(
    ("path", "new", "reason"),
    [
        ("messageSignature.messageDigest", ..., "messageDigest is required"),
        ("messageSignature.messageDigest.algorithm", "SHA2_512", "must be SHA2_256"),
        ("messageSignature.messageDigest.algorithm", ..., "algorithm is required"),
        ("messageSignature.messageDigest.digest", "AAAA", "neither this image"),
        ("messageSignature.messageDigest.digest", "A", "no canonical base64"),
        ("messageSignature.signature", ..., "signature is required"),
        ("messageSignature.signature", "AAAA", "changed since"),
        ("messageSignature.key", "x", "unknown key 'key'"),
    ],
)
def test_a_message_signature_that_is_none_is_refused(
    alice: Signer, path: str, new: object, reason: str
) -> None:
    value = change(message_value(alice, IMAGE.manifest), path, new)
    assert reason in refusal([bundle(value)], [alice])


def plain_statement(signer: Signer) -> dict[str, Any]:
    """A signature of the payload itself instead of its encoding with the type (PAE)."""
    content = statement(IMAGE.digest)
    signed = {"sig": b64(signer.sign(content)), "keyid": ""}
    return change(bundle_value(signer, content), "dsseEnvelope.signatures", [signed])


def statement_as_message(signer: Signer) -> dict[str, Any]:
    """A payload's signature, passed off as one of the manifest."""
    value = message_value(signer, IMAGE.manifest)
    return change(value, "messageSignature.signature", b64(signer.sign(payload(IMAGE.digest))))


def message_as_statement(signer: Signer) -> dict[str, Any]:
    value = bundle_value(signer, statement(IMAGE.digest))
    signed = [{"sig": b64(signer.sign(IMAGE.manifest))}]
    return change(value, "dsseEnvelope.signatures", signed)


@pytest.mark.parametrize("make", [plain_statement, statement_as_message, message_as_statement])
def test_a_signature_means_what_it_was_made_for(
    alice: Signer, make: Callable[[Signer], dict[str, Any]]
) -> None:
    assert "changed since" in refusal([bundle(make(alice))], [alice])


def test_a_bundle_has_no_signature_beside_it(alice: Signer) -> None:
    good = bundle(bundle_value(alice, statement(IMAGE.digest)))
    assert "another stands beside it" in refusal([good._replace(signature="AAAA")], [alice])


def test_forms_are_not_taken_for_each_other(alice: Signer) -> None:
    good = bundle(bundle_value(alice, statement(IMAGE.digest)))
    assert "payload: unknown key" in refusal([good._replace(kind="simple")], [alice])
    payload_one = simple(alice, payload(IMAGE.digest))
    assert "unknown key" in refusal([payload_one._replace(kind="bundle", signature="")], [alice])


def test_any_changed_character_of_a_bundle_is_refused_or_means_nothing(lab: Lab) -> None:
    """What is not signed is the media type's version, the hint, and the key id."""
    alice = lab.signer("ed25519-alice")
    text = compact(bundle_value(alice, statement(IMAGE.digest))).decode()
    value = json.loads(text)
    free = 0
    for at in range(len(text)):
        for char in {"x", "0", '"', "}"} - {text[at]}:
            altered = text[:at] + char + text[at + 1 :]
            try:
                verify([bundle({})._replace(content=altered.encode())], [alice], IMAGE)
            except Exception as error:
                assert type(error).__name__ == "TrustRefused"
                continue
            free += 1
            changed = json.loads(altered)
            assert changed["dsseEnvelope"]["payload"] == value["dsseEnvelope"]["payload"]
            assert base64.b64decode(
                changed["dsseEnvelope"]["signatures"][0]["sig"]
            ) == base64.b64decode(value["dsseEnvelope"]["signatures"][0]["sig"])
            assert changed["mediaType"] == BUNDLE_TYPE
    assert free <= 4 * len(value["verificationMaterial"]["publicKey"]["hint"])
