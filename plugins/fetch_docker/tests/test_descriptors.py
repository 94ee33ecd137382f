"""Descriptors: digests of registered algorithms only, and content that is what it is said to be."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from podctl.errors import InvalidInput, ManifestInvalid
from podctl.model.fields import Fields
from podctl_fetch_docker.descriptors import (
    DESCRIPTOR_KEYS,
    Descriptor,
    check_digest,
    has_digest,
    parse_descriptor,
    verify,
)
from podctl_fetch_docker.platforms import Platform

SHA256 = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "0123456789abcdef" * 8


def parsed(**fields: Any) -> Descriptor:
    value = {"mediaType": "a/b", "digest": SHA256, "size": 3, **fields}
    kept = {key: item for key, item in value.items() if item is not ...}
    return parse_descriptor(Fields(kept, "descriptor", DESCRIPTOR_KEYS))


@pytest.mark.parametrize("digest", [SHA256, SHA512])
def test_registered_digests_are_taken(digest: str) -> None:
    assert check_digest(digest) == digest
    assert parsed(digest=digest).digest == digest


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256",
        "sha256:",
        SHA256[:-1],
        SHA256 + "0",
        SHA256.upper(),
        SHA256.replace("a", "A"),
        SHA256.replace(":", "-"),
        "sha256:" + "g" * 64,
        "sha256:../../../etc/passwd",
        "sha256:" + "../" * 21 + "x",
        "sha256:" + "/" * 64,
        "sha256:" + "٠" * 64,
        "sha512:" + "0" * 64,
        "sha1:" + "0" * 40,
        "sha384:" + "0" * 96,
        "md5:" + "0" * 32,
        "sha256+b64u:" + "0" * 43,
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
        "0" * 64,
        f" {SHA256}",
        f"{SHA256}\n",
        f"{SHA256}/x",
    ],
)
def test_m2_other_digests_are_refused_by_grammar(digest: str) -> None:
    with pytest.raises(InvalidInput, match="digest"):
        check_digest(digest)
    with pytest.raises(ManifestInvalid, match="digest"):
        parsed(digest=digest)


def test_every_member_is_read() -> None:
    found = parsed(
        mediaType="application/vnd.oci.image.manifest.v1+json",
        size=7,
        urls=["https://example.com/x"],
        annotations={"org.example": ""},
        artifactType="application/x",
        platform={"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["f"]},
    )
    assert found == Descriptor(
        "application/vnd.oci.image.manifest.v1+json",
        SHA256,
        7,
        Platform("linux", "arm", "v7", ("f",)),
        ("https://example.com/x",),
        {"org.example": ""},
        "application/x",
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mediaType": ...}, "mediaType is required"),
        ({"mediaType": ""}, "no media type"),
        ({"mediaType": "text"}, "no media type"),
        ({"mediaType": "/x"}, "no media type"),
        ({"mediaType": "a/b/c"}, "no media type"),
        ({"mediaType": "a/b; charset=utf-8"}, "no media type"),
        ({"mediaType": "a/" + "b" * 128}, "no media type"),
        ({"mediaType": "a/b;\n"}, "no media type"),
        ({"mediaType": "ä/b"}, "no media type"),
        ({"mediaType": 1}, "must be a string"),
        ({"digest": ...}, "digest is required"),
        ({"digest": None}, "digest is required"),
        ({"size": ...}, "size is required"),
        ({"size": -1}, "size -1 is out of range"),
        ({"size": 1 << 53}, "out of range"),
        ({"size": 1.0}, "must be an integer"),
        ({"size": True}, "must be an integer"),
        ({"size": "3"}, "must be an integer"),
        ({"urls": "https://example.com"}, "must be an array"),
        ({"urls": [1]}, "must be a string"),
        ({"annotations": {"a": 1}}, "must be a string"),
        ({"platform": {"os": "linux"}}, "architecture is required"),
        ({"platform": []}, "must be an object"),
        ({"Digest": SHA256}, "must be spelt 'digest'"),
        ({"MediaType": "a/b"}, "must be spelt 'mediaType'"),
    ],
)
def test_malformed_descriptors_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestInvalid, match=message):
        parsed(**fields)


def test_a_media_type_may_have_a_parameter() -> None:
    kind = "application/vnd.dev.sigstore.bundle+json;version=0.1"
    assert parsed(mediaType=kind).media_type == kind


def test_unknown_members_are_left_alone() -> None:
    assert parsed(newer=[1, 2]).size == 3


def test_embedded_data_must_be_what_it_stands_for() -> None:
    digest = "sha256:" + hashlib.sha256(b"{}!").hexdigest()
    data = base64.b64encode(b"{}!").decode()
    assert parsed(digest=digest, data=data).data == b"{}!"
    for other in (base64.b64encode(b"{}?").decode(), base64.b64encode(b"{}").decode(), ""):
        with pytest.raises(ManifestInvalid, match=r"descriptor\.data"):
            parsed(digest=digest, data=other)
    for other in ("e30h!", "e30", "e3 0h", "e30h\n", "é"):
        with pytest.raises(ManifestInvalid, match="data"):
            parsed(digest=digest, data=other)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_content_is_verified_by_size_and_digest(algorithm: str) -> None:
    digest = f"{algorithm}:{hashlib.new(algorithm, b'abc').hexdigest()}"
    descriptor = Descriptor("a/b", digest, 3)
    assert verify(b"abc", descriptor, "it") == b"abc"
    assert has_digest(b"abc", digest)
    assert not has_digest(b"abd", digest)
    with pytest.raises(ManifestInvalid, match="its digest is not"):
        verify(b"abd", descriptor, "it")
    with pytest.raises(ManifestInvalid, match="4 bytes where its descriptor says 3"):
        verify(b"abcd", descriptor, "it")
