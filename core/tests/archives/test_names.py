"""Names, links and symbolic links that try to lead out of the root (catalogue T1-T9, T21, T27,
T28). Every breakout is run by a careless extractor too, and there the canary must notice."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archive_lab import (
    ACI,
    OCI,
    Canary,
    aci,
    archive,
    directory,
    gnu_long,
    hardlink,
    member,
    naive_unpack,
    pax,
    snapshot,
    symlink,
    unpack_to,
)

from podctl.errors import ArchiveInvalid
from podctl.images.descriptors import DescriptorLimit, remove

if TYPE_CHECKING:
    from collections.abc import Iterator

EVIL = b"evil\n"

# {out} is the canary's absolute path. Each breakout damages the canary where it works.
BREAKOUTS: dict[str, list[bytes]] = {
    "T1 relative": [member("../canary/victim", data=EVIL)],
    "T1 relative inside": [directory("a"), member("a/../../canary/victim", data=EVIL)],
    "T1 dot relative": [member("./../canary/victim", data=EVIL)],
    "T1 directory": [directory("../canary", mode=0o700)],
    "T1 symbolic link": [symlink("../canary/victim", "/etc/shadow")],
    "T1 hard link name": [member("x", data=EVIL), hardlink("../canary/victim", "x")],
    "T1 pax path": [pax((b"path", b"../canary/victim")), member("x", data=EVIL)],
    "T1 gnu long name": [gnu_long(b"../canary/victim"), member("x", data=EVIL)],
    "T1 ustar prefix": [member("canary/victim", data=EVIL, prefix=b"..")],
    "T3 symlink absolute": [symlink("d", "{out}"), member("d/victim", data=EVIL)],
    "T3 symlink up": [symlink("d", "../canary"), member("d/victim", data=EVIL)],
    "T3 symlink deep": [
        directory("a"), symlink("a/d", "../../canary"), member("a/d/new", data=EVIL)
    ],
    "T3 symlink to slash": [symlink("d", "/"), member("d{out}/victim", data=EVIL)],
    "T3 symlink then directory": [symlink("d", "{out}"), directory("d/sub", mode=0o777)],
    "T3 symlink then new directory": [symlink("d", "{out}"), directory("d/x/y")],
    "T3 symlink of a symlink": [
        symlink("a", "{out}"), symlink("b", "a"), member("b/victim", data=EVIL)
    ],
    "T3 symlink as last name": [symlink("f", "{out}/victim"), member("f", data=EVIL)],
    "T3 dangling symlink as last name": [symlink("f", "{out}/new"), member("f", data=EVIL)],
    "T3 empty file over symlink": [symlink("f", "{out}/victim"), member("f")],
    "T3 trailing dot": [symlink("d", "{out}"), directory("d/.", mode=0o700)],
    "T3 directory over symlink": [symlink("d", "{out}"), directory("d", mode=0o700)],
    "T3 hard link below symlink": [
        member("x", data=EVIL), symlink("d", "{out}"), hardlink("d/new", "x")
    ],
    "T3 symlink below symlink": [symlink("d", "{out}"), symlink("d/new", "x")],
    "T4 chain": [
        symlink("cur", "."), symlink("par", "cur/.."), member("par/canary/victim", data=EVIL)
    ],
    "T4 long chain": [
        directory("a"),
        *[symlink("a/" + "s" * n, "../a/" + "s" * (n - 1) if n > 1 else "..") for n in range(1, 9)],
        symlink("a/out", "ssssssss/../canary"),
        member("a/out/victim", data=EVIL),
    ],
    "T7 hard link up": [hardlink("h", "../canary/victim"), member("h", data=EVIL)],
    "T7 hard link down and up": [
        directory("a"), hardlink("h", "a/../../canary/victim"), member("h", data=EVIL)
    ],
    "T7 hard link absolute": [hardlink("h", "{out}/victim")],
    "T7 hard link long": [
        directory("a"), gnu_long(b"a/../" * 60 + b"../canary/victim", b"K"), hardlink("h", "x")
    ],
    "T7 hard link through symlink parent": [symlink("d", "../canary"), hardlink("h", "d/victim")],
    "T7 hard link through absolute symlink": [symlink("d", "{out}"), hardlink("h", "d/victim")],
    "T7 hard link to symlink to outside": [symlink("s", "{out}/victim"), hardlink("h", "s")],
    "T8 hard link to symlink, then attributes": [
        symlink("s", "{out}/victim"), hardlink("h", "s", mode=0o777, uid=5, mtime=5)
    ],
    "T8 hard link to symlink, then written": [
        symlink("s", "../canary/victim"), hardlink("h", "s"), member("h", data=EVIL)
    ],
    "T14 xattr through symlink": [
        symlink("f", "{out}/victim"),
        pax((b"SCHILY.xattr.user.evil", b"1")),
        member("f", data=b"victim\n"),
    ],
    "T15 whiteout of the parent": [member(".wh...")],
    "T15 whiteout up": [member("../canary/.wh.victim")],
    "T15 whiteout in its name": [directory(".wh."), member(".wh./../../canary/.wh.victim")],
    "T15 whiteout through symlink": [symlink("d", "../canary"), member("d/.wh.victim")],
    "T15 whiteout absolute": [symlink("d", "{out}"), member("d/.wh.sub")],
    "T16 opaque through symlink": [symlink("d", "../canary"), member("d/.wh..wh..opq")],
    "T16 opaque up": [member("../canary/.wh..wh..opq")],
}  # fmt: skip


def placed(members: list[bytes], canary: Canary) -> list[bytes]:
    """Members with the canary's path put in, headers summed anew."""
    return [_placed(data, os.fsencode(canary.path)) for data in members]


def _placed(data: bytes, out: bytes) -> bytes:
    if b"{out}" not in data[:512]:
        return data
    block = bytearray(data[:512])
    for start in (0, 157):
        field = bytes(block[start : start + 100]).rstrip(b"\0").replace(b"{out}", out)
        assert len(field) <= 100
        block[start : start + 100] = field.ljust(100, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[512:]


def below_rootfs(members: list[bytes]) -> bytes:
    """The same attack on an ACI: below rootfs/, with one more step up."""
    result = []
    for data in members:
        block = bytearray(data[:512])
        for start, kinds in ((0, b"01235"), (157, b"1")):
            field = bytes(block[start : start + 100]).rstrip(b"\0")
            if bytes(block[156:157]) in kinds and field and not field.startswith(b"/"):
                block[start : start + 100] = (b"rootfs/" + field)[:100].ljust(100, b"\0")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        result.append(bytes(block) + data[512:])
    return aci(*result)


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path is short enough for a header's fields, inside one of its own."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        (Path(path) / "in").mkdir()
        yield Path(path) / "in"


@pytest.mark.parametrize("name", BREAKOUTS)
@pytest.mark.parametrize("form", ["oci", "aci", "oci scan", "aci scan"])
def test_breakout_touches_nothing_outside(name: str, form: str, short: Path) -> None:
    canary = Canary(short)
    members = placed(BREAKOUTS[name], canary)
    data = archive(*members) if form.startswith("oci") else below_rootfs(members)
    target = None if form.endswith("scan") else short / "target"
    try:
        unpack_to(target, data, OCI if form.startswith("oci") else ACI)
    except ArchiveInvalid as error:
        assert "\n" not in str(error)
    assert canary.alive
    assert set(os.listdir(short)) <= {"canary", "target"}


@pytest.mark.parametrize("name", BREAKOUTS)
def test_canary_notices_careless_extraction(name: str, short: Path) -> None:
    canary = Canary(short)
    try:
        naive_unpack(archive(*placed(BREAKOUTS[name], canary)), short / "target")
    except OSError as error:
        # The attributes of a link that was just made badly may not be settable any more.
        assert name.startswith(("T1 hard", "T3 symlink below")), error
    assert not canary.alive


REFUSED = [name for name in BREAKOUTS if name[:2] in ("T1",) and name[2] == " "] + [
    name for name in BREAKOUTS if name.startswith("T7") and "symlink to outside" not in name
]


@pytest.mark.parametrize("name", REFUSED)
def test_names_and_links_out_of_the_root_are_refused(name: str, short: Path) -> None:
    canary = Canary(short)
    data = archive(*placed(BREAKOUTS[name], canary))
    with pytest.raises(ArchiveInvalid):
        unpack_to(short / "target", data)
    with pytest.raises(ArchiveInvalid):
        unpack_to(None, data)


@pytest.mark.parametrize("name", ["/etc/x", "//etc/x", "/./etc//x", "etc/./x"])
def test_t2_absolute_names_land_in_the_root(name: str, tmp_path: Path, canary: Canary) -> None:
    unpack_to(tmp_path / "target", archive(member(name, data=EVIL)))
    assert (tmp_path / "target/etc/x").read_bytes() == EVIL
    assert canary.alive


def test_t2_absolute_path_of_the_canary_lands_in_the_root(short: Path) -> None:
    canary = Canary(short)
    data = archive(*placed([member("{out}/victim", data=EVIL)], canary))
    unpack_to(short / "target", data)
    assert canary.alive
    assert (short / f"target{canary.path}/victim").read_bytes() == EVIL
    naive_unpack(data, short / "target")
    assert not canary.alive


def cve_2025_4517() -> list[bytes]:
    """Symbolic links whose resolution passes PATH_MAX: realpath(3)-like checks stop resolving
    there, open(2) does not, and the last `..`s lead out."""
    component = b"d" * 247
    members, path = [], b""
    for step in b"abcdefghijklmnop":
        letter = bytes([step])
        members += [
            pax((b"path", path + component)), directory("x"),
            pax((b"path", path + letter), (b"linkpath", component)), symlink("x", "x"),
        ]  # fmt: skip
        path += component + b"/"
    chain = b"/".join(bytes([step]) for step in b"abcdefghijklmnop")
    long_name = chain + b"/" + b"l" * 254
    members += [
        pax((b"path", long_name), (b"linkpath", b"../" * 16)), symlink("x", "x"),
        pax((b"linkpath", long_name + b"/../canary")), symlink("escape", "x"),
        member("escape/victim", data=EVIL),
    ]  # fmt: skip
    return members


def test_t5_chain_beyond_path_max_is_refused(tmp_path: Path, canary: Canary) -> None:
    data = archive(*cve_2025_4517())
    for target in (tmp_path / "target", None):
        with pytest.raises(ArchiveInvalid, match="not a directory"):
            unpack_to(target, data)
    assert canary.alive


def test_t5_control_the_chain_leads_out(short: Path) -> None:
    canary = Canary(short)
    naive_unpack(archive(*cve_2025_4517()), short / "target")
    assert not canary.alive


def test_t8_hard_link_to_a_symlink_is_the_symlink(tmp_path: Path, canary: Canary) -> None:
    data = archive(symlink("s", "../canary/victim"), hardlink("h", "s", mode=0o777, uid=9))
    unpack_to(tmp_path / "target", data)
    assert os.readlink(tmp_path / "target/h") == "../canary/victim"
    assert canary.alive


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([hardlink("h", "later"), member("later")], "no earlier entry"),
        ([hardlink("h", "h")], "no earlier entry"),
        ([member("h"), hardlink("h", "h")], "itself"),
        ([member("h"), hardlink("h", "./h")], "itself"),
        ([directory("d"), hardlink("h", "d")], "directory"),
        ([directory("d"), hardlink("h", ".")], "directory"),
        ([hardlink("h", "")], "directory"),
        ([member("f"), hardlink("h", "f/x")], "no earlier entry"),
        ([member("f"), hardlink("h", "/f")], "is absolute"),
        ([directory("d"), member("f"), hardlink("d/h", "d/../f")], "contains"),
        ([directory("d"), member("d/f"), hardlink("d", "d/f")], "no earlier entry"),
        ([member("c", b"3", device=(1, 3)), hardlink("h", "c")], "no earlier entry"),
        ([member(".wh.w"), hardlink("h", "w")], "no earlier entry"),
    ],
)
@pytest.mark.parametrize("scan", [False, True])
def test_t9_hard_link_needs_an_earlier_file(
    members: list[bytes], why: str, scan: bool, tmp_path: Path
) -> None:
    with pytest.raises(ArchiveInvalid, match=why):
        unpack_to(None if scan else tmp_path / "target", archive(*members))


@pytest.mark.parametrize("name", [".", "./", "/", "././", "//"])
@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"3", b"6", b"7"])
@pytest.mark.parametrize("layout", [OCI, ACI])
def test_t21_root_must_be_a_directory(
    name: str, kind: bytes, layout: object, tmp_path: Path, canary: Canary
) -> None:
    data = (archive if layout is OCI else aci)(member(name, kind, link=os.fspath(canary.path)))
    for target in (tmp_path / "target", None):
        with pytest.raises(ArchiveInvalid):
            unpack_to(target, data, layout)  # type: ignore[arg-type]
    assert canary.alive
    assert not (tmp_path / "target").is_symlink()


def test_t21_root_directory_entry_sets_the_roots_attributes(tmp_path: Path) -> None:
    entry = directory("./", mode=0o711, uid=5, gid=6, mtime=77)
    unpack_to(tmp_path / "target", archive(entry, member("f")))
    status = os.lstat(tmp_path / "target")
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o711, 5, 6)
    assert status.st_mtime == 77


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A target that may get deeper than other tools can remove."""
    target = tmp_path / "target"
    yield target
    limit = DescriptorLimit()
    parent = os.open(tmp_path, os.O_RDONLY)
    remove(parent, b"target", limit)
    os.close(parent)
    limit.restore()


def at_path(path: bytes) -> bytes:
    return archive(pax((b"path", path)), member("x", data=EVIL))


def path_of(length: int) -> bytes:
    """A path of `length` bytes in components of at most 200."""
    return (b"/".join([b"p" * 199] * 30))[: length - 1] + b"q"


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
    ("path", "good"),
    [
        (b"n" * 255, True),
        (b"n" * 256, False),
        (b"n" * 256 + b"/f", False),
        (path_of(4095), True),
        (path_of(4096), False),
        (path_of(4097), False),
        (b"/".join([b"d"] * 2048), True),
        (b"d/" * 10_000 + b"f", False),
    ],
    ids=[
        "name255",
        "name256",
        "parent256",
        "path4095",
        "path4096",
        "path4097",
        "deep2048",
        "deep10000",
    ],
)
def test_t27_lengths_to_the_kernels_limits(path: bytes, good: bool, scan: bool, deep: Path) -> None:
    deep.mkdir()
    target = None if scan else deep
    if not good:
        with pytest.raises(ArchiveInvalid, match="over"):
            unpack_to(target, at_path(path))
        return
    unpack_to(target, at_path(path))
    if target is not None:
        assert deepest_content(target) == EVIL


def deepest_content(target: Path) -> bytes:
    """Walk down the only branch and read the file at its end."""
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    while True:
        (name,) = os.listdir(fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        if not os.path.isdir(f"/proc/self/fd/{fd}"):
            content = os.read(fd, 100)
            os.close(fd)
            return content


def test_t27_deep_tree_is_replaced_by_a_file(deep: Path) -> None:
    path = b"/".join([b"d"] * 2000)
    data = archive(pax((b"path", path)), member("x"), member("d", data=EVIL))
    unpack_to(deep, data)
    assert (deep / "d").read_bytes() == EVIL


STRANGE = [
    b"latin-\xe9", "snow-\u2603".encode(), b"surrogate-\xed\xa0\x80", b"overlong-\xc0\xaf",
    "rtl-\u202egnp.exe".encode(), b"esc-\x1b[31m", b"newline\n", b"tab\t", b"trailing. ", b" lead",
    b"\xff\xfe", b"koi8-\xc6\xc1\xca\xcc", b"eucjp-\xb4\xc1\xbb\xfa", b"-rf", b"a=b", b"\x7f",
    b"back\\slash", b"*?[]", b"...",
]  # fmt: skip


@pytest.mark.parametrize("writer", ["header", "pax", "gnu"])
def test_t28_bytes_of_names_survive(writer: str, tmp_path: Path) -> None:
    def entry(name: bytes) -> bytes:
        if writer == "pax":
            return pax((b"path", name)) + member("x", data=name)
        return (
            gnu_long(name) + member("x", data=name) if writer == "gnu" else member(name, data=name)
        )

    members = [entry(name) for name in STRANGE]
    members += [symlink(b"link-" + name, name) for name in STRANGE]
    unpack_to(tmp_path / "target", archive(*members))
    target = os.fsencode(tmp_path / "target")
    assert sorted(os.listdir(target)) == sorted(STRANGE + [b"link-" + name for name in STRANGE])
    for name in STRANGE:
        with open(os.path.join(target, name), "rb") as file:
            assert file.read() == name
        assert os.readlink(os.path.join(target, b"link-" + name)) == name


def test_missing_parents_are_made_the_same_each_time(tmp_path: Path) -> None:
    for target in ("one", "two"):
        unpack_to(tmp_path / target, archive(member("a/b/c", data=EVIL)))
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    assert snapshot(tmp_path / "one")["a/b"][:4] == ("drwxr-xr-x", 0, 0, 0)
