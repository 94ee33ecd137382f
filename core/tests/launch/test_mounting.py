"""Mounts and files of a plan, on images and volumes that try to lead them astray."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from podctl.model.plan import Bind, Directory, Filesystem, LaunchPlan, Symlink, WriteFile
from podctl.pods.mounting import build_root
from podctl.sys import constants as c
from podctl.sys.calls import libc
from podctl.sys.idmap import MappedUsers
from podctl.sys.mounts import (
    detach_below,
    make_tree_slave,
    mount,
    mount_points_below,
    umount2,
)
from podctl.sys.namespaces import unshare
from podctl.testing.pods import Process, host_mounts, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.model.plan import Step
    from podctl.testing.pods import PodFactory, Result

    MakePlan = Callable[..., LaunchPlan]
    Runner = Callable[..., Result]


@pytest.fixture
def run(factory: PodFactory, make_plan: MakePlan) -> Runner:
    """Run a shell script in a pod that has these steps."""

    def run(script: str, *steps: Step, **fields: object) -> Result:
        pod = factory.pod("/bin/sh", "-c", script)
        with start(make_plan(pod, *steps, **fields), pod) as process:
            return process.wait()

    return run


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A directory outside of every root that must stay as it is."""
    path = tmp_path / "canary"
    path.mkdir()
    (path / "file").write_text("safe")
    return path


def untouched(canary: Path) -> bool:
    return os.listdir(canary) == ["file"] and (canary / "file").read_text() == "safe"


# The overlay


def test_layers_stack_in_order_whatever_their_names(
    factory: PodFactory, make_plan: MakePlan, tmp_path: Path
) -> None:
    layers = []
    for number, name in enumerate(["a:b", "c,d", "e\\f", "g h", "i\nj", "lowerdir=x"]):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "top").write_text(f"{number}\n")
        (directory / f"only{number}").touch()
        layers.append(str(directory))
    pod = factory.pod(
        "/bin/sh", "-c", "cat /top; ls / | grep -c only", layers=(*layers, factory.image)
    )
    with start(make_plan(pod), pod) as process:
        assert process.wait() == (0, "0\n6\n", "")


def test_more_layers_than_their_paths_fit_a_page(
    factory: PodFactory, make_plan: MakePlan, tmp_path: Path
) -> None:
    layers = []
    for number in range(200):
        directory = tmp_path / ("x" * 100) / f"{number:03}"
        directory.mkdir(parents=True)
        (directory / f"f{number}").touch()
        layers.append(str(directory))
    assert len(":".join(layers)) > 4096
    pod = factory.pod("/bin/sh", "-c", "ls / | grep -c ^f", layers=(*layers, factory.image))
    with start(make_plan(pod), pod) as process:
        assert process.wait() == (0, "200\n", "")


def test_missing_layer_is_one_line(factory: PodFactory, make_plan: MakePlan) -> None:
    pod = factory.pod("/bin/true", layers=("/nowhere", factory.image))
    with start(make_plan(pod), pod) as process:
        result = process.wait()
    assert (result.code, result.err.count("\n")) == (254, 1)
    assert "cannot mount the image's layers: No such file" in result.err


def test_ready_directory_instead_of_layers(
    factory: PodFactory, make_plan: MakePlan, tmp_path: Path
) -> None:
    from podctl.testing.pods import make_image

    pod = factory.pod("/bin/sh", "-c", "ls /; touch /x", rootfs=make_image(str(tmp_path / "tree")))
    with start(make_plan(pod), pod) as process:
        assert process.wait().out == "bin\netc\n"
    assert (tmp_path / "tree" / "x").exists()


def _in_chroot(tmp_path: Path, *, mount_point: bool) -> None:
    """Go into a chroot that sees /dev, /proc and the test's directory, in own mounts."""
    unshare(c.CLONE_NEWNS)
    make_tree_slave()
    jail = tmp_path / "jail"
    jail.mkdir()
    if mount_point:
        mount("none", str(jail), "tmpfs")
    for path in (str(tmp_path), "/proc", "/dev"):
        inner = jail / path.lstrip("/")
        inner.mkdir(parents=True)
        mount(path, str(inner), None, c.MS_BIND | c.MS_REC)
    os.chroot(jail)
    os.chdir("/")


def test_pod_in_a_chroot(factory: PodFactory, make_plan: MakePlan, tmp_path: Path) -> None:
    pod = factory.pod("/bin/sh", "-c", "ls /; pwd; ls /..")
    plan = make_plan(pod)

    def in_chroot() -> None:
        from podctl.pods.launch import launch

        _in_chroot(tmp_path, mount_point=True)
        launch(plan, pod, None)

    with Process(in_chroot) as process:
        assert process.wait() == (0, "bin\netc\n/\nbin\netc\n", "")


def test_chroot_that_is_no_mount_point_is_told_what_to_do(
    factory: PodFactory, make_plan: MakePlan, tmp_path: Path
) -> None:
    pod = factory.pod("/bin/true")
    plan = make_plan(pod)

    def in_chroot() -> None:
        from podctl.pods.launch import launch

        _in_chroot(tmp_path, mount_point=False)
        launch(plan, pod, None)

    with Process(in_chroot) as process:
        result = process.wait()
    assert result.code == 254
    assert "mount the directory on itself" in result.err


def test_root_that_cannot_be_pivoted_is_moved_over(
    factory: PodFactory, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a host that runs from its initial ramfs, where pivot_root(2) says EINVAL."""
    import podctl.pods.become

    def refuse(new_root: str, put_old: str) -> None:
        raise OSError(errno.EINVAL, "pivot_root")

    monkeypatch.setattr(podctl.pods.become, "pivot_root", refuse)
    pod = factory.pod("/bin/sh", "-c", "ls /; pwd; ls /..")
    with start(make_plan(pod), pod) as process:
        assert process.wait() == (0, "bin\netc\n/\nbin\netc\n", "")


# Binds


def test_missing_targets_are_made_after_the_source_s_kind(run: Runner, canary: Path) -> None:
    result = run(
        "cat /a/b/file /a/c; stat -c %a /a",
        Bind(str(canary), "/a/b"),
        Bind(str(canary / "file"), "/a/c"),
    )
    assert result.out == "safesafe755\n"


def test_later_target_may_lie_in_an_earlier_volume(
    run: Runner, canary: Path, tmp_path: Path
) -> None:
    (tmp_path / "volume").mkdir()
    result = run(
        "cat /v/new/sub/file", Bind(str(tmp_path / "volume"), "/v"), Bind(str(canary), "/v/new/sub")
    )
    assert result.out == "safe"


def test_linked_targets_stay_inside(
    factory: PodFactory, run: Runner, canary: Path, tmp_path: Path
) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "here").touch()
    for name, to in (
        ("absolute", canary),
        ("climbing", "../../../../../../.." + str(canary)),
        ("dangling", "/run/not/yet"),
    ):
        os.symlink(to, f"{factory.image}/{name}")
    script = f"ls {canary} /run/not/yet /climbing"
    steps = [Bind(str(tmp_path / "volume"), f"/{n}") for n in ("absolute", "climbing", "dangling")]
    result = run(script, *steps)
    assert result.err == ""
    assert result.out.count("here") == 3
    assert untouched(canary)


@pytest.mark.parametrize("to", ["/proc/self", "/proc", "/proc/sys/kernel", "/proc/self/fd/0"])
def test_target_led_into_proc_is_refused(
    factory: PodFactory, run: Runner, canary: Path, to: str
) -> None:
    os.symlink(to, f"{factory.image}/data")
    result = run("true", Bind("/proc", "/proc"), Bind(str(canary), "/data"))
    assert result.code == 254
    assert "/data" in result.err


@pytest.mark.parametrize("to", ["/", "..", "/bin/.."])
def test_target_led_to_the_root_is_refused(
    factory: PodFactory, run: Runner, canary: Path, to: str
) -> None:
    os.symlink(to, f"{factory.image}/data")
    result = run("true", Bind(str(canary), "/data"))
    assert result.code == 254
    assert "is the root of the image" in result.err


@pytest.mark.parametrize(
    "target", ["/dev/podctl-test-x", "/dev/shm/podctl-test-x", "/link/podctl-test-x"]
)
def test_nothing_is_made_in_the_host_s_own_trees(
    factory: PodFactory, run: Runner, canary: Path, target: str
) -> None:
    os.symlink("dev", f"{factory.image}/link")
    result = run("true", Bind("/dev", "/dev"), Bind(str(canary), target))
    assert result.code == 254
    assert "nothing is created in the host's own filesystems" in result.err
    assert not os.path.exists("/dev/podctl-test-x")
    assert not os.path.exists("/dev/shm/podctl-test-x")
    for step in (WriteFile(target, "x"), Directory(target), Symlink(target, "x")):
        assert run("true", Bind("/dev", "/dev"), step).code == 254
        assert not os.path.lexists("/dev/podctl-test-x")


@pytest.mark.parametrize(("kind", "target"), [("", "/etc/passwd"), ("/file", "/bin")])
def test_kinds_must_fit(run: Runner, canary: Path, kind: str, target: str) -> None:
    result = run("true", Bind(str(canary) + kind, target))
    assert result.code == 254
    assert target in result.err
    assert result.err.count("\n") == 1


def test_missing_source_is_one_line(run: Runner) -> None:
    result = run("true", Bind("/no/such/source", "/data"))
    assert result == (
        254,
        "",
        "cannot mount /no/such/source on /data in the pod: No such file or directory\n",
    )


def test_recursion_and_read_only_reach_submounts_or_not(
    factory: PodFactory, make_plan: MakePlan, tmp_path: Path
) -> None:
    (tmp_path / "source" / "sub").mkdir(parents=True)
    script = "exec 2>&-; for d in all some ro; do ls /$d/sub; touch /$d/sub/x$d || echo no; done"
    pod = factory.pod("/bin/sh", "-c", script)
    source = str(tmp_path / "source")
    plan = make_plan(
        pod,
        Bind(source, "/all"),
        Bind(source, "/some", recursive=False),
        Bind(source, "/ro", read_only=True),
    )

    def with_submount() -> None:
        from podctl.pods.launch import launch

        unshare(c.CLONE_NEWNS)
        make_tree_slave()
        mount("none", f"{source}/sub", "tmpfs")
        (tmp_path / "source" / "sub" / "below").touch()
        launch(plan, pod, None)

    with Process(with_submount) as process:
        assert process.wait() == (0, "below\nbelow\nxall\nno\n", "")
    assert os.listdir(tmp_path / "source" / "sub") == ["xsome"]


@pytest.mark.parametrize("mapped", [False, True])
def test_swapped_target_never_catches_the_mount(
    factory: PodFactory, make_plan: MakePlan, canary: Path, tmp_path: Path, mapped: bool
) -> None:
    """X4: a racer exchanges the target with a link to a directory of the host.

    The control checks first and mounts by path then, and is led astray.
    """
    image, volume = tmp_path / "racing", tmp_path / "volume"
    (image / "data").mkdir(parents=True)
    (image / "link").symlink_to(canary)
    volume.mkdir()
    racer = os.fork()
    if racer == 0:
        one, other, at = (
            os.fsencode(image / "data"),
            os.fsencode(image / "link"),
            ctypes.c_int(-100),
        )
        while True:
            libc.renameat2(at, one, at, other, ctypes.c_uint(2))

    def mount_many(attempt: Callable[[], object], rounds: int) -> Callable[[], object]:
        def many() -> None:
            unshare(c.CLONE_NEWNS)
            make_tree_slave()
            hits = 0
            for _ in range(rounds):
                attempt()
                hits += str(canary) in mount_points_below(str(tmp_path))
                while mount_points_below(str(tmp_path)):
                    # The racer moves mount points, too.
                    with contextlib.suppress(OSError):
                        detach_below(str(tmp_path))
                if hits > 2:
                    break
            os.write(1, b"%d" % hits)

        return many

    pod = factory.pod("/bin/true", rootfs=str(image))
    plan = make_plan(pod, Bind(str(volume), "/data"))

    def ours() -> None:
        try:
            os.close(build_root(plan, "podctl-test", users))
        except Exception as error:
            assert "/data" in str(error), error

    def naive() -> None:
        target = image / "data"
        if not target.is_symlink():
            mount(str(volume), str(target), None, c.MS_BIND)

    users = MappedUsers(0x30040000, 65536) if mapped else None
    try:
        with Process(mount_many(ours, 2000)) as process:
            assert process.wait() == (0, "0", "")
        # However busy the host is: it ends with the third hit.
        with Process(mount_many(naive, 100_000)) as process:
            assert process.wait() == (0, "3", "")
    finally:
        if users is not None:
            users.__exit__(None, None, None)
        os.kill(racer, signal.SIGKILL)
        os.waitpid(racer, 0)
    assert untouched(canary)


# Files


@pytest.mark.parametrize("name", ["os-release", "mtab", "resolv.conf", "hosts", "localtime"])
@pytest.mark.parametrize(
    "kind", ["absolute", "climbing", "fifo", "hardlink", "device", "directory link"]
)
def test_files_are_written_inside_whatever_stands_there(
    factory: PodFactory, make_plan: MakePlan, canary: Path, tmp_path: Path, kind: str, name: str
) -> None:
    from podctl.testing.pods import make_image

    root = make_image(str(tmp_path / "tree"))
    target = f"{root}/etc/{name}"
    if kind == "absolute":
        os.symlink(canary / "file", target)
    elif kind == "climbing":
        os.symlink("../../canary/file", target)
        with open(target) as file:
            assert file.read() == "safe"  # control: a naive write would go through it
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind == "hardlink":
        os.link(canary / "file", target)
    elif kind == "device":
        os.mknod(target, 0o20666, os.makedev(1, 3))
    else:
        os.rename(f"{root}/etc", f"{root}/etc2")
        os.symlink(canary, f"{root}/etc")
    pod = factory.pod("/bin/sh", "-c", f"cat /etc/{name}; stat -c %F,%a /etc/{name}", rootfs=root)
    with start(make_plan(pod, WriteFile(f"/etc/{name}", "ours\n")), pod) as process:
        assert process.wait() == (0, "ours\nregular file,644\n", "")
    assert untouched(canary)


def test_directory_where_a_file_belongs_is_refused(factory: PodFactory, run: Runner) -> None:
    os.mkdir(f"{factory.image}/etc/hosts")
    result = run("true", WriteFile("/etc/hosts", "x"))
    assert result == (254, "", "/etc/hosts is a directory in the image\n")


def test_existing_things_are_left_where_only_missing_ones_are_made(
    factory: PodFactory, run: Runner
) -> None:
    with open(f"{factory.image}/etc/hosts", "w") as file:
        file.write("image\n")
    os.symlink("nowhere", f"{factory.image}/etc/mtab")
    os.mkdir(f"{factory.image}/tmp", 0o700)
    result = run(
        "cat /etc/hosts /etc/new; readlink /etc/mtab; readlink /link; stat -c %a /tmp /tmp2 /a/b",
        WriteFile("/etc/hosts", "ours", missing_only=True),
        WriteFile("/etc/new", "new\n", missing_only=True),
        Symlink("/etc/mtab", "elsewhere"),
        Symlink("/link", "to"),
        Directory("/tmp", 0o1777),
        Directory("/tmp2", 0o1777),
        Directory("/a/b", 0o711),
    )
    assert result.out == "image\nnew\nnowhere\nto\n700\n1777\n711\n"


@pytest.mark.parametrize("target", ["/", "/.", "/../..", "/etc/", "/a/../b/.."])
def test_directories_that_are_there_already_are_left_alone(run: Runner, target: str) -> None:
    result = run("stat -c '%a %u' / /etc; ls /", Directory(target, 0o700))
    assert result.out.startswith("755 0\n755 0\n")


@pytest.mark.parametrize("target", ["/link", "/link/", "/etc/../link"])
def test_directory_is_made_where_a_dangling_link_leads(
    factory: PodFactory, run: Runner, tmp_path: Path, target: str
) -> None:
    os.symlink(f"{tmp_path}/made/here", f"{factory.image}/link")
    result = run("cd /link && pwd -P", Directory(target))
    assert result.out == f"{tmp_path}/made/here\n"
    assert not (tmp_path / "made").exists()


def test_new_filesystem_and_its_flags(run: Runner) -> None:
    result = run(
        "grep ' /scratch ' /proc/self/mounts; touch /scratch/x && echo ok; cat /scratch/in",
        Bind("/proc", "/proc"),
        Filesystem("tmpfs", "/scratch", "size=64k"),
        WriteFile("/scratch/in", "in\n"),
    )
    assert "nosuid,nodev,noexec" in result.out
    assert result.out.endswith("ok\nin\n")


def test_read_only_root_leaves_mounts_writable(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    result = run(
        "touch /x || echo ro; mkdir /v/y && echo rw",
        Bind(str(tmp_path / "volume"), "/v"),
        read_only_root=True,
    )
    assert result.out == "ro\nrw\n"


@pytest.mark.parametrize(
    "step",
    [
        WriteFile("/", "x"),
        WriteFile("/etc/..", "x"),
        Bind("/etc", "/x", propagation="shared"),
        Filesystem("tmpfs", "/x", flags=("nonsense",)),
    ],
    ids=lambda step: type(step).__name__,
)
def test_nonsense_of_a_flavor_is_refused(run: Runner, step: Step) -> None:
    result = run("true", step)
    assert (result.code, result.err.count("\n")) == (254, 1)


# Propagation


def _fake_host(inside: Callable[[], object], tmp_path: Path) -> Callable[[], None]:
    """A mount namespace that is shared as systemd makes a host's, cut off from the real one."""

    def host() -> None:
        unshare(c.CLONE_NEWNS)
        mount("none", "/", None, c.MS_REC | c.MS_PRIVATE)
        mount("none", "/", None, c.MS_REC | c.MS_SHARED)
        os.mkdir(tmp_path / "devices")
        mount("none", str(tmp_path / "devices"), "tmpfs")
        mount("none", str(tmp_path / "devices"), None, c.MS_SHARED)
        os.mkdir(tmp_path / "devices" / "pts")
        mount("none", str(tmp_path / "devices" / "pts"), "tmpfs")
        before = host_mounts()
        with Process(inside) as process:
            result = process.wait()
        lost = [line for line in before if line not in host_mounts()]
        gained = [line for line in host_mounts() if line not in before]
        os.write(1, f"{result.out}{len(lost)} lost {len(gained)} gained".encode())
        os.write(2, result.err.encode())

    return host


def test_mounts_of_the_app_stay_in_the_pod(
    factory: PodFactory, make_plan: MakePlan, tmp_path: Path
) -> None:
    """X16: it unmounts and mounts what it can. The control, without slave mounts, reaches the
    host with the same two calls."""
    script = "umount /devices/pts && echo gone; mount -t tmpfs none /devices && echo mounted"
    pod = factory.pod("/bin/sh", "-c", script)
    plan = make_plan(pod, Bind(str(tmp_path / "devices"), "/devices"))

    def ours() -> None:
        from podctl.pods.launch import launch

        launch(plan, pod, None)

    def naive() -> None:
        unshare(c.CLONE_NEWNS)
        umount2(str(tmp_path / "devices" / "pts"))
        mount("none", str(tmp_path / "devices"), "tmpfs")

    with Process(_fake_host(ours, tmp_path)) as process:
        assert process.wait() == (0, "gone\nmounted\n0 lost 0 gained", "")
    os.rmdir(tmp_path / "devices")
    with Process(_fake_host(naive, tmp_path)) as process:
        assert process.wait() == (0, "1 lost 1 gained", "")


def test_host_s_later_mounts_and_unmounts_arrive(
    factory: PodFactory, make_plan: MakePlan, tmp_path: Path
) -> None:
    """A slave is no obstacle: what the host unmounts is not kept busy by the pod."""
    script = "echo up; while test -e /devices/pts/there; do sleep 0.01; done; echo gone"
    pod = factory.pod("/bin/sh", "-c", script)
    plan = make_plan(pod, Bind(str(tmp_path / "devices"), "/devices"))

    def inside() -> None:
        (tmp_path / "devices" / "pts" / "there").touch()
        with start(plan, pod) as process:
            assert process.read_line() == "up\n"
            umount2(str(tmp_path / "devices" / "pts"))
            os.write(1, process.wait().out.encode())

    with Process(_fake_host(inside, tmp_path)) as process:
        assert process.wait() == (0, "gone\n1 lost 0 gained", "")
