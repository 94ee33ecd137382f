"""Pods with a parent: --detach, and --rm."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from kept_pods import NAME, detach, keepers, until

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.root


class TestDetach:
    def test_prints_the_uuid_and_leaves_the_pod_running(self, world: World) -> None:
        uuid = detach(world, "exec sleep 600")
        try:
            status = world.status(uuid)
            assert status["state"] == "running"
            pid = int(status["pid"])
            assert os.getsid(pid) == pid
            assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        finally:
            world.must("stop", "--force", uuid)
        world.must("status", "--wait=30s", uuid)
        until(lambda: not keepers(world))

    def test_the_exit_code_is_there_as_soon_as_the_pod_has_ended(self, world: World) -> None:
        for code in (0, 7):
            uuid = detach(world, f"exit {code}")
            shown = world.must("status", "--wait=30s", uuid)
            assert f"app-busybox={code}\n" in shown

    def test_a_prepared_pod(self, world: World) -> None:
        uuid = world.prepare("--exec=/bin/false")
        assert world.must("run-prepared", "--detach", uuid) == f"{uuid}\n"
        assert "app-busybox=1\n" in world.must("status", "--wait=30s", uuid)

    def test_what_keeps_a_pod_from_starting_is_said_and_leaves_none(self, world: World) -> None:
        done = world.podctl("run", "--stage1=fly", "-d", NAME, "--exec=/nope")
        assert (done.code, done.out) == (127, "")
        assert "/nope: no such program in the image" in done.err
        assert world.pods() == {}
        assert keepers(world) == []

    def test_what_cannot_be_executed_is_said_too(self, world: World) -> None:
        (world.top / "volume").mkdir()
        (world.top / "volume/script").write_text("#!/nope\n")
        (world.top / "volume/script").chmod(0o755)
        volume = f"--volume=v,kind=host,source={world.top / 'volume'}"
        line = ("run", "--stage1=fly", volume, "-d", NAME, "--mount=volume=v,target=/v")
        done = world.podctl(*line, "--exec=/v/script")
        assert (done.code, done.out) == (127, "")
        assert "its #! interpreter /nope is not in the image" in done.err
        (uuid,) = world.pods()
        assert world.status(uuid)["app-busybox"] == "127"

    def test_an_app_that_ends_at_once_was_started(self, world: World) -> None:
        for _ in range(5):
            detach(world, "exit 127")

    def test_the_terminal_cannot_be_had(self, world: World) -> None:
        done = world.podctl("run", "--stage1=fly", "-d", "--interactive", NAME)
        assert done.code == 254
        assert "exclude each other" in done.err


class TestKeeper:
    """Whoever ends a pod's keeper neither ends the app nor stops it (SIGPIPE, a full pipe)."""

    SCRIPT = (
        "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); [ $i -ne 10000 ] || {"
        " touch /half; until test -e /go; do sleep 0.01; done; }; done; exit 4"
    )

    @pytest.mark.parametrize("flavor", ["fly", "nspawn"])
    def test_another_takes_over_from_one_that_is_killed(self, world: World, flavor: str) -> None:
        uuid = detach(world, self.SCRIPT, "--no-overlay", flavor=flavor)
        root = world.data / "pods/run" / uuid / "rootfs/busybox"
        until((root / "half").exists)
        seen = set(keepers(world))
        assert len(seen) == 2
        for number in (0, 1):
            os.kill(int((root / "../../keeper").read_text().splitlines()[number].split()[0]), 9)
            until(lambda known=frozenset(seen): bool(set(keepers(world)) - known))
            seen |= set(keepers(world))
        (root / "go").touch()
        assert world.must("wait", uuid) == "4\n"
        assert world.must("logs", uuid) == "".join(f"line {n}\n" for n in range(20000))
        until(lambda: not keepers(world))

    def test_signals_do_not_end_it(self, world: World) -> None:
        uuid = detach(world, "exec sleep 600")
        for pid in keepers(world):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
                os.kill(pid, number)
        world.must("kill", "-s", "TERM", uuid)
        assert world.must("wait", uuid) == "143\n"

    def test_the_app_would_have_been_killed_otherwise(self, world: World) -> None:
        """The control: with both gone at once, nobody reads."""
        script = "touch /ready; while :; do echo line; sleep 0.01; done"
        uuid = detach(world, script)
        until((world.data / "pods/run" / uuid / "overlay/busybox/upper/ready").exists)
        pids = keepers(world)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        until(lambda: world.state(uuid) == "exited")


class TestRemove:
    def test_the_pod_is_gone_and_its_code_is_ours(self, world: World) -> None:
        done = world.podctl(
            "run", "--stage1=fly", "--rm", NAME, "--exec=/bin/sh", "--", "-c", "echo out; exit 7"
        )
        assert (done.code, done.out, done.err.splitlines()[1:]) == (7, "out\n", [])
        assert world.pods() == {}

    def test_signals_reach_the_app(self, world: World) -> None:
        script = "trap 'echo bye; exit 9' USR1; echo ready; while :; do sleep 0.01; done"
        process = world.start(
            "run", "--stage1=fly", "--rm", NAME, "--exec=/bin/sh", "--", "-c", script
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.communicate(timeout=30)[0] == "bye\n"
        assert process.returncode == 9
        assert world.pods() == {}

    def test_nothing_is_left_of_a_pod_that_cannot_start(self, world: World) -> None:
        done = world.podctl("run", "--stage1=fly", "--rm", NAME, "--exec=/nope")
        assert done.code == 127
        assert world.pods() == {}

    def test_detached(self, world: World) -> None:
        detach(world, "exit 3", "--rm")
        until(lambda: not world.pods())

    def test_a_prepared_pod(self, world: World) -> None:
        uuid = world.prepare("--exec=/bin/false")
        assert world.podctl("run-prepared", "--rm", uuid).code == 1
        assert world.pods() == {}
