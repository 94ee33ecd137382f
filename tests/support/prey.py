"""A store that a member of the group poisons, and what must not be touched by it."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from people_world import People

if TYPE_CHECKING:
    from pathlib import Path

    from people_world import Surroundings

#: run as the member: what to do, to which file, and a helper file of the canaries
_MUTATE = """
import os, sys
kind, path, canary = sys.argv[1:]
def clear():
    if os.path.isdir(path) and not os.path.islink(path):
        os.rename(path, path + ".away")
    else:
        os.unlink(path)
if kind == "truncate":
    open(path, "wb").close()
elif kind == "garbage":
    open(path, "r+b").write(os.urandom(64))
elif kind == "flip":
    with open(path, "r+b") as file:
        data = file.read()
        file.seek(len(data) // 2)
        file.write(bytes([data[len(data) // 2] ^ 1]))
elif kind == "huge":
    os.truncate(path, 1 << 40)
elif kind == "delete":
    clear()
elif kind == "unreadable":
    os.chmod(path, 0)
else:
    clear()
    if kind == "link":
        os.symlink(canary, path)
    elif kind == "link to nowhere":
        os.symlink(canary + ".new", path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "file":
        open(path, "wb").close()
"""

FILE_KINDS = ["truncate", "garbage", "flip", "huge", "delete", "link", "fifo", "directory"]
DIRECTORIES = {
    "blobs": "cas/blobs",
    "digests": "cas/blobs/sha256",
    "shelf": "cas/blobs/sha256/*",
    "images": "cas/images",
    "image": "cas/images/*",
    "remotes": "cas/remotes",
    "temporary": "cas/tmp",
    "locks": "cas/locks",
}
DIRECTORY_KINDS = ["delete", "link", "link to nowhere", "fifo", "file"]


class Prey(People):
    """The world with a store to be poisoned, and what must not be touched by it.

    Attributes:
        canaries: files and directories outside the store that links point at.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__(surroundings)
        self.canaries = self.top / "canaries"
        (self.canaries / "directory/sha256").mkdir(parents=True)
        (self.canaries / "directory/kept").write_text("kept\n")
        (self.canaries / "file").write_text("root's own\n")
        (self.canaries / "file").chmod(0o644)

    def poison(self, kind: str, path: Path) -> None:
        """The member does it."""
        directory = path.is_dir()
        canary = self.canaries / ("directory" if directory else "file")
        words = ["/usr/bin/python3", "-I", "-c", _MUTATE, kind, str(path), str(canary)]
        subprocess.run(self.as_user("member", *words), check=True)

    def only(self, pattern: str) -> Path:
        """The one path below the data directory that a pattern stands for."""
        (path,) = self.data.glob(pattern)
        return path

    def put(self, template: Path) -> None:
        """Make the data directory a copy of a template."""
        shutil.rmtree(self.data)
        subprocess.run(["cp", "-a", str(template), str(self.data)], check=True)
