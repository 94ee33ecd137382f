"""The same refusals as unpacking, without a disk: for who may not (yet) unpack.

The tree is kept as (directory number, name) -> node in an open-addressed table of 12 bytes a
slot, so four million entries need 100 MB where a dictionary of paths would need a gigabyte.
Keys are 64-bit hashes, seeded per process; an accidental collision (one in 10**6 at four million
entries) could at worst refuse an archive, or accept one that unpacking then refuses.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from podctl.images.tree import Paths, Settled, bad_link, not_a_directory

if TYPE_CHECKING:
    from podctl.images.tarstream import Entry, TarStream
    from podctl.images.tree import Budget

_NOTHING, _DIRECTORY, _OTHER, _WHITEOUT = range(4)
_ROOT = 1
_MASK = (1 << 64) - 1


class _Nodes:
    """Map of (directory number, name) to (number, kind); removal is a kind of its own."""

    def __init__(self) -> None:
        self._used = 0
        self._allocate(1024)

    def get(self, directory: int, name: bytes) -> tuple[int, int]:
        """Return number and kind; kind _NOTHING where nothing is."""
        value = self._values[self._slot(_key(directory, name))]
        return value >> 2, value & 3

    def put(self, directory: int, name: bytes, number: int, kind: int) -> None:
        """Set a node."""
        key = _key(directory, name)
        slot = self._slot(key)
        if not self._keys[slot]:
            self._used += 1
            if self._used * 3 > len(self._keys) * 2:
                self._resize(len(self._keys) * 2)
                slot = self._slot(key)
            self._keys[slot] = key
        self._values[slot] = number << 2 | kind

    def _slot(self, key: int) -> int:
        keys, mask = self._keys, self._mask
        slot = key & mask
        while keys[slot] not in (0, key):
            slot = slot + 1 & mask
        return slot

    def _allocate(self, size: int) -> None:
        self._keys, self._values = array("Q", bytes(8 * size)), array("I", bytes(4 * size))
        self._mask = size - 1

    def _resize(self, size: int) -> None:
        old = zip(self._keys, self._values, strict=True)
        self._allocate(size)
        for key, value in old:
            if key:
                slot = self._slot(key)
                self._keys[slot] = key
                self._values[slot] = value


def _key(directory: int, name: bytes) -> int:
    return hash((directory, name)) & _MASK or 1


class TreeScan:
    """A `podctl.images.tree.Tree` that writes nothing; the arguments as TreeWriter's."""

    def __init__(self, whiteouts: bool, budget: Budget) -> None:
        self._whiteouts = whiteouts
        self._budget = budget
        self._opaque = Paths("opaque directories")
        self._nodes = _Nodes()
        self._last = _ROOT
        # The current directory: its components, and their numbers behind the root's.
        self._names: list[bytes] = []
        self._numbers = [_ROOT]
        self._path = b""

    def root(self, entry: Entry, xattrs: dict[bytes, bytes]) -> None:
        pass

    def directory(self, path: bytes, entry: Entry, xattrs: dict[bytes, bytes]) -> None:
        parent, _, name = path.rpartition(b"/")
        above = self._enter(parent)
        number, kind = self._nodes.get(above, name)
        if kind != _DIRECTORY:
            if kind != _NOTHING:
                self._hide_lower(path)
            number = self._make(above, name)
        self._names.append(name)
        self._numbers.append(number)
        self._path = path

    def file(
        self, path: bytes, entry: Entry, xattrs: dict[bytes, bytes], archive: TarStream
    ) -> None:
        archive.skip()
        self._set(path, _OTHER)

    def symlink(self, path: bytes, entry: Entry) -> None:
        self._set(path, _OTHER)

    def fifo(self, path: bytes, entry: Entry) -> None:
        self._set(path, _OTHER)

    def hardlink(self, path: bytes, target: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        above = self._enter(parent)
        kind = self._find(target)
        if kind in (_NOTHING, _WHITEOUT):
            raise bad_link(path, target, "no earlier entry made")
        if path == target:
            raise bad_link(path, target, "is the entry itself")
        if kind == _DIRECTORY:
            raise bad_link(path, target, "is a directory")
        _, standing = self._nodes.get(above, name)
        if standing == _DIRECTORY and target.startswith(path + b"/"):
            raise bad_link(path, target, "no earlier entry made")
        self._put(above, name, _OTHER)

    def discard(self, path: bytes) -> None:
        self._set(path, _NOTHING)

    def whiteout(self, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        above = self._enter(parent)
        _, kind = self._nodes.get(above, name)
        if kind == _DIRECTORY:
            self._opaque.add(path)
        elif kind == _NOTHING:
            self._put(above, name, _WHITEOUT)

    def opaque(self, path: bytes) -> None:
        self._enter(path)
        self._opaque.add(path)

    def finish(self) -> Settled:
        opaque = tuple(
            path
            for path in sorted(self._opaque.paths)
            if not path or self._find(path) == _DIRECTORY
        )
        return Settled(opaque)

    def close(self) -> None:
        """Nothing is held."""

    def _set(self, path: bytes, kind: int) -> None:
        parent, _, name = path.rpartition(b"/")
        self._put(self._enter(parent), name, kind)

    def _put(self, directory: int, name: bytes, kind: int) -> None:
        self._nodes.put(directory, name, 0, kind)

    def _enter(self, path: bytes) -> int:
        """Make `path` the current directory, missing components included; return its number."""
        if path == self._path:
            return self._numbers[-1]
        names = path.split(b"/") if path else []
        common = self._common(names)
        self._budget.walk(len(names) - common)
        del self._names[common:], self._numbers[common + 1 :]
        for count in range(common, len(names)):
            name = names[count]
            self._path = b"/".join(names[:count])
            number, kind = self._nodes.get(self._numbers[-1], name)
            if kind != _DIRECTORY:
                number = self._imply(b"/".join(names[: count + 1]), name, kind)
            self._names.append(name)
            self._numbers.append(number)
        self._path = path
        return self._numbers[-1]

    def _common(self, names: list[bytes]) -> int:
        common = 0
        for mine, name in zip(self._names, names, strict=False):
            if mine != name:
                break
            common += 1
        return common

    def _imply(self, path: bytes, name: bytes, kind: int) -> int:
        if kind == _OTHER:
            raise not_a_directory(path + b"/")
        if kind == _WHITEOUT:
            self._hide_lower(path)
        self._budget.take()
        return self._make(self._numbers[-1], name)

    def _make(self, above: int, name: bytes) -> int:
        self._last += 1
        self._nodes.put(above, name, self._last, _DIRECTORY)
        return self._last

    def _find(self, path: bytes) -> int:
        """Return the kind of what a path leads to, _NOTHING where it leads nowhere."""
        parent, _, name = path.rpartition(b"/")
        names = parent.split(b"/") if parent else []
        common = self._common(names)
        self._budget.walk(len(names) - common)
        directory = self._numbers[common]
        for step in names[common:]:
            directory, kind = self._nodes.get(directory, step)
            if kind != _DIRECTORY:
                return _NOTHING
        return self._nodes.get(directory, name)[1]

    def _hide_lower(self, path: bytes) -> None:
        if self._whiteouts:
            self._opaque.add(path)
