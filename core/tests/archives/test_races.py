"""A second writer that swaps directories for symbolic links while we unpack (catalogue T6)."""

from __future__ import annotations

import contextlib
import ctypes
import io
import mmap
import os
import signal
from typing import TYPE_CHECKING

from archive_lab import LIMITS, Canary, archive, directory, member, unpack_to

from podctl.errors import PodctlError
from podctl.images.tarstream import TarStream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2
SWAPS = 100_000
REFUSALS = 10
#: many entries of one directory, left and entered again, so that every walk meets the racer.
ENTRIES = [
    entry
    for n in range(40)
    for entry in (
        directory("d"),
        member("d/victim", data=b"evil\n", mode=0o777, uid=99),
        directory("d/sub", mode=0o777),
        member("d/sub/file", data=b"evil\n"),
        member(f"other/{n}"),
    )
]


class Racer:
    """A process that exchanges `target/d` and `target/link` (a symbolic link to the canary)."""

    def __init__(self, target: Path, canary: Canary) -> None:
        self._names = os.fsencode(target / "d"), os.fsencode(target / "link")
        self._trash = target.parent / "trash"
        self._canary = canary.path
        self._count = mmap.mmap(-1, 8)

    @property
    def swaps(self) -> int:
        return int.from_bytes(self._count[:], "little")

    def __enter__(self) -> Racer:
        self._trash.mkdir()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._run()
            finally:
                os._exit(1)
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def _run(self) -> None:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        swaps = trashed = 0
        while True:
            if rename(AT_FDCWD, self._names[0], AT_FDCWD, self._names[1], RENAME_EXCHANGE) == 0:
                swaps += 1
                self._count[:] = swaps.to_bytes(8, "little")
            elif not os.path.lexists(self._names[1]):
                os.symlink(self._canary, self._names[1])
            if swaps % 50 == 0 and not any(map(os.path.islink, self._names)):
                # Extraction put a directory where the link was: make room for a new one.
                trashed += 1
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self._names[1], self._trash / str(trashed))


def race(extract: Callable[[Path], object], target: Path, canary: Canary) -> tuple[int, int, int]:
    """Extract until both sides have had their share of turns, or the canary is dead.

    Returns:
        swaps, extractions that came through, extractions that were refused.
    """
    target.mkdir()
    (target / "d").mkdir()
    passed = refused = 0
    with Racer(target, canary) as racer:
        while canary.alive and racer.swaps < 20 * SWAPS:
            if racer.swaps >= SWAPS and refused >= REFUSALS:
                break
            try:
                extract(target)
                passed += 1
            except (PodctlError, OSError):
                refused += 1
        return racer.swaps, passed, refused


def test_t6_swapped_directory_is_never_left(tmp_path: Path, canary: Canary) -> None:
    data = archive(*ENTRIES)
    swaps, passed, refused = race(
        lambda target: unpack_to(target, data), tmp_path / "target", canary
    )
    assert canary.alive
    assert swaps >= SWAPS
    # The race was one: some extractions met the link, and not all at the first entry.
    assert refused > 10, passed


def test_t6_control_checking_by_name_is_caught(tmp_path: Path, canary: Canary) -> None:
    data = archive(*ENTRIES)
    race(lambda target: careful_but_by_name(data, target), tmp_path / "target", canary)
    assert not canary.alive


def careful_but_by_name(data: bytes, target: Path) -> None:
    """Checks each parent with lstat(2) and then uses its name: the race's classic victim."""
    stream = TarStream(io.BytesIO(data), LIMITS)
    while entry := stream.next_entry():
        path = target / os.fsdecode(entry.name)
        path.parent.mkdir(exist_ok=True)
        if path.parent.is_symlink() or path.is_symlink():
            continue
        if entry.kind == "directory":
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(stream.read(entry.size))
