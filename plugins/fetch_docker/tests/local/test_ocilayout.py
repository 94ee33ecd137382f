"""OCI layouts: which image is meant, what it is called, and that all of it is there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_files import IMAGE_NAME, Layout, MemoryFiles, from_directory

from podctl.errors import FetchFailed, InvalidInput, ManifestInvalid, NotFound, Refused
from podctl.model.imagedocument import RegistrySignature
from podctl.testing import cosigning, ociimages
from podctl.testing.ocilayers import file, layer
from podctl_fetch_docker.archivefiles import Found, local_repository
from podctl_fetch_docker.format import oci
from podctl_fetch_docker.ocilayout import is_layout, read_layout
from podctl_fetch_docker.platforms import Platform

AMD64 = Platform("linux", "amd64")
HERE = "localhost/dir"


def made(name: str = "app", **fields: Any) -> ociimages.Image:
    return ociimages.image(
        layer(file("hello", name)), layer(file("more")), config={"Cmd": [name]}, **fields
    )


def found(
    layout: Layout | MemoryFiles, selector: str | None = None, wanted: Platform = AMD64
) -> Found:
    files = layout.files if isinstance(layout, Layout) else layout
    result = read_layout(files, selector, wanted, HERE)
    image = oci.format_image(manifest=result.document.dump())
    assert set(result.blobs) == {one.blob for one in image.layers}
    return result


def command(result: Found) -> str:
    return str(json.loads(result.document.config)["config"]["Cmd"][0])


def test_the_one_image_of_a_layout_needs_no_name() -> None:
    one = made()
    result = found(Layout().put(one, "1.0"))
    assert result.document.reference == "localhost/dir:1.0"
    assert result.document.image_index is None
    assert (result.document.manifest, result.document.config) == (
        one.manifest.data,
        one.config.data,
    )
    assert result.blobs == {
        each.digest: f"blobs/sha256/{each.digest.removeprefix('sha256:')}" for each in one.layers
    }
    assert result.signatures == []


def test_what_is_written_by_the_kit_is_a_layout(tmp_path: Any) -> None:
    ociimages.write_layout(tmp_path, {"1.0": made()})
    files = from_directory(tmp_path)
    assert is_layout(files)
    assert found(files).document.reference == "localhost/dir:1.0"
    assert not is_layout(MemoryFiles({"index.json": b"{}"}))


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        ("a", "a"),
        ("b", "b"),
        ("registry.example/team/c:1.0", "c"),
        ("busybox", "d"),
        ("docker.io/library/busybox:latest", "d"),
        ("busybox:latest", "d"),
        ("latest", "d"),
    ],
)
def test_images_are_found_by_tag_and_by_reference(selector: str, name: str) -> None:
    layout = Layout().put(made("a"), "a").put(made("b"), "b")
    layout.put(made("c"), "registry.example/team/c:1.0")
    annotations = {IMAGE_NAME: "docker.io/library/busybox:latest"}
    layout.put(made("d"), "latest", annotations=annotations)
    assert command(found(layout, selector)) == name


def test_images_are_found_by_digest_also_within_an_index() -> None:
    one, arm = made("one"), made("arm", platform="linux/arm64")
    both = ociimages.index(one, arm)
    layout = Layout().put(both, "all").put(made("other"), "other")
    top = found(layout, both.digest)
    assert top.document.reference == f"localhost/dir@{both.digest}"
    assert top.document.image_index == both.document.data
    inner = found(layout, arm.digest)
    assert command(inner) == "arm"
    assert inner.document.reference == f"localhost/dir@{arm.digest}"
    assert inner.document.image_index is None
    with pytest.raises(NotFound):
        found(layout, "sha256:" + "0" * 64)


def test_a_digest_keeps_the_repository_that_is_said() -> None:
    one = made()
    for name in ("r.example/team/app:1", f"r.example/team/app@{one.digest}"):
        result = found(Layout().put(one, name), one.digest)
        assert result.document.reference == f"r.example/team/app@{one.digest}"


@pytest.mark.parametrize(
    ("name", "annotations", "reference"),
    [
        ("1.0", {}, "localhost/dir:1.0"),
        ("hello:1.0", {}, "localhost/hello:1.0"),
        ("r.example:5000/a/b:1.0", {}, "r.example:5000/a/b:1.0"),
        ("docker.io/library/redis:7", {}, "registry-1.docker.io/library/redis:7"),
        (
            "latest",
            {IMAGE_NAME: "docker.io/library/redis:7"},
            "registry-1.docker.io/library/redis:7",
        ),
        (None, {}, "localhost/dir@DIGEST"),
        ("1.0+build", {}, "localhost/dir@DIGEST"),
        ("../../x", {}, "localhost/dir@DIGEST"),
        ("-x", {}, "localhost/dir@DIGEST"),
        ("r.example/A:1", {}, "localhost/dir@DIGEST"),
        ("r.example/a@sha256:" + "0" * 64, {}, "localhost/dir@DIGEST"),
        ("x@sha256:" + "0" * 64, {}, "localhost/dir@DIGEST"),
    ],
)
def test_an_image_is_called_what_its_entry_says(
    name: str | None, annotations: dict[str, str], reference: str
) -> None:
    one = made()
    result = found(Layout().put(one, name, annotations=annotations))
    assert result.document.reference == reference.replace("DIGEST", one.digest)


def test_an_index_leads_to_the_platform() -> None:
    both = ociimages.index(made("one"), made("arm", platform="linux/arm64"))
    layout = Layout().put(both, "1.0")
    assert command(found(layout)) == "one"
    arm = found(layout, wanted=Platform("linux", "arm64"))
    assert (command(arm), arm.document.image_index) == ("arm", both.document.data)
    with pytest.raises(Refused, match="has no image for linux/s390x") as caught:
        found(layout, wanted=Platform("linux", "s390x"))
    assert "linux/amd64, linux/arm64" in (caught.value.hint or "")


def test_entries_of_one_name_are_chosen_by_platform() -> None:
    layout = Layout()
    for one in (made("one"), made("arm", platform="linux/arm64")):
        system, architecture = one.platform.split("/")
        platform = {"os": system, "architecture": architecture}
        layout.put(one, "1.0", platform=platform)
    assert command(found(layout, "1.0", Platform("linux", "arm64"))) == "arm"
    assert command(found(layout)) == "one"


def test_several_images_need_a_name() -> None:
    layout = Layout().put(made("a"), "a").put(made("b"), "b")
    with pytest.raises(Refused, match="several images") as caught:
        found(layout)
    assert caught.value.hint == "name one of: a, b"
    with pytest.raises(NotFound, match="no image c") as missing:
        found(layout, "c")
    assert missing.value.hint == "it has: a, b"
    with pytest.raises(NotFound, match="no image"):
        found(Layout())


def test_one_image_of_several_tags_is_one() -> None:
    one = made()
    layout = Layout().put(one, "1.0").put(one, "latest")
    assert found(layout).document.reference == "localhost/dir:1.0"
    assert found(layout, "latest").document.reference == "localhost/dir:latest"


class TestBroken:
    def refuse(self, files: MemoryFiles, message: str) -> None:
        with pytest.raises(ManifestInvalid, match=message):
            found(files)

    def test_the_marker_must_be_that_of_a_layout(self) -> None:
        for content in (b"", b"{}", b"[]", b'{"imageLayoutVersion":"2.0.0"}', b'{"a":1,"a":1}'):
            files = Layout().put(made(), "1").files
            files.content["oci-layout"] = content
            self.refuse(files, "oci-layout")
        files.content.pop("oci-layout")
        self.refuse(files, "'oci-layout' is missing")

    def test_documents_must_be_there_and_be_themselves(self) -> None:
        one = made()
        both = ociimages.index(one)
        for digest, what in (
            (both.digest, "index"),
            (one.digest, "manifest"),
            (one.config.digest, "image configuration"),
        ):
            place = f"blobs/sha256/{digest.removeprefix('sha256:')}"
            files = Layout().put(both, "1").files
            files.content[place] = bytes(files.content[place])[:-1] + b" "
            self.refuse(files, f"{what}: its digest is not {digest}")
            files.content[place] = b"x"
            self.refuse(files, f"{what}: 1 bytes where its descriptor says")
            files.content[place] = b"x" * ((4 << 20) + 1)
            self.refuse(files, f"{what}: .* is over")
            files.content.pop(place)
            self.refuse(files, f"{what}: the file .* is missing")

    def test_layers_must_be_there_in_their_size(self) -> None:
        one = made()
        place = f"blobs/sha256/{one.layers[1].digest.removeprefix('sha256:')}"
        files = Layout().put(one, "1").files
        files.content[place] = bytes(files.content[place]) + b"x"
        self.refuse(files, f"layer {one.layers[1].digest}: .* bytes, its manifest says")
        files.content.pop(place)
        self.refuse(files, "is missing")

    def test_a_layer_that_may_not_be_distributed_says_so(self) -> None:
        foreign = made().manifest.value["layers"]
        foreign[0]["urls"] = ["https://elsewhere.example/x"]
        files = Layout().put(made().amended(layers=foreign), "1").files
        files.content.pop(f"blobs/sha256/{foreign[0]['digest'].removeprefix('sha256:')}")
        with pytest.raises(ManifestInvalid) as caught:
            found(files)
        assert "licence" in (caught.value.hint or "")

    def test_m5_indexes_of_indexes_are_not_followed_on(self) -> None:
        one = made()
        outer = ociimages.chained(one, 3)
        layout = Layout().put(one, "inner").list(outer[0], "outer")
        layout.keep(*(each.data for each in outer))
        with pytest.raises(Refused, match="has no image for") as caught:
            found(layout, "outer")
        assert "further indexes" in (caught.value.hint or "")

    def test_an_entry_must_say_what_it_leads_to(self) -> None:
        one = made()
        layout = Layout().put(one, "1", mediaType=ociimages.OCI.index)
        self.refuse(layout.files, "is a application/vnd.oci.image.manifest")

    def test_links_lead_nowhere_outside(self) -> None:
        one = made()
        place = f"blobs/sha256/{one.layers[0].digest.removeprefix('sha256:')}"
        files = Layout().put(one, "1").files
        files.content[place] = ("../../../etc/passwd", False)
        self.refuse(files, "no name inside the archive")

    def test_artifacts_are_refused_or_passed_over(self) -> None:
        one = made()
        artifact = one.amended(config=one.config.descriptor(mediaType="application/x"))
        with pytest.raises(Refused, match="no container image"):
            found(Layout().put(artifact, "1"))
        layout = Layout().put(artifact, None, artifactType="application/x").put(one, "1")
        assert found(layout).document.manifest == one.manifest.data


class TestSignatures:
    """As a registry has them: under cosign's tag, and as referrers."""

    signer = cosigning.Signer()
    one = made()
    both = ociimages.index(one)

    def simple(self, digest: str) -> cosigning.Simple:
        return self.signer.simple("localhost/dir", digest)

    def by_tag(self, layout: Layout, digest: str) -> RegistrySignature:
        simple = self.simple(digest)
        manifest = cosigning.signature_manifest(simple)
        layout.keep(simple.payload).list(manifest, cosigning.signature_tag(digest))
        return RegistrySignature("simple", simple.payload, simple.signature)

    def referrer(
        self, subject: ociimages.Document, digest: str
    ) -> tuple[ociimages.Document, bytes, RegistrySignature]:
        bundle = self.signer.bundle(digest)
        value = {
            "schemaVersion": 2,
            "mediaType": ociimages.OCI.manifest,
            "artifactType": cosigning.BUNDLE,
            "config": cosigning.EMPTY.descriptor(),
            "layers": [ociimages.Document(cosigning.BUNDLE, bundle).descriptor()],
            "subject": subject.descriptor(),
        }
        manifest = ociimages.document(ociimages.OCI.manifest, value)
        return manifest, bundle, RegistrySignature("bundle", bundle)

    def test_by_tag_over_manifest_and_index(self) -> None:
        layout = Layout().put(self.both, "1.0")
        expected = [self.by_tag(layout, self.both.digest), self.by_tag(layout, self.one.digest)]
        assert found(layout).signatures == expected
        assert found(layout, self.one.digest).signatures == expected[1:]
        assert read_layout(layout.files, None, AMD64, HERE, signatures=False).signatures == []

    def test_as_a_referrer_that_the_layout_lists(self) -> None:
        layout = Layout().put(self.one, "1.0")
        manifest, bundle, expected = self.referrer(self.one.manifest, self.one.digest)
        layout.keep(bundle).list(manifest, artifactType=cosigning.BUNDLE)
        assert found(layout).signatures == [expected]

    def test_as_a_referrer_under_the_referrers_tag(self) -> None:
        layout = Layout().put(self.one, "1.0")
        manifest, bundle, expected = self.referrer(self.one.manifest, self.one.digest)
        listing = ociimages.document(
            ociimages.OCI.index,
            {
                "schemaVersion": 2,
                "mediaType": ociimages.OCI.index,
                "manifests": [manifest.descriptor(artifactType=cosigning.BUNDLE)],
            },
        )
        layout.keep(bundle, manifest.data).list(listing, self.one.digest.replace(":", "-"))
        assert found(layout).signatures == [expected]

    def test_of_another_image_is_not_this_one_s(self) -> None:
        other = made("other")
        layout = Layout().put(self.one, "1.0")
        manifest, bundle, _ = self.referrer(other.manifest, self.one.digest)
        layout.keep(bundle).list(manifest, artifactType=cosigning.BUNDLE)
        self.by_tag(layout, other.digest)
        assert found(layout).signatures == []

    def test_what_is_malformed_is_no_signature(self) -> None:
        layout = Layout().put(self.one, "1.0")
        manifest, _, _ = self.referrer(self.one.manifest, self.one.digest)
        # Without the bundle, and with documents that are none.
        layout.list(manifest, artifactType=cosigning.BUNDLE)
        layout.list(ociimages.document(ociimages.OCI.manifest, b"{"), "broken")
        layout.entries.append(made("gone").manifest.descriptor())
        assert found(layout, "1.0").signatures == []
        broken = ociimages.document(ociimages.OCI.manifest, b"{}")
        layout.list(broken, cosigning.signature_tag(self.one.digest))
        with pytest.raises(FetchFailed, match="unusable"):
            found(layout, "1.0")


@pytest.mark.parametrize(
    ("path", "repository"),
    [
        ("/srv/images/app.tar", "localhost/app"),
        ("app.tar.gz", "localhost/app"),
        ("/srv/My App_v1/", "localhost/my-app-v1"),
        ("/", "localhost/image"),
        ("/ü.tar", "localhost/image"),
        ("x" * 300, "localhost/" + "x" * 128),
        (".tar", "localhost/image"),
    ],
)
def test_a_repository_is_named_by_the_place(path: str, repository: str) -> None:
    assert local_repository(path) == repository
    assert found_reference(repository).startswith(f"{repository}:")


def found_reference(repository: str) -> str:
    return read_layout(Layout().put(made(), "1").files, None, AMD64, repository).document.reference


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_index_gives_an_image_or_a_refusal(data: st.DataObject) -> None:
    layout = Layout().put(ociimages.index(made()), "1.0").put(made("b"), "b")
    files = layout.files
    content = bytes(files.content["index.json"])
    at = data.draw(st.integers(0, len(content)))
    cut = data.draw(st.integers(at, min(len(content), at + 30)))
    files.content["index.json"] = content[:at] + data.draw(st.binary(max_size=9)) + content[cut:]
    selector = data.draw(st.sampled_from([None, "1.0", "b", ""]) | st.text(max_size=8))
    try:
        found(files, selector)
    except (InvalidInput, NotFound, Refused, FetchFailed):
        return
