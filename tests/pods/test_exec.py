"""`podctl exec` on real pods."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from kept_pods import NAME
from typist import Typist

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import World

pytestmark = pytest.mark.root


@pytest.fixture(params=["fly", "nspawn"])
def pod(world: World, request: pytest.FixtureRequest) -> Iterator[str]:
    """A running pod whose app is user web in /dir1."""
    uuid = world.must(
        "run", f"--stage1={request.param}", "--detach", NAME, "--user=web", "--group=web",
        "--working-dir=/dir1", "--environment=OWN=app", "--exec=/bin/sleep", "--", "600",
    ).strip()  # fmt: skip
    yield uuid
    world.must("stop", "--force", "--timeout=1", uuid)


def test_runs_as_the_app_does(world: World, pod: str) -> None:
    done = world.podctl("exec", pod, "sh", "-c", "id -u; id -g; pwd; echo $OWN; exit 4")
    assert (done.code, done.out) == (4, "1001\n1002\n/dir1\napp\n")


def test_flags_change_what_they_say(world: World, pod: str) -> None:
    line = ("exec", "-e", "A=1", "--env=OWN=mine", "-w", "/etc", "-u", "0:50", pod)
    out = world.must(*line, "sh", "-c", "echo $A $OWN; pwd; id -u; id -g")
    assert out == "1 mine\n/etc\n0\n50\n"


def test_input_is_passed_on_only_when_asked(world: World, pod: str) -> None:
    assert world.must("exec", pod, "cat", stdin="typed\n") == ""
    assert world.must("exec", "-i", pod, "cat", stdin="typed\n") == "typed\n"


def test_flags_of_the_command_are_its_own(world: World, pod: str) -> None:
    assert world.must("exec", pod, "echo", "-e", "-i", "--app=x") == "-i --app=x\n"


def test_what_is_missing_has_its_exit_code(world: World, pod: str) -> None:
    for tty in ((), ("-t",)):
        done = world.podctl("exec", *tty, pod, "/nope")
        assert done.code == 127
        assert "exec: /nope: no such program in the image" in done.err


def test_no_terminal_to_pass_on(world: World, pod: str) -> None:
    done = world.podctl("exec", "-it", pod, "true")
    assert done.code == 254
    assert "--tty: standard input is no terminal" in done.err


def test_a_terminal_of_its_own(world: World, pod: str) -> None:
    typist = Typist(world, "exec", "-it", pod, "sh")
    ours = os.readlink(f"/proc/{typist.process.pid}/fd/0")
    typist.type("test -t 0 && test -t 2 && echo is-a-$((1+1))\n")
    typist.expect("is-a-2")
    typist.type("readlink /proc/self/fd/0; echo end-$((3+3))\n")
    typist.expect("end-6")
    assert f"\n{ours}\r" not in typist.seen
    typist.type("exit 9\n")
    assert typist.process.wait(30) == 9
    os.close(typist.controller)


def test_an_interrupt_from_the_terminal(world: World, pod: str) -> None:
    script = "trap 'echo caught; exit 7' INT; echo go; while :; do sleep 0.05; done"
    typist = Typist(world, "exec", "-it", pod, "sh", "-c", script)
    typist.expect("go")
    typist.type("\x03")
    typist.expect("caught")
    assert typist.process.wait(30) == 7
    os.close(typist.controller)


def test_the_size_of_the_terminal(world: World, pod: str) -> None:
    typist = Typist(world, "exec", "-it", pod, "sh", "-c", "stty size")
    typist.expect("\n")
    typist.process.wait(30)
    assert "33 77" in typist.seen
    os.close(typist.controller)


def test_a_pod_that_has_ended(world: World) -> None:
    world.must("run", "--stage1=fly", "--name=over", NAME)
    done = world.podctl("exec", "over", "true")
    assert done.code == 254
    assert "is not running" in done.err
