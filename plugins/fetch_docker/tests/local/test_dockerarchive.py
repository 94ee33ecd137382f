"""Archives of `docker save`, old and new."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_files import MemoryFiles

from podctl.errors import InvalidInput, ManifestInvalid, NotFound, Refused
from podctl.testing import ociimages
from podctl.testing.ocilayers import Layer, file, layer
from podctl_fetch_docker.dockerarchive import is_docker_archive, read_docker_archive
from podctl_fetch_docker.format import oci

if TYPE_CHECKING:
    from podctl_fetch_docker.archivefiles import Found

LOWER, UPPER = (layer(file(name), compression="none") for name in ("lower", "upper"))


def config(*layers: Layer, **fields: Any) -> bytes:
    return ociimages.image(*layers, config=fields).config.data


def hexes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Archive:
    """An archive in the making."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.content: dict[str, bytes | tuple[str, bool]] = {}

    def old(self, tags: list[str] | None, *layers: Layer, **fields: Any) -> Archive:
        """As docker 1.10 to 24 and skopeo write it."""
        document = config(*layers, **fields)
        names = []
        for number, one in enumerate(layers):
            names.append(f"{number:064x}/layer.tar")
            self.content.setdefault(names[-1], one.blob)
        return self.save(f"{hexes(document)}.json", document, tags, names)

    def new(self, tags: list[str] | None, *layers: Layer, **fields: Any) -> Archive:
        """As docker 25 writes it: the blobs of an OCI layout."""
        document = config(*layers, **fields)
        names = [f"blobs/sha256/{hexes(one.blob)}" for one in layers]
        self.content |= {name: one.blob for name, one in zip(names, layers, strict=True)}
        return self.save(f"blobs/sha256/{hexes(document)}", document, tags, names)

    def save(
        self, name: str, document: bytes, tags: list[str] | None, layers: list[str]
    ) -> Archive:
        self.content[name] = document
        self.images.append({"Config": name, "RepoTags": tags, "Layers": layers})
        return self

    @property
    def files(self) -> MemoryFiles:
        return MemoryFiles({"manifest.json": json.dumps(self.images).encode(), **self.content})


def found(archive: Archive | MemoryFiles, selector: str | None = None) -> Found:
    files = archive.files if isinstance(archive, Archive) else archive
    result = read_docker_archive(files, selector, "localhost/file")
    image = oci.format_image(manifest=result.document.dump())
    assert set(result.blobs) == {one.blob for one in image.layers}
    return result


def test_an_old_archive() -> None:
    archive = Archive().old(["busybox:1.36"], LOWER, UPPER, Cmd=["sh"])
    assert is_docker_archive(archive.files)
    assert not is_docker_archive(MemoryFiles({}))
    result = found(archive)
    assert result.document.reference == "registry-1.docker.io/library/busybox:1.36"
    assert (result.document.image_index, result.signatures) == (None, [])
    assert result.document.config == config(LOWER, UPPER, Cmd=["sh"])
    # Plain layers have the digest of their content, in the order of the configuration.
    assert list(result.blobs.items()) == [
        (LOWER.diff_id, f"{0:064x}/layer.tar"),
        (UPPER.diff_id, f"{1:064x}/layer.tar"),
    ]
    layers = oci.format_image(manifest=result.document.dump()).layers
    assert [(one.size, one.compression) for one in layers] == [
        (len(LOWER.blob), "none"),
        (len(UPPER.blob), "none"),
    ]


def test_a_new_archive() -> None:
    result = found(Archive().new(["r.example/app:1"], LOWER, UPPER))
    assert result.document.reference == "r.example/app:1"
    assert result.blobs[UPPER.diff_id] == f"blobs/sha256/{hexes(UPPER.blob)}"


def test_equal_images_get_an_equal_manifest() -> None:
    one = found(Archive().old(["a:1"], LOWER, UPPER))
    two = found(Archive().old(["a:1"], UPPER, Cmd=["x"]).new(["a:2"], LOWER, UPPER), "a:2")
    assert one.document.manifest == two.document.manifest
    assert json.loads(one.document.manifest)["config"]["digest"] == (
        f"sha256:{hexes(one.document.config)}"
    )


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_layers_are_named_by_their_bytes(compression: str) -> None:
    packed = layer(file("lower"), compression=compression)
    files = Archive().old(["a:1"], packed, UPPER).files
    result = found(files)
    assert list(result.blobs) == [packed.digest, UPPER.diff_id]
    assert files.digested == [f"{0:064x}/layer.tar"]
    image = oci.format_image(manifest=result.document.dump())
    assert [one.compression for one in image.layers] == [compression, "none"]
    # Where the file is named by its digest nobody reads it for that.
    named = Archive().new(["a:1"], packed).files
    assert list(found(named).blobs) == [packed.digest]
    assert named.digested == []


def test_a_tar_may_begin_with_any_name() -> None:
    for name in ("BZh9", "\x1f", "(x"):
        odd = layer(file(name), compression="none")
        assert list(found(Archive().old(["a:1"], odd)).blobs) == [odd.diff_id]


@pytest.mark.parametrize("magic", [b"BZh91AY", b"\xfd7zXZ\0"])
def test_other_compressions_are_refused_by_name(magic: bytes) -> None:
    files = Archive().old(["a:1"], LOWER).files
    files.content[f"{0:064x}/layer.tar"] = magic + b"x" * 100
    with pytest.raises(Refused, match="is compressed with"):
        found(files)


def test_layers_that_images_share_are_links() -> None:
    archive = Archive().old(["a:1"], LOWER, UPPER)
    archive.content[f"{1:064x}/layer.tar"] = ("../shared/layer.tar", False)
    archive.content["shared/layer.tar"] = (f"{7:064x}.tar", True)
    archive.content[f"{7:064x}.tar"] = UPPER.blob
    assert found(archive).blobs[UPPER.diff_id] == f"{7:064x}.tar"


@pytest.mark.parametrize(
    ("target", "hard", "message"),
    [
        ("../../etc/shadow", False, "no name inside"),
        ("/etc/shadow", False, "no name inside"),
        ("/etc/shadow", True, "no name inside"),
        ("../x", True, "no name inside"),
        ("..", False, "no name inside"),
        ("layer.tar", False, "more than 8 links"),
        ("nothing", False, "is missing"),
        ("", False, "is missing"),
    ],
)
def test_links_that_lead_out_or_nowhere_are_refused(target: str, hard: bool, message: str) -> None:
    archive = Archive().old(["a:1"], LOWER)
    archive.content[f"{0:064x}/layer.tar"] = (target, hard)
    with pytest.raises(ManifestInvalid, match=message):
        found(archive)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../x", "./x", "a//x", "", ".", "..", "a/", "a\n"]
)
def test_names_that_are_no_file_s_are_refused(name: str) -> None:
    document = config(LOWER)
    for saved in (
        {"Config": name, "RepoTags": None, "Layers": ["x"]},
        {"Config": "c.json", "RepoTags": None, "Layers": [name]},
    ):
        content = {"manifest.json": json.dumps([saved]).encode(), "c.json": document, "x": b""}
        with pytest.raises(ManifestInvalid):
            found(MemoryFiles(content))


class TestSelection:
    archive = (
        Archive()
        .old(["a:1", "a:latest"], LOWER, Cmd=["a"])
        .new(["r.example:5000/b:1"], LOWER, Cmd=["b"])
        .new(None, LOWER, Cmd=["c"])
        .new(["<none>:<none>"], UPPER, Cmd=["d"])
    )

    @pytest.mark.parametrize(
        ("selector", "command", "reference"),
        [
            ("a:1", "a", "registry-1.docker.io/library/a:1"),
            ("a", "a", "registry-1.docker.io/library/a:latest"),
            ("docker.io/library/a:1", "a", "registry-1.docker.io/library/a:1"),
            ("r.example:5000/b:1", "b", "r.example:5000/b:1"),
        ],
    )
    def test_by_tag(self, selector: str, command: str, reference: str) -> None:
        result = found(self.archive, selector)
        assert json.loads(result.document.config)["config"]["Cmd"] == [command]
        assert result.document.reference == reference

    def test_by_image_id(self) -> None:
        digest = f"sha256:{hexes(config(LOWER, Cmd=['c']))}"
        result = found(self.archive, digest)
        assert json.loads(result.document.config)["config"]["Cmd"] == ["c"]
        manifest = f"sha256:{hexes(result.document.manifest)}"
        assert result.document.reference == f"localhost/file@{manifest}"

    def test_several_need_a_name(self) -> None:
        with pytest.raises(Refused, match="several images") as caught:
            found(self.archive)
        assert "registry-1.docker.io/library/a:1" in (caught.value.hint or "")
        with pytest.raises(NotFound, match="no image z"):
            found(self.archive, "z")
        with pytest.raises(NotFound, match="no image"):
            found(Archive())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Config": None}, "Config is required"),
        ({"Config": "missing.json"}, "is missing"),
        ({"Layers": []}, "1 diff_ids, manifest.json 0 layers"),
        ({"Layers": ["x", "x"]}, "1 diff_ids, manifest.json 2 layers"),
        ({"Layers": "x"}, "must be an array"),
        ({"Layers": ["missing"]}, "is missing"),
        ({"RepoTags": ["A:1"]}, "is no tag"),
        ({"RepoTags": ["a@b"]}, "is no tag"),
        ({"RepoTags": [1]}, "must be a string"),
        ({"config": "x"}, "must be spelt 'Config'"),
    ],
)
def test_malformed_archives_are_refused(change: dict[str, Any], message: str) -> None:
    archive = Archive().old(["a:1"], LOWER)
    archive.images[0] |= change
    with pytest.raises(ManifestInvalid, match=message):
        found(archive)


def test_a_configuration_named_by_its_digest_must_have_it() -> None:
    for archive in (Archive().old(["a:1"], LOWER), Archive().new(["a:1"], LOWER)):
        archive.content[archive.images[0]["Config"]] = config(LOWER, Cmd=["other"])
        with pytest.raises(ManifestInvalid, match="its digest is not"):
            found(archive)
    free = Archive().save("config.json", config(LOWER), ["a:1"], ["x"])
    free.content["x"] = LOWER.blob
    assert found(free).document.config == config(LOWER)


def test_manifest_json_must_be_a_list_of_a_thousand_at_most() -> None:
    for data in (b"{}", b'"x"', b"[1]", b"", b"[[]]"):
        with pytest.raises(ManifestInvalid):
            found(MemoryFiles({"manifest.json": data}))
    many = json.dumps([{"Config": "c", "RepoTags": [], "Layers": []}] * 1001).encode()
    with pytest.raises(ManifestInvalid, match="more than 1000"):
        found(MemoryFiles({"manifest.json": many}))


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_manifest_json_gives_an_image_or_a_refusal(data: st.DataObject) -> None:
    files = Archive().old(["a:1"], LOWER).new(["b:1"], UPPER).files
    content = bytes(files.content["manifest.json"])
    at = data.draw(st.integers(0, len(content)))
    cut = data.draw(st.integers(at, min(len(content), at + 30)))
    changed = content[:at] + data.draw(st.binary(max_size=9)) + content[cut:]
    files.content["manifest.json"] = changed
    try:
        found(files, data.draw(st.sampled_from([None, "a:1", "b:1"]) | st.text(max_size=8)))
    except (InvalidInput, NotFound, Refused):
        return
