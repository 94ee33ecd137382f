"""L5: the disk is full in the middle of a pull; once there is room it goes on where it was."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from podctl.testing.ociimages import image
from podctl.testing.ocilayers import file, layer
from podctl.testing.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podctl.testing.ociimages import Image

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

PODCTL = [sys.executable, "-I", "-m", "podctl"]
MIB = 1 << 20


@pytest.fixture
def made() -> Image:
    """Three layers of bytes that cannot be compressed, 2 MiB each: as blobs and unpacked."""
    layers = [
        layer(file(f"data{number}", random.Random(number).randbytes(2 * MIB)))
        for number in range(3)
    ]
    return image(*layers, config={"Cmd": ["/x"]})


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A disk of 20 MB; mounted where the tests run, which is a mount namespace of their own."""
    disk, place = tmp_path / "disk", tmp_path / "mnt"
    place.mkdir()
    with disk.open("wb") as made:
        made.truncate(20 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "512", str(disk)], check=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def registry(made: Image) -> Registry:
    registry = Registry()
    registry.put("app", made, "1")
    return registry


@pytest.fixture
def name(registry: Registry) -> Iterator[str]:
    """The image's reference."""
    with registry.serve(None) as server:
        yield f"docker://127.0.0.1:{server.port}/app:1"


def fill(place: Path, left: int) -> Path:
    """Take up the space of a disk but for so many bytes."""
    filler = place / "filler"
    size = MIB
    with filler.open("wb", buffering=0) as made:
        while size:
            try:
                made.write(bytes(size))
            except OSError:
                size //= 2
        made.truncate(made.tell() - left)
    return filler


def podctl(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*PODCTL, "--dir", str(place / "data"), "--insecure-options=image,http", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def names_in(place: Path) -> list[str]:
    return [path.name for path in place.iterdir()] if place.exists() else []


@pytest.mark.parametrize("left", [MIB, 3 * MIB, 5 * MIB, 8 * MIB, 11 * MIB])
def test_l5_a_pull_goes_on_once_there_is_space(
    place: Path, registry: Registry, name: str, left: int
) -> None:
    filler = fill(place, left)
    full = podctl(place, "fetch", name)
    assert full.returncode == 254, full
    assert "No space left on device" in full.stderr.strip().splitlines()[-1]
    assert "unexpected" not in full.stderr
    assert names_in(place / "data/layers") == []
    assert podctl(place, "image", "list").returncode == 0
    assert podctl(place, "fsck").returncode == 0
    kept = [path.stat().st_size for path in (place / "data/cas/tmp").glob("*.part")]
    before = len(registry.log)
    filler.unlink()
    again = podctl(place, "fetch", "--full", name)
    assert again.returncode == 0, again
    asked = [visit for visit in registry.log[before:] if visit.place.kind == "blob"]
    starts = {visit.start for visit in asked if visit.start}
    # Whatever arrived is not asked for again: a layer's beginning, or all of it.
    assert starts == {size for size in kept if size < 2 * MIB}
    whole = sum(size > 2 * MIB for size in kept)
    assert len([visit for visit in asked if visit.place.name in layers_of(registry)]) == 3 - whole
    key = again.stdout.strip()
    assert "successfully verified" in podctl(place, "image", "verify", key).stdout
    assert names_in(place / "data/cas/tmp") == []
    assert podctl(place, "fsck").returncode == 0


def layers_of(registry: Registry) -> set[str]:
    """Digests of what is as large as a layer."""
    blobs = registry.at("app").blobs
    return {digest for digest, data in blobs.items() if len(data) > MIB}


@pytest.mark.parametrize("command", ["rm", "gc"])
def test_l5_a_layered_image_can_be_removed_from_a_full_disk(
    place: Path, name: str, command: str
) -> None:
    fetched = podctl(place, "fetch", "--full", name)
    assert fetched.returncode == 0, fetched
    fill(place, 0)
    with pytest.raises(OSError, match="No space"), (place / "more").open("wb", 0) as more:
        more.write(bytes(MIB))
    key = fetched.stdout.strip()
    words = [key] if command == "rm" else ["--grace-period=0s"]
    gone = podctl(place, "image", command, *words)
    assert gone.returncode == 0, gone
    assert names_in(place / "data/layers") == []
    assert not list((place / "data/cas/blobs/sha256").glob("*/*"))
    assert podctl(place, "fsck").returncode == 0
