"""X16, X20, X30: what a pod that misbehaves, or is gone, does to the host and to strangers."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from hostile_pods import EVERYTHING, HostilePods

from podctl.errors import PodStateError
from podctl.model.plan import Bind
from podctl.sys import constants as c
from podctl.sys import procs
from podctl.sys.locks import held
from podctl.sys.mounts import mount
from podctl.sys.namespaces import unshare
from podctl.testing.pods import Process, host_mounts, wait_until
from podctl_stage1_nspawn.hooks import nspawn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from box_world import World

pytestmark = pytest.mark.root

TRAP = "hostile.example/trap"
NSPAWN = "--stage1=nspawn"
ROUNDS = 5
#: everything that a pod can do to its mounts, volumes last
UNMOUNT = """
    mount -t tmpfs none /data/below; mount -t tmpfs none /tmp; echo mounted
    for round in 1 2 3; do
        while read -r _ _ _ _ point rest; do umount -l $point; done </proc/self/mountinfo
    done 2>/dev/null
    echo unmounted; read -r line
"""


@pytest.fixture
def pods(tmp_path: Path) -> HostilePods:
    return HostilePods(tmp_path)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A mount of the host's with another below it, which tell their copies of every change."""
    top = tmp_path / "shared"
    top.mkdir()
    mount("none", str(top), "tmpfs")
    mount("none", str(top), None, c.MS_SHARED)
    (top / "sub").mkdir()
    (top / "below").mkdir()
    mount("none", str(top / "sub"), "tmpfs")
    yield top
    subprocess.run(["umount", "--recursive", "--lazy", str(top)], check=True)


@pytest.mark.parametrize("insecure", [frozenset[str](), EVERYTHING])
def test_x16_no_mount_of_a_pod_s_reaches_the_host(
    pods: HostilePods, shared: Path, insecure: frozenset[str]
) -> None:
    """Neither made nor taken away, also by an app that may mount."""
    before = host_mounts()
    bind = Bind(str(shared), "/data")
    pod = pods.pod("/bin/sh", "-c", UNMOUNT, users=False, mounts=(bind,), insecure=insecure)
    with pods.start(pod) as process:
        assert process.read_line() == "mounted\n", process.wait()
        assert host_mounts() == before
        process.wait()
    assert host_mounts() == before
    # Nothing of the pod keeps the host from unmounting it.
    subprocess.run(["umount", str(shared / "sub")], check=True)


def test_x16_control_a_shared_copy_tells_the_host(shared: Path) -> None:
    before = host_mounts()

    def copy() -> None:
        unshare(c.CLONE_NEWNS)
        subprocess.run(["umount", str(shared / "sub")], check=True)
        mount("none", str(shared / "below"), "tmpfs")

    with Process(copy) as process:
        assert process.wait().code == 0
    after = host_mounts()
    assert after != before
    assert any("below" in line for line in after)


def ended(directory: Path) -> None:
    """Wait for the end of a pod: its first process holds the lock a little longer than nspawn."""
    wait_until(
        lambda: not held(str(directory / "lock")) and not procs.pod_alive(str(directory)),
        "the end of all its processes",
    )


def in_own_processes(function: object) -> Process:
    """Call a function as the first process of a process namespace, with a /proc that shows it."""

    def first() -> None:
        unshare(c.CLONE_NEWNS | c.CLONE_NEWPID)
        child = os.fork()
        if child:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
        mount("none", "/", None, c.MS_REC | c.MS_SLAVE)
        mount("proc", "/proc", "proc")
        function()  # type: ignore[operator]

    return Process(first)


def stranger(pid: int) -> None:
    """A process with the number of one that is gone."""
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    assert child == pid, f"{child} instead of {pid}"


def test_x20_no_command_reaches_a_stranger_with_a_pod_s_number(world: World) -> None:
    """The pod was killed, and each of its numbers on record belongs to somebody else."""

    def scenario() -> None:
        for _ in range(ROUNDS):
            pod = world.start(NSPAWN, TRAP, "--exec=/bin/sh", "--", "-c", "echo ready; sleep 600")
            pod.ready()
            directory = next(world.data.glob(f"pods/run/{pod.uuid}"))
            recorded = procs.read_instance(str(directory))
            assert recorded is not None
            os.kill(pod.pid, signal.SIGKILL)
            pod.process.wait()
            ended(directory)
            stranger(recorded.pid)
            for words in (["stop"], ["stop", "--force"], ["kill"], ["enter"], ["exec"], ["wait"]):
                more = ["/bin/true"] if words[0] in ("enter", "exec") else []
                world.podctl(*words, pod.uuid, *more)
            world.must("rm", pod.uuid)
            assert os.waitpid(recorded.pid, os.WNOHANG) == (0, 0)
            os.kill(recorded.pid, signal.SIGKILL)  # control: it can be reached
            assert os.waitpid(recorded.pid, 0)[1] == signal.SIGKILL
            os.write(1, b"unharmed\n")

    with in_own_processes(scenario) as process:
        done = process.wait()
    assert (done.code, done.out, done.err) == (0, "unharmed\n" * ROUNDS, "")


def test_x20_the_flavor_asks_who_it_is_before_it_signals(pods: HostilePods) -> None:
    """Also where the pod is taken for a running one, whoever holds its lock."""
    pod = pods.pod("/bin/true")
    with pods.start(pod) as process:
        process.wait()
    with Process(signal.pause) as other:
        recorded = procs.read_instance(pod.directory)
        assert recorded is not None
        with open(f"{pod.directory}/{procs.RECORD}", "w") as file:
            file.write(recorded._replace(pid=other.pid).to_text())
        for force in (False, True):
            nspawn.stage1_stop(pod=pod, force=force)
        with pytest.raises(PodStateError):
            nspawn.stage1_enter(pod=pod, app="app", argv=("true",))
        assert nspawn.stage1_processes(pod=pod, app="app") == []
        assert os.waitpid(other.pid, os.WNOHANG) == (0, 0)
        # Control: with the start time it has, it is the pod.
        started = procs.start_time(other.pid)
        assert started is not None
        with open(f"{pod.directory}/{procs.RECORD}", "w") as file:
            file.write(recorded._replace(pid=other.pid, start_time=started).to_text())
        nspawn.stage1_stop(pod=pod, force=True)
        assert other.reap() == 128 + signal.SIGKILL


STUBBORN = "trap '' TERM INT HUP; (setsid sh -c 'trap \"\" TERM; sleep 600' &) ; echo ready; "


@pytest.mark.parametrize("end", ["stop", "exit", "nspawn", "first"])
def test_x30_nothing_is_left_of_what_will_not_end(world: World, end: str) -> None:
    """A daemon that ignores signals, in a session of its own, whatever ends the pod first."""
    script = STUBBORN + ("exit 3" if end == "exit" else "while :; do sleep 1; done")
    pod = world.start(NSPAWN, TRAP, "--exec=/bin/sh", "--", "-c", script).ready()
    directory = next(world.data.glob(f"pods/*/{pod.uuid}"))
    if end == "stop":
        world.must("stop", "--force", pod.uuid)
    elif end == "nspawn":
        pod.signal(signal.SIGKILL)
    elif end == "first":
        from podctl_stage1_nspawn.living import leader_of

        leader = leader_of(pod.pid)
        assert leader is not None
        os.kill(leader, signal.SIGKILL)
    code = pod.process.wait(60)
    assert code == 3 if end == "exit" else code != 0
    ended(directory)
    world.must("rm", pod.uuid)
    assert world.left() == []
