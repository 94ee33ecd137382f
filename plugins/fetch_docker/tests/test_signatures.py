"""Signatures beside an image: found in every form, up to a number and a size (rows K14, K16)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podctl.errors import FetchFailed
from podctl.model.imagedocument import MAX_SIGNATURES, RegistrySignature, parse_signatures
from podctl.testing.cosigning import (
    ANNOTATION,
    SIMPLE,
    Signer,
    Simple,
    attach_bundle,
    attach_referrer,
    attach_tag,
    signature_manifest,
    signature_tag,
)
from podctl.testing.ociimages import OCI, Document, document, index
from podctl.testing.registry import Registry
from podctl.testing.registryfaults import corrupted, headed, refused, served

APP = "library/app"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def simple(number: int = 0) -> Simple:
    """What looks like a signature; whether it is one, others judge."""
    return Simple(json.dumps({"number": number}).encode(), f"c2ln{number}")


def found(site: Any, version: str = ":1.0") -> list[RegistrySignature]:
    data = site.resolve(version).signature
    return [] if data is None else parse_signatures(data)


def told(one: Simple) -> RegistrySignature:
    return RegistrySignature("simple", one.payload, one.signature)


def test_no_signature_is_none(site: Any, app: Any) -> None:
    site.registry.put(APP, app, "1.0")
    resolution = site.resolve()
    assert resolution.signature is None
    assert resolution.signature_location.endswith(f"{APP}:{signature_tag(app.digest)}")


@pytest.mark.parametrize("attach", [attach_tag, attach_referrer])
@pytest.mark.parametrize("about", ["index", "manifest"])
def test_simple_signatures_are_found(site: Any, app: Any, attach: Any, about: str) -> None:
    made = index(app)
    digest = site.registry.put(APP, made, "1.0")
    one, other = simple(1), simple(2)
    attach(site.registry, APP, digest if about == "index" else app.digest, one, other)
    assert sorted(found(site)) == sorted([told(one), told(other)])


def test_bundles_are_found(site: Any, app: Any, signer: Signer) -> None:
    digest = site.registry.put(APP, app, "1.0")
    bundle = signer.bundle(digest)
    attach_bundle(site.registry, APP, digest, bundle)
    assert found(site) == [RegistrySignature("bundle", bundle)]


def test_all_forms_are_collected_together(site: Any, app: Any, signer: Signer) -> None:
    made = index(app)
    digest = site.registry.put(APP, made, "1.0")
    attach_tag(site.registry, APP, digest, simple(1))
    attach_tag(site.registry, APP, app.digest, simple(2))
    attach_referrer(site.registry, APP, digest, simple(3))
    attach_bundle(site.registry, APP, app.digest, signer.bundle(app.digest))
    kinds = [one.kind for one in found(site)]
    assert sorted(kinds) == ["bundle", "simple", "simple", "simple"]


def test_without_the_referrers_api_its_tag_is_read(at: Any, app: Any, signer: Signer) -> None:
    site = at(Registry(referrers_api=False))
    digest = site.registry.put(APP, app, "1.0")
    attach_bundle(site.registry, APP, digest, signer.bundle(digest))
    assert found(site) == []
    listed = site.registry.at(APP).referrers[digest]
    value = {"schemaVersion": 2, "mediaType": OCI.index, "manifests": listed}
    tag = digest.replace(":", "-")
    site.registry.put_document(APP, document(OCI.index, value), tag)
    assert [one.kind for one in found(site)] == ["bundle"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_registries_say_in_many_ways_that_they_know_no_referrers(
    site: Any, app: Any, status: int
) -> None:
    digest = site.registry.put(APP, app, "1.0")
    attach_tag(site.registry, APP, digest, simple())
    site.registry.spoil("referrers", refused(status))
    assert found(site) == [told(simple())]


def test_a_page_of_html_is_no_list_of_referrers(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app, "1.0")
    attach_tag(site.registry, APP, digest, simple())
    site.registry.spoil("referrers", headed(Content_Type="text/html"))
    assert found(site) == [told(simple())]


def test_pages_of_referrers_are_turned(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app, "1.0")
    for number in range(3):
        attach_referrer(site.registry, APP, digest, simple(number))
    entries = site.registry.at(APP).referrers[digest]

    def paged(request: Any, honest: Any) -> Any:
        page = int(request.query.get("page", ["0"])[0])
        site.registry.at(APP).referrers[digest] = entries[page : page + 1]
        reply = honest(request)
        link = f'<{request.path}?page={page + 1}>; rel="next"'
        reply.headers = {**reply.headers, **({"Link": link} if page < 2 else {})}
        return reply

    site.registry.spoil("referrers", paged)
    assert len(found(site)) == 3


def test_the_next_page_is_asked_of_the_same_registry(site: Any, app: Any, serve: Any) -> None:
    site.registry.put(APP, app, "1.0")
    evil = serve()
    site.registry.spoil("referrers", headed(Link=f'<{evil.url("/x?page=1")}>; rel="next"'))
    assert found(site) == []
    assert evil.log == []
    assert len(site.registry.asked("referrers")) == 4, "and not for ever"


# -- what is no signature of the image -------------------------------------------------------------


def test_attestations_are_left_where_they_are(site: Any, app: Any, signer: Signer) -> None:
    digest = site.registry.put(APP, app, "1.0")
    one = attach_bundle(site.registry, APP, digest, signer.bundle(digest, predicate="https://x"))
    entry = site.registry.at(APP).referrers[digest][0]
    entry["annotations"] = {"dev.sigstore.bundle.predicateType": "https://spdx.dev/Document"}
    assert found(site) == []
    assert site.registry.asked("manifest", one) == []
    # The control: with the predicate of signatures it is read.
    entry["annotations"] = {
        "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1"
    }
    assert len(found(site)) == 1


def test_other_referrers_are_left_where_they_are(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app, "1.0")
    other = document(OCI.manifest, {"schemaVersion": 2})
    site.registry.refer(APP, digest, other, artifactType="application/spdx+json")
    assert found(site) == []
    assert site.registry.asked("manifest", other.digest) == []


def test_a_referrer_of_another_image_is_none_of_this_one(site: Any, app: Any) -> None:
    """A list may claim anything; the manifest says itself what it is about."""
    from podctl.testing.ociimages import image
    from podctl.testing.ocilayers import file, layer

    digest = site.registry.put(APP, app, "1.0")
    victim = image(layer(file("a", "b")))
    site.registry.put(APP, victim)
    attach_referrer(site.registry, APP, victim.digest, simple())
    listed = site.registry.at(APP).referrers
    listed[digest] = listed[victim.digest]
    assert found(site) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"annotations": {}},
        {"annotations": {ANNOTATION: ""}},
        {"annotations": {ANNOTATION: "x" * 5000}},
        {"mediaType": "application/octet-stream"},
        {"size": 4 << 20},
    ],
)
def test_layers_that_are_no_signatures_are_passed_by(
    site: Any, app: Any, fields: dict[str, Any]
) -> None:
    digest = site.registry.put(APP, app, "1.0")
    attach_tag(site.registry, APP, digest, simple(1))
    good = signature_manifest(simple(1))
    bad = Document(SIMPLE, simple(2).payload).descriptor(
        annotations={ANNOTATION: simple(2).signature}
    )
    both = good.amended(layers=[{**bad, **fields}, *good.value["layers"]])
    site.registry.put_blob(APP, simple(2).payload)
    site.registry.put_document(APP, both, signature_tag(digest))
    assert found(site) == [told(simple(1))]


def test_a_missing_payload_is_passed_by(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app, "1.0")
    attach_tag(site.registry, APP, digest, simple(1), simple(2))
    name = Document(SIMPLE, simple(2).payload).digest
    del site.registry.at(APP).blobs[name]
    assert found(site) == [told(simple(1))]


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"schemaVersion": 1}', b"<html>"])
def test_nonsense_in_place_of_signatures_is_said(site: Any, app: Any, data: bytes) -> None:
    """Row K16: it must not look like an image that nobody signed, nor like a signed one."""
    digest = site.registry.put(APP, app, "1.0")
    tag = signature_tag(digest)
    site.registry.put_document(APP, document(OCI.manifest, data), tag)
    with pytest.raises(FetchFailed, match="signatures beside the image are unusable"):
        site.resolve()


def test_one_good_signature_among_nonsense_is_enough(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app, "1.0")
    site.registry.put_document(APP, document(OCI.manifest, b"{"), signature_tag(digest))
    attach_referrer(site.registry, APP, digest, simple())
    assert found(site) == [told(simple())]


def test_a_payload_of_other_bytes_is_refused(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app, "1.0")
    attach_tag(site.registry, APP, digest, simple())
    name = Document(SIMPLE, simple().payload).digest
    site.registry.spoil("blob", corrupted(), name=name)
    with pytest.raises(FetchFailed, match="bytes are not those of the digest"):
        site.resolve()
    site.registry.spoil("blob", served(b"longer than it should be"), name=name)
    with pytest.raises(FetchFailed, match="larger than"):
        site.resolve()


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_registry_that_does_not_answer_is_no_proof_of_anything(
    site: Any, app: Any, status: int
) -> None:
    digest = site.registry.put(APP, app, "1.0")
    site.registry.spoil("manifest", refused(status), name=signature_tag(digest))
    with pytest.raises(FetchFailed, match=f"bad HTTP status code: {status}"):
        site.resolve()


# -- too many of them ------------------------------------------------------------------------------


def test_of_too_many_the_newest_count(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app, "1.0")
    attach_tag(site.registry, APP, digest, *map(simple, range(MAX_SIGNATURES + 20)))
    assert found(site) == [told(simple(n)) for n in range(MAX_SIGNATURES + 19, 19, -1)]
    assert len(site.registry.asked("blob")) == MAX_SIGNATURES + 1


def test_ten_thousand_layers_are_no_signatures(site: Any, app: Any) -> None:
    """CVE-2024-29903."""
    digest = site.registry.put(APP, app, "1.0")
    attach_tag(site.registry, APP, digest, *map(simple, range(10_000)))
    with pytest.raises(FetchFailed, match="unusable: .*more than 1000 entries"):
        site.resolve()


def test_signatures_are_read_up_to_a_size(site: Any, app: Any) -> None:
    """CVE-2024-29902: quotes take twice their size in the set."""
    digest = site.registry.put(APP, app, "1.0")
    large = [Simple(b'"' * 100_000 + str(n).encode(), "c2ln") for n in range(8)]
    attach_tag(site.registry, APP, digest, *large)
    assert [one.content for one in found(site)] == [one.payload for one in large[:3:-1]]


def test_a_signature_that_is_no_text_is_passed_by(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app, "1.0")
    attach_tag(site.registry, APP, digest, Simple(b"\xff", "c2ln"), simple())
    assert found(site) == [told(simple())]


def test_one_signature_in_two_places_is_one(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app, "1.0")
    for attach in (attach_tag, attach_referrer):
        attach(site.registry, APP, digest, simple())
    assert found(site) == [told(simple())]


# -- mirrors ---------------------------------------------------------------------------------------


def test_signatures_a_mirror_has_not_are_found_behind_it(at: Any, host: Any, app: Any) -> None:
    own, mirror = at(), at()
    digest = own.registry.put(APP, app, "1.0")
    attach_tag(own.registry, APP, digest, simple())
    mirror.registry.put(APP, app, "1.0")
    host.write(
        "etc/containers/registries.conf",
        f'[[registry]]\nlocation = "{own.name}"\n[[registry.mirror]]\nlocation = "{mirror.name}"',
    )
    assert found(own) == [told(simple())]
    assert mirror.registry.asked("manifest", "1.0")
    own.server.close()
    assert found(own) == []
