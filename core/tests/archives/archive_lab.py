"""Archives built octet by octet, trees compared to the last attribute, and careless extractors."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from podctl.images.unpack import Unpacked, unpack
from podctl.model.layout import ArchiveLayout, ArchiveLimits
from podctl.testing.trees import Row, Snapshot, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BLOCK = 512
ACI = ArchiveLayout(manifest="manifest", rootfs="rootfs", whiteouts=False)
OCI = ArchiveLayout(manifest=None, rootfs=None, whiteouts=True)
LIMITS = ArchiveLimits()


def member(
    name: bytes | str,
    kind: bytes = b"0",
    data: bytes = b"",
    *,
    size: int | bytes | None = None,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 1_000_000_000,
    link: bytes | str = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    device: tuple[int, int] = (0, 0),
    checksum: bytes | None = None,
) -> bytes:
    """One header and its data. Numbers given as bytes are put in as they are."""
    name, link = os.fsencode(name), os.fsencode(link)
    if size is None:
        size = len(data)

    def field(value: int | bytes, width: int) -> bytes:
        text = value if isinstance(value, bytes) else b"%0*o\0" % (width - 1, value)
        assert len(text) <= width
        return text.ljust(width, b"\0")

    assert len(name) <= 100 and len(link) <= 100
    block = bytearray(
        name.ljust(100, b"\0")
        + field(mode, 8)
        + field(uid, 8)
        + field(gid, 8)
        + field(size, 12)
        + field(mtime, 12)
        + b"        "
        + kind
        + link.ljust(100, b"\0")
        + magic.ljust(8, b"\0")
        + bytes(64)
        + field(device[0], 8)
        + field(device[1], 8)
        + prefix.ljust(155, b"\0")
    ).ljust(BLOCK, b"\0")
    block[148:156] = checksum if checksum is not None else b"%06o\0 " % sum(block)
    return bytes(block) + data + bytes(-len(data) % BLOCK)


def directory(name: bytes | str, **fields: Any) -> bytes:
    return member(name, b"5", **{"mode": 0o755, **fields})


def symlink(name: bytes | str, target: bytes | str, **fields: Any) -> bytes:
    return member(name, b"2", link=target, **fields)


def hardlink(name: bytes | str, target: bytes | str, **fields: Any) -> bytes:
    return member(name, b"1", link=target, **fields)


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + 1
    while length != rest + len(str(length)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """A PAX extension header."""
    return member(b"PaxHeader", kind, b"".join(pax_record(*record) for record in records))


def gnu_long(name: bytes, kind: bytes = b"L") -> bytes:
    """A GNU long name (`L`) or long link target (`K`)."""
    return member(b"././@LongLink", kind, name + b"\0", magic=b"ustar  \0")


def archive(*members: bytes) -> bytes:
    """Members and a proper end."""
    return b"".join(members) + bytes(2 * BLOCK)


def aci(*members: bytes) -> bytes:
    """An ACI: the members stand below rootfs/ already."""
    return archive(member("manifest", data=b"{}"), directory("rootfs"), *members)


class Dribble(io.BytesIO):
    """A source that returns odd, small pieces, as a pipe may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size, 777) if size and size > 0 else 777)


def unpack_to(
    target: Path | str | None,
    data: bytes,
    layout: ArchiveLayout = OCI,
    limits: ArchiveLimits = LIMITS,
    source: Any = None,
) -> Unpacked:
    """Unpack bytes into a directory made if missing; None only scans."""
    source = io.BytesIO(data) if source is None else source
    if target is None:
        return unpack(source, None, layout, limits)
    os.makedirs(target, exist_ok=True)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return unpack(source, fd, layout, limits)
    finally:
        os.close(fd)


class Canary:
    """A tree outside the target that nothing may touch, next to it in `parent`.

    Attributes:
        path: its absolute path; `../canary` from the target.
    """

    def __init__(self, parent: Path) -> None:
        self.path = parent / "canary"
        self.path.mkdir()
        (self.path / "secret").write_text("secret\n")
        (self.path / "victim").write_text("victim\n")
        os.chmod(self.path / "victim", 0o640)
        os.chown(self.path / "victim", 7, 8)
        os.setxattr(self.path / "victim", "user.canary", b"sings")
        (self.path / "sub").mkdir()
        (self.path / "sub" / "file").write_text("deep\n")
        os.symlink("victim", self.path / "link")
        for path in (*self.path.iterdir(), self.path):
            os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
        self._links = os.lstat(self.path / "victim").st_nlink
        self._before = snapshot(self.path)

    @property
    def alive(self) -> bool:
        """Whether nothing changed, and nobody holds a new hard link to the victim."""
        if not os.path.lexists(self.path / "victim"):
            return False
        links = os.lstat(self.path / "victim").st_nlink
        return links == self._links and snapshot(self.path) == self._before


def naive_unpack(data: bytes, target: Path, layout: ArchiveLayout = OCI) -> None:
    """Extract the way it should not be done: by joined paths, following what is there.

    The control of every canary: what it does to the canary, podctl must not.
    """
    from podctl.images.tarstream import TarStream

    target.mkdir(exist_ok=True)
    stream = TarStream(io.BytesIO(data), LIMITS)
    while entry := stream.next_entry():
        name = os.fsdecode(entry.name)
        if layout.rootfs:
            name = name.removeprefix("rootfs/")
        path = os.path.join(target, name)
        base = os.path.basename(path)
        with contextlib.suppress(FileExistsError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        if layout.whiteouts and base == ".wh..wh..opq":
            _naive_empty(os.path.dirname(path))
            continue
        if layout.whiteouts and base.startswith(".wh."):
            _naive_remove(os.path.join(os.path.dirname(path), base[4:]))
            continue
        _naive_entry(stream, entry, path, target)


def _naive_entry(stream: Any, entry: Any, path: str, target: Path) -> None:
    if entry.kind == "symbolic link":
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(path)
        os.symlink(entry.linkname, path)
        return
    if entry.kind == "hard link":
        source = os.path.join(target, os.fsdecode(entry.linkname))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.link(source, path, follow_symlinks=True)
    elif entry.kind == "directory":
        os.makedirs(path, exist_ok=True)
    elif entry.kind == "file":
        with open(path, "wb") as file:
            stream.copy_to(file.fileno())
    for name, value in entry.xattrs.items():
        os.setxattr(path, name, value)
    os.chown(path, entry.uid, entry.gid)
    os.chmod(path, entry.mode)
    os.utime(path, ns=(entry.mtime, entry.mtime))


def _naive_remove(path: str) -> None:
    import shutil

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _naive_empty(path: str) -> None:
    for name in os.listdir(path):
        _naive_remove(os.path.join(path, name))


def run(argv: Iterable[str | Path], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a neighbour; its failure is a failure."""
    return subprocess.run(
        [os.fspath(arg) for arg in argv], check=True, capture_output=True, **options
    )


def overlay_snapshot(lowers: list[Path], work: Path) -> Snapshot:
    """What an overlay of the directories (highest first) shows, mounted by a child of its own."""
    import ast

    mount = work / "merged"
    mount.mkdir()
    if len(lowers) == 1:
        # The kernel wants two lower layers where there is no upper one.
        empty = work / "empty"
        empty.mkdir()
        lowers = [*lowers, empty]
    options = "ro,lowerdir=" + ":".join(map(str, lowers))
    done = run(
        [
            "unshare", "--mount", "--propagation", "slave", "sh", "-ec",
            'mount -t overlay -o "$1" overlay "$2"; exec "$3" "$4" "$2"',
            "sh", options, mount, sys.executable, __file__,
        ]
    )  # fmt: skip
    rows = ast.literal_eval(done.stdout.decode())
    return {path: Row(*row) for path, row in rows.items()}


if __name__ == "__main__":
    sys.stdout.write(repr({path: tuple(row) for path, row in snapshot(sys.argv[1]).items()}))
