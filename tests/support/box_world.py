"""Pods of busybox through the real command line, and what they may leave behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import box_images

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DOMAIN = "behaviour.example"
BOX = f"{DOMAIN}/box"
#: seconds after which a test is lost
PATIENCE = 60


#: what podctl says where all goes well
_FOUND = re.compile(rb"^image: using image from local store [^\n]*\n", re.MULTILINE)


class Done(NamedTuple):
    """A finished command.

    Args:
        code: as a shell has it, 128 and more for a signal.
        err: without the lines that say where the images were found.
    """

    code: int
    out: bytes
    err: bytes


def shell_code(returncode: int) -> int:
    """What `$?` is."""
    return returncode if returncode >= 0 else 128 - returncode


class Running:
    """A pod that runs beside the test."""

    def __init__(self, process: subprocess.Popen[bytes], uuid_file: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._uuid_file = uuid_file

    @property
    def uuid(self) -> str:
        """The pod's."""
        return self._uuid_file.read_text().strip()

    def named(self) -> Running:
        """Wait until it has a UUID."""
        wait_until(self._uuid_file.exists, "the pod's UUID")
        return self

    def line(self) -> bytes:
        """The next line of its standard output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ready(self, line: bytes = b"ready\n") -> Running:
        """Wait for its first line."""
        found = self.line()
        assert found == line, (found, self.end() if not found else None)
        return self

    def signal(self, number: int) -> None:
        """Signal the process a supervisor started."""
        os.kill(self.pid, number)

    def end(self) -> Done:
        """Wait for the end; what it has written since."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return Done(shell_code(self.process.returncode), out, _FOUND.sub(b"", err))


class World:
    """One data directory and the commands run on it.

    Args:
        top: where files of the test may lie.
        data: the data directory.
    """

    def __init__(self, top: Path, data: Path) -> None:
        self.top = top
        self.data = data
        self._running: list[subprocess.Popen[bytes]] = []
        self._started = 0
        #: every pod that was seen
        self.seen: set[str] = set()

    def command(self, *arguments: str) -> list[str]:
        """The command line of podctl with these arguments."""
        empty = str(self.top / "no-configuration")
        return [
            *(sys.executable, "-I", "-m", "podctl"),
            *("--dir", str(self.data), "--local-config", empty, "--system-config", empty),
            *("--insecure-options=image", *arguments),
        ]

    def podctl(
        self, *arguments: str, stdin: bytes = b"", prefix: Sequence[str] = (), **settings: Any
    ) -> Done:
        """Run podctl to its end."""
        done = subprocess.run(
            [*prefix, *self.command(*arguments)],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
            **settings,
        )
        return Done(shell_code(done.returncode), done.stdout, _FOUND.sub(b"", done.stderr))

    def must(self, *arguments: str, **settings: Any) -> str:
        """Run podctl, which has to succeed; returns what it printed."""
        done = self.podctl(*arguments, **settings)
        assert done.code == 0, f"podctl {' '.join(arguments)}: {done.code}: {done.err!r}"
        return done.out.decode()

    def start(self, *arguments: str, prefix: Sequence[str] = (), **settings: Any) -> Running:
        """Start `run` beside the test; it is ended with the test.

        Args:
            prefix: words before podctl, which must become it.
        """
        self._started += 1
        file = self.top / f"uuid-{self._started}"
        streams: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **settings,
        }
        command = [*prefix, *self.command("run", f"--uuid-file-save={file}", *arguments)]
        process = subprocess.Popen(command, **streams)
        self._running.append(process)
        return Running(process, file)

    def status(self, uuid: str) -> dict[str, str]:
        """What `status` prints."""
        return dict(line.split("=", 1) for line in self.must("status", uuid).splitlines())

    def pods(self) -> list[str]:
        """UUIDs of all pods there are."""
        found = sorted(path.name for path in self.data.glob("pods/*/*"))
        self.seen.update(found)
        return found

    def end(self) -> None:
        """End every process started by the test, and what they leave."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for path in self.data.glob("pods/run/*"):
            self.podctl("stop", "--force", path.name)

    def collect(self) -> None:
        """Remove every pod by gc, which has to succeed at once and without complaint."""
        self.pods()
        done = self.podctl("gc", "--grace-period=0s", "--expire-prepared=0s")
        assert done.code == 0, done.err
        assert b"busy" not in done.err.lower(), done.err
        assert b"leftover" not in done.err, done.err
        assert self.pods() == [], done.err

    def left(self) -> list[str]:
        """What its pods have left on the host."""
        return traces(str(self.data), str(self.top), *self.seen)


def traces(*marks: str) -> list[str]:
    """Mounts, control groups and processes on the host that bear one of these marks."""
    with open("/proc/self/mountinfo") as file:
        found = [line for line in file if any(mark in line for mark in marks)]
    for parent, names, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{parent}/{name}" for name in names if any(mark in name for mark in marks)]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            mounts = (entry / "mountinfo").read_text(errors="replace")
        except OSError:
            continue
        if any(mark in line or mark in mounts for mark in marks):
            found.append(f"process {entry.name}: {line}")
    return found


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll for something no descriptor tells of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.005)


#: image -> (changes of its root filesystem, its app section)
IMAGES: dict[str, tuple[tuple[box_images.Change, ...], dict[str, Any]]] = {
    "box": (
        (box_images.odd_programs,),
        {"environment": [{"name": "VAR_FROM_MANIFEST", "value": "manifest"}]},
    ),
    "linked": ((box_images.linked_directories,), {}),
    "linked-proc": ((box_images.linked_proc,), {}),
    "file-for-dev": ((box_images.file_for_dev,), {}),
    "system": ((box_images.foreign_system,), {}),
    "bare": ((box_images.bare,), {"exec": ["/echo", "bare"]}),
    "hostile": ((box_images.hostile_accounts,), {}),
    "handlers": (
        (),
        {
            "exec": ["/bin/sh", "-c", "echo app; exit 3"],
            "user": "web",
            "group": "web",
            "environment": [{"name": "WORD", "value": "of the app"}],
            "eventHandlers": [
                {"name": "pre-start", "exec": ["/bin/sh", "-c", "echo before $WORD as $(id -u)"]},
                {"name": "post-stop", "exec": ["/bin/sh", "-c", "echo after $WORD as $(id -u)"]},
            ],
        },
    ),
    "failing-handler": (
        (),
        {
            "exec": ["/bin/echo", "never"],
            "eventHandlers": [{"name": "pre-start", "exec": ["/bin/sh", "-c", "exit 9"]}],
        },
    ),
    "points": (
        (),
        {
            "exec": ["/bin/sh"],
            "user": "web",
            "group": "web",
            "supplementaryGIDs": [7, 50],
            "workingDirectory": "/srv/data",
            "mountPoints": [{"name": "state", "path": "/srv/state", "readOnly": True}],
        },
    ),
}


def fetch_images(top: Path) -> Path:
    """Make every image and fetch it; returns the data directory."""
    world = World(top, top / "data")
    files = []
    for name, (changes, app) in IMAGES.items():
        files.append(str(box_images.make(top / f"{name}.aci", f"{DOMAIN}/{name}", *changes, **app)))
    world.must("fetch", *files)
    for file in files:
        os.unlink(file)
    return world.data
