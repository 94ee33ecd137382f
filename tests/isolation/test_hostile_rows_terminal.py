"""X24: what is pushed into a pod's terminal never comes to the terminal podctl was called from."""

from __future__ import annotations

import os
import re
import select
import shlex
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from box_world import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from box_world import World

pytestmark = pytest.mark.root

TRAP = "hostile.example/trap"


class Desk:
    """A shell of the host's on a terminal: it calls podctl, and then reads what is typed."""

    def __init__(self, command: list[str]) -> None:
        self.master, slave = os.openpty()
        script = f'{shlex.join(command)}; echo over; read line; echo "got [$line]"'
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "sh", "-c", script], stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        self._shown = b""

    def until(self, pattern: bytes) -> re.Match[bytes]:
        """Wait until this is shown."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self._shown)):
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.master], [], [], left)[0]:
                raise TimeoutError(f"{pattern!r} is not shown, but {self._shown!r}")
            self._shown += os.read(self.master, 65536)
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def reads(world: World) -> Iterator[Callable[..., tuple[int, bytes]]]:
    """How often a command's pushing worked, and what the host's shell then reads."""
    desks = []

    def run(*arguments: str) -> tuple[int, bytes]:
        desk = Desk(world.command(*arguments))
        desks.append(desk)
        pushed = int(desk.until(rb"pushed (\d)")[1])
        desk.until(rb"over\r\n")
        os.write(desk.master, b"mine\n")
        return pushed, desk.until(rb"got \[(.*?)\]")[1]

    yield run
    for desk in desks:
        desk.close()


@pytest.mark.parametrize("held", [True, False])
def test_x24_an_app_types_into_its_own_terminal_at_most(
    reads: Callable[..., tuple[int, bytes]], held: bool
) -> None:
    """Also with every capability, where the pushing works."""
    waived = [] if held else ["--insecure-options=image,capabilities,seccomp"]
    line = ["run", "--stage1=nspawn", "--private-users=no", "--interactive", TRAP]
    pushed, read = reads(*waived, *line, "--exec=/bin/push")
    assert read == b"mine"
    assert held or pushed > 0


def test_x24_so_does_who_enters(world: World, reads: Callable[..., tuple[int, bytes]]) -> None:
    script = "echo ready; exec sleep 600"
    pod = world.start("--stage1=nspawn", TRAP, "--exec=/bin/sh", "--", "-c", script).ready()
    for words in (["exec", "-it", pod.uuid, "/bin/push"], ["enter", pod.uuid, "/bin/push"]):
        assert reads(*words)[1] == b"mine", words


def test_x24_control_an_app_of_fly_types_into_the_caller_s(
    reads: Callable[..., tuple[int, bytes]],
) -> None:
    pushed, line = reads("run", "--stage1=fly", "--interactive", TRAP, "--exec=/bin/push")
    assert (pushed > 0, line) == (True, b"injected")
