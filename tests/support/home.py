"""One podctl installation in a directory of its own, and what can be said about it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import image_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from image_files import Entry

PODCTL = str(Path(sys.executable).parent / "podctl")
Done = subprocess.CompletedProcess[str]


class Home:
    """Directories of an installation and the means to call podctl on them.

    Args:
        top: what everything lies below.
        prefix: words before the command, such as nsenter's.

    Attributes:
        data: the data directory.
        options: global options of podctl for this installation.
    """

    def __init__(self, top: Path, prefix: Sequence[str] = ()) -> None:
        self.top = top
        self.data = top / "data"
        self.local = top / "etc"
        self.prefix = list(prefix)
        self.local.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.options = ["--dir", str(self.data), "--local-config", str(self.local)]
        self.options += ["--system-config", str(top / "usr"), "--insecure-options=image"]

    def line(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return [*self.prefix, PODCTL, *self.options, *arguments]

    def podctl(self, *arguments: str, **settings: Any) -> Done:
        """Run podctl to its end."""
        given = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, **settings}
        return subprocess.run(self.line(*arguments), check=False, **given)

    def must(self, *arguments: str, **settings: Any) -> str:
        """Run podctl, which has to succeed; return standard output."""
        done = self.podctl(*arguments, **settings)
        assert done.returncode == 0, f"podctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return str(done.stdout)

    def refused(self, *arguments: str, **settings: Any) -> str:
        """Run podctl, which has to fail as it fails; return the one line it says last."""
        done = self.podctl(*arguments, **settings)
        assert done.returncode == 254, f"podctl {' '.join(arguments)}: {done}"
        return str(done.stderr.strip().splitlines()[-1])

    def start(self, *arguments: str, **settings: Any) -> subprocess.Popen[str]:
        """Start podctl; the caller waits for it."""
        given = {"stdin": subprocess.DEVNULL, "text": True, **settings}
        return subprocess.Popen(self.line(*arguments), **given)

    def install(
        self,
        name: str,
        files: Mapping[str, Entry] | None = None,
        *,
        app: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """Make an image of busybox and `files`, fetch it from its file; return its ID."""
        document = image_files.manifest(name, app=app or {}, **fields)
        path = self.top / f"{name.replace('/', '-')}.aci"
        path.write_bytes(image_files.pack(document, image_files.busybox() | dict(files or {})))
        return self.must("fetch", "--full", str(path)).strip()

    def pods(self) -> dict[str, str]:
        """UUID -> state of every pod that `list` shows."""
        listed = json.loads(self.must("list", "--format=json"))
        return {pod["name"]: pod["state"] for pod in listed}

    def images(self) -> list[str]:
        """Whole IDs of the stored images."""
        lines = self.must("image", "list", "--full", "--no-legend", "--fields=id").split()
        return sorted(lines)


def fingerprint(*places: Path) -> str:
    """A digest of everything below some places: names, kinds, modes, owners, bytes.

    Times are left out but for what a command that changes nothing cannot change either.
    """
    digest = hashlib.sha256()
    for place in places:
        for path in _walk(place):
            status = path.lstat()
            words = [str(path), status.st_mode, status.st_uid, status.st_gid, status.st_nlink]
            if stat.S_ISREG(status.st_mode):
                words += [status.st_size, hashlib.sha256(path.read_bytes()).hexdigest()]
            elif stat.S_ISLNK(status.st_mode):
                words.append(os.readlink(path))
            digest.update(repr(words).encode())
    return digest.hexdigest()


def _walk(place: Path) -> Iterator[Path]:
    if not place.exists() and not place.is_symlink():
        return
    yield place
    if place.is_dir() and not place.is_symlink():
        for entry in sorted(os.listdir(place)):
            yield from _walk(place / entry)
