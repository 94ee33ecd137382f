"""An installation that is watched for what its commands leave behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from home import Home


class Place(Protocol):
    """Namespaces to run podctl in.

    Attributes:
        pid: a process in them, which stays.
    """

    @property
    def pid(self) -> int:
        """See above."""

    def inside(self, *command: str) -> list[str]:
        """The command line that runs `command` in them."""


class Clean(Home):
    """An installation whose temporary directory, home and working directory are watched.

    Attributes:
        user_home: the home directory of whoever runs podctl.
    """

    def __init__(self, top: Path, place: Place) -> None:
        super().__init__(top, place.inside())
        self.place = place
        self._others: list[str] = []
        self._others = self.processes()
        self.places = [top / "tmp", top / "home", top / "cwd"]
        for one in self.places:
            one.mkdir()
        self.user_home = self.places[1]
        tmp, home, cwd = map(str, self.places)
        words = ["env", f"--chdir={cwd}", f"TMPDIR={tmp}", f"HOME={home}"]
        self.prefix += [*words, f"XDG_CACHE_HOME={home}/.cache"]

    def mounts(self) -> list[str]:
        """Mounts podctl has made, in this mount namespace and in the place's."""
        texts = [Path(f"/proc/{pid}/mountinfo").read_text() for pid in ("self", self.place.pid)]
        lines = "".join(texts).splitlines()
        return [line for line in lines if str(self.top) in line or " podctl-" in line]

    def processes(self) -> list[str]:
        """Numbers and command lines of the processes that are new in the place's network."""
        found = []
        there = os.readlink(f"/proc/{self.place.pid}/ns/net")
        for process in Path("/proc").glob("[0-9]*"):
            try:
                inside = os.readlink(process / "ns/net") == there
                line = (process / "cmdline").read_text().replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if inside and int(process.name) != self.place.pid:
                found.append(f"{process.name}: {line}")
        return [line for line in found if line not in self._others]

    def locks(self) -> list[str]:
        """Locks that somebody holds on a file of the data directory."""
        if not self.data.exists():
            return []
        inodes = {f"{path.lstat().st_ino}" for path in [self.data, *self.data.rglob("*")]}
        lines = Path("/proc/locks").read_text().splitlines()
        device = f"{os.major(self.data.stat().st_dev):02x}:{os.minor(self.data.stat().st_dev):02x}"
        return [
            line for line in lines if any(f" {device}:{inode} " in f"{line} " for inode in inodes)
        ]

    def leftovers(self) -> list[str]:
        """Everything that should not be there between commands."""
        found = [str(path) for one in self.places for path in one.rglob("*")]
        unfinished = ["cas/tmp", "pods/embryo", "pods/prepare", "pods/garbage"]
        found += [str(path) for name in unfinished for path in (self.data / name).glob("*")]
        for name in ("layers", "trees"):
            found += [str(path) for path in (self.data / name).glob(".*")]
        return found + self.processes() + self.locks() + self.mounts()
