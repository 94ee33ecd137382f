"""What can become of a file of the store."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def flip(path: Path, at: int | None = None) -> None:
    """Change one bit of a file, in the middle if nothing is said."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 4
    path.write_bytes(data)


def become_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


def become_link(path: Path) -> None:
    """The same content, but somewhere else."""
    elsewhere = path.parents[-3] / f"podctl-test-{os.getpid()}-elsewhere"
    shutil.copy(path, elsewhere)
    path.unlink()
    path.symlink_to(elsewhere)


MUTATIONS: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, 0),
    "garbage": lambda path: path.write_bytes(b"\0garbage"),
    "flipped": flip,
    "deleted": lambda path: path.unlink(),
    "wrong mode": lambda path: path.chmod(0o777),
    "directory": become_directory,
    "link": become_link,
}


def remove_elsewhere(path: Path) -> None:
    """Remove what a file that became a link points to."""
    for elsewhere in path.parents[-3].glob(f"podctl-test-{os.getpid()}-*"):
        elsewhere.unlink()
