"""`--interactive` on a terminal: what people type and see."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pytest
from box_world import BOX, PATIENCE, shell_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from box_world import World
    from flavor_columns import Flavor

pytestmark = pytest.mark.root


class Screen:
    """A terminal with a pod on it, as its session's controlling terminal."""

    def __init__(self, world: World, *arguments: str) -> None:
        self.master, slave = os.openpty()
        self.resize(24, 80)
        command = world.command("run", "--interactive", *arguments)
        # setsid(1) makes the terminal on standard input the new session's own.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave
        )
        self.name = os.ttyname(slave)
        os.close(slave)
        self.shown = b""

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size, which tells the foreground processes."""
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def until(self, pattern: str) -> re.Match[bytes]:
        """Wait until this is shown, and take away everything up to its end."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = re.search(pattern.encode(), self.shown)
            if found:
                self.shown = self.shown[found.end() :]
                return found
            left = deadline - time.monotonic()
            if left < 0 or not select.select([self.master], [], [], left)[0]:
                raise TimeoutError(f"{pattern} is not shown, but {self.shown!r}")
            try:
                self.shown += os.read(self.master, 65536)
            except OSError:
                raise AssertionError(f"ended with {self.shown!r}") from None

    def end(self) -> int:
        """Wait for the end; the exit code."""
        return shell_code(self.process.wait(PATIENCE))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


@pytest.fixture
def screen(world: World, flavor: Flavor) -> Iterator[Screen]:
    """A shell on a terminal."""
    line = [flavor.flag, BOX, "--exec=/bin/sh", "--environment=PS1=prompt> ", "--", "-i"]
    screen = Screen(world, *line)
    screen.until("prompt> ")
    yield screen
    screen.close()


def test_a_shell_works_as_everywhere(screen: Screen) -> None:
    screen.type("echo $((6*7))\n")
    screen.until(r"42\r\n")
    screen.type("exit 5\n")
    assert screen.end() == 5


def test_all_three_are_the_terminal(screen: Screen) -> None:
    screen.type("for f in 0 1 2; do test -t $f && echo fd$f; done; test -w /dev/tty && echo tty\n")
    screen.until(r"fd0\r\nfd1\r\nfd2\r\ntty\r\n")


def test_window_size_and_its_changes(screen: Screen) -> None:
    screen.type("stty size\n")
    screen.until(r"24 80\r\n")
    screen.type("trap 'stty size' WINCH; echo trapped\n")
    screen.until(r"trapped\r\n.*prompt> ")
    screen.resize(50, 132)
    screen.type("stty size\n")
    screen.until(r"50 132\r\n")


def test_control_c_interrupts_what_runs(screen: Screen) -> None:
    screen.type("trap 'echo caught' INT; echo $((1+1)); sleep 600; echo code $?\n")
    screen.until(r"\n2\r\n")
    time.sleep(0.3)
    screen.type("\x03")
    screen.until(r"\^C")
    screen.until("prompt> ")
    screen.type("echo al''ive\n")
    screen.until(r"alive\r\n")


def test_job_control(screen: Screen) -> None:
    screen.type("sleep 601 &\n")
    screen.until("prompt> ")
    screen.type("fg\n")
    screen.until(r"sleep 601\r\n")
    time.sleep(0.3)
    screen.type("\x1a")
    screen.until(r"Stopped")
    screen.type("kill %1; echo go''ne\n")
    screen.until(r"gone\r\n")


def test_end_of_input_ends_it(screen: Screen) -> None:
    screen.type("\x04")
    assert screen.end() == 0


def test_a_hang_up_of_the_terminal_ends_the_pod(screen: Screen, world: World) -> None:
    os.close(screen.master)
    screen.master = os.open("/dev/null", os.O_RDONLY)
    screen.process.wait(PATIENCE)
    (uuid,) = world.pods()
    assert world.status(uuid)["state"] == "exited"


def test_termination_restores_the_terminal(screen: Screen) -> None:
    before = termios.tcgetattr(screen.master)
    screen.type("exit\n")
    screen.end()
    after = termios.tcgetattr(screen.master)
    # Input, output and local flags: what a raw terminal has lost.
    assert after[1] & termios.OPOST
    assert after[3] & termios.ECHO == before[3] & termios.ECHO or after[3] & termios.ECHO


def test_nspawn_gives_a_terminal_of_its_own(world: World) -> None:
    """X24: what is pushed into the pod's terminal never comes to the caller's."""
    screen = Screen(world, "--stage1=nspawn", BOX, "--exec=/bin/sh", "--", "-c",
                    "tty; ls -l /proc/self/fd/0; echo done; read x")  # fmt: skip
    found = screen.until(r"(\S+)\r\n").group(1).decode()
    screen.until("done")
    assert found != screen.name
    screen.process.send_signal(signal.SIGTERM)
    screen.process.wait(PATIENCE)
    screen.close()
