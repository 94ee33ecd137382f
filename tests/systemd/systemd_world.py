"""A systemd host with one image, and what tests ask of it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import image_files

from podctl.testing.pods import wait_until

if TYPE_CHECKING:
    from podctl.testing.systemdhost import SystemdHost

#: the image: a shell, and programs that speak to systemd
IMAGE = "systemd.example/box"
#: the same, made for socket activation
LISTENER = "systemd.example/listener"
#: where units of tests are
_UNITS = "/etc/systemd/system"
PODCTL = "/usr/bin/podctl --insecure-options=image"
#: writes down that it was asked to end, and how
GRACEFUL = (
    "trap 'echo graceful; kill $! 2>/dev/null; exit 0' TERM; echo up; "
    "while :; do sleep 600 & wait $!; done"
)


class SystemdWorld:
    """See the module.

    Attributes:
        host: the host.
    """

    def __init__(self, host: SystemdHost) -> None:
        self.host = host
        self._units: list[str] = []
        self._invocations: dict[str, str] = {}

    def install(self) -> None:
        """Put the image into the host's store."""
        files = image_files.busybox() | {"bin/speaker": image_files.File(_speaker(), 0o755)}
        ports = [{"name": "web", "protocol": "tcp", "port": 80, "socketActivated": True}]
        for name, app in (
            (IMAGE, {"exec": ["/bin/true"]}),
            (LISTENER, {"exec": ["/bin/speaker", "listen"], "ports": ports}),
        ):
            document = image_files.manifest(name, app=app)
            (self.host.shared / "image.aci").write_bytes(image_files.pack(document, files))
            self.podctl("fetch", "/srv/image.aci")

    def podctl(self, *arguments: str, **settings: Any) -> str:
        """Run podctl, which has to succeed."""
        return self.host.must("podctl", "--insecure-options=image", *arguments, **settings)

    def unit(self, name: str, *lines: str, section: str = "Service") -> str:
        """Install a unit, its lines in one section; systemd knows it. Returns its name."""
        return self.unit_file(name, f"[{section}]\n" + "\n".join(lines) + "\n")

    def unit_file(self, name: str, text: str) -> str:
        """Install a unit of this text."""
        self.host.write(f"{_UNITS}/{name}", text)
        self._units.append(name)
        self.host.must("systemctl", "daemon-reload")
        return name

    def shell_unit(self, name: str, script: str, *lines: str, options: str = "") -> str:
        """Install a service whose main process is a pod running a shell script."""
        self.host.write(f"/srv/{name}.sh", script)
        volume = f"--volume=script,kind=host,source=/srv/{name}.sh,readOnly=true"
        run = f"run {options} {IMAGE} --mount=volume=script,target=/script"
        start = f"ExecStart={PODCTL} {run} --exec=/bin/sh -- /script"
        return self.unit(name, start.replace("run ", f"run {volume} ", 1), *lines)

    def start(self, unit: str) -> int:
        """Start a unit; returns the number of its main process, in the host."""
        self.host.must("systemctl", "start", unit)
        self._invocations[unit] = self.host.show(unit, "InvocationID")
        return int(self.host.show(unit, "MainPID"))

    def pods(self) -> dict[str, str]:
        """UUID -> state."""
        listed = json.loads(self.podctl("list", "--format=json"))
        return {pod["name"]: pod["state"] for pod in listed}

    def running(self) -> str:
        """The UUID of the one pod that runs, waiting for it."""
        found: list[str] = []

        def runs() -> bool:
            found[:] = [uuid for uuid, state in self.pods().items() if state == "running"]
            return len(found) == 1

        wait_until(runs, "a running pod")
        return found[0]

    def status(self, uuid: str) -> dict[str, str]:
        """What `status` prints."""
        lines = self.podctl("status", uuid).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def journal(self, unit: str, *options: str) -> list[str]:
        """Messages of the processes of a unit since it was started last, oldest first."""
        # The journal of an earlier test had a unit of the same name.
        invocation = self._invocations.get(unit) or self.host.show(unit, "InvocationID")
        self.host.must("journalctl", "--sync")
        printed = self.host.must(
            "journalctl", "--no-pager", "--quiet", "--output=cat",
            f"_SYSTEMD_UNIT={unit}", f"_SYSTEMD_INVOCATION_ID={invocation}", *options,
        )  # fmt: skip
        return [line for line in printed.splitlines() if not line.startswith("image: ")]

    def wait_for_message(self, unit: str, message: str) -> None:
        """Wait until a unit's output has a line."""
        wait_until(lambda: message in self.journal(unit), f"{message!r} of {unit}")

    def processes(self, unit: str) -> dict[int, str]:
        """Number, as seen here -> name of each process of a unit."""
        group = self.host.show(unit, "ControlGroup")
        found = {}
        for top, _, files in os.walk(self.host.path(f"/sys/fs/cgroup/systemd{group}")):
            if group and "cgroup.procs" in files:
                for pid in Path(top, "cgroup.procs").read_text().split():
                    found[int(pid)] = Path(f"/proc/{pid}/comm").read_text().strip()
        return found

    def machines(self) -> list[str]:
        """Names of the machines that machined knows."""
        listed = json.loads(self.host.must("machinectl", "list", "--output=json") or "[]")
        return [machine["machine"] for machine in listed]

    def clean(self) -> None:
        """Stop every unit of a test, forget it, remove every pod."""
        for name in self._units:
            # A test that fails need not wait for what it found not to stop.
            self.host.run("systemctl", "kill", "--signal=KILL", name)
            self.host.run("systemctl", "stop", name)
        for name in self._units:
            self.host.run("systemctl", "reset-failed", name)
            self.host.path(f"{_UNITS}/{name}").unlink(missing_ok=True)
        if self._units:
            self.host.must("systemctl", "daemon-reload")
        self._units.clear()
        self._invocations.clear()
        uuids = self.pods()
        if uuids:
            self.podctl("rm", *uuids)


def _speaker() -> bytes:
    """The program speaker.c, linked statically."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "speaker"
        source = Path(__file__).with_name("speaker.c")
        subprocess.run(["gcc", "-static", "-O1", "-o", program, source], check=True)
        return program.read_bytes()
