"""Pods of several apps: how each ends, and what that makes of the others."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from box_world import BOX, Done

if TYPE_CHECKING:
    from box_world import World

pytestmark = pytest.mark.root


def apps(**scripts: str) -> list[str]:
    """The words of a command line for apps of busybox."""
    words: list[str] = []
    for name, script in scripts.items():
        words += [BOX, f"--name={name}", "--exec=/bin/sh", "--", "-c", script, "---"]
    return words


def run(world: World, *flags: str, **scripts: str) -> Done:
    return world.podctl("run", "--stage1=nspawn", *flags, *apps(**scripts))


def codes(world: World) -> dict[str, str]:
    """What `status` says of the apps of the only pod."""
    (uuid,) = world.pods()
    status = world.status(uuid)
    return {k[4:]: v for k, v in status.items() if k.startswith("app-")}


def test_fly_runs_one_and_says_so(world: World) -> None:
    done = world.podctl("run", "--stage1=fly", *apps(a="true", b="true"))
    assert done.code == 254
    assert b"1 app" in done.err


def test_all_succeed(world: World) -> None:
    assert run(world, a="echo a", b="sleep 0.1", c="true").code == 0
    assert codes(world) == {"a": "0", "b": "0", "c": "0"}


def test_a_pod_lasts_as_long_as_its_last_app(world: World) -> None:
    assert run(world, a="exit 0", b="sleep 0.3; echo last").out == b"last\n"


def test_the_first_failure_is_the_pods(world: World) -> None:
    done = run(
        world,
        a="trap 'echo stopped; exit 5' TERM; while :; do sleep 0.02; done",
        b="sleep 0.3; exit 3",
        c="true",
    )
    assert (done.code, done.out) == (3, b"stopped\n")
    assert codes(world) == {"a": "5", "b": "3", "c": "0"}


def test_one_that_cannot_start_fails_the_pod_before_any_runs(world: World) -> None:
    line = ["run", "--stage1=nspawn", *apps(a="echo ran"), BOX, "--name=b", "--exec=/no/such"]
    done = world.podctl(*line)
    assert (done.code, done.out) == (127, b"")
    assert world.pods() == []


def test_one_whose_program_will_not_start(world: World) -> None:
    words = apps(a="trap 'exit 0' TERM; while :; do sleep 0.02; done")
    line = ["run", "--stage1=nspawn", *words, BOX, "--name=b", "--exec=/programs/foreign"]
    done = world.podctl(*line)
    assert done.code == 126
    assert b"is built for riscv64" in done.err
    found = codes(world)
    # Asked to stop before it had said what it does then, perhaps.
    assert (found["a"], found["b"]) in (("0", "126"), ("143", "126"))


def test_one_killed_by_a_signal(world: World) -> None:
    assert run(world, a="kill -SEGV $$", b="exec sleep 600").code == 139
    assert codes(world) == {"a": "139", "b": "143"}


def test_asked_to_stop_all_end(world: World) -> None:
    loop = "while :; do sleep 0.02; done"
    pod = world.start(
        "--stage1=nspawn",
        *apps(a=f"trap 'exit 0' TERM; {loop}", b=f"sleep 0.1; echo ready; {loop}"),
    ).ready()
    pod.signal(signal.SIGTERM)
    assert pod.end().code == 0
    assert codes(world) == {"a": "0", "b": "143"}


def test_they_share_volumes_and_network_but_not_files_or_mounts(world: World) -> None:
    done = run(
        world,
        "--volume=v,kind=empty",
        "--mount=volume=v,target=/v",
        a="echo private >/mine; mkfifo /v/pipe; echo through >/v/pipe",
        b="while ! [ -p /v/pipe ]; do sleep 0.02; done; cat /v/pipe; ls /mine /proc/1/root/opt",
    )
    assert done.out == b"through\n"
    assert done.err.count(b"\n") == 2
    assert done.code == 1


def test_thirty_apps(world: World) -> None:
    scripts = {f"a{n}": f"exit {0 if n else 9}" for n in range(30)}
    assert run(world, **scripts).code == 9
    found = codes(world)
    assert len(found) == 30
    assert found["a0"] == "9"
