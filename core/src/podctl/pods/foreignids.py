"""Ids of the host that belong to others than podctl's pods, as far as it can be seen."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.sys.locks import lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.model.plan import UserRange

#: subuid(5), subgid(5): name:first:count
_DELEGATED = ("/etc/subuid", "/etc/subgid")
_ACCOUNTS = ("/etc/passwd", "/etc/group")
#: nspawn locks a file for each range it has picked itself
_PICKED = "/run/systemd/nspawn-uid"
_MACHINES = "/run/systemd/machines"
#: machines that are pods of ours, which have claims
_OURS = "podctl-"
_MAX_FILE = 4 << 20


class ForeignIds:
    """What was found when it was made: ranges of ids as (first, count).

    Args:
        root: directory that stands for `/` (of the files; accounts are also asked of the system).
    """

    def __init__(self, root: str = "") -> None:
        self._root = root
        self._ranges = [*self._delegated(), *self._accounts(), *self._machines()]

    def overlap(self, ids: UserRange) -> bool:
        """Whether somebody else has one of these ids."""
        end = ids.base + ids.size
        if any(first < end and ids.base < first + count for first, count in self._ranges):
            return True
        return self._is_picked(ids.base) or _has_account(ids.base)

    def _delegated(self) -> Iterator[tuple[int, int]]:
        for name in _DELEGATED:
            for fields in self._lines(name):
                if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal():
                    yield int(fields[1]), int(fields[2])

    def _accounts(self) -> Iterator[tuple[int, int]]:
        for name in _ACCOUNTS:
            for fields in self._lines(name):
                if len(fields) > 2 and fields[2].isdecimal():
                    yield int(fields[2]), 1

    def _machines(self) -> Iterator[tuple[int, int]]:
        """Ids of the machines that machined knows."""
        try:
            names = os.listdir(self._root + _MACHINES)
        except OSError:
            return
        for name in names:
            if name.startswith(_OURS) or ":" in name:
                continue
            leader = [line[0][7:] for line in self._lines(f"{_MACHINES}/{name}")
                      if line[0].startswith("LEADER=")]  # fmt: skip
            if leader and leader[0].isdecimal():
                yield from _mapped(int(leader[0]))

    def _is_picked(self, base: int) -> bool:
        try:
            fd = os.open(f"{self._root}{_PICKED}/{base}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not lock(fd, exclusive=False, blocking=False)
        finally:
            os.close(fd)

    def _lines(self, path: str) -> list[list[str]]:
        """The lines of a file, split at colons; none of a file that cannot be read."""
        try:
            with open(self._root + path, encoding="utf-8", errors="replace") as file:
                return [line.strip().split(":") for line in file.read(_MAX_FILE).split("\n")]
        except OSError:
            return []


def _mapped(pid: int) -> Iterator[tuple[int, int]]:
    """The host's ids that a process's user namespace has, unless it is the host's own."""
    try:
        with open(f"/proc/{pid}/uid_map") as file:
            lines = [line.split() for line in file]
    except OSError:
        return
    for _inside, first, count in lines:
        if int(first) != 0:
            yield int(first), int(count)


def _has_account(number: int) -> bool:
    """Whether a directory service knows a user or group of this number. All others it may have
    cannot be asked for."""
    import grp
    import pwd

    for find in (pwd.getpwuid, grp.getgrgid):
        try:
            find(number)
        except KeyError:
            continue
        return True
    return False
