"""The format `oci`: an image document becomes an image if all that is in it belongs together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pluggy
import pytest

from podctl.api.hookspecs import FormatSpec
from podctl.errors import ManifestInvalid, Refused
from podctl.model.image import Image, Layer
from podctl.model.imagedocument import ImageDocument
from podctl.model.podmanifest import PodManifest, RuntimeApp
from podctl.testing import ociimages
from podctl.testing.ocilayers import file, layer
from podctl_fetch_docker.format import oci

DATA = Path(__file__).parent / "data"
REFERENCE = "registry.example:5000/Team_A/app:1.0".lower()


def read(name: str) -> bytes:
    return (DATA / f"{name}.json").read_bytes()


def document(
    made: ociimages.Image, index: ociimages.Index | None = None, reference: str = REFERENCE
) -> ImageDocument:
    top = None if index is None else index.document.data
    return ImageDocument(reference, top, made.manifest.data, made.config.data)


def image_of(made: ImageDocument) -> Image:
    return oci.format_image(manifest=made.dump())


def simple(**fields: Any) -> ociimages.Image:
    return ociimages.image(layer(file("hello", "world")), **fields)


def test_the_layout_is_that_of_layers() -> None:
    layout = oci.format_layout()
    assert (layout.manifest, layout.rootfs, layout.whiteouts) == (None, None, True)


def test_the_provider_matches_the_hook_specs() -> None:
    manager = pluggy.PluginManager("podctl")
    manager.add_hookspecs(FormatSpec)
    manager.register(oci)
    manager.check_pending()


def test_an_image_made_by_a_real_tool() -> None:
    made = ImageDocument(REFERENCE, None, read("umoci.manifest"), read("umoci.config"))
    found = image_of(made)
    assert (found.format, found.name) == ("oci", "registry.example-5000/team_a/app")
    assert found.labels == {"version": "1.0", "os": "linux", "arch": "amd64"}
    assert (found.dependencies, found.path_whitelist, found.manifest) == ((), (), made.dump())
    assert found.layers == (
        Layer(
            "sha256-b4a53e4196d75b9888734dd6a110be30d8d7a16e65287c06a75a01259875ee0f",
            "sha256:8cc7c3b9d9d12647e26d3455af7dd89857d606739b37db8e14d2d211964f4e30",
            1083931,
            "gzip",
        ),
    )
    app = found.app
    assert app is not None
    assert (app.exec, app.user, app.group) == (("sh",), "1000", "50")
    assert (app.working_directory, app.environment) == ("/tmp", {"A": "b"})
    assert found.annotations == {
        "created": "2026-11-25T10:20:56.884828826Z",
        "appc.io/docker/originalname": REFERENCE,
        "appc.io/docker/registryurl": "registry.example:5000",
        "appc.io/docker/repository": "team_a/app",
        "appc.io/docker/imageid": f"sha256:{hashlib.sha256(made.config).hexdigest()}",
        "appc.io/docker/manifesthash": f"sha256:{hashlib.sha256(made.manifest).hexdigest()}",
        "appc.io/docker/cmd": '["sh"]',
        "appc.io/docker/stopsignal": "SIGINT",
    }


@pytest.mark.parametrize(
    ("index", "manifest", "config", "arch", "compression"),
    [
        (None, "buildah-docker.manifest", "buildah-docker.config", "amd64", "gzip"),
        (None, "buildah-oci.manifest", "buildah-oci.config", "amd64", "gzip"),
        ("buildah-index.index", "buildah-oci.manifest", "buildah-oci.config", "amd64", "gzip"),
        (
            "buildah-index.index",
            "buildah-index.arm64.manifest",
            "buildah.arm64.config",
            "aarch64",
            "gzip",
        ),
        (
            "buildah-list.index",
            "buildah-list.arm64.manifest",
            "buildah.arm64.config",
            "aarch64",
            "none",
        ),
        (
            "buildah-list.index",
            "buildah-list.amd64.manifest",
            "buildah-oci.config",
            "amd64",
            "none",
        ),
    ],
)
def test_images_of_either_family_with_and_without_an_index(
    index: str | None, manifest: str, config: str, arch: str, compression: str
) -> None:
    made = ImageDocument(
        REFERENCE, None if index is None else read(index), read(manifest), read(config)
    )
    found = image_of(made)
    assert found.labels["arch"] == arch
    assert [one.compression for one in found.layers] == [compression]
    assert found.app is not None
    assert found.app.exec[0] == "/hello"


def test_documents_are_named_the_manifest_first() -> None:
    one = simple()
    both = ociimages.index(one)
    found = oci.format_documents(manifest=document(one, both).dump())
    assert list(found.items()) == [
        ("manifest", one.manifest.data),
        ("config", one.config.data),
        ("index", both.document.data),
    ]
    assert list(oci.format_documents(manifest=document(one).dump())) == ["manifest", "config"]


def test_layers_stand_in_their_order_also_twice() -> None:
    lower, upper = layer(file("a")), layer(file("b"), compression="zstd")
    found = image_of(document(ociimages.image(lower, upper, lower)))
    assert [one.compression for one in found.layers] == ["gzip", "zstd", "gzip"]
    assert found.layers[0] == found.layers[2]
    assert found.layers[0].diff_id == lower.diff_id.replace(":", "-")


class TestReferences:
    def test_a_digest_pins_the_manifest_or_the_index(self) -> None:
        one = simple()
        both = ociimages.index(one)
        for index, data in ((None, one.manifest.data), (both, both.document.data)):
            for algorithm in ("sha256", "sha512"):
                digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
                found = image_of(document(one, index, f"r.example/a@{digest}"))
                assert found.labels["version"] == digest

    def test_r13_a_digest_of_anything_else_is_refused(self) -> None:
        one = simple()
        both = ociimages.index(one)
        wrong = "sha256:" + "0" * 64
        for index, digest in ((None, wrong), (None, both.digest), (both, one.digest)):
            with pytest.raises(ManifestInvalid, match="documents are not those of"):
                image_of(document(one, index, f"r.example/a@{digest}"))

    @pytest.mark.parametrize(
        "reference",
        ["", "app", "app:1.0", "library/app:1.0", "docker.io/library/app:1.0", "r.example/app",
         "docker://r.example/app:1", "r.example/App:1", "r.example/../x:1", "r.example/a:1\n",
         "r.example/a:1@sha256:" + "0" * 64, "r.example/a@sha256:0", "r.example:99999/a:1",
         "-r.example/a:1", "r.example//a:1", "r.example/" + "a" * 300 + ":1"],
    )  # fmt: skip
    def test_m9_references_not_in_full_form_are_refused(self, reference: str) -> None:
        with pytest.raises(ManifestInvalid, match="image document"):
            image_of(document(simple(), reference=reference))

    def test_names_too_long_for_the_store_are_refused(self) -> None:
        reference = f"{'r' * 60}.example/{'a' * 200}:1"
        with pytest.raises(ManifestInvalid, match="image document: .* longer than"):
            image_of(document(simple(), reference=reference))

    def test_the_hub_has_one_name(self) -> None:
        found = image_of(document(simple(), reference="registry-1.docker.io/library/redis:7"))
        assert found.name == "registry-1.docker.io/library/redis"


class TestAgreement:
    """M7: the parts of a document must name one another."""

    one = simple()
    other = simple(config={"Cmd": ["/other"]})

    def refuse(self, made: ImageDocument, message: str) -> None:
        with pytest.raises(ManifestInvalid, match=message):
            image_of(made)

    def test_control_the_parts_that_belong_together(self) -> None:
        image_of(document(self.one, ociimages.index(self.one, self.other)))

    def test_a_configuration_of_another_image(self) -> None:
        made = document(self.one)._replace(config=self.other.config.data)
        self.refuse(made, "image configuration: .*(descriptor says|digest is not)")

    def test_a_manifest_the_index_does_not_list(self) -> None:
        self.refuse(document(self.one, ociimages.index(self.other)), "its index does not list it")

    def test_a_listed_manifest_of_another_size_or_type(self) -> None:
        for fields, message in (
            ({"size": 1}, "where its descriptor says 1"),
            ({"mediaType": ociimages.DOCKER.manifest}, "its descriptor says"),
        ):
            entry = ociimages.index_entry(self.one) | fields
            both = ociimages.index(self.one)
            amended = both._replace(document=both.document.amended(manifests=[entry]))
            self.refuse(document(self.one, amended), message)

    def test_an_index_in_the_manifest_s_place_and_the_other_way_round(self) -> None:
        both = ociimages.index(self.one)
        outer = ociimages.chained(self.one, 2)
        made = document(self.one)
        self.refuse(made._replace(manifest=both.document.data), "is an index")
        self.refuse(made._replace(image_index=self.one.manifest.data), "is a manifest")
        nested = made._replace(image_index=outer[0].data, manifest=outer[1].data)
        self.refuse(nested, "is an index")
        # M5: what an index leads to through another one is not listed in it.
        self.refuse(made._replace(image_index=outer[0].data), "its index does not list it")

    def test_a_configuration_for_another_platform(self) -> None:
        both = ociimages.index(self.one._replace(platform="linux/arm64"))
        self.refuse(document(self.one, both), "is for linux/amd64, its index says linux/arm64")

    def test_a_manifest_listed_for_several_platforms_needs_one_that_fits(self) -> None:
        both = ociimages.index(self.one._replace(platform="linux/arm64"), self.one)
        assert image_of(document(self.one, both)).labels["arch"] == "amd64"

    def test_more_or_fewer_diff_ids_than_layers(self) -> None:
        for diff_ids in ([], ["sha256:" + "0" * 64] * 2):
            made = self.one.reconfigured(rootfs={"type": "layers", "diff_ids": diff_ids})
            self.refuse(document(made), "diff_ids, its manifest 1 layers")

    def test_a_layer_described_in_two_ways(self) -> None:
        described = self.one.manifest.value["layers"][0]
        diff_id = self.one.config.value["rootfs"]["diff_ids"][0]
        config = self.one.reconfigured(rootfs={"type": "layers", "diff_ids": [diff_id] * 2})
        for change in ({"size": 1}, {"mediaType": ociimages.OCI.layers["none"]}):
            made = config.amended(layers=[described, described | change])
            self.refuse(document(made), "described in two ways")
        rootfs = {"type": "layers", "diff_ids": [diff_id, "sha256:" + "0" * 64]}
        made = self.one.reconfigured(rootfs=rootfs).amended(layers=[described] * 2)
        self.refuse(document(made), "described in two ways")


def test_the_variant_may_stand_in_the_index_alone() -> None:
    one = simple(platform="linux/arm")
    both = ociimages.index(one._replace(platform="linux/arm/v6"))
    assert image_of(document(one, both)).labels["arch"] == "armv6l"
    assert image_of(document(one)).labels["arch"] == "armv7l"


@pytest.mark.parametrize("platform", ["windows/amd64", "linux/riscv64", "linux/wasm", "plan9/386"])
def test_m8_systems_and_architectures_appc_does_not_know_are_refused(platform: str) -> None:
    with pytest.raises(Refused, match=f"image is made for {platform}"):
        image_of(document(simple(platform=platform)))


def test_artifacts_and_odd_layers_are_refused_by_name() -> None:
    one = simple()
    artifact = one.config.descriptor(mediaType="application/vnd.oci.empty.v1+json")
    with pytest.raises(Refused, match="no container image"):
        image_of(document(one.amended(config=artifact)))
    encrypted = one.manifest.value["layers"][0]
    encrypted["mediaType"] += "+encrypted"
    with pytest.raises(Refused, match="is encrypted"):
        image_of(document(one.amended(layers=[encrypted])))
    with pytest.raises(Refused, match="has no layers"):
        image_of(document(ociimages.image()))


def test_documents_that_are_none_are_refused() -> None:
    good = document(simple()).dump()
    for data in (b"", b"{}", good[:-1], good + b" ", good.replace(b"podctl.image/1", b"x/1")):
        with pytest.raises(ManifestInvalid, match="image document"):
            oci.format_image(manifest=data)
        with pytest.raises(ManifestInvalid, match="image document"):
            oci.format_documents(manifest=data)


def test_what_an_image_says_can_be_written_into_a_pod_manifest() -> None:
    settings = {
        "Env": ["A=b", "PATH=/bin"],
        "Cmd": ["/hello"],
        "Volumes": {f"/data{n}": {} for n in range(30)},
        "ExposedPorts": {"80/tcp": {}, "9000-9002": {}},
        "Labels": {"any key": "any\nvalue"},
        "User": "app:staff",
        "WorkingDir": "/srv",
    }
    found = image_of(document(simple(config=settings)))
    app = RuntimeApp("app", "sha512-" + "0" * 64, found.name, found.labels, app=found.app)
    written = PodManifest(apps=(app,)).to_json()
    from podctl.model.podmanifest import parse_pod_manifest

    assert parse_pod_manifest(written).apps[0].app == found.app


def test_the_same_documents_give_the_same_image() -> None:
    one = simple(config={"Volumes": {"/b": {}, "/a": {}}, "Labels": {"z": "1", "a": "2"}})
    assert image_of(document(one)) == image_of(document(one))
    assert json.loads(document(one).dump())["kind"] == "podctl.image/1"
