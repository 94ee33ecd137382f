"""Caps on entries, memory and depth of work (catalogue T31), each in a child that is measured."""

from __future__ import annotations

import io
import os
import subprocess
import traceback
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
from archive_lab import LIMITS, OCI, archive, directory, member, pax, unpack_to

from podctl.errors import ArchiveInvalid, HostLacks
from podctl.images import tree
from podctl.images.descriptors import DescriptorLimit, remove
from podctl.images.unpack import unpack
from podctl.model.layout import ArchiveLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1 << 20
#: resident memory beyond the interpreter's that no input may make us use.
CEILING = 128 * MIB


class Stream(io.RawIOBase):
    """A source whose pieces are made while they are read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, size: int = -1, /) -> bytes:
        return next(self._pieces, b"")


def growth_of(work: Callable[[], object]) -> int:
    """Run `work` in a child; return by how many bytes its resident memory grew at most."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            before = _memory("VmRSS")
            work()
            os.write(writer, b"%d" % (_memory("VmHWM") - before))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    _, status = os.waitpid(pid, 0)
    growth = os.read(reader, 100)
    os.close(reader)
    assert os.waitstatus_to_exitcode(status) == 0
    return int(growth)


def _memory(field: str) -> int:
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith(field))
    return int(line.split()[1]) * 1024


def expect(error: str, data: Any, limits: ArchiveLimits = LIMITS) -> None:
    with pytest.raises(ArchiveInvalid, match=error):
        unpack(data, None, OCI, limits)


def numbered(count: int, kind: bytes = b"0") -> Iterator[bytes]:
    """Headers of empty entries `0000000`..., a thousand at a time, by patching name and sum."""
    template = bytearray(member("0" * 7, kind, mode=0o755))
    base = sum(template[:148]) + sum(template[156:]) + 256 - 7 * ord("0")
    for start in range(0, count, 1000):
        block = bytearray(bytes(template) * 1000)
        for offset in range(1000):
            name = b"%07d" % (start + offset)
            block[512 * offset : 512 * offset + 7] = name
            block[512 * offset + 148 : 512 * offset + 156] = b"%06o\0 " % (base + sum(name))
        yield bytes(block)


@pytest.mark.parametrize("kind", [b"0", b"5"])
def test_t31_scanning_remembers_a_few_bytes_an_entry(kind: bytes) -> None:
    limits = ArchiveLimits(max_entries=150_000)
    growth = growth_of(lambda: expect("more than 150000", Stream(numbered(200_000, kind)), limits))
    assert growth < 16 * MIB


def test_t31_writing_remembers_no_entries(tmp_path: Path) -> None:
    """Directories are settled as they are left; nothing is kept of them."""

    def work(count: int) -> Callable[[], object]:
        source = Stream(chain(numbered(count, b"5"), [bytes(1024)]))
        return lambda: unpack_to(tmp_path / str(count), b"", OCI, source=source)

    small, large = growth_of(work(1000)), growth_of(work(10_000))
    assert large - small < MIB


def test_t31_implied_directories_count(tmp_path: Path) -> None:
    limits = ArchiveLimits(max_entries=100)
    members = [member(f"{n}/a/b/c/d/e/f/g/h/i") for n in range(12)]
    for target in (tmp_path / "target", None):
        with pytest.raises(ArchiveInvalid, match="more than 100 entries"):
            unpack_to(target, archive(*members), OCI, limits)


def test_t31_full_file_system_is_an_error_of_the_host(tmp_path: Path) -> None:
    """On a tmpfs of 64 KiB and 20 inodes, in a mount namespace of its own."""
    (tmp_path / "m").mkdir()
    program = (
        "import io, os, sys\n"
        f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from archive_lab import *\n"
        "from podctl.errors import HostLacks\n"
        "many = [member(str(n)) for n in range(50)]\n"
        "for members in ([member('x', data=bytes(1 << 20))], many):\n"
        "    try:\n"
        "        unpack_to(sys.argv[1] + '/t', archive(*members))\n"
        "    except HostLacks as error:\n"
        "        print(error)\n"
    )
    import sys

    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-ec",
         'mount -t tmpfs -o size=64k,nr_inodes=20 none "$1"; exec "$2" -c "$3" "$1"',
         "sh", tmp_path / "m", sys.executable, program],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("No space left on device" in line for line in lines)
    assert HostLacks("x").exit_code == 254


def bomb_of_names() -> Iterator[bytes]:
    """Entries with the longest path and attributes allowed, each different."""
    for n in range(2000):
        path = b"%07d/" % n + b"/".join([b"p" * 200] * 20)
        yield pax((b"path", path), (b"SCHILY.xattr.user.x", b"v" * 60_000)) + member("x")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("names", "more than 30000 entries"),
        ("extension", "extension header over"),
        ("zeros", "zeros"),
    ],
)
def test_memory_stays_bounded(name: str, error: str) -> None:
    streams: dict[str, Callable[[], Iterator[bytes]]] = {
        "names": bomb_of_names,
        "extension": lambda: iter([member("x", b"x", size=0o77777777777)] + [bytes(MIB)] * 500),
        "zeros": lambda: (bytes(MIB) for _ in range(1000)),
    }
    limits = ArchiveLimits(max_entries=30_000)
    assert growth_of(lambda: expect(error, Stream(streams[name]()), limits)) < CEILING


def test_memory_of_large_files_is_a_few_reads(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield member("big", size=300 * MIB)
        for _ in range(300):
            yield bytes(MIB)
        yield bytes(1024)

    (tmp_path / "target").mkdir()

    def work() -> None:
        fd = os.open(tmp_path / "target", os.O_RDONLY)
        unpack(Stream(pieces()), fd, OCI, LIMITS)

    assert growth_of(work) < 16 * MIB
    (tmp_path / "target/big").unlink()


@pytest.mark.parametrize("kind", ["file", "hard link"])
def test_jumping_between_deep_branches_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two branches of 300 directories: each jump opens as many."""
    monkeypatch.setattr(tree, "FREE_STEPS", 1000)
    deep = {side: b"/".join([side] * 300) for side in (b"a", b"b")}
    members = []
    for n in range(200):
        path = deep[b"ab"[n % 2 : n % 2 + 1]] + b"/%d" % n
        if kind == "file" or n < 2:
            members.append(pax((b"path", path)) + member("x"))
        else:
            target = deep[b"b"] + b"/1"
            members.append(pax((b"path", b"h%d" % n), (b"linkpath", target)) + member("x", b"1"))
    target_parent = os.open(tmp_path, os.O_RDONLY)
    limit = DescriptorLimit()
    try:
        for place in (tmp_path / "target", None):
            with pytest.raises(ArchiveInvalid, match="jumps too often"):
                unpack_to(place, archive(*members))
    finally:
        remove(target_parent, b"target", limit)
        os.close(target_parent)
        limit.restore()


def test_thrashing_between_file_and_tree_takes_linear_time(tmp_path: Path) -> None:
    """Directories that fill and are replaced: each removal pays for its own entries only."""
    members = []
    for _ in range(200):
        members += [directory("d"), *[member(f"d/{n}") for n in range(10)], member("d")]
    done = unpack_to(tmp_path / "target", archive(*members))
    assert done.entries == 200 * 12
    assert os.listdir(tmp_path / "target") == ["d"]
