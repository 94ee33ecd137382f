"""Images written as files, and found again in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from local_files import IMAGE_NAME, REF_NAME, MemoryFiles

from podctl.errors import ManifestInvalid, Refused
from podctl.model.image import Image as AnyImage
from podctl.model.image import Layer, parse_aci_image
from podctl.model.imagedocument import (
    ImageDocument,
    RegistrySignature,
    dump_signatures,
    parse_document,
)
from podctl.model.layoutfiles import LayoutRequest
from podctl.testing.cosigning import Signer
from podctl.testing.ociimages import DOCKER, OCI, image, index, layer_descriptor
from podctl.testing.ocilayers import file, layer
from podctl_fetch_docker.exportnotes import INDEX, MANIFEST, oci_form
from podctl_fetch_docker.format import oci
from podctl_fetch_docker.manifests import parse_manifest

if TYPE_CHECKING:
    from podctl.model.layoutfiles import Folded
    from podctl.testing.ociimages import Image

NAME = "registry.example/team/app"
ONE, TWO = layer(file("a")), layer(file("b"), compression="none")
HOST = {"os": "linux", "arch": "amd64"}


def document(made: Image, *, reference: str = f"{NAME}:1", behind: bool = False) -> bytes:
    """An image document."""
    above = index(made).document.data if behind else None
    return ImageDocument(reference, above, made.manifest.data, made.config.data).dump()


def files_of(folded: Folded, made: Image) -> MemoryFiles:
    """What core would write."""
    content: dict[str, Any] = dict(folded.documents)
    layers = {one.digest: one for one in made.layers}
    for written in folded.layers:
        one = layers[written.layer.blob]
        content[written.name] = one.tar if written.unpacked else one.blob
    return MemoryFiles(content)


def found(files: MemoryFiles, kind: str = "oci", selector: str | None = None) -> Any:
    request = LayoutRequest(kind, selector, "/srv/elsewhere.tar", HOST, want_signature=True)
    return oci.format_unfold(files, request)


@pytest.mark.parametrize("kind", [OCI, DOCKER], ids=["oci", "docker"])
@pytest.mark.parametrize("behind", [False, True], ids=["alone", "behind an index"])
def test_what_is_folded_unfolds_to_the_same(kind: Any, behind: bool) -> None:
    made = image(ONE, TWO, ONE, kind=kind, config={"Cmd": ["/a"]})
    data = document(made, behind=behind)
    again = found(files_of(oci.format_fold(data, None, "oci"), made))
    assert again.document == data
    assert set(again.blobs) == {ONE.digest, TWO.digest}
    assert again.signature is None


def test_the_entry_names_the_image_twice_and_is_an_oci_manifest() -> None:
    made = image(ONE, kind=DOCKER)
    folded = oci.format_fold(document(made, behind=True), None, "oci")
    (entry,) = json.loads(folded.documents["index.json"])["manifests"]
    assert entry["mediaType"] == OCI.manifest
    assert entry["annotations"] == {
        IMAGE_NAME: f"{NAME}:1",
        REF_NAME: "1",
        INDEX: index(made).digest,
        MANIFEST: made.digest,
    }
    plain = oci.format_fold(document(image(ONE)), None, "oci")
    (entry,) = json.loads(plain.documents["index.json"])["manifests"]
    assert entry["annotations"] == {IMAGE_NAME: f"{NAME}:1", REF_NAME: "1"}
    assert entry["digest"] == image(ONE).digest


def test_the_hub_is_named_as_everybody_does() -> None:
    data = document(image(ONE), reference="registry-1.docker.io/library/app:1")
    (entry,) = json.loads(oci.format_fold(data, None, "oci").documents["index.json"])["manifests"]
    assert entry["annotations"][IMAGE_NAME] == "docker.io/library/app:1"
    saved = json.loads(oci.format_fold(data, None, "docker").documents["manifest.json"])
    assert saved[0]["RepoTags"] == ["docker.io/library/app:1"]


def test_a_digest_selects_what_it_is_the_digest_of() -> None:
    made = image(ONE, kind=DOCKER)
    above = index(made)
    data = document(made, behind=True)
    files = files_of(oci.format_fold(data, None, "oci"), made)
    for digest in (above.digest, made.digest):
        read = parse_document(found(files, selector=digest).document)
        assert read.manifest == made.manifest.data
    converted = json.loads(files.content["index.json"])["manifests"][0]["digest"]  # type: ignore[arg-type]
    read = parse_document(found(files, selector=converted).document)
    assert read.manifest == oci_form(made.manifest.data)
    assert read.reference == f"{NAME}@{converted}"


def test_docker_archives_share_layers_and_keep_the_configuration() -> None:
    made = image(ONE, TWO, ONE)
    data = document(made)
    folded = oci.format_fold(data, None, "docker")
    assert [(one.name, one.unpacked) for one in folded.layers] == [
        (f"{ONE.diff_id[7:]}.tar", True),
        (f"{TWO.diff_id[7:]}.tar", True),
    ]
    again = parse_document(found(files_of(folded, made), "docker-archive").document)
    assert (again.reference, again.config) == (f"{NAME}:1", made.config.data)
    untagged = document(made, reference=f"{NAME}@{made.digest}")
    saved = json.loads(oci.format_fold(untagged, None, "docker").documents["manifest.json"])
    assert saved[0]["RepoTags"] == []


def test_other_kinds_and_other_documents_are_refused() -> None:
    with pytest.raises(Refused, match="not as zip"):
        oci.format_fold(document(image(ONE)), None, "zip")
    with pytest.raises(ManifestInvalid):
        oci.format_fold(b"{}", None, "oci")


@pytest.mark.parametrize("behind", [False, True])
def test_signatures_keep_bytes_and_order(behind: bool) -> None:
    made = image(ONE)
    top = index(made).digest if behind else made.digest
    alice, bob = Signer(), Signer("ed25519")
    signatures = []
    for number, signer in enumerate((alice, bob, alice)):
        one = signer.simple(f"{NAME}:{number}", top)
        signatures.append(RegistrySignature("simple", one.payload, one.signature))
    signatures.append(RegistrySignature("bundle", bob.bundle(top)))
    signatures.append(RegistrySignature("bundle", b"not even JSON"))
    signature = dump_signatures(signatures)
    data = document(made, behind=behind)
    again = found(files_of(oci.format_fold(data, signature, "oci"), made))
    assert (again.document, again.signature) == (data, signature)


def test_a_signature_of_the_manifest_lies_beside_the_manifest() -> None:
    made = image(ONE)
    one = Signer().simple(NAME, made.digest)
    signature = dump_signatures([RegistrySignature("simple", one.payload, one.signature)])
    folded = oci.format_fold(document(made, behind=True), signature, "oci")
    entries = json.loads(folded.documents["index.json"])["manifests"]
    tags = [entry["annotations"].get(REF_NAME) for entry in entries]
    assert tags == ["1", f"sha256-{made.digest[7:]}.sig"]
    kinds = [entry["annotations"]["kind"].rpartition("/")[2] for entry in entries]
    assert kinds == ["image", "sigs"]


def test_the_oci_form_changes_media_types_alone() -> None:
    made = image(ONE, TWO, kind=DOCKER)
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    listed = [layer_descriptor(ONE, DOCKER, mediaType=foreign, urls=["https://x.example/"])]
    listed.append(layer_descriptor(TWO, DOCKER, annotations={"a": "b"}))
    made = made.amended(layers=listed)
    before, after = json.loads(made.manifest.data), json.loads(oci_form(made.manifest.data))
    parsed = parse_manifest(oci_form(made.manifest.data))
    assert parsed.media_type == OCI.manifest
    assert [one.media_type for one in parsed.layers] == [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        OCI.layers["none"],
    ]
    for one in (before, after):
        for part in (one, one["config"], *one["layers"]):
            del part["mediaType"]
    assert before == after
    plain = image(ONE).manifest.data
    assert oci_form(plain) is plain


# -- images of other formats -----------------------------------------------------------------------

LAYER = Layer(f"sha256-{ONE.diff_id[7:]}", ONE.diff_id, len(ONE.tar), "none")


def aci(app: dict[str, Any] | None = None, **fields: Any) -> AnyImage:
    """An image with an appc manifest."""
    value = {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": "example.com/app",
        "labels": [
            {"name": name, "value": text} for name, text in {"version": "1.0", **HOST}.items()
        ],
        **fields,
    }
    if app is not None:
        value["app"] = {"exec": ["/app", "-x"], "user": "0", "group": "0", **app}
    return parse_aci_image(json.dumps(value).encode())


def test_an_aci_reads_back_as_what_it_was() -> None:
    app = {
        "user": "1000",
        "group": "100",
        "workingDirectory": "/srv",
        "environment": [{"name": "A", "value": "b=c"}],
        "ports": [
            {"name": "x", "protocol": "udp", "port": 80, "count": 3},
            {"name": "y", "protocol": "tcp", "port": 90},
        ],
        "mountPoints": [{"name": "data", "path": "/data"}],
        "userLabels": {"l": "v"},
    }
    made = aci(app, annotations=[{"name": "created", "value": "2026-01-01T00:00:00Z"}])
    data = oci.format_compose(made, LAYER)
    assert oci.format_compose(made, LAYER) == data
    read = oci.format_image(data)
    assert (read.name, read.labels) == (made.name, made.labels)
    assert read.app is not None and made.app is not None
    assert read.app._replace(ports=(), mount_points=()) == made.app._replace(
        ports=(), mount_points=()
    )
    assert [(port.port, port.count, port.protocol) for port in read.app.ports] == [
        (80, 3, "udp"),
        (90, 1, "tcp"),
    ]
    assert [point.path for point in read.app.mount_points] == ["/data"]
    assert read.annotations["created"] == "2026-01-01T00:00:00Z"
    assert read.layers == (LAYER,)


def test_what_was_an_oci_image_once_has_its_parts_again() -> None:
    config = {
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["true"],
        "StopSignal": "SIGINT",
        "StopTimeout": 7,
        "Shell": ["/bin/ash"],
        "Healthcheck": {"Test": ["NONE"]},
    }
    first = oci.format_image(document(image(ONE, config=config)))
    again = json.loads(parse_document(oci.format_compose(first, LAYER)).config)
    assert again["config"] == config
    # But not if its manifest was changed since.
    assert first.app is not None
    changed = first._replace(app=first.app._replace(exec=("/other",)))
    again = json.loads(parse_document(oci.format_compose(changed, LAYER)).config)
    assert (again["config"]["Entrypoint"], "Cmd" in again["config"]) == (["/other"], False)


@pytest.mark.parametrize("user", ["", "app", "1000", "app:staff", "0:0", "7:8"])
def test_users_stay_who_they_are(user: str) -> None:
    first = oci.format_image(document(image(ONE, config={"User": user})))
    again = oci.format_image(oci.format_compose(first, LAYER))
    assert first.app is not None and again.app is not None
    assert (again.app.user, again.app.group) == (first.app.user, first.app.group)


@pytest.mark.parametrize(
    ("name", "version", "reference"),
    [
        ("example.com/app", "1.0", "example.com/app:1.0"),
        ("example.com/app", "1.0+g~rc", "example.com/app:1.0-g-rc"),
        ("example.com/app", "~x", "example.com/app:x"),
        ("example.com/app", "sha256:ab", "example.com/app:sha256-ab"),
        ("app", "1", "localhost/app:1"),
        ("a/b", "1", "localhost/a/b:1"),
        ("ex_ample.com/a~b", "1", "localhost/ex_ample.com/a-b:1"),
    ],
)
def test_an_acis_name_becomes_a_reference(name: str, version: str, reference: str) -> None:
    labels = [{"name": key, "value": text} for key, text in {"version": version, **HOST}.items()]
    made = aci({}, name=name, labels=labels)
    assert parse_document(oci.format_compose(made, LAYER)).reference == reference


def test_what_has_no_form_is_refused() -> None:
    with pytest.raises(Refused, match="missing os label"):
        oci.format_compose(aci({}, labels=[]), LAYER)
    for fields in ({"user": "/bin/app"}, {"group": "/bin/app"}):
        with pytest.raises(Refused, match="owns /bin/app"):
            oci.format_compose(aci(fields), LAYER)


def test_an_image_without_an_app_stays_without_a_command() -> None:
    read = oci.format_image(oci.format_compose(aci(), LAYER))
    assert read.app is not None and read.app.exec == ()
