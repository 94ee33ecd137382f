"""Stacks of layers drawn from a seed: adds, deletes, type changes, whiteouts, opaque directories.

Each layer is made against the tree the layers below it give, so that its entries meet something.
What a layer says does not depend on the order of its entries beyond what the tar format needs
(parents and targets of hard links first), for there the specification leaves nothing open.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from podctl.testing.ocilayers import (
    Entry,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)

NAMES = ("a", "b", "c", "d.e", "snow\u2603", "with space", "n" * 40, "m" * 251)
MODES = (0o644, 0o600, 0o755, 0o4755, 0o2711, 0o000, 0o666)
DIRECTORY_MODES = (0o755, 0o700, 0o1777, 0o2755, 0o750, 0o555)
OWNERS = (0, 1, 1000, 65534, 3_000_000)
DEPTH = 4
#: seconds; all times drawn lie before any day these tests are run on
YEARS = 1 << 30


class Stack(NamedTuple):
    """Layers, lowest first.

    Args:
        implied: directories that no entry describes; their mode and time are nobody's.
    """

    layers: list[list[Entry]]
    implied: set[str]


@dataclass
class _Tree:
    """The merged tree so far: path -> the entry it came from; directories may be implied."""

    nodes: dict[str, Entry] = field(default_factory=dict)
    implied: set[str] = field(default_factory=set)

    def directories(self) -> list[str]:
        kinds = {path for path, entry in self.nodes.items() if _is_directory(entry)}
        return sorted(path for path in kinds | self.implied if path.count("/") < DEPTH)

    def everything(self) -> list[str]:
        return sorted(self.nodes.keys() | self.implied)

    def holds_directory(self, path: str) -> bool:
        return path in self.implied or (path in self.nodes and _is_directory(self.nodes[path]))

    def remove(self, path: str) -> None:
        self.nodes.pop(path, None)
        self.implied.discard(path)
        self.remove_below(path)

    def remove_below(self, path: str) -> None:
        for one in self.everything():
            if one.startswith(f"{path}/"):
                self.nodes.pop(one, None)
                self.implied.discard(one)

    def put(self, entry: Entry) -> None:
        if not _is_directory(entry):
            self.remove(entry.path)
        self.implied.discard(entry.path)
        self.nodes[entry.path] = entry


class _Layer:
    """One layer in the making."""

    def __init__(self, choice: random.Random, tree: _Tree, lowest: bool) -> None:
        self._choice = choice
        self._tree = tree
        self._lowest = lowest
        self._entries: list[Entry] = []
        #: paths this layer says something of
        self._touched: set[str] = set()
        #: those of them it says all that it is going to say of, and of what is below them
        self._closed: set[str] = set()

    def make(self) -> list[Entry]:
        steps = [self._add] * 5
        if not self._lowest:
            steps += [self._delete, self._delete, self._clear, self._change, self._miss, self._swap]
        for _ in range(
            self._choice.randrange(10, 30) if self._lowest else self._choice.randrange(12)
        ):
            self._choice.choice(steps)()
        return self._parents() + self._entries

    def _add(self) -> None:
        """A new entry, or another in place of what is there."""
        parent = self._choice.choice(["", *self._tree.directories()])
        if self._choice.random() < 0.1:
            parent = f"{parent}/undescribed".lstrip("/")
        path = f"{parent}/{self._choice.choice(NAMES)}".lstrip("/")
        if self._free(path) and not self._hidden(parent):
            self._emit(self._entry(path))

    def _entry(self, path: str) -> Entry:
        choice = self._choice
        kind = choice.choice("fffddlp")
        common = {"uid": choice.choice(OWNERS), "gid": choice.choice(OWNERS)}
        common |= {"mtime": choice.randrange(YEARS)}
        if kind == "l":
            return symlink(path, choice.choice(["a", "../b", "/etc/passwd", "x/" * 70]), **common)
        if kind == "d":
            mode = choice.choice(DIRECTORY_MODES)
            return directory(path, mode=mode, xattrs=self._xattrs(), **common)
        mode = choice.choice(MODES)
        if kind == "p":
            # On a FIFO the other bits mean nothing.
            return fifo(path, mode=mode & 0o777, **common)
        data = choice.randbytes(choice.choice([0, 1, 511, 512, 513, 9000]))
        return file(path, data, mode=mode, xattrs=self._xattrs(), **common)

    def _xattrs(self) -> dict[str, bytes]:
        if self._choice.random() < 0.7:
            return {}
        return {"user.one": self._choice.randbytes(9), "user.two": b"\0=\n\xff"}

    def _emit(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._touched.add(entry.path)
        self._imply(entry.path)
        self._tree.put(entry)
        # 0o100000: what has data may be linked to.
        if entry.data and self._choice.random() < 0.3:
            self._link(entry)

    def _link(self, target: Entry) -> None:
        parent = self._choice.choice(["", *self._tree.directories()])
        path = f"{parent}/{self._choice.choice(NAMES)}".lstrip("/")
        if path not in self._tree.everything() and self._free(path) and not self._hidden(parent):
            link = hardlink(path, target.path)
            self._entries.append(link)
            self._touched |= {path, target.path}
            self._imply(path)
            self._tree.put(target._replace(path=path))

    def _delete(self) -> None:
        """A whiteout; sometimes the name is taken again, described before or after it."""
        path = self._existing()
        if path is None:
            return
        self._tree.remove(path)
        self._touched.add(path)
        self._closed.add(path)
        self._imply(path)
        position = len(self._entries)
        if self._choice.random() < 0.4:
            if self._choice.random() < 0.7:
                self._emit(self._entry(path))
            if self._tree.holds_directory(path) or path not in self._tree.nodes:
                self._emit(file(f"{path}/inside", b"again", mtime=5))
        # A parent that no entry describes can only be made once what was there is gone.
        before = path in self._tree.implied or self._choice.random() < 0.5
        self._entries.insert(position if before else len(self._entries), whiteout(path))

    def _clear(self) -> None:
        """An opaque directory with something new in it."""
        path = self._existing(directory=True)
        if path is None:
            return
        self._tree.remove_below(path)
        self._touched.add(path)
        self._closed.add(path)
        if self._choice.random() < 0.6:
            self._emit(self._described(path))
        position = len(self._entries)
        for number in range(self._choice.randrange(3)):
            self._emit(file(f"{path}/new{number}", b"new", mtime=number))
        before = self._choice.random() < 0.5
        self._entries.insert(position if before else len(self._entries), opaque(path))

    def _change(self) -> None:
        """Other attributes for a directory that stays."""
        path = self._existing(directory=True, anything_below=True)
        if path is not None:
            self._emit(self._described(path))

    def _swap(self) -> None:
        """Another kind of entry under a name, without a whiteout."""
        path = self._existing()
        if path is not None:
            self._emit(self._entry(path))

    def _miss(self) -> None:
        """A whiteout of nothing."""
        parent = self._choice.choice(["", *self._tree.directories()])
        path = f"{parent}/never".lstrip("/")
        if self._free(path) and not self._hidden(parent):
            self._imply(path)
            self._touched.add(path)
            self._entries.append(whiteout(path))

    def _described(self, path: str) -> Entry:
        choice = self._choice
        owner = {"uid": choice.choice(OWNERS), "gid": choice.choice(OWNERS)}
        mode, mtime = choice.choice(DIRECTORY_MODES), choice.randrange(YEARS)
        return directory(path, mode=mode, mtime=mtime, xattrs=self._xattrs(), **owner)

    def _existing(self, *, directory: bool = False, anything_below: bool = False) -> str | None:
        """Something of the layers below that this layer says nothing of yet."""
        found = [
            path
            for path in self._tree.everything()
            if path not in self._touched
            and (not directory or self._tree.holds_directory(path))
            and (anything_below or self._free(path))
        ]
        return self._choice.choice(found) if found else None

    def _free(self, path: str) -> bool:
        """Whether neither it nor anything below it is touched."""
        return not any(one == path or one.startswith(f"{path}/") for one in self._touched)

    def _hidden(self, parent: str) -> bool:
        """Whether a directory is, or is below, one that is closed or no directory."""
        parts = parent.split("/")
        above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        return any(
            one in self._closed or (one in self._tree.nodes and not self._tree.holds_directory(one))
            for one in above
        )

    def _imply(self, path: str) -> None:
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            parent = "/".join(parts[:count])
            if parent not in self._tree.nodes:
                self._tree.implied.add(parent)

    def _parents(self) -> list[Entry]:
        """Parents as they are already, for most of what is touched; the root of the first layer."""
        found = {".": directory(".", mtime=7)} if self._lowest else {}
        for path in sorted(self._touched):
            parts = path.split("/")[:-1]
            for count in range(1, len(parts) + 1):
                parent = "/".join(parts[:count])
                entry = self._tree.nodes.get(parent)
                listed = parent in self._touched or entry is None or not _is_directory(entry)
                if not listed and self._choice.random() < 0.6:
                    found[parent] = entry
        return [found[path] for path in sorted(found)]


def stack(seed: int) -> Stack:
    """Draw a stack of two to six layers."""
    choice, tree = random.Random(seed), _Tree()
    layers = [_Layer(choice, tree, not number).make() for number in range(choice.randrange(2, 7))]
    return Stack(layers, tree.implied)


def _is_directory(entry: Entry) -> bool:
    return entry.kind == directory("x").kind
