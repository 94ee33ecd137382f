"""Simple signing: what a payload must say, and whose signature of it counts (row K14)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from cosign_lab import (
    KINDS,
    NOW,
    REGISTRY,
    REPOSITORY,
    Image,
    Lab,
    Signer,
    b64,
    compact,
    payload,
    refusal,
    simple,
    verify,
)

from podctl.errors import KeyInvalid, TrustRefused
from podctl.model.imagedocument import (
    MAX_SIGNATURES,
    RegistrySignature,
    digest_of,
    dump_signatures,
)
from podctl_trust_cosign.hooks import cosign
from podctl_trust_cosign.verify import MAX_TRIES

IMAGE = Image()
INDEXED = Image(indexed=True)


@pytest.fixture
def alice(lab: Lab) -> Signer:
    return lab.signer("p256-alice")


# Good ones.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{}, {"own_hash": True}, {"prehashed": True}], ids=str)
def test_a_payload_signed_by_a_trusted_key_is_good(
    lab: Lab, kind: str, how: dict[str, bool]
) -> None:
    signer = lab.signer(kind)
    verdict = verify([simple(signer, payload(IMAGE.digest), **how)], [signer], IMAGE)
    assert verdict.scheme == "cosign"
    assert verdict.fingerprint == verdict.signer == signer.fingerprint
    assert verdict.identities == (REPOSITORY,)
    assert (verdict.signed_at, verdict.expires, verdict.notes) == (0, None, ())


def test_the_index_or_the_manifest_may_be_signed(alice: Signer) -> None:
    for digest in (INDEXED.digest, digest_of(INDEXED.manifest)):
        for image in (INDEXED, INDEXED.pinned()):
            verify([simple(alice, payload(digest))], [alice], image)
    assert INDEXED.digest != digest_of(INDEXED.manifest)


@pytest.mark.parametrize(
    ("claimed", "image", "shown"),
    [
        (f"{REPOSITORY}:1.0", IMAGE, f"{REPOSITORY}:1.0"),
        # A tag was asked for, and this is what it stands for now.
        (f"{REPOSITORY}@{IMAGE.digest}", IMAGE, f"{REPOSITORY}@{IMAGE.digest}"),
        (f"{REPOSITORY}:1.0@{IMAGE.digest}", IMAGE, f"{REPOSITORY}:1.0@{IMAGE.digest}"),
        # A digest was asked for: the tag it was signed under is no matter.
        (f"{REPOSITORY}:0.9", IMAGE.pinned(), f"{REPOSITORY}:0.9"),
        (f"{REPOSITORY}@{IMAGE.digest}", IMAGE.pinned(), f"{REPOSITORY}@{IMAGE.digest}"),
        (REPOSITORY.replace("registry", "Registry"), IMAGE, REPOSITORY.replace("reg", "Reg")),
    ],
)
def test_the_reference_may_be_more_precise(
    alice: Signer, claimed: str, image: Image, shown: str
) -> None:
    verdict = verify([simple(alice, payload(IMAGE.digest, claimed))], [alice], image)
    assert verdict.identities == (shown,)


HUB = [
    "redis",
    "library/redis",
    *(f"{host}/library/redis" for host in ("docker.io", "index.docker.io", "registry-1.docker.io")),
    *(f"{host}/redis" for host in ("docker.io", "index.docker.io", "registry-1.docker.io")),
]


@pytest.mark.parametrize("claimed", HUB)
@pytest.mark.parametrize("asked", HUB)
def test_docker_hub_s_names_are_one(alice: Signer, claimed: str, asked: str) -> None:
    image = Image(f"{asked}:7")
    for tag in ("", ":7"):
        verify([simple(alice, payload(image.digest, claimed + tag))], [alice], image)
    assert "not for registry-1.docker.io/library/redis" in refusal(
        [simple(alice, payload(image.digest, "docker.io/other/redis"))], [alice], image
    )


def test_annotations_and_a_time_may_be_added(alice: Signer) -> None:
    optional = {"creator": "containers/image", "timestamp": NOW - 60, "release": "stable"}
    content = payload(IMAGE.digest, optional=optional)
    assert verify([simple(alice, content)], [alice], IMAGE).signed_at == NOW - 60
    verify([simple(alice, payload(IMAGE.digest, optional={}))], [alice], IMAGE)
    without = compact({"critical": json.loads(payload(IMAGE.digest))["critical"]})
    verify([simple(alice, without)], [alice], IMAGE)


def test_the_payload_s_spelling_is_the_signer_s(alice: Signer) -> None:
    """The signature is over the bytes; how JSON is laid out in them is nobody's business."""
    content = json.dumps(json.loads(payload(IMAGE.digest)), indent=3, sort_keys=True).encode()
    verify([simple(alice, content)], [alice], IMAGE)
    laid_out = simple(alice, content)._replace(content=payload(IMAGE.digest))
    assert "changed since" in refusal([laid_out], [alice])


# One good signature is enough, and the others are told of.


def test_bad_signatures_beside_a_good_one_are_told(lab: Lab, alice: Signer) -> None:
    other = Image(seed="other")
    signatures = [
        simple(lab.signer("p256-mallory"), payload(IMAGE.digest)),
        simple(alice, payload(other.digest)),
        simple(alice, payload(IMAGE.digest)),
        RegistrySignature("simple", b"{}", ""),
        RegistrySignature("notary", b"", ""),
    ]
    verdict = verify(signatures, [alice], IMAGE)
    assert verdict.fingerprint == alice.fingerprint
    assert [note.partition(":")[0] for note in sorted(verdict.notes)] == [
        f"signature {number}" for number in (1, 2, 4, 5)
    ]
    assert not any("\n" in note for note in verdict.notes)


def test_the_earliest_key_gives_the_verdict(lab: Lab, alice: Signer) -> None:
    bob = lab.signer("ed25519-bob")
    signatures = [simple(signer, payload(IMAGE.digest)) for signer in (bob, alice)]
    assert verify(signatures, [alice, bob], IMAGE).fingerprint == alice.fingerprint
    assert verify(signatures, [bob, alice], IMAGE).fingerprint == bob.fingerprint
    assert verify(signatures, [alice, alice], IMAGE).fingerprint == alice.fingerprint


def test_the_last_of_many_may_be_the_good_one(lab: Lab, alice: Signer) -> None:
    junk = [RegistrySignature("simple", payload(IMAGE.digest), b64(bytes(70)))]
    many = junk * (MAX_SIGNATURES - 1) + [simple(alice, payload(IMAGE.digest))]
    assert len(verify(many, [alice], IMAGE).notes) == MAX_SIGNATURES - 1
    with pytest.raises(Exception, match="64 signatures"):
        dump_signatures([*many, *junk])
    entries = [[one.kind, one.content.decode(), one.signature] for one in [*many, *junk]]
    assert "more than 64" in refusal(compact({"signatures": entries}), [alice])


def test_the_work_on_a_hostile_set_has_a_bound(lab: Lab, alice: Signer) -> None:
    keys = [lab.signer(f"p256-{number}") for number in range(17)]
    junk = RegistrySignature("simple", payload(IMAGE.digest), b64(bytes(70)))
    many = [junk] * (MAX_SIGNATURES - 1) + [simple(alice, payload(IMAGE.digest))]
    assert len(many) * len(keys) > MAX_TRIES
    with pytest.raises(TrustRefused):
        verify(many, [*keys, alice], IMAGE)
    # Control: with fewer keys it is found.
    verify(many, [*keys[:15], alice], IMAGE)


# Bad ones.


def test_another_key_s_signature_is_refused(lab: Lab, alice: Signer) -> None:
    mallory = [simple(lab.signer("p256-mallory"), payload(IMAGE.digest))]
    assert "by no key that is trusted here" in refusal(mallory, [alice])


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_another_kind_does_not_fit(lab: Lab, kind: str) -> None:
    signatures = [simple(lab.signer(kind), payload(IMAGE.digest))]
    others = [lab.signer(other) for other in KINDS if other != kind]
    assert "by no key that is trusted here" in refusal(signatures, others)


def test_a_signature_of_another_image_is_refused(alice: Signer) -> None:
    """Also K3: two signed images whose signatures were exchanged."""
    other = Image(seed="other")
    signatures = [simple(alice, payload(other.digest))]
    assert "neither this image nor its index" in refusal(signatures, [alice])
    verify(signatures, [alice], other)


@pytest.mark.parametrize(
    ("claimed", "reason"),
    [
        (f"{REGISTRY}/team/other", "is for registry.example:5000/team/other, not for"),
        (f"{REGISTRY}/team", "not for"),
        (f"{REPOSITORY}/more", "not for"),
        (f"{REPOSITORY}2", "not for"),
        ("registry.example/team/app", "not for"),
        ("other.example:5000/team/app", "not for"),
        ("team/app", "is for registry-1.docker.io/team/app, not for"),
        (f"{REPOSITORY}:1.1", "is for the tag 1.1, not for 1.0"),
        (f"{REPOSITORY}:latest", "is for the tag latest, not for 1.0"),
        (f"{REPOSITORY}@sha256:{'0' * 64}", "contradicts itself"),
        (f"{REPOSITORY}:1.1@{IMAGE.digest}", "is for the tag 1.1"),
        (f"{REPOSITORY}@", "contradicts itself"),
        (f"https://{REPOSITORY}", "no image reference"),
        (f"{REPOSITORY} ", "no image reference"),
        ("", "is empty"),
    ],
)
def test_a_signature_for_another_name_is_refused(alice: Signer, claimed: str, reason: str) -> None:
    assert reason in refusal([simple(alice, payload(IMAGE.digest, claimed))], [alice])


@pytest.mark.parametrize("digest", ["", "sha256:", "sha512:" + "0" * 128, IMAGE.digest.upper()])
def test_a_digest_that_is_none_of_the_image_is_refused(alice: Signer, digest: str) -> None:
    assert "neither this image" in refusal([simple(alice, payload(digest))], [alice])


CRITICAL = json.loads(payload(IMAGE.digest))["critical"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "must be an object"),
        ({}, "critical is required"),
        ({"critical": None}, "critical is required"),
        ({"critical": CRITICAL, "signed": True}, "unknown key 'signed'"),
        ({"Critical": CRITICAL}, "must be spelt 'critical'"),
        ({"critical": {**CRITICAL, "expires": 0}}, "unknown key 'expires'"),
        ({"critical": {**CRITICAL, "type": "atomic container signature"}}, "atomic container"),
        ({"critical": {**CRITICAL, "type": "Cosign container image signature"}}, "no signature"),
        ({"critical": {**CRITICAL, "type": None}}, "type is required"),
        ({"critical": {**CRITICAL, "type": 1}}, "must be a string"),
        ({"critical": {**CRITICAL, "image": {}}}, "docker-manifest-digest is required"),
        ({"critical": {**CRITICAL, "image": {"Docker-manifest-digest": "x"}}}, "must be spelt"),
        ({"critical": {**CRITICAL, "identity": {}}}, "docker-reference is required"),
        ({"critical": {**CRITICAL, "identity": None}}, "identity is required"),
        ({"critical": CRITICAL, "optional": []}, "must be an object"),
        ({"critical": CRITICAL, "optional": {"timestamp": "1"}}, "must be an integer"),
        ({"critical": CRITICAL, "optional": {"timestamp": 1.5}}, "must be an integer"),
        ({"critical": CRITICAL, "optional": {"timestamp": -1}}, "before 1970"),
        ({"critical": CRITICAL, "optional": {"timestamp": NOW + 301}}, "but the clock says"),
        ({"critical": CRITICAL, "optional": {"timestamp": 1 << 62}}, "but the clock says"),
    ],
)
def test_a_payload_that_says_something_else_is_refused(
    alice: Signer, value: Any, reason: str
) -> None:
    assert reason in refusal([simple(alice, compact(value))], [alice])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "line 1"),
        (payload(IMAGE.digest) + b"x", "Extra data"),
        (payload(IMAGE.digest).replace(b'{"critical":', b'{"critical":{},"critical":'), "twice"),
        (payload(IMAGE.digest).replace(b'"type":', b'"type":"x","type":'), "twice"),
        (b"\xef\xbb\xbf" + payload(IMAGE.digest), "byte order mark"),
        (b"[" * 5000, "nested deeper"),
        (payload(IMAGE.digest, optional={"pad": "x" * (64 << 10)}), "are more than"),
    ],
)
def test_a_payload_that_parsers_read_differently_is_refused(
    alice: Signer, content: bytes, reason: str
) -> None:
    assert reason in refusal([simple(alice, content)], [alice])


# The image.


def test_a_manifest_that_the_signed_index_does_not_list_is_refused(alice: Signer) -> None:
    from podctl.model.imagedocument import ImageDocument

    signatures = [simple(alice, payload(INDEXED.digest))]
    other = replace(INDEXED, seed="other")
    swapped = ImageDocument(INDEXED.reference, INDEXED.image_index, other.manifest, other.config)
    assert "index: does not list the manifest" in refusal(signatures, [alice], swapped.dump())
    assert INDEXED.image_index is not None
    longer = INDEXED.image_index.replace(b'"size":', b'"size":1')
    signed = [simple(alice, payload(digest_of(longer)))]
    image = ImageDocument(INDEXED.reference, longer, INDEXED.manifest, INDEXED.config)
    assert "index: does not list the manifest" in refusal(signed, [alice], image.dump())


def test_a_configuration_that_the_manifest_does_not_name_is_refused(alice: Signer) -> None:
    from podctl.model.imagedocument import ImageDocument

    signatures = [simple(alice, payload(IMAGE.digest))]
    config = IMAGE.config.replace(b"app", b"abb")
    swapped = ImageDocument(IMAGE.reference, None, IMAGE.manifest, config)
    assert "manifest: does not name the configuration" in refusal(
        signatures, [alice], swapped.dump()
    )


def test_documents_may_name_each_other_by_sha512(alice: Signer) -> None:
    from podctl.model.imagedocument import ImageDocument

    def longer(document: bytes, part: bytes) -> bytes:
        new = f"sha512:{hashlib.sha512(part).hexdigest()}"
        return document.replace(digest_of(part).encode(), new.encode())

    manifest = longer(IMAGE.manifest, IMAGE.config)
    index = compact({"manifests": [{"digest": digest_of(manifest), "size": len(manifest)}]})
    index = longer(index, manifest)
    reference = f"{REPOSITORY}@sha512:{hashlib.sha512(index).hexdigest()}"
    document = ImageDocument(reference, index, manifest, IMAGE.config)
    signatures = [simple(alice, payload(digest_of(index)))]
    verify(signatures, [alice], document.dump())
    for changed in (
        document._replace(config=IMAGE.config.replace(b"app", b"abb")),
        document._replace(manifest=manifest + b" "),
        document._replace(reference=f"{REPOSITORY}@sha512:{'0' * 128}"),
    ):
        refusal(signatures, [alice], changed.dump())


def test_an_image_that_is_not_what_its_digest_asked_for_is_refused(alice: Signer) -> None:
    signatures = [simple(alice, payload(IMAGE.digest))]
    other = replace(IMAGE, reference=Image(seed="other").pinned().reference)
    assert "no part with the digest it was asked for by" in refusal(signatures, [alice], other)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", IMAGE.document[:-1], IMAGE.document + b" "])
def test_what_is_no_image_document_is_refused(alice: Signer, data: bytes) -> None:
    assert "image document" in refusal([simple(alice, payload(IMAGE.digest))], [alice], data)


def test_a_document_over_the_cap_is_refused_while_it_comes(alice: Signer) -> None:
    data = dump_signatures([simple(alice, payload(IMAGE.digest))])
    verifier = cosign.trust_verifier(data, [alice.public], NOW)
    with pytest.raises(TrustRefused, match="over"):
        for _ in range(20):
            verifier.update(bytes(1 << 20))


# The set, and the time.


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b'{"signatures":1}', b'{"signatures":[["simple","{}"]]}', b"\xff", bytes(2 << 20)],
)
def test_what_is_no_set_of_signatures_is_refused(alice: Signer, data: bytes) -> None:
    refusal(data, [alice])
    with pytest.raises(KeyInvalid):
        cosign.trust_signers(data)


def test_an_empty_set_is_no_signature(alice: Signer) -> None:
    assert refusal([], [alice]) == "image has no signature"


def test_hopeless_sets_are_refused_before_the_image_is_read(alice: Signer) -> None:
    hopeless = dump_signatures([RegistrySignature("simple", b"{}", "")])
    with pytest.raises(TrustRefused, match="critical is required"):
        cosign.trust_signers(hopeless)
    with pytest.raises(TrustRefused, match="critical is required"):
        cosign.trust_verifier(hopeless, [alice.public], NOW)


def test_payloads_name_no_signer(alice: Signer) -> None:
    assert list(cosign.trust_signers(dump_signatures([simple(alice, payload(IMAGE.digest))]))) == []


@pytest.mark.parametrize("now", [0, -1, 1609459199, 4102444800, 1 << 62])
def test_at_an_impossible_time_nothing_is_believed(alice: Signer, now: int) -> None:
    """Row K20."""
    reason = refusal([simple(alice, payload(IMAGE.digest))], [alice], now=now)
    assert "the clock says" in reason
    assert "set the clock" in reason


def test_a_claimed_time_may_be_a_little_ahead(alice: Signer) -> None:
    ahead = payload(IMAGE.digest, optional={"timestamp": NOW + 300})
    assert verify([simple(alice, ahead)], [alice], IMAGE).signed_at == NOW + 300


def test_keys_that_are_none_are_refused(alice: Signer) -> None:
    data = dump_signatures([simple(alice, payload(IMAGE.digest))])
    with pytest.raises(KeyInvalid):
        cosign.trust_verifier(data, [alice.public, b"junk"], NOW)


def test_a_verdict_is_given_once(alice: Signer) -> None:
    data = dump_signatures([simple(alice, payload(IMAGE.digest))])
    verifier = cosign.trust_verifier(data, [alice.public], NOW)
    verifier.update(IMAGE.document)
    verifier.finish()
    with pytest.raises(ValueError, match="twice"):
        verifier.finish()
