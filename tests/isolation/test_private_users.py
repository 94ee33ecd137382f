"""Root in a pod is not root on the host: each attack works on a pod that has the host's users.

The apps here may do everything (all capabilities, no filter): what stops them is the user namespace
alone.
"""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from podctl.model.confinement import Confinement
from podctl.model.isolators import CAPABILITIES
from podctl.model.plan import Bind, UserRange
from podctl.testing.pods import PodFactory, Process, start
from podctl_stage1_nspawn.hooks import nspawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from podctl.model.plan import PreparedPod
    from podctl.testing.pods import Result

pytestmark = pytest.mark.root

USERS = UserRange(0x30010000)
OTHERS = UserRange(0x30020000)
ALL = Confinement(capabilities=frozenset(CAPABILITIES))
SECRET = b"the host's secret"


@pytest.fixture
def factory(tmp_path: Path) -> PodFactory:
    return PodFactory(str(tmp_path))


def started(pod: PreparedPod, confinement: Confinement | None) -> Process:
    if confinement is not None:
        apps = tuple(app._replace(confinement=confinement) for app in pod.apps)
        pod = pod._replace(apps=apps)
    nspawn.stage1_prepare(pod=pod)
    return start(nspawn.stage1_plan(pod=pod), pod)


@pytest.fixture
def run(factory: PodFactory) -> Callable[..., Result]:
    """Run a script as root in a pod."""

    def run(
        script: str,
        users: UserRange | None,
        *mounts: Bind,
        confinement: Confinement | None = ALL,
        **more: Any,
    ) -> Result:
        pod = factory.pod("/bin/sh", "-c", script, mounts=mounts, users=users, **more)
        with started(pod, confinement) as process:
            return process.wait()

    return run


def attack(run: Callable[..., Result], script: str, *mounts: Bind) -> tuple[bool, bool]:
    """Whether a script prints `done` with users of the pod's own, and with the host's."""
    found = []
    for users in (USERS, None):
        result = run(script, users, *mounts)
        assert result.code in (0, 1), result
        found.append("done" in result.out.splitlines())
    return found[0], found[1]


def test_the_pod_has_its_range(run: Callable[..., Result]) -> None:
    script = "cat /proc/self/uid_map /proc/self/gid_map; id -u"
    words = ["0", str(USERS.base), "65536"]
    assert run(script, USERS).out.split() == [*words, *words, "0"]
    assert run("cat /proc/self/uid_map", None).out.split() == ["0", "0", "4294967295"]


def test_its_processes_are_nobody_of_the_host(factory: PodFactory) -> None:
    pod = factory.pod("/bin/sh", "-c", "echo up; exec sleep 1000", user="web", users=USERS)
    with started(pod, None) as process:
        assert process.read_line() == "up\n"
        owners = {os.stat(f"/proc/{name}").st_uid for name in os.listdir("/proc")
                  if name.isdecimal() and _is_in(name, USERS)}  # fmt: skip
        assert USERS.base + 1001 in owners
        assert USERS.base in owners
        nspawn.stage1_stop(pod=pod, force=True)
        process.reap()


def _is_in(pid: str, users: UserRange) -> bool:
    try:
        with open(f"/proc/{pid}/uid_map") as file:
            return str(users.base) in file.read().split()
    except OSError:
        return False


def test_files_in_a_volume_have_the_same_owner_on_both_sides(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chmod(volume, 0o777)
    for number in (0, 1001):
        (volume / f"host{number}").touch()
        os.chown(volume / f"host{number}", number, number)
    script = (
        "cd /data; touch root; touch web; chown 1001:1002 web; echo x >>host1001;"
        "stat -c '%n %u %g' *"
    )
    out = run(script, USERS, Bind(str(volume), "/data")).out
    expected = {"host0 0 0", "host1001 1001 1001", "root 0 0", "web 1001 1002"}
    assert set(out.splitlines()) == expected
    seen = {f"{name} {(volume / name).stat().st_uid} {(volume / name).stat().st_gid}"
            for name in os.listdir(volume)}  # fmt: skip
    assert seen == expected


def test_nothing_in_the_pod_s_directory_belongs_to_its_range(
    factory: PodFactory, run: Callable[..., Result]
) -> None:
    """So that the next pod with these ids finds nothing that is its own."""
    script = "touch /root-s; mkdir /dir; echo x >/dir/web; chown -R 1001:1002 /dir; rm /bin/ls"
    for rootfs in (None, f"{factory.directory}/copy"):
        if rootfs is not None:
            subprocess.run(["cp", "-a", factory.image, rootfs], check=True)
        pod = factory.pod("/bin/sh", "-c", script, users=USERS, rootfs=rootfs)
        with started(pod, None) as process:
            assert process.wait() == (0, "", "")
        top = rootfs or pod.apps[0].upper
        assert os.stat(f"{top}/root-s").st_uid == 0
        assert (os.stat(f"{top}/dir/web").st_uid, os.stat(f"{top}/dir/web").st_gid) == (1001, 1002)
        owners = {os.lstat(os.path.join(parent, name)).st_uid
                  for where in (top, pod.directory) for parent, directories, files in os.walk(where)
                  for name in (*directories, *files)}  # fmt: skip
        assert owners == {0, 1001}


def test_a_host_file_that_is_not_mapped_cannot_be_written(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    """What comes in without mapping, as the host's programs do, belongs to nobody in the pod."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").write_text("safe")
    bind = Bind(str(tmp_path / "plain"), "/data", owners="host")
    script = "stat -c %u /data/file; chown 0:0 /data/file; echo x >/data/file && echo done"
    # A flavor's volumes are always mapped: the step itself is changed.
    pod = _with_plain(run, script, bind)
    assert pod == ("65534", False)
    assert (tmp_path / "plain" / "file").read_text() == "safe"
    assert attack(run, script, bind)[1]  # control


def _with_plain(run: Callable[..., Result], script: str, bind: Bind) -> tuple[str, bool]:
    lines = run(script, USERS, bind).out.splitlines()
    return lines[0], "done" in lines


@pytest.fixture
def secret_disk(tmp_path: Path) -> Iterator[str]:
    """A block device of the host, with a secret on it."""
    image = tmp_path / "disk"
    image.write_bytes(SECRET.ljust(1 << 20, b"\0"))
    device = subprocess.run(
        ["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_device_of_the_host_cannot_be_made(run: Callable[..., Result], secret_disk: str) -> None:
    """X11, with a disk of the host's that holds a secret."""
    number = os.stat(secret_disk).st_rdev
    script = (
        "exec 2>&1; mkdir -p /mnt; mount -t tmpfs none /mnt || exit 1;"
        f"mknod /mnt/disk b {os.major(number)} {os.minor(number)};"
        f"head -c {len(SECRET)} /mnt/disk && echo && echo done"
    )
    assert attack(run, script) == (False, True)
    assert SECRET.decode() not in run(script, USERS).out
    assert SECRET.decode() in run(script, None).out


@pytest.mark.parametrize(
    "name",
    ["kernel/core_pattern", "vm/drop_caches", "vm/overcommit_memory", "kernel/printk"],
)
def test_settings_of_the_kernel_cannot_be_written(run: Callable[..., Result], name: str) -> None:
    """X8, X9: also after a remount, and through a /proc mounted anew. They are only opened."""
    script = (
        "exec 2>/dev/null; mkdir -p /mnt;"
        "mount -o remount,bind,rw /proc/sys; mount -t proc proc /mnt;"
        f"for top in /proc /mnt; do file=$top/sys/{name};"
        ': >>"$file" && [ -w $file ] && echo done; done; exit 0'
    )
    assert attack(run, script) == (False, True)


def test_control_groups_of_the_host_cannot_be_written(run: Callable[..., Result]) -> None:
    """X10: what a release agent takes (CVE-2022-0492), in a hierarchy mounted anew."""
    script = (
        "exec 2>/dev/null; mkdir -p /mnt; mount -t cgroup -o freezer none /mnt || exit 1;"
        "for file in /mnt/notify_on_release /mnt/release_agent; do"
        " [ -e $file ] && old=$(cat $file) && echo $old >$file && echo done; done; exit 0"
    )
    assert attack(run, script) == (False, True)


def test_a_read_only_volume_stays_so(run: Callable[..., Result], tmp_path: Path) -> None:
    """X9"""
    (tmp_path / "volume").mkdir()
    script = (
        "exec 2>/dev/null; mount -o remount,bind,rw /data; touch /data/new && echo done; exit 0"
    )
    bind = Bind(str(tmp_path / "volume"), "/data", read_only=True)
    assert attack(run, script, bind) == (False, True)


def test_a_file_that_belongs_to_no_user_of_the_pod_is_out_of_reach(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "file").write_text("safe")
    os.chmod(tmp_path / "volume" / "file", 0o600)
    os.chown(tmp_path / "volume" / "file", 70000, 70000)
    script = "exec 2>/dev/null; cat /data/file && echo && echo done; exit 0"
    assert attack(run, script, Bind(str(tmp_path / "volume"), "/data")) == (False, True)


def test_pods_cannot_touch_each_other_s_processes(factory: PodFactory) -> None:
    """X27: also where nothing but the ids is between them, as in the host's process namespace."""
    pod = factory.pod("/bin/sh", "-c", "echo up; exec sleep 1000", users=USERS)
    with started(pod, None) as process:
        assert process.read_line() == "up\n"
        victim = next(int(name) for name in os.listdir("/proc")
                      if name.isdecimal() and _is_in(name, USERS)
                      and os.stat(f"/proc/{name}").st_uid == USERS.base)  # fmt: skip
        assert _signal_as(OTHERS.base, victim) == errno.EPERM
        assert _signal_as(USERS.base, victim) == 0  # control
        nspawn.stage1_stop(pod=pod, force=True)
        process.reap()


def _signal_as(user: int, pid: int) -> int:
    """errno of a signal (none) sent by a user."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.setresuid(user, user, user)
            os.kill(pid, 0)
        except OSError as error:
            code = error.errno or 255
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_the_launcher_was_told_is_no_app_s_to_read(
    run: Callable[..., Result],
) -> None:
    """X21: the documents hold the environment of every app of the pod."""
    script = "exec 2>/dev/null; cat /proc/1/root/podctl/apps/* >/dev/null && echo done; exit 0"
    for users in (USERS, None):
        assert "done" not in run(script, users, confinement=None).out
        assert "done" in run(script, users).out  # control: it may trace process 1


def test_a_user_beyond_the_range_is_refused(run: Callable[..., Result]) -> None:
    result = run("true", USERS, user="70000")
    assert result.code == 254
    assert "70000" in result.err
    assert "--private-users=no" in result.err
    assert run("id -u", None, user="70000").out == "70000\n"


def test_nothing_can_be_given_to_a_user_beyond_the_range(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    """X27: in the pod's root, in a volume and in a tmpfs of its own making."""
    (tmp_path / "volume").mkdir()
    script = (
        "exec 2>/dev/null; mkdir -p /mnt; mount -t tmpfs none /mnt;"
        "for top in / /data /mnt; do touch $top/file; chown 70000 $top/file && echo done;"
        " chown 0:70000 $top/file && echo done; done; exit 0"
    )
    assert attack(run, script, Bind(str(tmp_path / "volume"), "/data")) == (False, True)
