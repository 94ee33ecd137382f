"""A small world to break: a signed image, a trusted key, and data directories to copy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "faults.example/busybox"
MANIFEST = {
    "acKind": "ImageManifest",
    "acVersion": "0.8.11",
    "name": NAME,
    "labels": [
        {"name": "version", "value": "1"},
        {"name": "os", "value": "linux"},
        {"name": "arch", "value": "amd64"},
    ],
    "app": {"exec": ["/bin/true"], "user": "0", "group": "0"},
}


class World:
    """One directory with everything a command needs.

    Attributes:
        archive: the signed image file.
        data: the data directory in use.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self.archive = top / "busybox.aci"
        self.data = top / "data"
        self.local = top / "etc"
        self.output = top / "output"

    def podctl(self, *arguments: str) -> Callable[[], int]:
        """A function that runs one command line in the calling process, output to a file."""
        command = ["--dir", str(self.data), "--local-config", str(self.local)]
        command += ["--system-config", str(self.top / "usr"), *arguments]

        def run() -> int:
            fd = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            # They live as long as the child does.
            sys.stdin = open(0)  # noqa: SIM115
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            from podctl.cli.main import run as main

            code = main(command)
            sys.stdout.flush()
            sys.stderr.flush()
            return code

        return run

    def call(self, *arguments: str) -> int:
        """Run one command line in a forked child, to its end; return its exit code."""
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = self.podctl(*arguments)()
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def said(self) -> str:
        """What the last command printed."""
        return self.output.read_text(errors="replace")

    def must(self, *arguments: str) -> str:
        """Run a command that has to succeed; return what it printed."""
        code = self.call(*arguments)
        assert code == 0, f"podctl {' '.join(arguments)} ended with {code}: {self.said()}"
        return self.said()

    def reset(self, template: Path | None) -> None:
        """Make the data directory a copy of a template, or take it away."""
        if self.data.exists():
            shutil.rmtree(self.data)
        if template is not None:
            subprocess.run(["cp", "-a", str(template), str(self.data)], check=True)

    def template(self, name: str) -> Path:
        """Put the data directory aside as a template."""
        place = self.top / name
        self.data.rename(place)
        return place


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world, with a key made and trusted by the real tools."""
    world = World(tmp_path_factory.mktemp("faults"))
    image = world.top / "image"
    (image / "rootfs/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", image / "rootfs/bin/busybox")
    (image / "rootfs/bin/true").symlink_to("busybox")
    (image / "manifest").write_text(json.dumps(MANIFEST))
    subprocess.run(
        ["tar", "-C", str(image), "-czf", str(world.archive), "manifest", "rootfs"], check=True
    )
    home = world.top / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    key = world.top / "key.asc"
    try:
        for words in (
            ["--quick-gen-key", "Faults <faults@example.com>", "ed25519", "sign", "never"],
            ["--armor", "--output", str(key), "--export"],
            ["--armor", "--output", f"{world.archive}.asc", "--detach-sign", str(world.archive)],
        ):
            subprocess.run([*gpg, *words], check=True, capture_output=True)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    world.local.mkdir(mode=0o755)
    world.must("trust", "--prefix", NAME, "--skip-fingerprint-review", str(key))
    yield world
    if world.data.exists():
        shutil.rmtree(world.data)
