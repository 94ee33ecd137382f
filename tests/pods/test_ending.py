"""`wait`, `kill` and `stop --timeout` on real pods of every flavor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from kept_pods import NAME, detach, ended, keepers, until

if TYPE_CHECKING:
    from conftest import World

FLAVORS = ("fly", "nspawn")
STUBBORN = "trap '' TERM INT HUP; touch /ready; while :; do sleep 0.05; done"
pytestmark = [pytest.mark.root, pytest.mark.parametrize("flavor", FLAVORS)]


def ready(world: World, uuid: str) -> None:
    """Until the app has made /ready in its root."""
    upper = world.data / "pods/run" / uuid / "overlay/busybox/upper/ready"
    until(upper.exists)


def processes_with(uuid: str) -> list[str]:
    """Command lines of processes in whose mounts the pod's UUID stands, keepers left out."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/mountinfo") as file, open(f"/proc/{name}/cmdline") as line:
                if uuid in file.read() and "keeper.py" not in (words := line.read()):
                    found.append(words)
        except OSError:
            continue
    return found


class TestWait:
    def test_prints_exit_codes_in_order(self, world: World, flavor: str) -> None:
        pods = [ended(world, f"exit {code}", flavor=flavor) for code in (0, 5, 3)]
        done = world.podctl("wait", *pods)
        assert (done.code, done.out) == (0, "0\n5\n3\n")
        assert world.podctl("wait", "--exit-code", *pods).code == 5

    def test_waits_for_the_end(self, world: World, flavor: str) -> None:
        uuid = detach(world, STUBBORN, flavor=flavor)
        waiter = world.start("wait", uuid)
        ready(world, uuid)
        assert waiter.poll() is None
        world.must("kill", uuid)
        assert waiter.communicate(timeout=30)[0] == "137\n"

    def test_a_wrong_name_is_noticed_at_once(self, world: World, flavor: str) -> None:
        uuid = detach(world, STUBBORN, flavor=flavor)
        assert world.podctl("wait", uuid, "feedface").code == 254
        world.must("kill", uuid)

    def test_of_a_pod_in_the_foreground(self, world: World, flavor: str) -> None:
        script = "touch /ready; until test -e /go; do sleep 0.01; done; exit 6"
        line = (f"--stage1={flavor}", "--no-overlay", NAME, "--exec=/bin/sh", "--", "-c", script)
        file = world.top / "uuid"
        process = world.start("run", f"--uuid-file-save={file}", *line)
        until(lambda: file.exists() and file.read_text() != "")
        root = world.data / "pods/run" / file.read_text() / "rootfs/busybox"
        until((root / "ready").exists)
        waiter = world.start("wait", file.read_text())
        until(lambda: _sleeps_on_a_lock(waiter.pid))
        (root / "go").touch()
        assert process.wait(30) == 6
        assert waiter.communicate(timeout=30)[0] == "6\n"


def _sleeps_on_a_lock(pid: int) -> bool:
    with open("/proc/locks") as file:
        return any(f" {pid} " in line and "->" in line for line in file)


class TestKill:
    def test_signals_reach_the_app(self, world: World, flavor: str) -> None:
        script = "trap 'exit 5' USR1; touch /ready; while :; do sleep 0.05; done"
        uuid = detach(world, script, flavor=flavor)
        ready(world, uuid)
        assert world.must("kill", "--signal=SIGUSR1", "--app=busybox", uuid) == f'"{uuid}"\n'
        assert world.must("wait", uuid) == "5\n"

    def test_sigkill_ends_the_pod(self, world: World, flavor: str) -> None:
        uuid = detach(world, f"({STUBBORN}) & {STUBBORN}", flavor=flavor)
        ready(world, uuid)
        world.must("kill", uuid)
        assert world.must("wait", uuid) == "137\n"
        until(lambda: processes_with(uuid) == [])

    def test_what_cannot_be_signalled(self, world: World, flavor: str) -> None:
        uuid = ended(world, "true", flavor=flavor)
        assert "is not running" in world.podctl("kill", uuid).err
        running = detach(world, STUBBORN, flavor=flavor)
        assert 'no app "x"' in world.podctl("kill", "--app=x", "-s", "HUP", running).err
        assert "is no signal" in world.podctl("kill", "-s", "NONE", running).err
        world.must("kill", running)

    def test_a_stranger_with_the_number_is_not_touched(self, world: World, flavor: str) -> None:
        uuid = detach(world, STUBBORN, flavor=flavor)
        ready(world, uuid)
        record = world.data / "pods/run" / uuid / "instance"
        value = json.loads(record.read_text())
        with subprocess.Popen(["sleep", "600"]) as stranger:
            try:
                record.write_text(json.dumps({**value, "pid": stranger.pid, "mount_namespace": 1}))
                for name in ("USR1", "KILL"):
                    world.podctl("kill", "-s", name, uuid)
                assert stranger.poll() is None
                # The control: with its true start time it would be the pod's process.
                with open(f"/proc/{stranger.pid}/stat") as file:
                    started = int(file.read().rpartition(")")[2].split()[19])
                forged = {**value, "pid": stranger.pid, "start_time": started}
                if flavor == "fly":
                    record.write_text(json.dumps(forged))
                    world.must("kill", "-s", "USR1", uuid)
                    assert stranger.wait(30) == -signal.SIGUSR1
            finally:
                stranger.kill()
                record.write_text(json.dumps(value))
        world.must("kill", uuid)


class TestStop:
    def test_one_that_ends_when_asked_is_not_killed(self, world: World, flavor: str) -> None:
        script = "trap 'exit 9' TERM; touch /ready; while :; do sleep 0.01; done"
        uuid = detach(world, script, flavor=flavor)
        ready(world, uuid)
        assert world.must("stop", "--timeout=30s", uuid) == f'"{uuid}"\n'
        assert world.state(uuid) == "exited"
        assert world.must("wait", uuid) == "9\n"

    def test_what_does_not_end_is_killed_with_all_its_processes(
        self, world: World, flavor: str
    ) -> None:
        """A daemon that ignores everything, forked twice, in a session of its own."""
        daemon = f'setsid sh -c "({STUBBORN}) & exit" &'
        uuid = detach(world, f"{daemon} {STUBBORN}", flavor=flavor)
        ready(world, uuid)
        world.must("stop", "--timeout=200ms", uuid)
        assert world.state(uuid) == "exited"
        assert processes_with(uuid) == []
        until(lambda: not keepers(world))

    def test_a_pod_whose_first_process_is_stopped(self, world: World, flavor: str) -> None:
        uuid = detach(world, STUBBORN, flavor=flavor)
        ready(world, uuid)
        os.kill(int(world.status(uuid)["pid"]), signal.SIGSTOP)
        world.must("stop", "--timeout=200ms", uuid)
        assert world.state(uuid) == "exited"
        assert processes_with(uuid) == []

    def test_a_pod_whose_first_process_was_killed(self, world: World, flavor: str) -> None:
        daemon = f'setsid sh -c "({STUBBORN}) & exit" &'
        uuid = detach(world, f"{daemon} {STUBBORN}", flavor=flavor)
        ready(world, uuid)
        os.kill(int(world.status(uuid)["pid"]), signal.SIGKILL)
        done = world.podctl("stop", "--force", "--timeout=200ms", uuid)
        assert done.code == 0, done.err
        assert world.state(uuid) == "exited"
        until(lambda: processes_with(uuid) == [])

    def test_the_keeper_records_what_a_killed_supervisor_cannot(
        self, world: World, flavor: str
    ) -> None:
        uuid = detach(world, STUBBORN, flavor=flavor)
        ready(world, uuid)
        world.must("stop", "--force", "--timeout=10", uuid)
        assert world.must("wait", uuid) == "137\n"
