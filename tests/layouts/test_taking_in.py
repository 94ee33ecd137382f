"""Images of layouts and archives: found, taken in, named, and run."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from made import IMAGE_NAME, REF_NAME, files_of, rename, saved, tar_of
from small import runnable

from podctl.testing.ociimages import DOCKER, index, write_layout
from podctl.testing.ocilayers import file
from podctl.testing.trees import differences, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from home import Home

    from podctl.testing.realimages import Workshop

pytestmark = pytest.mark.root

HUB = "registry-1.docker.io"


def names(home: Home) -> list[str]:
    """The names of all stored images."""
    listed = json.loads(home.must("image", "list", "--format=json"))
    return sorted(entry["name"] for entry in listed)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A layout of one image that says hello."""
    return write_layout(tmp_path / "hello", {"1.0": runnable(shell="echo hello")})


@pytest.mark.parametrize(
    "form",
    ["oci:{}", "oci:{}:1.0", "{}", "file://{}", "cimd:oci:v=0:{}?ref=1.0"],
)
def test_a_layout_runs_by_its_directory(home: Home, layout: Path, form: str) -> None:
    assert home.must("run", "--stage1=fly", form.format(layout)) == "hello\n"
    assert names(home) == ["localhost/hello:1.0"]
    assert home.must("run", "--stage1=fly", "localhost/hello:1.0") == "hello\n"
    assert "image" in home.must("image", "verify", "localhost/hello:1.0")
    home.must("fsck")


def test_a_relative_path_is_one(home: Home, layout: Path) -> None:
    for form in ("hello", "./hello", "oci:hello"):
        home.must("fetch", form, cwd=layout.parent)
    assert names(home) == ["localhost/hello:1.0"]


@pytest.mark.parametrize("command", ["gzip", "zstd", "xz", "bzip2", None])
@pytest.mark.parametrize("form", ["oci-archive:{}", "oci:{}:1.0", "{}", "file://{}"])
def test_an_archive_of_a_layout_runs(
    home: Home, layout: Path, command: str | None, form: str
) -> None:
    archive = tar_of(layout.parent / "packed.tar", files_of(layout))
    if command is not None:
        subprocess.run([command, "-q", str(archive)], check=True)
        (archive,) = layout.parent.glob("packed.tar.*")
    assert home.must("run", "--stage1=fly", form.format(archive)) == "hello\n"
    assert names(home) == ["localhost/packed:1.0"]
    assert not list((home.data / "cas/tmp").iterdir())


@pytest.mark.parametrize("form", ["docker-archive:{}", "docker-archive:{}:team/app:1", "{}"])
def test_an_archive_of_docker_save_runs(home: Home, tmp_path: Path, form: str) -> None:
    made = runnable(file("srv/x", "x"), shell="cat /srv/x")
    archive = tar_of(tmp_path / "app.tar", saved(made, "team/app:1", "team/app:latest"))
    assert home.must("run", "--stage1=fly", form.format(archive)) == "x"
    assert names(home) == [f"{HUB}/team/app:1"]


def test_layers_that_were_saved_compressed_are_read(home: Home, tmp_path: Path) -> None:
    made = runnable(file("srv/x", "x"), shell="cat /srv/x")
    files = saved(made, "ko.local/app:1", suffix=".tar.gz")
    assert home.must("run", "--stage1=fly", str(tar_of(tmp_path / "a.tar", files))) == "x"
    assert names(home) == ["ko.local/app:1"]


def test_a_layer_may_be_a_link_to_one(home: Home, tmp_path: Path) -> None:
    import tarfile

    from made import entry

    made = runnable(shell="echo linked")
    files: dict[str, bytes | tarfile.TarInfo] = dict(saved(made))
    listed = json.loads(saved(made)["manifest.json"])
    target = listed[0]["Layers"][0]
    listed[0]["Layers"] = ["one/layer.tar"]
    files["manifest.json"] = json.dumps(listed).encode()
    files["one/layer.tar"] = entry(tarfile.SYMTYPE, f"../{target}")
    archive = tar_of(tmp_path / "linked.tar", files)
    assert home.must("run", "--stage1=fly", f"docker-archive:{archive}") == "linked\n"


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        ({REF_NAME: "2.0"}, "localhost/hello:2.0"),
        ({REF_NAME: "docker.io/team/app:2"}, f"{HUB}/team/app:2"),
        ({REF_NAME: "2", IMAGE_NAME: "quay.io/team/app:2"}, "quay.io/team/app:2"),
        ({REF_NAME: "busybox:1.36"}, "localhost/busybox:1.36"),
        ({REF_NAME: "host:5000/Team/App:2"}, "localhost/hello@"),
        ({}, "localhost/hello:sha256:"),
    ],
)
def test_an_image_is_named_by_what_its_layout_says(
    home: Home, layout: Path, annotations: dict[str, str], name: str
) -> None:
    home.must("fetch", str(rename(layout, **annotations)))
    (found,) = names(home)
    assert found.startswith(name.replace("@", ":sha256:"))


def test_what_was_taken_in_is_found_by_reference_and_digest(home: Home, layout: Path) -> None:
    rename(layout, **{IMAGE_NAME: "docker.io/team/app:2"})
    key = home.must("fetch", "--full", str(layout)).strip()
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    for name in (
        "docker://team/app:2",
        "docker:docker.io/team/app:2",
        f"{HUB}/team/app:2",
        f"{HUB}/team/app@{digest}",
        f"docker.io/team/app@{digest}",
        f"docker://team/app@{digest}",
    ):
        shown = home.must("image", "cat-manifest", "--original", name)
        assert digest[7:] == shown_digest(shown)
        assert key in home.must("image", "list", "--full")
    done = home.must("run", "--stage1=fly", "--pull-policy=never", "docker://team/app:2")
    assert done == "hello\n"
    for name in (f"docker://team/other@{digest}", f"{HUB}/team/app@sha256:{'0' * 64}"):
        assert "is not in the store" in home.refused("image", "cat-manifest", name)
    listed = json.loads(home.must("image", "list", "--format=json"))
    assert listed[0]["digest"] == digest
    home.must("image", "rm", f"{HUB}/team/app@{digest}")
    assert home.images() == []


def shown_digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def test_one_of_several_images_must_be_named(home: Home, tmp_path: Path) -> None:
    images = {tag: runnable(shell=f"echo {tag}") for tag in ("one", "two")}
    layout = write_layout(tmp_path / "many", images)
    assert "several images (name one of: one, two)" in home.refused("fetch", f"oci:{layout}")
    assert "it has: one, two" in home.refused("fetch", f"oci:{layout}:three")
    for tag, made in images.items():
        assert home.must("run", "--stage1=fly", f"oci:{layout}:{tag}") == f"{tag}\n"
        ran = home.must("run", "--stage1=fly", f"oci:{layout}@{made.manifest.digest}")
        assert ran == f"{tag}\n"


def test_an_index_is_chosen_from_by_platform(home: Home, tmp_path: Path) -> None:
    both = index(
        runnable(shell="echo arm")._replace(platform="linux/arm64"), runnable(shell="echo here")
    )
    layout = write_layout(tmp_path / "both", {"1": both})
    assert home.must("run", "--stage1=fly", f"oci:{layout}") == "here\n"
    listed = json.loads(home.must("image", "list", "--format=json"))
    assert listed[0]["digest"] == both.digest
    shown = home.must("image", "cat-manifest", "--original=index", "localhost/both")
    assert shown.encode() == both.document.data


def test_a_docker_manifest_in_a_layout_is_read(home: Home, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "v2s2", {"1": runnable(shell="echo v2", kind=DOCKER)})
    assert home.must("run", "--stage1=fly", str(layout)) == "v2\n"


def test_an_aci_is_one_whatever_its_file_is_called(home: Home, tmp_path: Path) -> None:
    key = home.install("example.com/app")
    made = tmp_path / "installation/example.com-app.aci"
    for name in ("app", "app.tar", "app.docker"):
        shutil.copy(made, tmp_path / name)
        assert home.must("fetch", "--full", str(tmp_path / name)).strip() == key
        plain = tmp_path / f"plain-{name}"
        plain.write_bytes(gzip.decompress(made.read_bytes()))
        assert home.must("fetch", "--full", str(plain)).strip() == key


def test_a_layout_is_never_taken_for_an_aci_by_its_name(home: Home, layout: Path) -> None:
    archive = tar_of(layout.parent / "x.aci", files_of(layout))
    assert "may stand at the top" in home.refused("fetch", str(archive))
    home.must("fetch", f"oci:{archive}")


def test_a_signature_file_goes_with_archives_of_one_image_only(home: Home, layout: Path) -> None:
    signature = layout.parent / "x.asc"
    signature.write_text("x")
    archive = tar_of(layout.parent / "x.tar", files_of(layout))
    for image in (str(layout), str(archive)):
        refusal = home.refused("fetch", f"--signature={signature}", image)
        assert "App Container Images only" in refusal
    assert "goes with an image file" in home.refused(
        "fetch", f"--signature={signature}", f"oci:{layout}"
    )


def test_what_is_here_is_not_read_again(home: Home, layout: Path) -> None:
    home.must("fetch", str(layout))
    before = {path: path.stat().st_ino for path in (home.data / "cas/blobs").rglob("*")}
    layers = [path for path in (layout / "blobs/sha256").iterdir() if path.stat().st_size > 5000]
    assert layers
    for path in layers:
        path.write_bytes(bytes(path.stat().st_size))
    home.must("fetch", str(layout))
    after = {path: path.stat().st_ino for path in (home.data / "cas/blobs").rglob("*")}
    # The document is written anew, with the record.
    assert len({path for path in before if before[path] != after[path]}) <= 1
    # Control: a store without them does read, and refuses.
    home.refused("--dir", f"{home.top}/other", "fetch", str(layout))


def test_two_at_once_give_one_image(home: Home, layout: Path) -> None:
    archive = tar_of(layout.parent / "same.tar", files_of(layout))
    running = [home.start("fetch", str(archive), stdout=subprocess.PIPE) for _ in range(4)]
    ids = {process.communicate()[0] for process in running}
    assert len(ids) == 1 and [process.returncode for process in running] == [0] * 4
    home.must("fsck")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["oci", "oci-archive", "docker-archive"])
def test_the_tree_is_umocis(
    home: Home, workshop: Workshop, tmp_path: Path, tool: Callable[..., str], way: str
) -> None:
    """Whiteouts, opaque directories, hard links, xattrs, long names, by way of skopeo."""
    source = workshop.layered()
    place = tmp_path / ("image" if way == "oci" else "image.tar")
    tag = "team/layered:1" if way == "docker-archive" else "1"
    tool("skopeo", "copy", "-q", "--insecure-policy", source, f"{way}:{place}:{tag}")
    home.must("fetch", f"{way}:{place}")
    (name,) = [entry["name"] for entry in json.loads(home.must("image", "list", "--format=json"))]
    home.must("image", "extract", "--rootfs-only", name, str(tmp_path / "ours"))
    theirs = snapshot(workshop.unpacked("layered", tmp_path / "theirs"))
    nodes = {path for path, row in theirs.items() if row.mode[0] in "bc"}
    expected = {path: row for path, row in theirs.items() if path not in nodes}
    assert differences(snapshot(tmp_path / "ours"), expected) == []


def test_buildahs_archives_are_read(
    home: Home, workshop: Workshop, tmp_path: Path, tool: Callable[..., str]
) -> None:
    source = workshop.busybox("oci")
    for way in ("oci", "oci-archive", "docker-archive"):
        place = tmp_path / f"{way}-image"
        tool(
            "skopeo", "copy", "-q", "--insecure-policy", source, f"{way}:{place}:localhost/b:{way}"
        )
        ran = home.must("run", "--stage1=fly", f"{way}:{place}")
        assert ran.splitlines() == ["hello there from /srv/data", "kept", "kept"]
    assert names(home) == [f"localhost/b:{way}" for way in ("docker-archive", "oci", "oci-archive")]


def test_a_pod_of_a_layout_is_listed_as_any_other(home: Home, layout: Path) -> None:
    uuid = home.must("prepare", "--stage1=fly", f"oci:{layout}").strip()
    manifest = json.loads(home.must("cat-manifest", uuid))
    assert manifest["apps"][0]["image"]["name"] == "localhost/hello"
    assert "localhost/hello:1.0" in home.must("list", "--full")


def test_extracting_gives_the_appc_manifest(home: Home, layout: Path, tmp_path: Path) -> None:
    home.must("fetch", str(layout))
    shown = json.loads(home.must("image", "cat-manifest", "localhost/hello"))
    assert shown["acKind"] == "ImageManifest"
    for command in ("extract", "render"):
        home.must("image", command, "localhost/hello", str(tmp_path / command))
        assert json.loads((tmp_path / command / "manifest").read_text()) == shown
        assert (tmp_path / command / "rootfs/bin/busybox").exists()


def test_a_dry_run_finds_what_a_registry_would_have_delivered(home: Home, layout: Path) -> None:
    rename(layout, **{IMAGE_NAME: "docker.io/team/app:2"})
    words = ["run", "--stage1=fly", "--dry-run"]
    assert "is not in the store" in home.refused(*words, "docker://team/app:2")
    home.must("fetch", str(layout))
    assert "/bin/sh" in home.must(*words, "docker://team/app:2")
    assert "is not in the store" in home.refused(*words, str(layout))
    assert "is not in the store" in home.refused(*words, f"oci:{layout}")
