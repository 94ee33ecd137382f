"""Manifests and indexes: a document has one meaning, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podctl.errors import ManifestInvalid, Refused
from podctl_fetch_docker.descriptors import Descriptor
from podctl_fetch_docker.manifests import (
    Index,
    Manifest,
    check_image,
    compression_of,
    foreign_layers,
    parse_index,
    parse_manifest,
    parse_named,
    parse_top,
)
from podctl_fetch_docker.mediatypes import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    FOREIGN_LAYERS,
    LAYERS,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
)

DATA = Path(__file__).parent / "data"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def named(media_type: str, number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(number), "size": 10 + number, **fields}


def manifest(**fields: Any) -> dict[str, Any]:
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": named(OCI_CONFIG),
        "layers": [named(GZIP, 2)],
        **fields,
    }
    return {key: item for key, item in value.items() if item is not ...}


def index(**fields: Any) -> dict[str, Any]:
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [named(OCI_MANIFEST)],
        **fields,
    }
    return {key: item for key, item in value.items() if item is not ...}


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


class TestRealDocuments:
    @pytest.mark.parametrize(
        ("name", "kind", "server"),
        [
            ("umoci.manifest", OCI_MANIFEST, OCI_MANIFEST),
            ("buildah-oci.manifest", OCI_MANIFEST, OCI_MANIFEST),
            ("buildah-docker.manifest", DOCKER_MANIFEST, DOCKER_MANIFEST),
            ("buildah-list.arm64.manifest", DOCKER_MANIFEST, DOCKER_MANIFEST),
            ("buildah-list.index", DOCKER_LIST, DOCKER_LIST),
            ("buildah-index.index", OCI_INDEX, OCI_INDEX),
        ],
    )
    def test_are_what_they_are(self, name: str, kind: str, server: str) -> None:
        data = (DATA / f"{name}.json").read_bytes()
        for content_type in (None, server, f"{server}; charset=utf-8", "application/json"):
            found = parse_top(data, content_type)
            assert (found.media_type, found.data) == (kind, data)
        if isinstance(found, Manifest):
            check_image(found)
            assert len(found.layers) == 1

    def test_an_index_leads_to_its_manifests(self) -> None:
        for family in ("list", "index"):
            top = parse_index((DATA / f"buildah-{family}.index.json").read_bytes())
            entry = next(one for one in top.manifests if "arm64" in str(one.platform))
            data = (DATA / f"buildah-{family}.arm64.manifest.json").read_bytes()
            assert parse_named(data, entry).config.size == 323


def test_every_member_of_a_manifest_is_read() -> None:
    value = manifest(
        artifactType="application/x",
        subject=named(OCI_MANIFEST, 5),
        annotations={"a": "b"},
        layers=[named(GZIP, 2), named(GZIP, 3, urls=["https://example.com/3"])],
    )
    found = parse_manifest(dumped(value))
    assert found == Manifest(
        OCI_MANIFEST,
        Descriptor(OCI_CONFIG, digest(1), 11),
        (
            Descriptor(GZIP, digest(2), 12),
            Descriptor(GZIP, digest(3), 13, urls=("https://example.com/3",)),
        ),
        {"a": "b"},
        "application/x",
        Descriptor(OCI_MANIFEST, digest(5), 15),
        dumped(value),
    )


def test_every_member_of_an_index_is_read() -> None:
    value = index(artifactType="a/b", subject=named(OCI_INDEX, 5), annotations={"a": "b"})
    assert parse_index(dumped(value)) == Index(
        OCI_INDEX,
        (Descriptor(OCI_MANIFEST, digest(1), 11),),
        {"a": "b"},
        "a/b",
        Descriptor(OCI_INDEX, digest(5), 15),
        dumped(value),
    )


@pytest.mark.parametrize("content_type", [None, "application/octet-stream", "text/plain"])
def test_without_a_type_the_shape_decides(content_type: str | None) -> None:
    assert isinstance(parse_top(dumped(manifest(mediaType=...)), content_type), Manifest)
    assert isinstance(parse_top(dumped(index(mediaType=...)), content_type), Index)


@pytest.mark.parametrize(
    ("value", "content_type", "message"),
    [
        # CVE-2021-41190: one document, two meanings.
        (manifest(manifests=[]), None, "manifests does not belong"),
        (manifest(manifests=[], mediaType=...), OCI_MANIFEST, "manifests does not belong"),
        (manifest(manifests=[], mediaType=...), OCI_INDEX, "does not belong"),
        (manifest(manifests=[], mediaType=...), None, "does not belong"),
        (manifest(manifests=None), None, "manifests does not belong"),
        (index(layers=[]), None, "layers does not belong"),
        (index(config={}), None, "config does not belong"),
        (index(mediaType=OCI_MANIFEST), None, "manifests does not belong"),
        (manifest(mediaType=OCI_INDEX), None, "config does not belong"),
        # What it says and what the server says.
        (manifest(), OCI_INDEX, "the server says"),
        (manifest(), DOCKER_MANIFEST, "the server says"),
        (index(), OCI_MANIFEST, "the server says"),
        (index(), DOCKER_LIST, "the server says"),
        (manifest(mediaType=...), DOCKER_MANIFEST, "mediaType is missing"),
        (index(mediaType=...), DOCKER_LIST, "mediaType is missing"),
        (manifest(mediaType=...), OCI_INDEX, "config does not belong"),
        (manifest(), "text/html; charset=utf-8", "the server says it is 'text/html'"),
        (manifest(mediaType="application/x"), None, "no image manifest or index"),
        (manifest(mediaType=OCI_CONFIG), None, "no image manifest or index"),
        (manifest(mediaType=1), None, "must be a string"),
        (manifest(mediaType=OCI_MANIFEST.upper()), None, "no image manifest or index"),
        # Neither the one nor the other.
        ({"schemaVersion": 2}, None, "neither an image manifest nor an index"),
        (manifest(mediaType=..., layers=...), None, "neither"),
        (manifest(mediaType=..., config=...), None, "neither"),
        ([], None, "must be an object"),
        ("", None, "must be an object"),
        (None, None, "must be an object"),
        # Members.
        (manifest(schemaVersion=3), None, "schemaVersion must be 2"),
        (manifest(schemaVersion=...), None, "schemaVersion is required"),
        (manifest(schemaVersion="2"), None, "must be an integer"),
        (manifest(schemaVersion=True), None, "must be an integer"),
        (manifest(config=None), None, "config is required"),
        (manifest(config=[]), None, "must be an object"),
        (manifest(layers=None), None, "layers is required"),
        (manifest(layers={}), None, "must be an array"),
        (manifest(layers=[None]), None, r"layers\[0\] must be an object"),
        (manifest(layers=[named(GZIP), {}]), None, r"layers\[1\]: mediaType is required"),
        (manifest(config=named(OCI_CONFIG, digest="sha256:../../x")), None, "digest"),
        (manifest(config=named(OCI_CONFIG, size=(4 << 20) + 1)), None, "config is over"),
        (manifest(annotations=[]), None, "must be an object"),
        (manifest(subject={}), None, "mediaType is required"),
        (manifest(Layers=[]), None, "must be spelt 'layers'"),
        (index(Manifests=[]), None, "must be spelt 'manifests'"),
        (manifest(layers=[named(GZIP)] * 1001), None, "more than 1000 entries"),
        (index(manifests=[named(OCI_MANIFEST)] * 1001), None, "more than 1000 entries"),
        (index(manifests=None), None, "manifests is required"),
    ],
)
def test_m3_documents_that_contradict_themselves_are_refused(
    value: Any, content_type: str | None, message: str
) -> None:
    with pytest.raises(ManifestInvalid, match=message):
        parse_top(dumped(value), content_type)


def test_m3_control_the_same_documents_without_the_contradiction() -> None:
    assert isinstance(parse_top(dumped(manifest()), OCI_MANIFEST), Manifest)
    assert isinstance(parse_top(dumped(index()), OCI_INDEX), Index)
    assert isinstance(parse_top(dumped(manifest(mediaType=DOCKER_MANIFEST))), Manifest)


@pytest.mark.parametrize(
    ("value", "content_type"),
    [
        ({"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "history": []}, None),
        ({"schemaVersion": 1, "fsLayers": [], "signatures": [{}]}, None),
        ({"schemaVersion": 1}, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ({"schemaVersion": 1}, "application/json"),
        (manifest(), "application/vnd.docker.distribution.manifest.v1+json"),
        (manifest(fsLayers=[]), None),
    ],
)
def test_m4_schema_1_is_refused_by_name(value: Any, content_type: str | None) -> None:
    with pytest.raises(Refused, match="schema 1") as caught:
        parse_top(dumped(value), content_type)
    assert "push the image again" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"\xef\xbb\xbf{}",
        dumped(manifest()).decode().encode("utf-16"),
        dumped(manifest())[:-1] + b', "layers": []}',
        dumped(manifest())[:-1] + b', "x": NaN}',
        dumped(manifest())[:-1] + b', "x": 1e400}',
        dumped(manifest())[:-1] + b', "x": ' + b"9" * 100 + b"}",
        dumped(manifest())[:-1] + b', "x": "\\ud800"}',
        dumped(manifest())[:-1] + b', "x": "\\u0000"}',
        dumped(manifest())[:-1] + b', "x": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        dumped(manifest())[:-1] + b', "x": "' + b"y" * (4 << 20) + b'"}',
    ],
)
def test_m6_json_that_parsers_disagree_about_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        parse_top(data)


def test_one_kind_where_the_other_must_be() -> None:
    with pytest.raises(ManifestInvalid, match="is an index"):
        parse_manifest(dumped(index()))
    with pytest.raises(ManifestInvalid, match="is a manifest"):
        parse_index(dumped(manifest()))


class TestNamedManifests:
    data = dumped(manifest())

    def descriptor(self, **fields: Any) -> Descriptor:
        from podctl.model.imagedocument import digest_of

        right = Descriptor(OCI_MANIFEST, digest_of(self.data), len(self.data))
        return right._replace(**fields)

    def test_must_be_what_the_descriptor_says(self) -> None:
        assert parse_named(self.data, self.descriptor()).media_type == OCI_MANIFEST
        for fields, message in (
            ({"size": 5}, "where its descriptor says 5"),
            ({"digest": digest(7)}, "its digest is not"),
            ({"media_type": DOCKER_MANIFEST}, "its descriptor says"),
        ):
            with pytest.raises(ManifestInvalid, match=message):
                parse_named(self.data, self.descriptor(**fields))

    def test_an_index_is_not_followed_twice(self) -> None:
        data = dumped(index())
        with pytest.raises(ManifestInvalid, match="is an index"):
            from podctl.model.imagedocument import digest_of

            parse_named(data, Descriptor(OCI_INDEX, digest_of(data), len(data)))


class TestImages:
    def check(self, **fields: Any) -> None:
        check_image(parse_manifest(dumped(manifest(**fields))))

    @pytest.mark.parametrize("config", [OCI_CONFIG, DOCKER_CONFIG])
    @pytest.mark.parametrize("kind", [*LAYERS, *FOREIGN_LAYERS])
    def test_every_layer_type_of_either_family(self, config: str, kind: str) -> None:
        self.check(config=named(config), layers=[named(kind, 2)])
        compression = compression_of(Descriptor(kind, digest(1), 1))
        assert compression in kind or compression == "none"

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"config": named(OCI_EMPTY), "artifactType": "application/x"}, "of application/x"),
            ({"config": named("application/vnd.cncf.helm.config.v1+json")}, "helm"),
            ({"config": named("application/octet-stream")}, "octet-stream"),
            ({"layers": []}, "no layers"),
            ({"layers": [named("application/vnd.dev.cosign.simplesigning.v1+json")]}, "unknown"),
            ({"layers": [named("application/vnd.in-toto+json")]}, "unknown type"),
            ({"layers": [named(f"{GZIP}+encrypted")]}, "is encrypted"),
            ({"layers": [named("application/vnd.oci.image.layer.v1.tar+bzip2")]}, "unknown type"),
            ({"layers": [named(GZIP, digest="sha512:" + "0" * 128)]}, "layers need sha256"),
            ({"layers": [named(GZIP, number) for number in range(257)]}, "more than 256 layers"),
        ],
    )
    def test_what_cannot_be_unpacked_is_refused_by_name(
        self, fields: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(Refused, match=message):
            self.check(**fields)

    def test_the_layer_that_is_wrong_is_named(self) -> None:
        with pytest.raises(Refused, match=r"layers\[1\] is encrypted"):
            self.check(layers=[named(GZIP), named(f"{GZIP}+encrypted", 2)])

    def test_one_layer_may_stand_in_it_many_times(self) -> None:
        self.check(layers=[named(GZIP, 2)] * 300)

    @pytest.mark.parametrize("kind", ["application/octet-stream", "application/json", "text/html"])
    def test_early_registries_lost_the_type_of_docker_s_configurations(self, kind: str) -> None:
        self.check(mediaType=DOCKER_MANIFEST, config=named(kind))
        with pytest.raises(Refused, match="no container image"):
            self.check(config=named(kind))

    def test_r4_layers_from_elsewhere_are_known_by_type_or_url(self) -> None:
        foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        layers = [named(GZIP, 2), named(GZIP, 3, urls=["https://example.com"]), named(foreign, 4)]
        found = foreign_layers(parse_manifest(dumped(manifest(layers=layers))))
        assert [layer.digest for layer in found] == [digest(3), digest(4)]
