"""Pods whose apps come and go, for tests."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import box_images
from box_world import DOMAIN, World, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from box_world import Done

BOX = f"{DOMAIN}/box"
POINTS = f"{DOMAIN}/points"


def fetch_images(top: Path) -> Path:
    """A data directory with two images: one plain, one with a mount point and handlers."""
    world = MutableWorld(top, top / "data")
    handlers = [
        {"name": "pre-start", "exec": ["/bin/sh", "-c", "echo before >>/srv/state/log"]},
        {"name": "post-stop", "exec": ["/bin/sh", "-c", "echo after >>/srv/state/log"]},
    ]
    point = [{"name": "state", "path": "/srv/state"}]
    box_images.make(top / "box.aci", BOX, box_images.odd_programs)
    box_images.make(
        top / "points.aci", POINTS, exec=["/bin/sh"], mountPoints=point, eventHandlers=handlers
    )
    world.must("fetch", str(top / "box.aci"), str(top / "points.aci"))
    return world.data


class MutableWorld(World):
    """One data directory; pods of `app sandbox` run beside the test."""

    def sandbox(self, *flags: str) -> Sandbox:
        """Start a pod without apps."""
        self._started += 1
        file = self.top / f"uuid-{self._started}"
        arguments = self.command("app", "sandbox", f"--uuid-file-save={file}", *flags)
        output = self.top / f"output-{self._started}"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        self._running.append(process)
        wait_until(lambda: file.exists() or process.poll() is not None, "the pod")
        assert process.poll() is None, output.read_text()
        return Sandbox(self, file.read_text(), process, output)

    def end(self) -> None:
        """End every pod, and see it end."""
        for path in self.data.glob("pods/run/*"):
            self.podctl("stop", "--force", "--timeout=30s", path.name)
        super().end()


class Sandbox:
    """A pod whose apps come and go."""

    def __init__(
        self, world: World, uuid: str, process: subprocess.Popen[bytes], output: Path
    ) -> None:
        self.world = world
        self.uuid = uuid
        self.process = process
        self._output = output

    @property
    def directory(self) -> Path:
        """The pod's."""
        return next(self.world.data.glob(f"pods/*/{self.uuid}"))

    def said(self) -> str:
        """What it has written: podctl, and the apps."""
        return self._output.read_text()

    def add(self, name: str, script: str = "exec sleep 600", *flags: str, image: str = BOX) -> None:
        """Add an app of the shell."""
        assert self.try_add(name, script, *flags, image=image).code == 0

    def try_add(self, name: str, script: str, *flags: str, image: str = BOX) -> Done:
        """As `add`, which may fail."""
        line = (image, f"--name={name}", "--exec=/bin/sh", *flags, "--", "-c", script)
        return self.world.podctl("app", "add", self.uuid, *line)

    def app(self, what: str, name: str) -> str:
        """`app start`, `stop` or `rm`, which has to succeed."""
        return self.world.must("app", what, self.uuid, f"--app={name}")

    def run(self, name: str, script: str, *flags: str, image: str = BOX) -> None:
        """Add and start an app."""
        self.add(name, script, *flags, image=image)
        self.app("start", name)

    def ended(self, name: str) -> int:
        """Wait for the end of an app; its exit code."""
        wait_until(lambda: self.states().get(name) == "exited", f"the end of {name}")
        code = self.status(name)["exit_code"]
        assert isinstance(code, int)
        return code

    def waits_for(self, text: str) -> None:
        """Return once it has written this."""
        wait_until(lambda: text in self.said(), repr(text))

    def states(self) -> dict[str, str]:
        """App -> state, as `app list` has them."""
        lines = self.world.must("app", "list", "--no-legend", self.uuid).splitlines()
        return dict(line.split() for line in lines)

    def status(self, name: str) -> dict[str, Any]:
        """What `app status --format=json` prints."""
        found: dict[str, Any] = json.loads(
            self.world.must("app", "status", self.uuid, f"--app={name}", "--format=json")
        )
        return found

    def inside(self, name: str, *argv: str) -> Done:
        """Run a command in an app."""
        return self.world.podctl("app", "exec", f"--app={name}", self.uuid, *argv)

    def manifest(self) -> dict[str, Any]:
        """The pod's manifest."""
        found: dict[str, Any] = json.loads(self.world.must("cat-manifest", self.uuid))
        return found

    def mounts(self) -> list[str]:
        """Mount points of its first process, as it sees them."""
        with open(f"/proc/{self.leader()}/mountinfo") as file:
            return [line.split()[4] for line in file]

    def leader(self) -> int:
        """Its first process, as the host sees it."""
        nspawn = int((self.directory / "ppid").read_text())
        for child in self._children(nspawn):
            for one in (child, *self._children(child)):
                with open(f"/proc/{one}/status") as file:
                    numbers = next(line for line in file if line.startswith("NSpid:")).split()[1:]
                if len(numbers) > 1 and numbers[-1] == "1":
                    return one
        raise AssertionError("the pod has no first process")

    def children(self, pid: int | None = None) -> list[int]:
        """Children of a process, of the pod's first one by default."""
        return self._children(self.leader() if pid is None else pid)

    @staticmethod
    def _children(pid: int) -> list[int]:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]

    def left_of(self, name: str) -> list[str]:
        """Files, mounts and control groups that bear an app's name."""
        found = [
            str(path.relative_to(self.directory))
            for path in self.directory.rglob(f"*{name}*")
            if not str(path).endswith(".lck")
        ]
        if self.process.poll() is None:
            found += [point for point in self.mounts() if name in point]
        for parent, names, _ in os.walk("/sys/fs/cgroup"):
            if self.uuid in parent:
                found += [f"{parent}/{one}" for one in names if one == name]
        for file in ("pod", "roots.json", "confinement.json"):
            found += [file] * (name in (self.directory / file).read_text())
        return found
