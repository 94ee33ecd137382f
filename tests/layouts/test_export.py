"""`image export`: what goes out is what came in, and other tools read it."""

from __future__ import annotations

import hashlib
import json
import tarfile
from typing import TYPE_CHECKING

import pytest
from exported import NAME, rich, tree
from made import IMAGE_NAME, REF_NAME, files_of, rename, saved, tar_of
from small import runnable

from podctl.testing.ociimages import DOCKER, image, index, write_layout
from podctl.testing.ocilayers import file, layer
from podctl.testing.trees import differences, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from home import Home

    from podctl.testing.realimages import Workshop

pytestmark = pytest.mark.root

SKOPEO = ("skopeo", "copy", "-q", "--insecure-policy")


MADE = {
    "oci": rich,
    "docker": lambda: rich(kind=DOCKER),
    "index": lambda: index(rich(), rich(author="x")._replace(platform="linux/arm64")),
    "twice": lambda: image(*[layer(file("x", "1"))] * 2, config={"Cmd": ["/x"]}),
}


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("target", ["out", "out/", "out.tar"])
def test_a_layout_comes_back_as_it_was(
    home: Home, bring: Callable[..., str], tmp_path: Path, kind: str, target: str
) -> None:
    made = MADE[kind]()
    key = bring(made)
    documents = {
        name: home.must("image", "cat-manifest", f"--original={name}", NAME)
        for name in ("manifest", "config")
    }
    place = tmp_path / target.rstrip("/")
    home.must("image", "export", NAME, f"{tmp_path}/{target}")
    assert place.is_dir() == (not target.endswith(".tar"))
    home.must("image", "rm", key)
    assert home.must("fetch", "--full", f"oci:{place}").strip() == key
    for name, text in documents.items():
        assert home.must("image", "cat-manifest", f"--original={name}", NAME) == text
    one = made.images[0] if kind == "index" else made
    assert documents["manifest"].encode() == one.manifest.data
    assert documents["config"].encode() == one.config.data
    listed = json.loads(home.must("image", "list", "--format=json"))
    assert [entry["digest"] for entry in listed] == [made.digest]


def test_the_digest_can_be_the_name(home: Home, bring: Callable[..., str], tmp_path: Path) -> None:
    """An image that was asked for by digest has no tag, and still its name."""
    made = index(rich())
    place = write_layout(tmp_path / "layout", {"1": made})
    rename(place, **{IMAGE_NAME: f"{NAME}:1"})
    key = home.must("fetch", "--full", f"oci:{place}@{made.digest}").strip()
    home.must("image", "export", f"{NAME}@{made.digest}", str(tmp_path / "out"))
    entry = json.loads((tmp_path / "out/index.json").read_text())["manifests"][0]
    assert entry["annotations"][IMAGE_NAME] == f"{NAME}@{made.digest}"
    assert REF_NAME not in entry["annotations"]
    assert home.must("fetch", "--full", f"oci:{tmp_path}/out").strip() == key


def test_an_index_that_was_cleared_away_is_no_loss_but_its_digest(
    home: Home, bring: Callable[..., str], tmp_path: Path
) -> None:
    made = index(rich())
    bring(made)
    home.must("image", "export", NAME, str(tmp_path / "out"))
    path = tmp_path / "out/blobs/sha256" / made.digest[7:]
    index_bytes = path.read_bytes()
    path.unlink()
    home.must("fetch", f"oci:{tmp_path}/out")
    shown = home.must("image", "cat-manifest", "--original", NAME)
    assert shown.encode() == made.images[0].manifest.data
    # One that is another document is no index of it.
    path.write_bytes(index_bytes + b" ")
    assert "its digest is not" in home.refused("fetch", f"oci:{tmp_path}/out")
    other = index(runnable(shell="true"))
    other_path = tmp_path / "out/blobs/sha256" / other.digest[7:]
    other_path.write_bytes(other.document.data)
    listed = (tmp_path / "out/index.json").read_text()
    (tmp_path / "out/index.json").write_text(listed.replace(made.digest, other.digest))
    assert "does not list" in home.refused("fetch", f"oci:{tmp_path}/out")


@pytest.mark.parametrize("kind", ["oci", "docker", "index"])
@pytest.mark.parametrize("way", ["oci:out", "oci-archive:out.tar"])
def test_skopeo_reads_what_was_exported(
    home: Home,
    bring: Callable[..., str],
    tmp_path: Path,
    tool: Callable[..., str],
    kind: str,
    way: str,
) -> None:
    made = MADE[kind]()
    bring(made)
    form, _, target = way.partition(":")
    home.must("image", "export", NAME, str(tmp_path / target))
    source = f"{form}:{tmp_path}/{target}:1"
    tool(*SKOPEO, source, f"dir:{tmp_path}/copied")
    one = made.images[0] if kind == "index" else made
    manifest = (tmp_path / "copied/manifest.json").read_bytes()
    # Debian's tools look for OCI's media types alone.
    assert (manifest == one.manifest.data) == (kind != "docker")
    assert json.loads(manifest)["config"]["digest"] == one.config.digest
    for digest, data in one.blobs.items():
        assert (tmp_path / "copied" / digest[7:]).read_bytes() == data
    # The only image needs no name.
    raw = tool("skopeo", "inspect", "--raw", source.removesuffix(":1"))
    assert raw.encode() == manifest


@pytest.mark.timeout(300)
def test_umoci_unpacks_the_same_tree(
    home: Home, workshop: Workshop, tmp_path: Path, tool: Callable[..., str]
) -> None:
    source = workshop.layered()
    home.must("fetch", source)
    for number, target in enumerate(("out", "again")):
        home.must("image", "export", "localhost/layout:layered", str(tmp_path / target))
        assert files_of(tmp_path / target) == files_of(tmp_path / "out"), number
    bundle = tmp_path / "bundle"
    tool("umoci", "unpack", "--image", f"{tmp_path}/out:layered", bundle)
    theirs = snapshot(bundle / "rootfs")
    assert differences(theirs, snapshot(workshop.unpacked("layered", tmp_path / "first"))) == []
    tool("umoci", "gc", "--layout", tmp_path / "out")
    home.must("fetch", f"oci:{tmp_path}/out")


def test_umoci_reads_an_image_that_had_docker_media_types(
    home: Home, bring: Callable[..., str], tmp_path: Path, tool: Callable[..., str]
) -> None:
    made = image(layer(file("x", "x")), kind=DOCKER, config={"Cmd": ["/x"]})
    bring(made)
    home.must("image", "export", NAME, str(tmp_path / "out"))
    tool("umoci", "unpack", "--image", f"{tmp_path}/out:1", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/x").read_text() == "x"
    # A manifest it was not made of is none of its.
    other = image(layer(file("y", "y")), kind=DOCKER, config={"Cmd": ["/x"]})
    path = tmp_path / "out/blobs/sha256" / other.digest[7:]
    path.write_bytes(other.manifest.data)
    listed = (tmp_path / "out/index.json").read_text()
    (tmp_path / "out/index.json").write_text(listed.replace(made.digest, other.digest))
    assert "was not made of" in home.refused("fetch", f"oci:{tmp_path}/out")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_buildah_reads_what_was_exported(
    home: Home, workshop: Workshop, tmp_path: Path, tool: Callable[..., str], kind: str
) -> None:
    made = workshop.busybox(kind)
    tool(*SKOPEO, made, f"docker-archive:{tmp_path}/b.tar:{NAME}:1")
    tool(*SKOPEO, made, f"oci:{tmp_path}/layout:1")
    rename(tmp_path / "layout", **{REF_NAME: "1", IMAGE_NAME: f"{NAME}:1"})
    home.must("fetch", f"oci:{tmp_path}/layout")
    config = home.must("image", "cat-manifest", "--original=config", NAME)
    image_id = hashlib.sha256(config.encode()).hexdigest()
    buildah = ["buildah", f"--root={tmp_path}/storage", f"--runroot={tmp_path}/run"]
    buildah += ["--storage-driver=vfs", "--registries-conf=/dev/null"]
    targets = {"oci": "out", "oci-archive": "out.tar", "docker-archive": "docker.tar"}
    for way, target in targets.items():
        form = "docker" if way == "docker-archive" else "oci"
        home.must("image", "export", f"--format={form}", NAME, str(tmp_path / target))
        # It makes names of paths, which must then be lower case.
        pulled = tool("env", f"--chdir={tmp_path}", *buildah, "pull", "-q", f"{way}:{target}")
        assert pulled.strip() == image_id


@pytest.mark.parametrize("kind", MADE)
def test_a_docker_archive_has_the_configuration_and_the_layers(
    home: Home, bring: Callable[..., str], tmp_path: Path, tool: Callable[..., str], kind: str
) -> None:
    made = MADE[kind]()
    one = made.images[0] if kind == "index" else made
    bring(made)
    target = tmp_path / "out.tar"
    home.must("image", "export", "--format=docker", NAME, str(target))
    with tarfile.open(target) as archive:
        files = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    assert files[f"{one.config.digest[7:]}.json"] == one.config.data
    expected = {f"{part.diff_id[7:]}.tar": part.tar for part in one.layers}
    assert {name: data for name, data in files.items() if name.endswith(".tar")} == expected
    assert json.loads(files["manifest.json"])[0]["RepoTags"] == [f"{NAME}:1"]
    # skopeo finds the same image in it, by its docker image ID.
    tool(*SKOPEO, f"docker-archive:{target}:{NAME}:1", f"dir:{tmp_path}/copied")
    manifest = json.loads((tmp_path / "copied/manifest.json").read_text())
    assert manifest["config"]["digest"] == one.config.digest
    assert tool("skopeo", "inspect", "--raw", f"docker-archive:{target}")
    # And so does podctl.
    before = tree(home, NAME, tmp_path / "before")
    home.must("image", "rm", NAME)
    home.must("fetch", f"docker-archive:{target}")
    assert differences(tree(home, f"{NAME}:1", tmp_path / "after"), before) == []


def test_a_docker_archive_made_of_one_is_the_same(home: Home, tmp_path: Path) -> None:
    made = runnable(file("srv/x", "x"), shell="cat /srv/x")
    archive = tar_of(tmp_path / "in.tar", saved(made, "docker.io/library/app:1"))
    key = home.must("fetch", "--full", str(archive)).strip()
    for target in ("one.tar", "two.tar"):
        home.must("image", "export", "--format=docker", key, str(tmp_path / target))
        home.must("image", "rm", key)
        assert home.must("fetch", "--full", str(tmp_path / target)).strip() == key
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as opened:
        listed = opened.extractfile("manifest.json")
        assert listed is not None
        assert json.load(listed)[0]["RepoTags"] == ["docker.io/library/app:1"]


# -- what is refused, and leaves nothing -----------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("out",), ("out.tar",), ("--format=docker", "d.tar"), ("--format=aci", "a.aci")]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_store_is_noticed_and_leaves_nothing(
    home: Home, bring: Callable[..., str], tmp_path: Path, words: tuple[str, ...], damage: str
) -> None:
    made = rich()
    bring(made)
    digits = made.layers[1].digest[7:]
    path = home.data / "cas/blobs/sha256" / digits[:2] / digits
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-1])
    if words[0] == "--format=aci":
        # It is made of what was unpacked.
        for layer_directory in (home.data / "layers").iterdir():
            (layer_directory / "done.json").unlink()
    out = tmp_path / "export"
    out.mkdir()
    *flags, target = words
    line = home.refused("image", "export", *flags, NAME, f"{out}/{target}")
    assert digits in line
    assert list(out.iterdir()) == []
    assert not list((home.data / "cas/tmp").iterdir())


def test_the_name_of_the_output_must_fit(
    home: Home, bring: Callable[..., str], tmp_path: Path
) -> None:
    bring(rich())
    for words in ((), ("--format=oci",), ("--format=docker",)):
        line = home.refused("image", "export", *words, NAME, f"{tmp_path}/x.aci")
        assert "pass --format=aci" in line
    line = home.refused("image", "export", "--format=tar", NAME, f"{tmp_path}/x.tar")
    assert "'tar' is not one of" in line
    assert "is or holds the data directory" in home.refused(
        "image", "export", "--overwrite", NAME, str(home.data)
    )


def test_nothing_is_overwritten_unasked(
    home: Home, bring: Callable[..., str], tmp_path: Path
) -> None:
    bring(rich())
    place = tmp_path / "there"
    for form, target in (("oci", "d"), ("oci", "f.tar"), ("docker", "f.tar")):
        place.mkdir(exist_ok=True)
        (place / "d").mkdir(exist_ok=True)
        (place / "d/mine").write_text("mine")
        (place / "f.tar").write_text("mine")
        words = ["image", "export", f"--format={form}", NAME, f"{place}/{target}"]
        assert "exists (try --overwrite)" in home.refused(*words)
        assert (place / "d/mine").read_text() == (place / "f.tar").read_text() == "mine"
        home.must(*words, "--overwrite")
        assert sorted(path.name for path in place.iterdir()) == ["d", "f.tar"]
        if target == "d":
            assert (place / "d/oci-layout").exists() and not (place / "d/mine").exists()


def test_originals_are_printed_byte_for_byte(home: Home, bring: Callable[..., str]) -> None:
    made = index(rich())
    bring(made)
    one = made.images[0]
    expected = {
        "--original": one.manifest.data,
        "--original=manifest": one.manifest.data,
        "--original=config": one.config.data,
        "--original=index": made.document.data,
    }
    for flag, data in expected.items():
        shown = home.podctl("image", "cat-manifest", flag, NAME, text=False)
        assert shown.stdout == data  # type: ignore[comparison-overlap]
    line = home.refused("image", "cat-manifest", "--original=layers", NAME)
    assert "it has: manifest, config, index" in line
    home.install("example.com/app")
    with tarfile.open(home.top / "example.com-app.aci") as archive:
        manifest = archive.extractfile("manifest")
        assert manifest is not None
        shown = home.podctl("image", "cat-manifest", "--original", "example.com/app", text=False)
        assert shown.stdout == manifest.read()  # type: ignore[comparison-overlap]
