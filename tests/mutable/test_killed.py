"""Commands that change a pod are killed: what they leave is no obstacle to the next ones."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from mutable_world import BOX, POINTS

from podctl.testing.tracer import run_traced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mutable_world import MutableWorld, Sandbox

    from podctl.testing.tracer import Point

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64",
    reason="the tracer knows the system call numbers of x86-64 alone",
)
#: every how many of a command's mutating calls it is killed at; each call that changes names or
#: mounts is one beside
STEP = int(os.environ.get("PODCTL_TEST_KILL_STEP", "12"))
_ALWAYS = frozenset({"rename", "move_mount", "umount2", "mkdir", "rmdir"})
ADD = (BOX, "--name=web", "--exec=/bin/sh", "--mnt-volume=name=v,kind=empty,target=/own",
       "--memory=64Mi", "--", "-c", "echo up; exec sleep 600")  # fmt: skip


def in_process(world: MutableWorld, *arguments: str) -> Callable[[], int]:
    """A function that runs podctl in the calling process, without a word."""
    words = world.command(*arguments)[4:]

    def run() -> int:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        from podctl.cli.main import run as main

        return main(words)

    return run


def chosen(points: list[Point]) -> Iterator[Point]:
    """The points to kill at."""
    seen: set[tuple[int, str]] = set()
    for number, point in enumerate(points):
        fresh = (point.process, point.call) not in seen and point.call in _ALWAYS
        seen.add((point.process, point.call))
        if fresh or number % STEP == 0 or number == len(points) - 1:
            yield point


def sweep(
    world: MutableWorld, arguments: tuple[str, ...], before: Callable[[], object],
    after: Callable[[], object],
) -> None:  # fmt: skip
    """Kill a command at chosen points: `before` makes what it needs, `after` looks."""
    before()
    whole = run_traced(in_process(world, *arguments))
    assert whole.status == 0
    assert len(whole.points) > 5
    after()
    killed = 0
    for point in chosen(whole.points):
        before()
        killed += run_traced(in_process(world, *arguments), point).killed
        try:
            after()
        except AssertionError as error:
            raise AssertionError(f"killed at {point}: {error}") from error
    assert killed > 5


def test_add(world: MutableWorld, pod: Sandbox) -> None:
    pod.run("other", "exec sleep 600", image=POINTS)

    def after() -> None:
        states = pod.states()
        assert states in ({"other": "running"}, {"other": "running", "web": "created"})
        world.must("list")
        if "web" not in states:
            world.must("app", "add", pod.uuid, *ADD)
        # Twice over: what was left of the first is not in the way of the second.
        pod.app("start", "web")
        assert pod.status("web")["state"] == "running"
        pod.app("rm", "web")
        assert pod.left_of("web") == []
        assert pod.states() == {"other": "running"}

    def before() -> None:
        assert pod.states() == {"other": "running"}

    sweep(world, ("app", "add", pod.uuid, *ADD), before, after)


def test_rm(world: MutableWorld, pod: Sandbox) -> None:
    def before() -> None:
        world.must("app", "add", pod.uuid, *ADD)
        pod.app("start", "web")

    def after() -> None:
        states = pod.states()
        assert states.keys() <= {"web"}
        if not states:
            # What is left goes with the next change, whatever that is.
            pod.add("other", "true")
            pod.app("rm", "other")
        else:
            pod.app("rm", "web")
        assert pod.left_of("web") == []

    sweep(world, ("app", "rm", pod.uuid, "--app=web"), before, after)


def test_a_pod_with_leftovers_is_removed(world: MutableWorld) -> None:
    pod = world.sandbox()
    pod.run("other", "exec sleep 600")
    line = ("app", "add", pod.uuid, *ADD)
    points = run_traced(in_process(world, *line)).points
    pod.app("rm", "web")
    # All is made but the manifest, which comes last.
    named = [point for point in points if point.call == "rename"][-1]
    assert run_traced(in_process(world, *line), named).killed
    assert pod.states() == {"other": "running"}
    assert pod.left_of("web") != []
    world.must("stop", "--timeout=30s", pod.uuid)
    world.must("rm", pod.uuid)
    assert world.pods() == []


@pytest.mark.parametrize("what", ["start", "stop"])
def test_requests(world: MutableWorld, pod: Sandbox, what: str) -> None:
    pod.add("web", "exec sleep 600")

    def before() -> None:
        if what == "stop":
            pod.app("start", "web")

    def after() -> None:
        pod.app("start", "web")
        assert pod.status("web")["state"] == "running"
        pod.app("stop", "web")
        assert pod.status("web")["state"] == "exited"

    before()
    points = run_traced(in_process(world, "app", what, pod.uuid, "--app=web")).points
    after()
    for point in points:
        before()
        run_traced(in_process(world, "app", what, pod.uuid, "--app=web"), point)
        after()
