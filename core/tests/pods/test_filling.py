"""New volumes of converted images hold what the image has in their place."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from podctl.errors import Refused
from podctl.model.manifest import App, MountPoint
from podctl.model.plan import RootFilesystem
from podctl.model.podmanifest import PodManifest, RuntimeApp, parse_pod_manifest
from podctl.model.volumes import Mount, Volume
from podctl.pods.filling import fill_volumes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root
POINT = MountPoint("volume-data", "/data")
IMPLICIT = Volume("app-volume-data", "empty")


class Pod:
    """A pod's directory and the layers of its one app, the lowest first."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.pod = top / "pod"
        self.layers: list[Path] = []
        (self.pod / "sharedVolumes").mkdir(parents=True)

    def layer(self) -> Path:
        """A new layer above the others."""
        path = self.top / f"layer{len(self.layers)}"
        path.mkdir()
        self.layers.append(path)
        return path

    def fill(
        self,
        volume: Volume = IMPLICIT,
        mount: Mount | None = None,
        *,
        converted: bool = True,
        copied: bool = False,
        point: MountPoint = POINT,
    ) -> Path:
        """Fill the volume and return its directory."""
        mount = mount or Mount(volume.name, point.path)
        annotations = {"appc.io/docker/repository": "team/app"} if converted else {}
        app = RuntimeApp(
            "app", "sha512-" + "a" * 64, app=App(exec=("/x",), mount_points=(point,)),
            mounts=(mount,), annotations=annotations,
        )  # fmt: skip
        written = PodManifest(apps=(app,), volumes=(volume,))
        name = f"app.{mount.volume}" if mount.app_volume else mount.volume
        place = self.pod / "sharedVolumes" / name
        place.mkdir()
        roots = RootFilesystem(tuple(map(str, reversed(self.layers))))
        if copied:
            (self.pod / "rootfs").mkdir()
            self.layers[-1].rename(self.pod / "rootfs/app")
            roots = RootFilesystem(())
        # As a pod that is run later has it: written down and read again.
        manifest = parse_pod_manifest(written.to_json())
        before = len(os.listdir("/proc/self/fd"))
        try:
            fill_volumes(str(self.pod), manifest, {"app": roots})
        finally:
            assert len(os.listdir("/proc/self/fd")) == before
        return place


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


@pytest.fixture
def seeded(pod: Pod) -> Pod:
    """A pod whose image has a file where the volume is to be."""
    data = pod.layer() / "data"
    data.mkdir()
    (data / "seed").write_text("grown")
    return pod


def test_everything_of_the_directory_is_kept(pod: Pod) -> None:
    data = pod.layer() / "data"
    data.mkdir()
    (data / "file").write_text("content")
    os.chown(data / "file", 5, 6)
    (data / "file").chmod(0o4711)
    os.link(data / "file", data / "again")
    os.setxattr(data / "file", "user.note", b"kept")
    os.mkfifo(data / "fifo")
    (data / "link").symlink_to("/etc/passwd")
    os.setxattr(data, "user.top", b"kept too")
    os.chown(data, 1000, 1001)
    data.chmod(0o2770)
    os.utime(data, ns=(1, 1_000_000_001))
    volume = pod.fill()
    assert sorted(os.listdir(volume)) == ["again", "fifo", "file", "link"]
    found = volume.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1000, 1001, 0o2770)
    assert found.st_mtime_ns == 1_000_000_001
    assert os.getxattr(volume, "user.top") == b"kept too"
    file = (volume / "file").stat()
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)) == (5, 6, 0o4711)
    assert os.getxattr(volume / "file", "user.note") == b"kept"
    assert os.path.samefile(volume / "file", volume / "again")
    assert not os.path.samefile(volume / "file", data / "file")
    assert stat.S_ISFIFO((volume / "fifo").lstat().st_mode)
    assert os.readlink(volume / "link") == "/etc/passwd"


def test_the_layers_are_seen_as_one(pod: Pod) -> None:
    low, high = pod.layer() / "data", pod.layer() / "data"
    for path in (low, high):
        path.mkdir()
    for name in ("kept", "changed", "gone"):
        (low / name).write_text("low")
    (high / "changed").write_text("high")
    os.mknod(high / "gone", stat.S_IFCHR, 0)
    os.chown(high, 7, 8)
    volume = pod.fill()
    assert {path.name: path.read_text() for path in volume.iterdir()} == {
        "kept": "low",
        "changed": "high",
    }
    assert (volume.stat().st_uid, volume.stat().st_gid) == (7, 8)


def test_a_copied_root_fills_as_layers_do(seeded: Pod) -> None:
    assert (seeded.fill(copied=True) / "seed").read_text() == "grown"


@pytest.mark.parametrize("target", ["/real", "../../real", "real"])
def test_a_link_is_resolved_in_the_image(pod: Pod, tmp_path: Path, target: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "secret").touch()
    (pod.layer() / "real").mkdir()
    (pod.layers[0] / "real" / "seed").touch()
    (pod.layer() / "data").symlink_to(target)
    assert os.listdir(pod.fill()) == ["seed"]


def test_what_the_image_does_not_have_leaves_the_volume_empty(pod: Pod) -> None:
    pod.layer()
    volume = pod.fill()
    assert os.listdir(volume) == []
    assert volume.stat().st_uid == 0


def test_a_dangling_link_leaves_the_volume_empty(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    (pod.layer() / "data").symlink_to(str(tmp_path))
    assert os.listdir(pod.fill()) == []


@pytest.mark.parametrize(
    ("target", "message"), [("/", "root of the image"), ("/file", "no directory")]
)
def test_what_is_no_place_for_a_volume_is_refused(pod: Pod, target: str, message: str) -> None:
    (pod.layer() / "file").touch()
    (pod.layers[0] / "data").symlink_to(target)
    with pytest.raises(Refused, match=f'volume at /data of app "app": .*{message}') as caught:
        pod.fill()
    assert "--mount" in str(caught.value.hint)


# Which volumes


def test_volumes_of_appc_images_begin_empty(seeded: Pod) -> None:
    assert os.listdir(seeded.fill(converted=False)) == []


@pytest.mark.parametrize(
    "volume",
    [Volume("volume-data", "empty"), IMPLICIT._replace(mode=0o700), IMPLICIT._replace(uid=5)],
    ids=["named by the user", "mode", "owner"],
)
def test_volumes_that_somebody_asked_for_begin_empty(seeded: Pod, volume: Volume) -> None:
    assert os.listdir(seeded.fill(volume)) == []


def test_a_volume_that_is_mounted_elsewhere_begins_empty(seeded: Pod) -> None:
    assert os.listdir(seeded.fill(mount=Mount(IMPLICIT.name, "/elsewhere"))) == []


def test_an_app_s_own_volume_begins_empty(seeded: Pod) -> None:
    assert os.listdir(seeded.fill(mount=Mount(IMPLICIT.name, "/data", IMPLICIT))) == []


def test_the_spelling_of_a_path_does_not_matter(seeded: Pod) -> None:
    point = MountPoint("volume-data", "/data/.")
    assert os.listdir(seeded.fill(point=point, mount=Mount(IMPLICIT.name, "//data"))) == ["seed"]
