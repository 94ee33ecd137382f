"""What signals do to a pod, sent to the process that a supervisor knows, and how pods end."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from box_world import BOX, wait_until

if TYPE_CHECKING:
    from box_world import Running, World
    from flavor_columns import Flavor

pytestmark = pytest.mark.root

#: what an app does with signals it knows
LOOP = "echo ready; while :; do sleep 0.02; done"
STOP_SIGNAL = "--annotation=appc.io/docker/stopsignal"
STOP_TIMEOUT = "--annotation=appc.io/docker/stoptimeout"


def start(world: World, flavor: Flavor, script: str, *flags: str) -> Running:
    line = [flavor.flag, BOX, *flags, "--exec=/bin/sh", "--", "-c", script]
    return world.start(*line).ready()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_app_that_is_asked_to_stop_ends_as_it_likes(
    world: World, flavor: Flavor, number: int
) -> None:
    pod = start(world, flavor, f"trap 'echo bye; exit 7' TERM INT; {LOOP}")
    pod.signal(number)
    assert pod.end() == (7, b"bye\n", b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_app_that_knows_no_signals_is_ended(world: World, flavor: Flavor, number: int) -> None:
    pod = world.start(flavor.flag, BOX, "--exec=/bin/sh", "--", "-c", "echo ready; exec sleep 600")
    pod.ready()
    pod.signal(number)
    # Under fly the app was signalled itself; to have stopped when asked is a pod's success.
    wanted = {"fly": 128 + number, "nspawn": 0}[flavor.name]
    assert pod.end() == (wanted, b"", b"")
    codes = {"fly": {}, "nspawn": {"app-box": "143"}}[flavor.name]
    status = world.status(pod.uuid)
    assert {k: v for k, v in status.items() if k.startswith("app-")} == codes
    assert status["state"] == "exited"


def test_a_hang_up(world: World, flavor: Flavor) -> None:
    """Under fly it is the app's own; else the pod ends, for nobody is left who could pass it on."""
    pod = start(world, flavor, f"trap 'echo reload; exit 0' HUP; {LOOP}")
    pod.signal(signal.SIGHUP)
    wanted = {"fly": (0, b"reload\n", b""), "nspawn": (129, b"", b"")}[flavor.name]
    assert pod.end() == wanted


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGINT", "SIGQUIT", "SIGRTMIN+3", "TERM", "9"])
def test_stop_sends_the_signal_of_the_image(world: World, flavor: Flavor, name: str) -> None:
    from podctl.model.signals import signal_number

    number = signal_number(name)
    script = f"trap 'echo got; exit 0' {number if number != 9 else 15}; {LOOP}"
    pod = start(world, flavor, script, f"{STOP_SIGNAL}={name}")
    world.must("stop", pod.uuid)
    done = pod.end()
    assert done.out == (b"got\n" if number != 9 else b"")
    assert done.code == (0 if number != 9 or flavor.name == "nspawn" else 137)


def test_an_app_that_will_not_stop_is_killed(world: World, flavor: Flavor) -> None:
    pod = start(world, flavor, f"trap '' TERM; {LOOP}", f"{STOP_TIMEOUT}=1")
    if flavor.name == "fly":
        # Nobody is there to count the seconds but who asks.
        world.must("stop", "--timeout=1", pod.uuid)
    else:
        pod.signal(signal.SIGTERM)
    assert pod.end().code == 137


def test_force_ends_it_at_once(world: World, flavor: Flavor) -> None:
    pod = start(world, flavor, f"trap '' TERM INT HUP QUIT; sleep 600 & {LOOP}")
    world.must("stop", "--force", pod.uuid)
    assert pod.end().code != 0
    wait_until(lambda: world.status(pod.uuid)["state"] == "exited", "the pod's end")


def test_a_storm_of_signals(world: World, flavor: Flavor) -> None:
    pod = start(world, flavor, f"trap 'echo bye; exit 7' TERM; {LOOP}")
    try:
        for _ in range(1000):
            pod.signal(signal.SIGTERM)
    except ProcessLookupError:
        pass
    done = pod.end()
    # To systemd-nspawn a second signal means that the first was meant.
    assert done.code == 7 or (flavor.name == "nspawn" and done.code == 1), done
    assert done.out in (b"bye\n" * n for n in range(1001))


def test_a_signal_at_any_moment_of_the_start(world: World, flavor: Flavor) -> None:
    """Whatever it meets - podctl, systemd-nspawn, the launcher, the app -, the pod ends and can be
    removed. The first process of a process namespace hears nothing before it has asked to: then
    the second signal ends the pod."""
    for delay in range(0, 300, 12):
        pod = world.start(flavor.flag, BOX, "--exec=/bin/sleep", "--", "600")
        time.sleep(delay / 1000)
        pod.signal(signal.SIGTERM)
        try:
            pod.process.wait(2)
        except subprocess.TimeoutExpired:
            assert flavor.name == "nspawn", f"after {delay} ms"
            pod.signal(signal.SIGTERM)
        pod.end()
    world.collect()


def test_a_stopped_pod_can_be_ended(world: World, flavor: Flavor) -> None:
    """SIGSTOP, of whoever stands for the pod on the host."""
    pod = start(world, flavor, LOOP)
    pod.signal(signal.SIGSTOP)
    world.must("stop", "--force", pod.uuid)
    assert pod.end().code == 137


class TestWithProcessesOfItsOwn:
    """nspawn: the pod ends with its apps, whatever they have left running."""

    @pytest.fixture
    def flavor(self) -> Flavor:
        from flavor_columns import Flavor

        return Flavor("nspawn")

    @pytest.mark.parametrize(
        "script",
        [
            "sleep 600 & exit 4",
            "(setsid sleep 600 &) ; exit 4",
            "trap '' TERM HUP INT; (trap '' TERM; while :; do sleep 1; done) & exit 4",
        ],
        ids=["a child", "a daemon", "deaf"],
    )
    def test_children_end_with_it(self, world: World, flavor: Flavor, script: str) -> None:
        done = world.podctl("run", flavor.flag, BOX, "--exec=/bin/sh", "--", "-c", script)
        assert done == (4, b"", b"")

    def test_ten_thousand_orphans_are_reaped(self, world: World, flavor: Flavor) -> None:
        """Process 1 waits for processes it never started."""
        script = (
            "i=0; while [ $i -lt 10000 ]; do (true &); i=$((i+1)); done; "
            "exec 2>/dev/null; n=1; while [ $n -gt 0 ]; do "
            "n=$(cat /proc/[0-9]*/status | grep -c 'State:.Z'); done; echo none"
        )
        done = world.podctl("run", flavor.flag, BOX, "--exec=/bin/sh", "--", "-c", script)
        assert done == (0, b"none\n", b"")
