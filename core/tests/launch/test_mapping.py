"""Mounts of a plan whose pod has users of its own."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from podctl.errors import PodctlError, Refused
from podctl.model.plan import (
    Bind,
    Directory,
    Filesystem,
    Overlay,
    Scratch,
    Symlink,
    UserRange,
    WriteFile,
)
from podctl.pods.mounting import build_root, mount_scratches
from podctl.sys import constants as c
from podctl.sys.calls import prctl
from podctl.sys.idmap import MappedUsers
from podctl.sys.mounts import make_tree_slave, mount
from podctl.sys.namespaces import unshare
from podctl.testing.pods import Process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.model.plan import LaunchPlan, Step
    from podctl.testing.pods import PodFactory, Result

pytestmark = pytest.mark.root

BASE = 0x30030000
#: PR_GET_SECUREBITS
_GET_SECUREBITS = 27


@pytest.fixture
def build(factory: PodFactory, make_plan: Callable[..., LaunchPlan]) -> Callable[..., Result]:
    """Build a root for mapped users in a child, then call `look` with its descriptor there."""

    def build(
        look: Callable[[int], object], *steps: Step, before: Callable[[], None] | None = None,
        rootfs: str | None = None,
    ) -> Result:  # fmt: skip
        pod = factory.pod("/bin/true", rootfs=rootfs)
        plan = make_plan(pod, *steps)

        def work() -> None:
            unshare(c.CLONE_NEWNS)
            make_tree_slave()
            if before is not None:
                before()
            with MappedUsers(*UserRange(BASE)) as users:
                root_fd = build_root(plan, "podctl-test", users)
            os.write(1, f"{look(root_fd)}".encode())

        with Process(work) as process:
            return process.wait()

    return build


def owners(*names: str) -> Callable[[int], object]:
    def look(root_fd: int) -> object:
        found = [os.stat(name, dir_fd=root_fd, follow_symlinks=False) for name in names]
        return [(one.st_uid - BASE, one.st_gid - BASE) for one in found]

    return look


def test_everything_that_is_made_is_root_s(build: Callable[..., Result]) -> None:
    steps = (Directory("/a/b", 0o1777), WriteFile("/etc/hosts", "x"), Symlink("/a/l", "b"))
    result = build(owners("a", "a/b", "etc/hosts", "a/l", ".", "etc/passwd"), *steps)
    assert result == (0, str([(0, 0)] * 6), "")


def test_a_copied_root_is_mapped_as_a_whole(
    build: Callable[..., Result], factory: PodFactory
) -> None:
    os.chown(f"{factory.image}/etc/group", 7, 8)
    result = build(
        owners("new", "etc/passwd", "etc/group"), WriteFile("/new", "x"), rootfs=factory.image
    )
    assert result == (0, str([(0, 0), (0, 0), (7, 8)]), "")
    assert os.stat(f"{factory.image}/new").st_uid == 0


def test_the_identity_of_whoever_builds_is_as_before(build: Callable[..., Result]) -> None:
    def look(_root_fd: int) -> object:
        with open("/proc/self/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        return fields["Uid"].split(), fields["Gid"].split(), prctl(_GET_SECUREBITS)

    assert build(look, Directory("/a")).out == str((["0"] * 4, ["0"] * 4, 0))


def test_no_process_is_left(build: Callable[..., Result]) -> None:
    def look(_root_fd: int) -> object:
        try:
            return os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return "none"

    assert build(look).out == "none"


def test_volumes_keep_their_owners(build: Callable[..., Result], tmp_path: Path) -> None:
    """Directories, files and sockets alike."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").touch()
    os.chown(volume / "file", 5, 6)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(volume / "socket"))
    os.chown(volume / "socket", 9, 10)
    steps = (
        Bind(str(volume), "/data"),
        Bind(str(volume / "file"), "/one"),
        Bind(str(volume / "socket"), "/sock"),
    )
    result = build(owners("data", "data/file", "one", "sock"), *steps)
    listener.close()
    assert result == (0, str([(0, 0), (5, 6), (5, 6), (9, 10)]), "")


def test_a_tmpfs_is_root_s(build: Callable[..., Result]) -> None:
    step = Filesystem("tmpfs", "/scratch", "mode=0755")
    assert build(owners("scratch"), step).out == str([(0, 0)])


def unmappable(directory: Path) -> Callable[[], None]:
    """Mounts an overlay, which cannot be mapped."""

    def before() -> None:
        mount("none", "/mnt", "tmpfs")
        for name in ("lower", "upper", "work"):
            os.mkdir(f"/mnt/{name}")
        options = "lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work"
        mount("none", str(directory), "overlay", data=options)

    return before


@pytest.mark.parametrize("recursive", [True, False])
def test_a_volume_that_cannot_be_mapped_is_refused(
    build: Callable[..., Result], tmp_path: Path, recursive: bool
) -> None:
    source = tmp_path / "volume"
    source.mkdir()
    bind = Bind(str(source), "/data", recursive=recursive)
    result = build(owners("data"), bind, before=unmappable(source))
    assert result.code == 254
    assert result.err.count("\n") == 1
    assert f"{source}: the owners of its files cannot be mapped" in result.err
    assert "--private-users=no" in result.err
    assert ("recursive=false" in result.err) == recursive


def test_what_is_mounted_below_a_volume_counts(
    build: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "volume" / "sub").mkdir(parents=True)
    before = unmappable(tmp_path / "volume" / "sub")
    source = str(tmp_path / "volume")
    assert build(owners("data"), Bind(source, "/data"), before=before).code == 254
    alone = Bind(source, "/data", recursive=False)
    assert build(owners("data"), alone, before=before).out == str([(0, 0)])


def test_the_host_s_own_stays_the_host_s(build: Callable[..., Result], tmp_path: Path) -> None:
    """Asked for, and of what is in /dev, /proc and /sys."""
    (tmp_path / "plain").mkdir()
    steps = (
        Bind(str(tmp_path / "plain"), "/data", owners="host"),
        Bind("/dev/pts", "/pts"),
        Bind("/sys", "/hostsys"),
    )
    assert build(owners("data", "pts", "hostsys"), *steps).out == str([(-BASE, -BASE)] * 3)


def test_a_device_is_another_node_of_the_same_with_its_owner_and_mode(
    build: Callable[..., Result],
) -> None:
    """The kernel maps no owners in /dev."""

    def look(root_fd: int) -> object:
        found = os.stat("null", dir_fd=root_fd), os.stat("/dev/null")
        same = [(one.st_mode, one.st_rdev) for one in found]
        fd = os.open("null", os.O_WRONLY, dir_fd=root_fd)
        return same[0] == same[1], found[0].st_uid - BASE, os.write(fd, b"gone")

    before = sorted(os.listdir("/dev"))
    assert build(look, Bind("/dev/null", "/null"), Bind("/dev/zero", "/z")) == (
        0,
        "(True, 0, 4)",
        "",
    )
    assert sorted(os.listdir("/dev")) == before
    assert os.listdir("/run/podctl/nodes") == []


def test_either_is_mapped_where_it_can_be(build: Callable[..., Result], tmp_path: Path) -> None:
    for name in ("can", "cannot"):
        (tmp_path / name).mkdir()
    steps = [Bind(str(tmp_path / name), f"/{name}", owners="either") for name in ("can", "cannot")]
    result = build(owners("can", "cannot"), *steps, before=unmappable(tmp_path / "cannot"))
    assert result.out == str([(0, 0), (-BASE, -BASE)])


def test_an_upper_directory_elsewhere_than_its_work_directory_is_one_line(
    factory: PodFactory, make_plan: Callable[..., LaunchPlan], tmp_path: Path
) -> None:
    pod = factory.pod("/bin/true")
    plan = make_plan(pod)
    (tmp_path / "other").mkdir()
    overlay = plan.steps[0]
    assert isinstance(overlay, Overlay)
    moved = overlay._replace(work=str(tmp_path / "other"))

    def work() -> None:
        unshare(c.CLONE_NEWNS)
        make_tree_slave()
        with MappedUsers(BASE, 65536) as users:
            build_root(plan._replace(steps=(moved,)), "podctl-test", users)

    with Process(work) as process:
        assert process.wait().code == PodctlError("").exit_code


def test_a_hundred_layers(
    factory: PodFactory, make_plan: Callable[..., LaunchPlan], tmp_path: Path
) -> None:
    layers = []
    for number in range(100):
        (tmp_path / f"layer{number}").mkdir()
        (tmp_path / f"layer{number}" / f"file{number}").touch()
        layers.append(str(tmp_path / f"layer{number}"))
    plan = make_plan(factory.pod("/bin/true", layers=tuple(layers)))

    def work() -> None:
        unshare(c.CLONE_NEWNS)
        make_tree_slave()
        with MappedUsers(BASE, 65536) as users:
            root_fd = build_root(plan, "podctl-test", users)
        assert len(os.listdir(os.open(".", os.O_RDONLY, dir_fd=root_fd))) == 100
        assert os.stat("file99", dir_fd=root_fd).st_uid == BASE

    with Process(work) as process:
        assert process.wait() == (0, "", "")


def test_a_file_s_capabilities_and_attributes_survive(
    build: Callable[..., Result], factory: PodFactory
) -> None:
    """Of the layers below, and where the file is copied up. Capabilities become those of the
    pod's root (capabilities(7), version 3)."""
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(f"{factory.image}/bin/busybox", "security.capability", value)
    os.setxattr(f"{factory.image}/etc/passwd", "user.mark", b"x")

    def look(root_fd: int) -> object:
        with MappedUsers(BASE, 65536) as users, users.owning():
            os.chmod("etc/passwd", 0o600, dir_fd=root_fd)
        fd = os.open("etc/passwd", os.O_RDONLY, dir_fd=root_fd)
        busybox = os.open("bin/busybox", os.O_RDONLY, dir_fd=root_fd)
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        return mode, os.getxattr(fd, "user.mark"), os.getxattr(busybox, "security.capability").hex()

    inside = "01000003" + value.hex()[8:] + BASE.to_bytes(4, "little").hex()
    assert build(look).out == str((0o600, b"x", inside))


@pytest.mark.parametrize("mapped", [True, False])
def test_a_tmpfs_volume_is_one_for_all_who_mount_it(
    factory: PodFactory, make_plan: Callable[..., LaunchPlan], tmp_path: Path, mapped: bool
) -> None:
    source = tmp_path / "behind"
    source.mkdir()
    scratch = Scratch(0o1770, 5, 6, 1 << 20)
    steps = [Bind(str(source), target, scratch=scratch) for target in ("/one", "/two")]
    plan = make_plan(factory.pod("/bin/true"), *steps)
    base = BASE if mapped else 0

    def work() -> None:
        unshare(c.CLONE_NEWNS)
        make_tree_slave()
        with MappedUsers(BASE, 65536) as found:
            users = found if mapped else None
            mount_scratches(plan, users)
            root_fd = build_root(plan, "podctl-test", users)
        os.close(os.open("one/file", os.O_CREAT | os.O_WRONLY, dir_fd=root_fd))
        status = os.stat("two", dir_fd=root_fd)
        assert (status.st_uid - base, status.st_gid - base) == (5, 6)
        assert stat.S_IMODE(status.st_mode) == 0o1770
        two = os.open("two", os.O_RDONLY, dir_fd=root_fd)
        assert os.listdir(two) == ["file"]
        assert os.fstatvfs(two).f_blocks * os.fstatvfs(two).f_frsize == 1 << 20

    with Process(work) as process:
        assert process.wait() == (0, "", "")
    assert os.listdir(source) == []


def test_a_tmpfs_of_nobody_in_the_pod_is_refused(
    factory: PodFactory, make_plan: Callable[..., LaunchPlan], tmp_path: Path
) -> None:
    step = Bind(str(tmp_path), "/data", scratch=Scratch(uid=70000))
    plan = make_plan(factory.pod("/bin/true"), step)
    with MappedUsers(BASE, 65536) as users, pytest.raises(Refused, match="70000"):
        mount_scratches(plan, users)
