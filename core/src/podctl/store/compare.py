"""What differs between two directory trees: content, mode, owner, names, links, attributes.

Times are left out, as in rkt's tree hash: reading and repairing may change them.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from podctl.store.copying import _READ, open_below

if TYPE_CHECKING:
    from collections.abc import Iterator

    Differences = Iterator["Difference"]

_CHUNK = 1 << 20
_ASPECTS = (
    ("mode", "st_mode"),
    ("owner", "st_uid"),
    ("group", "st_gid"),
    ("device number", "st_rdev"),
)
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


class Difference(NamedTuple):
    """What is wrong with `path`, which begins with a slash."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path} {self.problem}"


def differences(found_fd: int, right_fd: int) -> Differences:
    """Yield each difference of the tree that was found from the right one.

    Raises:
        OSError: one of them cannot be read.
    """
    return _Comparison(found_fd, right_fd).run()


class _Comparison:
    def __init__(self, found_fd: int, right_fd: int) -> None:
        self._roots = (found_fd, right_fd)
        #: for each tree: (device, inode) of files with several names -> the first name
        self._first: tuple[dict[tuple[int, int], str], dict[tuple[int, int], str]] = ({}, {})

    def run(self) -> Differences:
        yield from self._attributes("", *map(os.fstat, self._roots))
        pending = [""]
        while pending:
            path = pending.pop()
            found, right = (open_below(root, path) for root in self._roots)
            try:
                yield from self._extended(path, found, right)
                yield from self._directory(path, found, right, pending)
            finally:
                os.close(found)
                os.close(right)

    def _directory(self, path: str, found: int, right: int, pending: list[str]) -> Differences:
        found_names, right_names = set(os.listdir(found)), set(os.listdir(right))
        for name in sorted(found_names ^ right_names):
            inside = f"{path}/{name}".removeprefix("/")
            problem = "was added" if name in found_names else "is missing"
            yield Difference(f"/{inside}", problem)
        for name in sorted(found_names & right_names):
            statuses = [os.stat(name, dir_fd=fd, follow_symlinks=False) for fd in (found, right)]
            inside = f"{path}/{name}".removeprefix("/")
            reasons = list(self._attributes(inside, *statuses))
            yield from reasons
            if reasons and statuses[0].st_mode >> 12 != statuses[1].st_mode >> 12:
                continue
            if stat.S_ISDIR(statuses[0].st_mode):
                pending.append(inside)
            elif not os.path.samestat(*statuses):
                yield from self._leaf(inside, name, found, right, statuses)

    def _attributes(self, path: str, found: os.stat_result, right: os.stat_result) -> Differences:
        kinds = [stat.S_IFMT(status.st_mode) for status in (found, right)]
        if kinds[0] != kinds[1]:
            yield Difference(f"/{path}", f"is {_KINDS[kinds[0]]}, not {_KINDS[kinds[1]]}")
            return
        for what, field in _ASPECTS:
            values = getattr(found, field), getattr(right, field)
            if values[0] != values[1]:
                shown = [f"{value:o}" if field == "st_mode" else str(value) for value in values]
                yield Difference(f"/{path}", f"has {what} {shown[0]}, not {shown[1]}")

    def _leaf(
        self, path: str, name: str, found: int, right: int, statuses: list[os.stat_result]
    ) -> Differences:
        mode = statuses[0].st_mode
        if not self._same_links(path, statuses):
            yield Difference(f"/{path}", "is linked to other names")
        if stat.S_ISLNK(mode):
            targets = [os.readlink(name, dir_fd=fd) for fd in (found, right)]
            if targets[0] != targets[1]:
                yield Difference(f"/{path}", f"points to {targets[0]}, not {targets[1]}")
        if not stat.S_ISREG(mode):
            return
        if statuses[0].st_size != statuses[1].st_size:
            sizes = [status.st_size for status in statuses]
            yield Difference(f"/{path}", f"has {sizes[0]} bytes, not {sizes[1]}")
            return
        files = [os.open(name, _READ, dir_fd=fd) for fd in (found, right)]
        try:
            yield from self._extended(path, *files)
            offset = _first_difference(*files)
            if offset is not None:
                yield Difference(f"/{path}", f"has other content at byte {offset}")
        finally:
            for fd in files:
                os.close(fd)

    def _same_links(self, path: str, statuses: list[os.stat_result]) -> bool:
        """Whether both trees give the file the same other names (other trees' do not count)."""
        if all(status.st_nlink < 2 for status in statuses):
            return True
        firsts = [
            first.setdefault((status.st_dev, status.st_ino), path)
            for first, status in zip(self._first, statuses, strict=True)
        ]
        return firsts[0] == firsts[1]

    @staticmethod
    def _extended(path: str, found: int, right: int) -> Differences:
        values = [
            {name: os.getxattr(fd, name) for name in os.listxattr(fd)} for fd in (found, right)
        ]
        for name in sorted(values[0].keys() | values[1].keys()):
            if values[0].get(name) != values[1].get(name):
                yield Difference(f"/{path}", f"has another attribute {name}")


def _first_difference(first: int, second: int) -> int | None:
    offset = 0
    while True:
        one, other = os.read(first, _CHUNK), os.read(second, _CHUNK)
        if one != other:
            pairs = enumerate(zip(one, other, strict=False))
            return offset + next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
        if not one:
            return None
        offset += len(one)
