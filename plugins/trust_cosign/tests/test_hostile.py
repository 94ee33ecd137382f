"""Whatever comes in, a verdict or a refusal comes out, and the verdict only by a trusted key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cosign_lab import (
    NOW,
    REPOSITORY,
    Image,
    Lab,
    Signer,
    b64,
    bundle,
    bundle_value,
    compact,
    message_value,
    payload,
    simple,
    statement,
    verify,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from podctl.errors import KeyInvalid, ManifestInvalid, TrustRefused
from podctl.model.imagedocument import (
    ImageDocument,
    RegistrySignature,
    dump_signatures,
    parse_document,
    parse_signatures,
)
from podctl_trust_cosign.hooks import cosign

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.model.trusting import Verdict

IMAGE = Image(indexed=True)
LAB = Lab()
ALICE, MALLORY = LAB.signer("p256-alice"), LAB.signer("p256-mallory")
GOOD: list[RegistrySignature] = [
    simple(ALICE, payload(IMAGE.digest)),
    bundle(bundle_value(ALICE, statement(IMAGE.digest))),
    bundle(message_value(ALICE, IMAGE.manifest)),
]

many = settings(max_examples=400, deadline=None)


def outcome(call: Callable[[], Verdict]) -> Verdict | None:
    """The verdict, None for a refusal; anything else that is raised fails the test."""
    try:
        return call()
    except (TrustRefused, KeyInvalid) as error:
        assert error.message
        assert "\n" not in str(error)
        return None


def check(data: bytes, document: bytes, keys: list[bytes] | None = None) -> Verdict | None:
    def call() -> Verdict:
        cosign.trust_signers(signature=data)
        held = [ALICE.public] if keys is None else keys
        verifier = cosign.trust_verifier(signature=data, keys=held, now=NOW)
        verifier.update(document)
        return verifier.finish()

    return outcome(call)


def test_control_the_signatures_that_are_spoilt_below_are_good() -> None:
    for signature in GOOD:
        assert check(dump_signatures([signature]), IMAGE.document) is not None


@many
@given(st.binary(max_size=300))
def test_any_bytes_as_key(data: bytes) -> None:
    for key in (data, b"-----BEGIN PUBLIC KEY-----\n" + data, b"-----BEGIN " + data):
        cosign.trust_recognises(key)
        with pytest.raises(KeyInvalid):
            cosign.trust_key(key)


@many
@given(st.binary(max_size=200), st.sampled_from(["PUBLIC KEY", "RSA PUBLIC KEY"]))
def test_any_bytes_in_pem(der: bytes, label: str) -> None:
    key = f"-----BEGIN {label}-----\n{b64(der)}\n-----END {label}-----\n".encode()
    with pytest.raises(KeyInvalid):
        cosign.trust_key(key)


@many
@given(st.data())
def test_any_changed_byte_of_a_key(data: st.DataObject) -> None:
    signer = LAB.signer(data.draw(st.sampled_from(["p256", "p384", "ed25519", "rsa2048"])))
    der = bytearray(signer.spki)
    at = data.draw(st.integers(0, len(der) - 1))
    der[at] ^= data.draw(st.integers(1, 255))
    key = f"-----BEGIN PUBLIC KEY-----\n{b64(bytes(der))}\n-----END PUBLIC KEY-----\n".encode()
    try:
        described = cosign.trust_key(key)
    except KeyInvalid:
        return
    # Another key, then: it must not be good for what the first has signed.
    assert described.fingerprint != signer.fingerprint
    good = dump_signatures([simple(signer, payload(IMAGE.digest))])
    assert check(good, IMAGE.document, [key]) is None
    assert check(good, IMAGE.document, [signer.public]) is not None


@many
@given(st.binary(max_size=400))
def test_any_bytes_as_set_or_image(data: bytes) -> None:
    assert check(data, IMAGE.document) is None
    assert check(dump_signatures(GOOD), data) is None


texts = st.text(max_size=40) | st.sampled_from([REPOSITORY, IMAGE.digest, "", "docker.io/x", "@:/"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON document."""
    found = [path] if path else []
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        found += places(value[key], (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    copied = json.loads(json.dumps(value))
    place = copied
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return copied


def signed(content: Any, form: str, signer: Signer) -> RegistrySignature:
    """Sign what a hostile signer may sign: any payload or statement."""
    raw = compact(content)
    if form == "payload":
        return simple(signer, raw)
    return bundle(bundle_value(signer, raw))


@many
@given(st.data(), st.sampled_from(["payload", "statement"]))
def test_any_value_in_what_is_signed(data: st.DataObject, form: str) -> None:
    """Signed by the trusted key itself: only what speaks of this image may be good."""
    whole = json.loads(payload(IMAGE.digest) if form == "payload" else statement(IMAGE.digest))
    path = data.draw(st.sampled_from(places(whole)))
    content = replaced(whole, path, data.draw(values))
    try:
        set_of_one = dump_signatures([signed(content, form, ALICE)])
    except UnicodeEncodeError:
        return
    if check(set_of_one, IMAGE.document) is not None:
        assert IMAGE.digest.partition(":")[2] in json.dumps(content)
        assert "kind" not in content
    by_mallory = dump_signatures([signed(content, form, MALLORY)])
    assert check(by_mallory, IMAGE.document) is None


@many
@given(st.data(), st.integers(1, 2))
def test_any_value_in_a_bundle(data: st.DataObject, which: int) -> None:
    whole = json.loads(GOOD[which].content)
    path = data.draw(st.sampled_from(places(whole)))
    content = compact(replaced(whole, path, data.draw(values)))
    verdict = check(dump_signatures([RegistrySignature("bundle", content)]), IMAGE.document)
    if verdict is not None:
        # What is not signed, and nothing is concluded from.
        assert path[0] == "verificationMaterial" or path[-1] in ("keyid", "payload", "digest")
        assert verdict.fingerprint == ALICE.fingerprint


@many
@given(st.data())
def test_any_value_in_the_image_document(data: st.DataObject) -> None:
    whole = json.loads(IMAGE.document)
    path = data.draw(st.sampled_from(places(whole)))
    changed = compact(replaced(whole, path, data.draw(values)))
    verdict = check(dump_signatures([GOOD[0]]), changed)
    if verdict is not None:
        document = parse_document(changed)
        assert document.manifest == IMAGE.manifest
        assert document.config == IMAGE.config


@many
@given(st.lists(st.sampled_from(GOOD) | st.builds(RegistrySignature, texts, st.binary(), texts)))
def test_junk_beside_good_ones_changes_nothing(signatures: list[RegistrySignature]) -> None:
    try:
        data = dump_signatures(signatures)
        parse_signatures(data)
    except (ManifestInvalid, UnicodeEncodeError):
        # A set cannot hold it: not UTF-8, or NUL.
        return
    verdict = check(data, IMAGE.document)
    assert (verdict is not None) == any(signature in GOOD for signature in signatures)


def other_reference(reference: str) -> bytes:
    return ImageDocument(reference, IMAGE.image_index, IMAGE.manifest, IMAGE.config).dump()


@many
@given(texts)
def test_a_payload_is_good_for_its_repository_alone(reference: str) -> None:
    try:
        document = other_reference(reference)
    except UnicodeEncodeError:
        return
    verdict = check(dump_signatures([GOOD[0]]), document)
    if verdict is not None:
        assert reference.partition("@")[0].lower().startswith(REPOSITORY)


def test_deep_and_large_json_is_refused() -> None:
    deep = b"[" * 200_000
    for kind in ("simple", "bundle"):
        assert check(dump_signatures([RegistrySignature(kind, deep)]), IMAGE.document) is None
    assert check(deep, IMAGE.document) is None
    wide = compact({"a": [{}] * 200_000})
    assert check(dump_signatures([RegistrySignature("bundle", wide)]), IMAGE.document) is None
    inner = bundle_value(ALICE, b"[" * 200_000)
    assert check(dump_signatures([bundle(inner)]), IMAGE.document) is None


def test_verify_of_the_lab_is_what_is_fuzzed() -> None:
    assert verify(GOOD, [ALICE], IMAGE) == check(dump_signatures(GOOD), IMAGE.document)
