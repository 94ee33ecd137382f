"""What the two destinations of an unpacked archive share: their methods, budget and xattr rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from podctl.errors import ArchiveInvalid
from podctl.images.tarstream import display

if TYPE_CHECKING:
    from podctl.images.tarstream import Entry, TarStream

MAX_WARNINGS = 100
#: caps on what is remembered about directories; more than any real layer has.
MAX_PATHS = 65536
MAX_PATH_BYTES = 5 << 20

Attributes = tuple[int, int, int, int]
#: mode, uid, gid, mtime of directories no entry describes; a fixed time, so that unpacking the
#: same archive twice gives the same tree.
IMPLIED: Attributes = (0o755, 0, 0, 0)


class Tree(Protocol):
    """Where entries go. Paths are relative, normalised, never empty, without `.` and `..`.

    Each method refuses (ArchiveInvalid) a path whose parent is there and no directory, makes
    missing parents, and replaces what an earlier entry left at the path itself.
    """

    def root(self, entry: Entry, xattrs: dict[bytes, bytes]) -> None:
        """Set the attributes of the root itself."""

    def directory(self, path: bytes, entry: Entry, xattrs: dict[bytes, bytes]) -> None:
        """Make a directory, or give an existing one new attributes."""

    def file(
        self, path: bytes, entry: Entry, xattrs: dict[bytes, bytes], archive: TarStream
    ) -> None:
        """Make a regular file of the entry's data."""

    def symlink(self, path: bytes, entry: Entry) -> None:
        """Make a symbolic link."""

    def hardlink(self, path: bytes, target: bytes) -> None:
        """Link to a non-directory an earlier entry made; a symbolic link is not followed."""

    def fifo(self, path: bytes, entry: Entry) -> None:
        """Make a FIFO."""

    def discard(self, path: bytes) -> None:
        """Remove what an earlier entry left there: it was replaced by something skipped."""

    def whiteout(self, path: bytes) -> None:
        """Hide the path of lower layers; what this layer has there stays."""

    def opaque(self, path: bytes) -> None:
        """Hide the lower layers' content of the directory (`b""`: the root)."""

    def finish(self) -> Settled:
        """Settle what had to wait."""

    def close(self) -> None:
        """Release what is held; after `finish`, or instead of it."""


#: directories entered, on average per entry, and at first; real images need fewer than 20.
STEPS_PER_ENTRY = 64
FREE_STEPS = 20_000


class Budget:
    """Counts inodes, implied directories among them, and the work of walking to them.

    Paths may be 2000 components deep: millions of entries that jump between two such branches
    would otherwise cost hours.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._steps = 0

    def take(self) -> None:
        """Count one more."""
        self.used += 1
        if self.used > self.limit:
            raise ArchiveInvalid(f"archive: more than {self.limit} entries")

    def walk(self, steps: int) -> None:
        """Count directories that are entered."""
        self._steps += steps
        if self._steps > FREE_STEPS + STEPS_PER_ENTRY * self.used:
            raise ArchiveInvalid("archive: jumps too often between deep directories")


class Settled(NamedTuple):
    """What is left to say of a finished tree: directories that are opaque, and directories that no
    entry describes; both sorted, `b""` being the root."""

    opaque: tuple[bytes, ...]
    implied: tuple[bytes, ...] = ()


class Paths:
    """A set of directories, bounded.

    Args:
        what: they are, for the refusal.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.paths: set[bytes] = set()
        self._size = 0

    def add(self, path: bytes) -> None:
        """Remember a directory."""
        if path in self.paths:
            return
        self.paths.add(path)
        self._size += len(path)
        if len(self.paths) > MAX_PATHS or self._size > MAX_PATH_BYTES:
            raise ArchiveInvalid(f"archive: too many {self._what}")

    def discard(self, path: bytes) -> None:
        """Forget a directory."""
        if path in self.paths:
            self.paths.remove(path)
            self._size -= len(path)


class Implied:
    """The directories that no entry describes, while some are described later and some removed.

    What was removed is remembered and applied at the end: looking up every directory again could
    be made to take for ever by an archive of deep ones.
    """

    def __init__(self) -> None:
        self._made = Paths("directories without an entry")
        self._removed = Paths("directories that are replaced")
        self._times: dict[bytes, int] = {}
        self._removals: dict[bytes, int] = {}
        self._now = 0

    def add(self, path: bytes) -> None:
        """It was made on the way to something."""
        self._now += 1
        self._made.add(path)
        self._times[path] = self._now

    def describe(self, path: bytes) -> None:
        """An entry describes it."""
        self._made.discard(path)

    def remove(self, path: bytes) -> None:
        """It is removed, with all below it."""
        self._now += 1
        self._removed.add(path)
        self._removals[path] = self._now

    def standing(self) -> tuple[bytes, ...]:
        """Those that are there in the end, sorted."""
        return tuple(path for path in sorted(self._made.paths) if not self._gone(path))

    def _gone(self, path: bytes) -> bool:
        if not self._removals:
            return False
        made = self._times[path]
        ends = [at for at, letter in enumerate(path) if letter == 0x2F]
        return any(self._removals.get(path[:end], 0) > made for end in (*ends, len(path)))


class Warnings:
    """Distinct warnings, bounded in number."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}
        self._more = 0

    def add(self, text: str) -> None:
        """Remember one."""
        if text in self._texts:
            return
        if len(self._texts) < MAX_WARNINGS:
            self._texts[text] = None
        else:
            self._more += 1

    def all(self) -> tuple[str, ...]:
        """Return them in order of their first appearance."""
        more = (f"and {self._more} more warnings",) if self._more else ()
        return (*self._texts, *more)


def kept_xattrs(entry: Entry, warnings: Warnings, privileged: bool) -> dict[bytes, bytes]:
    """Return the extended attributes that may be set.

    `user.*` describes content and is kept, but for overlayfs's own names (`userxattr`). File
    capabilities are kept where the unpacker is root and names no user namespace's root (v2 of
    capabilities(7)). All else would steer the host's kernel: `trusted.overlay.*` forges redirects
    and whiteouts, `security.*` labels; ACLs name ids the modes do not show.
    """
    kept: dict[bytes, bytes] = {}
    for name, value in entry.xattrs.items():
        if name.startswith(b"user.") and not name.startswith(b"user.overlay."):
            if len(value) > 65536:
                raise ArchiveInvalid(f"{entry}: extended attribute over 65536 bytes")
            kept[name] = value
        elif name == b"security.capability" and privileged and is_capability_v2(value):
            kept[name] = value
        else:
            warnings.add(f"extended attributes {display(name)} are left out")
    return kept


def is_capability_v2(value: bytes) -> bool:
    """Whether a `security.capability` value is VFS_CAP_REVISION_2 (linux/capability.h)."""
    return len(value) == 20 and value[3] == 2 and value[0] & ~1 == 0 and not any(value[1:3])


class ParentIsNoDirectory(ArchiveInvalid):
    """An entry stands below something that is no directory (a symbolic link, a file)."""


def not_a_directory(path: bytes) -> ParentIsNoDirectory:
    """The refusal of an entry below something that is no directory."""
    return ParentIsNoDirectory(f"archive entry {display(path)}: its parent is not a directory")


def bad_link(path: bytes, target: bytes, why: str) -> ArchiveInvalid:
    """The refusal of a hard link."""
    return ArchiveInvalid(
        f"archive entry {display(path)}: hard link to {display(target)}, which {why}"
    )
