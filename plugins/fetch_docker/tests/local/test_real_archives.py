"""Directories and archives as skopeo writes them, and what it makes of images of our kit."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from local_files import from_directory, from_tar

from podctl.testing import ociimages
from podctl.testing.ocilayers import file, layer
from podctl_fetch_docker.dockerarchive import is_docker_archive, read_docker_archive
from podctl_fetch_docker.format import oci
from podctl_fetch_docker.ocilayout import is_layout, read_layout
from podctl_fetch_docker.platforms import Platform

if TYPE_CHECKING:
    from pathlib import Path

    from podctl_fetch_docker.archivefiles import Found

AMD64 = Platform("linux", "amd64")
SETTINGS = {
    "Entrypoint": ["/hello"],
    "Cmd": ["--loud"],
    "Env": ["A=b"],
    "User": "app",
    "Volumes": {"/data": {}},
    "ExposedPorts": {"80/tcp": {}},
    "Labels": {"a": "b"},
}
LAYERS = (layer(file("lower", "x" * 5000)), layer(file("upper")), layer(file("lower", "x" * 5000)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A layout with one image, `1.0`, and one for two platforms, `all`."""
    one = ociimages.image(*LAYERS, config=SETTINGS)
    arm = ociimages.image(LAYERS[0], config=SETTINGS, platform="linux/arm64")
    (tmp_path / "source").mkdir()
    both = ociimages.index(one, arm)
    return ociimages.write_layout(tmp_path / "source", {"1.0": one, "all": both})


def copy(source: Path, target: str, *options: str, tag: str = "1.0") -> None:
    command = ["skopeo", "--insecure-policy", "copy", "-q", *options, f"oci:{source}:{tag}", target]
    subprocess.run(command, check=True, capture_output=True)


def check(found: Found) -> str:
    """Check that the image is the source's; return its reference."""
    image = oci.format_image(manifest=found.document.dump())
    assert image.app is not None
    assert (image.app.exec, image.app.user) == (("/hello", "--loud"), "app")
    assert [one.diff_id for one in image.layers] == [
        one.diff_id.replace(":", "-") for one in LAYERS
    ]
    assert set(found.blobs) == {one.blob for one in image.layers}
    return found.document.reference


def test_what_skopeo_reads_is_what_the_kit_writes(source: Path) -> None:
    found = read_layout(from_directory(source), "1.0", AMD64, "localhost/x")
    assert check(found) == "localhost/x:1.0"
    shown = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{source}:1.0"], check=True, capture_output=True
    )
    assert shown.stdout == found.document.manifest


@pytest.mark.parametrize(
    ("name", "reference"),
    [(":7", "localhost/x:7"), (":r.example/team/app:7", "r.example/team/app:7"), ("", "by digest")],
)
def test_layouts_of_skopeo(source: Path, tmp_path: Path, name: str, reference: str) -> None:
    copy(source, f"oci:{tmp_path}/target{name}")
    found = read_layout(from_directory(tmp_path / "target"), None, AMD64, "localhost/x")
    written = check(found)
    assert written == reference or (not name and "@sha256:" in written)


def test_archives_of_layouts_of_skopeo(source: Path, tmp_path: Path) -> None:
    copy(source, f"oci-archive:{tmp_path}/a.tar:r.example/app:7", "--all", tag="all")
    files = from_tar(tmp_path / "a.tar")
    assert is_layout(files)
    assert not is_docker_archive(files)
    found = read_layout(files, None, AMD64, "localhost/x")
    assert check(found) == "r.example/app:7"
    assert found.document.image_index is not None
    arm = read_layout(files, None, Platform("linux", "arm64"), "localhost/x")
    assert json.loads(arm.document.config)["architecture"] == "arm64"


def test_docker_archives_of_skopeo(source: Path, tmp_path: Path) -> None:
    copy(
        source, f"docker-archive:{tmp_path}/a.tar:busybox:1.36", "--additional-tag=r.example/app:7"
    )
    files = from_tar(tmp_path / "a.tar")
    assert is_docker_archive(files)
    assert not is_layout(files)
    # Written by layer, with links from the directories that docker wrote before 1.10.
    assert any(isinstance(item, tuple) for item in files.content.values())
    named = "registry-1.docker.io/library/busybox:1.36"
    assert check(read_docker_archive(files, None, "localhost/x")) == named
    assert check(read_docker_archive(files, "r.example/app:7", "localhost/x")) == "r.example/app:7"


def test_a_docker_archive_without_a_tag(source: Path, tmp_path: Path) -> None:
    copy(source, f"docker-archive:{tmp_path}/a.tar")
    found = read_docker_archive(from_tar(tmp_path / "a.tar"), None, "localhost/x")
    assert check(found).startswith("localhost/x@sha256:")
