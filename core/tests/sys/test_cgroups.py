"""Control groups of both versions: made, limited, seen to hold, removed."""

from __future__ import annotations

import os
import signal
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from podctl.model.confinement import CgroupLimits, IoLimit
from podctl.sys import cgroups, devicefilter
from podctl.sys.cgroups import Hierarchies, PodGroups, needed_controllers, remove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

EVERYTHING = CgroupLimits(
    memory_max=64 << 20,
    memory_low=32 << 20,
    cpu_milli=500,
    cpu_shares=77,
    pids_max=99,
    io=(IoLimit("8:0", read_bps=1000), IoLimit("8:16", write_iops=5)),
    devices=("c 1:3 rwm",),
)


@pytest.fixture
def name() -> Iterator[str]:
    name = str(uuid.uuid4())
    yield name
    remove(PodGroups(name).directories, name)


def in_group(files: list[str], function: Callable[[], int]) -> int:
    """Exit code of a process that is in a group."""
    pid = os.fork()
    if pid == 0:
        code = 100
        try:
            cgroups.join(files)
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def limits(**given: Any) -> dict[str, Any]:
    return CgroupLimits(**given)._asdict()


def test_this_host_has_the_controllers() -> None:
    assert {"memory", "cpu", "pids", "devices"} <= Hierarchies().controllers()


def test_limits_name_their_controllers() -> None:
    assert needed_controllers(CgroupLimits()._asdict()) == set()
    wanted = needed_controllers(EVERYTHING._asdict())
    assert wanted == {"memory", "cpu", "pids", "devices", "blkio"}


def test_a_process_is_held_and_nothing_is_left(name: str) -> None:
    groups = PodGroups(name)
    files = groups.make_app("app", limits(pids_max=1))

    def fork() -> int:
        try:
            os.fork()
        except BlockingIOError:
            return 7
        return 0

    assert in_group(files, fork) == 7
    assert in_group(groups.make_app("free", limits()), fork) == 0
    remove(groups.directories, name)
    assert not any(os.path.exists(directory) for directory in groups.directories)
    remove(groups.directories, name)


def test_what_still_lives_is_ended_with_its_group(name: str) -> None:
    groups = PodGroups(name)
    files = groups.make_app("app", limits())
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        cgroups.join(files)
        os.write(writer, b"x")
        signal.pause()
        os._exit(0)
    os.read(reader, 1)
    remove(groups.directories, name)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9


def test_only_what_is_named_for_the_pod_is_removed(name: str, tmp_path: Path) -> None:
    (tmp_path / "stranger").mkdir()
    remove([str(tmp_path / "stranger")], name)
    assert (tmp_path / "stranger").exists()
    (tmp_path / name).mkdir()
    with pytest.raises(OSError, match="no cgroupfs"):
        remove([str(tmp_path / name)], name)
    assert (tmp_path / name).exists()


def test_empty_groups_of_nobody_are_swept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A place of its own: other tests' pods are being started in the real one.
    monkeypatch.setattr(cgroups, "TOP", f"podctl-test-{name}")
    groups = PodGroups(name)
    files = groups.make_app("app", limits())
    cgroups.sweep_empty()
    assert os.path.exists(files[0])

    def swept_meanwhile() -> int:
        cgroups.sweep_empty(age=-1)
        return 0 if os.path.exists(files[0]) else 1

    assert in_group(files, swept_meanwhile) == 0
    assert os.path.exists(files[0])
    cgroups.sweep_empty(age=-1)
    for directory in groups.directories:
        assert not os.path.exists(directory)
        os.rmdir(os.path.dirname(directory))


def test_what_is_written_for_version_1() -> None:
    every = {"memory", "cpu", "pids", "blkio", "devices"}
    assert cgroups._v1(EVERYTHING._asdict(), every) == [
        ("memory.limit_in_bytes", "67108864"),
        ("?memory.memsw.limit_in_bytes", "67108864"),
        ("memory.soft_limit_in_bytes", "33554432"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.shares", "77"),
        ("pids.max", "99"),
        ("blkio.throttle.read_bps_device", "8:0 1000"),
        ("blkio.throttle.write_iops_device", "8:16 5"),
        (">devices.deny", "a"),
        (">devices.allow", "c 1:3 rwm"),
    ]
    assert cgroups._v1(EVERYTHING._asdict(), {"pids"}) == [("pids.max", "99")]


def test_what_is_written_for_version_2() -> None:
    assert cgroups._v2(EVERYTHING._asdict(), {"memory", "cpu", "pids", "io"}) == [
        ("memory.max", "67108864"),
        ("?memory.swap.max", "0"),
        ("memory.low", "33554432"),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "3"),
        ("pids.max", "99"),
        (">io.max", "8:0 rbps=1000"),
        (">io.max", "8:16 wiops=5"),
    ]


@pytest.mark.parametrize(
    ("milli", "quota"), [(1, (1000, 1_000_000)), (9, (9000, 1_000_000)), (10, (1000, 100_000))]
)
def test_no_quota_is_below_what_the_kernel_takes(milli: int, quota: tuple[int, int]) -> None:
    assert cgroups._quota(milli) == quota


def test_a_limit_that_did_not_take_effect_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "limit").symlink_to("/dev/null")
    with pytest.raises(OSError, match="symbolic links|limit"):
        cgroups._set(f"{tmp_path}/limit", "5")
    with pytest.raises(OSError, match="cannot be"):
        cgroups._set("/proc/self/oom_score_adj", "x")


# Devices of version 2; the kernel takes the program also where v1 does the rest


UNIFIED = next((known[0] for name, known in cgroups.hierarchies().items() if not name), None)


@pytest.mark.skipif(UNIFIED is None, reason="no cgroup v2 is mounted")
def test_a_program_is_the_devices_controller(name: str) -> None:
    group = f"{UNIFIED}/podctl-test-{name}"
    os.mkdir(group)
    node = f"/dev/podctl-test-{name}"
    try:
        devicefilter.attach(group, ["c *:* m", "c 1:3 rw", "c 1:5 r", "c 136:* rw"])

        def use() -> int:
            os.close(os.open("/dev/null", os.O_RDWR))
            os.close(os.open("/dev/zero", os.O_RDONLY))
            for path, flags in (("/dev/zero", os.O_WRONLY), ("/dev/urandom", os.O_RDONLY)):
                try:
                    os.open(path, flags)
                except PermissionError:
                    continue
                return 1
            os.mknod(node, 0o020600, os.makedev(1, 9))
            return 0

        assert in_group([f"{group}/cgroup.procs"], use) == 0
        # Control
        os.close(os.open("/dev/zero", os.O_WRONLY))
    finally:
        os.rmdir(group)
        os.unlink(node)


@pytest.mark.parametrize("rule", ["c 1:3", "c 1 rwm", "x 1:3 r", "c 1:3 q", "c a:3 r"])
def test_malformed_rules_are_refused(rule: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        devicefilter.assemble([rule])
