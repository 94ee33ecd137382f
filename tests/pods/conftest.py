"""Real pods: a busybox image in a real store, run by the fly flavor through the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

NAME = "pods.example/busybox"
APPLETS = (
    "sh true false cat env echo id ls stat mkdir touch rm sleep sync setsid kill pwd readlink "
    "grep mount test chmod nohup printf stty find sort xargs ln mv"
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1001:1002::/:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1002:\nstaff:x:50:\n"


class Done(NamedTuple):
    """A finished command."""

    code: int
    out: str
    err: str


def write_image(path: Path, name: str = NAME, **app: Any) -> None:
    """Write an ACI with busybox, two accounts, a file and a directory."""
    section = {"exec": ["/bin/true"], "user": "0", "group": "0", **app}
    manifest = {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": name,
        "labels": [
            {"name": "version", "value": "1.0"},
            {"name": "os", "value": "linux"},
            {"name": "arch", "value": {"x86_64": "amd64"}.get(os.uname().machine, "aarch64")},
        ],
        "app": section,
    }
    with tarfile.open(path, "w") as archive:

        def add(name: str, data: bytes | None = None, mode: int = 0o755, link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.mode = mode
            entry.mtime = 1_000_000_000
            entry.type = tarfile.SYMTYPE if link else tarfile.REGTYPE
            entry.linkname = link
            if data is None and not link:
                entry.type = tarfile.DIRTYPE
            entry.size = len(data or b"")
            archive.addfile(entry, io.BytesIO(data or b""))

        add("manifest", json.dumps(manifest).encode(), 0o644)
        for directory in ("rootfs", "rootfs/bin", "rootfs/etc", "rootfs/root", "rootfs/dir1"):
            add(directory)
        add("rootfs/bin/busybox", Path("/bin/busybox").read_bytes())
        for applet in APPLETS.split():
            add(f"rootfs/bin/{applet}", link="busybox")
        add("rootfs/etc/passwd", PASSWD.encode(), 0o644)
        add("rootfs/etc/group", GROUP.encode(), 0o644)
        add("rootfs/dir1/file", b"from the image\n", 0o644)


class World:
    """One data directory and the commands run on it."""

    def __init__(self, top: Path, data: Path) -> None:
        self.top = top
        self.data = data
        self._running: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str) -> list[str]:
        """The command line of podctl with these arguments."""
        empty = str(self.top / "no-configuration")
        return [
            *(sys.executable, "-I", "-m", "podctl"),
            *("--dir", str(self.data), "--local-config", empty, "--system-config", empty),
            *("--insecure-options=image", *arguments),
        ]

    def podctl(self, *arguments: str, stdin: str = "", **settings: Any) -> Done:
        """Run podctl to its end."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            **settings,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def must(self, *arguments: str, **settings: Any) -> str:
        """Run podctl, which has to succeed; returns what it printed."""
        done = self.podctl(*arguments, **settings)
        assert done.code == 0, f"podctl {' '.join(arguments)}: {done.code}: {done.err}"
        return done.out

    def shell(self, script: str, *flags: str, image: str = NAME, **settings: Any) -> Done:
        """Run a pod of busybox's shell; `flags` follow the image."""
        line = ["run", "--stage1=fly", image, "--exec=/bin/sh", *flags, "--", "-c", script]
        return self.podctl(*line, **settings)

    def start(self, *arguments: str, **settings: Any) -> subprocess.Popen[str]:
        """Start podctl beside the test; it is ended with the test."""
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **settings,
        )
        self._running.append(process)
        return process

    def sleeper(self, *flags: str) -> tuple[str, subprocess.Popen[str]]:
        """A pod that runs until it is stopped: (UUID, process)."""
        file = self.top / f"uuid-{len(self._running)}"
        process = self.start(
            "run", "--stage1=fly", f"--uuid-file-save={file}", NAME, *flags,
            "--exec=/bin/sh", "--", "-c", "echo ready; exec sleep 600",
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        return file.read_text(), process

    def prepare(self, *flags: str) -> str:
        """Prepare a pod of the image; returns its UUID."""
        return self.must("prepare", "--stage1=fly", "--quiet", NAME, *flags).strip()

    def status(self, uuid: str) -> dict[str, str]:
        """What `status` prints."""
        lines = self.must("status", uuid).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def state(self, uuid: str) -> str:
        """The pod's state."""
        return self.status(uuid)["state"]

    def pods(self) -> dict[str, str]:
        """UUID -> place of all pod directories."""
        return {path.name: path.parent.name for path in self.data.glob("pods/*/*")}

    def end(self) -> None:
        """End every process started by the test."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate()
        # Detached pods are nobody's children.
        for record in self.data.glob("pods/run/*/keeper"):
            self.podctl("stop", "--force", "--timeout=10s", record.parent.name)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the image in its store."""
    if os.geteuid() != 0:
        pytest.skip("needs root to run pods")
    if not os.path.exists("/bin/busybox"):
        pytest.skip("needs busybox-static")
    top = tmp_path_factory.mktemp("pods-template")
    write_image(
        top / "busybox.aci", environment=[{"name": "VAR_FROM_MANIFEST", "value": "manifest"}]
    )
    World(top, top / "data").must("fetch", str(top / "busybox.aci"))
    return top / "data"


@pytest.fixture
def world(template: Path, tmp_path: Path) -> Iterator[World]:
    """A data directory of the test's own, with the image; leaves neither process nor mount."""
    subprocess.run(["cp", "-a", str(template), str(tmp_path / "data")], check=True)
    world = World(tmp_path, tmp_path / "data")
    yield world
    world.end()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    shutil.rmtree(world.data)
