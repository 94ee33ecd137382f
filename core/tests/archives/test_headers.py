"""Tar headers, good, strange and hostile (catalogue T22-T26, T29, T30)."""

from __future__ import annotations

import io
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from archive_lab import (
    BLOCK,
    LIMITS,
    OCI,
    Dribble,
    archive,
    directory,
    gnu_long,
    hardlink,
    member,
    pax,
    pax_record,
    run,
    symlink,
    unpack_to,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from podctl.errors import ArchiveInvalid
from podctl.images import tarheader
from podctl.images.tarstream import TarStream
from podctl.model.layout import ArchiveLimits

if TYPE_CHECKING:
    from pathlib import Path


def base256(value: int, width: int) -> bytes:
    return (value & ((1 << 8 * width) - 1) | 1 << 8 * width - 1).to_bytes(width, "big")


def entries(data: bytes, limits: ArchiveLimits = LIMITS, source: Any = None) -> list[Any]:
    stream = TarStream(source or io.BytesIO(data), limits)
    result = []
    while (entry := stream.next_entry()) is not None:
        result.append((entry.name, entry.kind, stream.read(entry.size)))
    return result


def refused(data: bytes, match: str | None = None) -> None:
    """Both ways of reading refuse, in one line that names a place or an entry."""
    for source in (io.BytesIO(data), Dribble(data)):
        with pytest.raises(ArchiveInvalid, match=match) as caught:
            unpack_to(None, data, OCI, source=source)
        assert "\n" not in str(caught.value)


# --- T22 sparse files ---


@pytest.mark.parametrize(
    "members",
    [
        [member("s", b"S", size=base256(8 << 60, 12), magic=b"ustar  \0")],
        [member("s", b"S", data=b"x" * 512, magic=b"ustar  \0")],
        [pax((b"GNU.sparse.size", b"9223372036854775807"), (b"GNU.sparse.numblocks", b"0")),
         member("s")],
        [pax((b"GNU.sparse.map", b"0,1,5,1"), (b"GNU.sparse.name", b"../x")), member("s")],
        [pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
             (b"GNU.sparse.realsize", b"8000000000000")), member("s", data=b"0\n")],
        [pax((b"SCHILY.realsize", b"8000000000000")), member("s")],
    ],
    ids=["old 8 EiB", "old", "pax 0.0", "pax 0.1", "pax 1.0", "star"],
)  # fmt: skip
def test_t22_sparse_files_are_refused(members: list[bytes]) -> None:
    refused(archive(*members), "sparse|out of range")


def test_t22_sparse_archive_by_gnu_tar_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(1 << 30)
        file.seek(4096)
        file.write(b"x")
    for fmt, version in (("gnu", None), ("pax", "0.0"), ("pax", "0.1"), ("pax", "1.0")):
        options = [f"--sparse-version={version}"] if version else []
        tar = run(["tar", "-cS", f"--format={fmt}", *options, "-C", tmp_path, "hole"]).stdout
        refused(tar, "sparse")


def test_t22_million_entry_map_is_refused_by_the_header_cap() -> None:
    payload = pax_record(b"GNU.sparse.map", b"0,1," * 1_000_000)
    refused(archive(member("x", b"x", payload), member("s")), "over 1048576 bytes")


def test_t22_logical_size_counts(tmp_path: Path) -> None:
    limits = ArchiveLimits(max_bytes=1000)
    unpack_to(
        tmp_path / "fits", archive(member("a", data=b"x" * 600), member("b", data=b"x" * 400))
    )
    with pytest.raises(ArchiveInvalid, match="over 1000 bytes"):
        data = archive(member("a", data=b"x" * 600), member("b", data=b"x" * 401))
        unpack_to(tmp_path / "target", data, OCI, limits)
    assert not (tmp_path / "target/b").exists()


# --- T23 numbers ---


@pytest.mark.parametrize("field", ["size", "uid", "gid", "mode"])
@pytest.mark.parametrize("value", [-1, -(1 << 40), None])
def test_t23_negative_numbers_are_refused(field: str, value: int | None) -> None:
    width = 12 if field == "size" else 8
    raw = b"-0000001"[:width] if value is None else base256(value, width)
    changes: dict[str, Any] = {field: raw}
    refused(archive(member("x", **changes)), "out of range|octal")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", base256(1 << 63, 12)),
        ("size", base256((1 << 94) - 1, 12)),
        ("size", b"777777777777"),
        ("size", b"\xc0" + b"\0" * 11),
        ("size", b"\x90" + b"\0" * 11),
        ("uid", base256(1 << 32, 8)),
        ("gid", base256(1 << 32, 8)),
        ("uid", base256((1 << 32) - 1, 8)),
        ("gid", base256((1 << 32) - 1, 8)),
        ("uid", b"0x10"),
        ("uid", b"0o17"),
        ("uid", b"1_0"),
        ("uid", b"+17"),
        ("uid", b"19"),
        ("uid", b"1\0junk"),
        ("uid", b"1 2"),
        ("mode", b"rwxr-xr-"),
        ("mtime", b"yesterday"),
        ("size", "\u0661".encode()),
    ],
)
def test_t23_overflow_and_junk_are_refused(field: str, value: bytes) -> None:
    changes: dict[str, Any] = {field: value}
    refused(archive(member("x", **changes)))


def test_t23_huge_size_is_refused_before_its_data_is_awaited() -> None:
    class Endless(io.RawIOBase):
        """Hands out zeros for ever: who waits for the data never ends."""

        def __init__(self, head: bytes) -> None:
            self.head = head

        def read(self, size: int = -1, /) -> bytes:
            head, self.head = self.head, b""
            return head or bytes(1 << 20)

    data = member("x", size=base256((1 << 63) - 1, 12))
    with pytest.raises(ArchiveInvalid, match="bytes in all"):
        unpack_to(None, b"", OCI, source=Endless(data))


@pytest.mark.parametrize("field", [b"uid", b"gid", b"size"])
@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1.5", b" 1", b"0x1", b"9" * 30])
def test_t23_pax_numbers_are_strict(field: bytes, value: bytes) -> None:
    refused(archive(pax((field, value)), member("x")))


@pytest.mark.parametrize("field", [b"uid", b"gid"])
def test_t23_minus_one_as_unsigned_is_refused(field: bytes) -> None:
    """chown(2) takes 4294967295 as "leave it": the file would stay root's."""
    refused(archive(pax((field, b"4294967295")), member("x")), "out of range")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (member("x", mtime=base256(-1, 12)), -1),
        (member("x", mtime=base256(-(1 << 60), 12)), -(1 << 31)),
        (member("x", mtime=base256(1 << 60, 12)), 0x37FFFFFFF),
        (member("x", mtime=0o77777777777), 0o77777777777),
        (pax((b"mtime", b"9" * 20)) + member("x"), 0x37FFFFFFF),
        (pax((b"mtime", b"-" + b"9" * 20)) + member("x"), -(1 << 31)),
    ],
)
def test_t23_times_are_clamped(header: bytes, expected: int, tmp_path: Path) -> None:
    unpack_to(tmp_path / "target", archive(header))
    assert os.lstat(tmp_path / "target/x").st_mtime_ns == expected * 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"1.", 10**9),
        (b"0.000000001", 1),
        (b"7.1234567899", 7_123_456_789),
    ],
)
def test_pax_time_keeps_nanoseconds(text: bytes, nanoseconds: int) -> None:
    assert tarheader.timestamp(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [b"", b"nan", b"inf", b"1e9", b"--1", b".5", b"1.-5", b"1.5.5", b" 1", "\u0661".encode()],
)
def test_pax_time_is_strict(text: bytes) -> None:
    refused(archive(pax((b"mtime", text)), member("x")), "time")


def test_big_ids_and_sizes_that_are_good(tmp_path: Path) -> None:
    data = archive(
        member("base256", uid=base256(3_000_000_000, 8), gid=base256(4_294_967_294, 8)),
        pax((b"uid", b"3000000000"), (b"gid", b"4294967294")) + member("pax"),
        member("octal", uid=b"7777777\0", gid=b"77777777"),
        member("blank", uid=b"        ", gid=b""),
    )
    unpack_to(tmp_path / "target", data)
    owners = {
        name: os.lstat(tmp_path / "target" / name) for name in os.listdir(tmp_path / "target")
    }
    assert {name: (status.st_uid, status.st_gid) for name, status in owners.items()} == {
        "base256": (3_000_000_000, 4_294_967_294),
        "pax": (3_000_000_000, 4_294_967_294),
        "octal": (0o7777777, 0o77777777),
        "blank": (0, 0),
    }


# --- T24 one size for data and for the next header ---


def smuggled() -> bytes:
    """PAX says 1024 bytes, the header 0: who believes the header sees the data as two entries."""
    inner = member("evil", data=b"")[:BLOCK] + directory("evil-directory")
    return archive(pax((b"size", b"1024")), member("outer", data=inner, size=0), member("after"))


def test_t24_pax_size_wins_for_data_and_next_header(tmp_path: Path) -> None:
    unpack_to(tmp_path / "target", smuggled())
    assert sorted(os.listdir(tmp_path / "target")) == ["after", "outer"]
    (tmp_path / "in.tar").write_bytes(smuggled())
    listed = run(["tar", "-tf", tmp_path / "in.tar"]).stdout.split()
    assert listed == [b"outer", b"after"]


def test_t24_control_reader_that_believes_the_header_is_fooled() -> None:
    data, names, at = smuggled(), [], 0
    while data[at : at + BLOCK].strip(b"\0"):
        header = tarheader.parse_header(data[at : at + BLOCK])
        if header.typeflag != b"x":
            names.append(header.name)
        at += BLOCK + header.size + -header.size % BLOCK
    assert b"evil" in names


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
@pytest.mark.parametrize("where", ["header", "pax"])
def test_t24_entries_without_data_may_not_have_a_size(kind: bytes, where: str) -> None:
    """GNU tar skips the data of some of these, Go's reader of none: they would disagree."""
    entry = (
        member("x", kind, link="y", data=b"z" * 512)
        if where == "header"
        else pax((b"size", b"512")) + member("x", kind, link="y", data=b"z" * 512, size=0)
    )
    refused(archive(member("y"), entry), "has data")


# --- T25, T26 extension headers ---


@pytest.mark.parametrize(
    "payload",
    [
        b"x",
        b"0 path=x\n",
        b"1\n",
        b"11 path=ab",
        b"12 path=ab\n",
        b"10 path=abc\n",
        b"11 path:abc\n",
        b"7 =abc\n",
        b"-1 path=a\n",
        b" 9 path=a\n",
        b"9999999999 path=a\n",
        b"99999999999999999999999999 path=a\n",
        b"9 path=a\n\0\0",
        b"9 path=a\n9 path=b\n",
        b"\xff path=a\n",
        b"9\tpath=a\n",
        pax_record(b"path", b"a\0b"),
        pax_record(b"linkpath", b"a\0b"),
        pax_record(b"path", b""),
        pax_record(b"linkpath", b""),
        pax_record(b"hdrcharset", b"EBCDIC"),
    ],
)
def test_t25_malformed_pax_records_are_refused(payload: bytes) -> None:
    refused(archive(member("PaxHeader", b"x", payload), symlink("x", "y")))


def test_t25_newline_and_equals_in_a_path_are_bytes_of_it(tmp_path: Path) -> None:
    path = b"a=b\n20 size=99999999999\n"
    unpack_to(tmp_path / "target", archive(pax((b"path", path)), member("x", data=b"1")))
    assert os.listdir(os.fsencode(tmp_path / "target")) == [path]


@pytest.mark.parametrize(
    "key", [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"GNU.sparse.size",
            b"SCHILY.xattr.user.x", b"LIBARCHIVE.xattr.user.x"]
)  # fmt: skip
def test_t25_global_header_may_not_change_entries(key: bytes) -> None:
    refused(archive(pax((key, b"7"), kind=b"g"), member("x")), "global PAX header")


def test_t25_global_comment_as_git_archive_writes_is_fine() -> None:
    data = archive(pax((b"comment", b"0123abcd"), kind=b"g"), member("x", data=b"1"))
    assert entries(data) == [(b"x", "file", b"1")]


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_t25_extension_header_is_capped(kind: bytes) -> None:
    limit = LIMITS.max_extension
    refused(member("x", kind, size=limit + 1), "extension header over")
    refused(member("x", kind, size=base256((1 << 63) - 1, 12)), "extension header over")


def test_t26_chained_extension_headers_are_refused() -> None:
    comment = pax((b"comment", b"x"), kind=b"g")
    assert len(entries(archive(*[comment] * 16, member("x")))) == 1
    refused(archive(*[comment] * 17, member("x")), "more than 16 extension headers")
    refused(archive(*[comment] * 1000, member("x")), "more than 16 extension headers")


@pytest.mark.parametrize(
    "headers",
    [
        [pax((b"path", b"a")), pax((b"path", b"b"))],
        [gnu_long(b"a"), gnu_long(b"b")],
        [gnu_long(b"a", b"K"), gnu_long(b"b", b"K")],
        [gnu_long(b"a"), pax((b"path", b"b"))],
        [pax((b"linkpath", b"b")), gnu_long(b"a", b"K")],
        [member("L", b"L", b"a\0hidden")],
        [member("L", b"L", b"\0")],
        [member("L", b"L", b"")],
    ],
)
def test_t26_two_names_for_one_entry_are_refused(headers: list[bytes]) -> None:
    refused(archive(*headers, symlink("x", "y")))


@pytest.mark.parametrize("last", [pax((b"path", b"x")), gnu_long(b"x")])
@pytest.mark.parametrize("end", [b"", bytes(1024)])
def test_extension_header_without_its_entry_is_refused(last: bytes, end: bytes) -> None:
    refused(member("a") + last + end, "after an extension header")


# --- T29 ends and checksums ---


@pytest.mark.parametrize(
    "checksum", [b"000000\0 ", b"        ", b"\0" * 8, b"777777\0 ", b"junk\0\0\0\0", b"-00001\0 "]
)
def test_t29_bad_checksum_is_refused(checksum: bytes) -> None:
    refused(archive(member("x", checksum=checksum)), "checksum|not a tar header")


def test_t29_signed_checksum_of_old_tars_is_taken() -> None:
    block = bytearray(member(b"\xe9\xff"))
    signed = sum(byte - 256 if byte & 0x80 else byte for byte in block[:148] + block[156:]) + 256
    block[148:156] = b"%06o\0 " % signed
    assert entries(bytes(block) + bytes(1024)) == [(b"\xe9\xff", "file", b"")]


GOOD = [member("a", data=b"A" * 700), pax((b"path", b"b")), member("x", data=b"B" * 10)]


def test_t29_missing_end_is_tolerated() -> None:
    assert len(entries(b"".join(GOOD))) == 2


def test_t29_missing_padding_of_the_last_entry_is_tolerated() -> None:
    """`umoci insert` of Debian 12 leaves it out."""
    data = b"".join(GOOD)[: -512 + 10]
    assert entries(data)[-1] == (b"b", "file", b"B" * 10)


def test_t29_truncated_anywhere_else_is_refused() -> None:
    data = b"".join(GOOD)
    whole = {512 + 700, 1536, len(data) - 512 + 10}  # after an entry's data or its last block
    for length in range(len(data)):
        if length in whole:
            continue
        with pytest.raises(ArchiveInvalid):
            entries(data[:length])


@pytest.mark.parametrize(
    "end",
    [
        bytes(512),
        bytes(511),
        bytes(512) + member("second") + bytes(1024),
        bytes(1023),
        bytes(1024) + b"x",
        bytes(1024) + archive(member("second")),
        bytes(9000) + b"\x01" + bytes(1000),
        b"garbage".ljust(512),
        bytes(1024) + bytes((16 << 20) + 1),
    ],
    ids=["one block", "short block", "one block between", "short second", "byte", "second archive",
         "late byte", "garbage", "endless zeros"],
)  # fmt: skip
def test_t29_what_follows_the_end_is_refused(end: bytes) -> None:
    refused(b"".join(GOOD) + end)


@pytest.mark.parametrize("padding", [0, 1, 512, 10240, 1 << 20])
def test_t29_zero_padding_is_fine(padding: int) -> None:
    assert len(entries(archive(*GOOD) + bytes(padding))) == 2


@pytest.mark.parametrize("data", [b"", b"x", b"not a tar" * 100])
def test_t29_what_is_no_archive_is_refused(data: bytes) -> None:
    refused(data)


def test_archive_without_entries_is_fine() -> None:
    assert entries(bytes(1024)) == []


# --- T30 formats and types ---


@pytest.mark.parametrize("kind", sorted({bytes([n]) for n in range(256)} - set(
    b"\0 0 1 2 3 4 5 6 7 x g L K".split(b" "))))  # fmt: skip
def test_t30_unknown_types_are_refused_and_never_written(kind: bytes, tmp_path: Path) -> None:
    data = archive(member("x", kind, data=b"data"))
    with pytest.raises(ArchiveInvalid):
        unpack_to(tmp_path / "target", data)
    assert os.listdir(tmp_path / "target") == []


def test_t30_contiguous_and_v7_files_are_files() -> None:
    v7 = b"\0" * 8
    data = archive(
        member("contiguous", b"7", b"1"),
        member("v7", b"\0", b"2", magic=v7),
        member("v7dir/", b"\0", magic=v7),
        member("p" * 10, b"0", b"3", prefix=b"q" * 155),
        member("gnu", b"0", b"4", magic=b"ustar  \0"),
    )
    assert entries(data) == [
        (b"contiguous", "file", b"1"),
        (b"v7", "file", b"2"),
        (b"v7dir/", "directory", b""),
        (b"q" * 155 + b"/" + b"p" * 10, "file", b"3"),
        (b"gnu", "file", b"4"),
    ]


def test_t30_file_named_like_a_directory_is_refused() -> None:
    refused(archive(member("x/", b"0", b"data")), "like a directory")
    refused(archive(member("x/", b"0")), "like a directory")
    refused(archive(member("x/", b"\0", b"data", magic=b"\0" * 8)), "has data")


@pytest.mark.parametrize("magic", [b"ustar\n00", b"USTAR\x0000", b"junk", b"ustar 00"])
def test_t30_unknown_magic_is_refused(magic: bytes) -> None:
    refused(archive(member("x", magic=magic)), "unknown tar format")


@pytest.mark.parametrize("fmt", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_t30_all_formats_of_gnu_tar_read_alike(fmt: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "directory").mkdir(parents=True)
    (source / "directory/file").write_bytes(b"content" * 1000)
    (source / "link").symlink_to("directory/file")
    os.link(source / "directory/file", source / "hard")
    for path in source.rglob("*"):
        os.utime(path, (1000, 1000), follow_symlinks=False)
    os.utime(source, (1000, 1000))
    tar = run(["tar", "-c", f"--format={fmt}", "--sort=name", "-C", source, "."]).stdout
    unpack_to(tmp_path / "target", tar)
    from archive_lab import snapshot

    ours, theirs = snapshot(tmp_path / "target"), snapshot(source)
    assert ours == theirs


# --- fuzz ---


def survives(data: bytes) -> None:
    """Read to the end with caps that keep it short; only the expected error may come."""
    limits = ArchiveLimits(max_bytes=1 << 20, max_entries=100)
    try:
        done = unpack_to(None, data, OCI, limits)
    except ArchiveInvalid:
        pass
    else:
        assert done.size <= limits.max_bytes


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=3 * BLOCK))
def test_fuzz_arbitrary_bytes(data: bytes) -> None:
    survives(data)


fields = st.one_of(st.binary(max_size=8), st.integers(0, 0o7777777).map(lambda n: b"%o" % n))
headers = st.builds(
    member,
    st.binary(max_size=100),
    st.sampled_from([bytes([c]) for c in b"\0001234567xgLKSZ"]),
    st.one_of(
        st.binary(max_size=600),
        st.lists(
            st.tuples(
                st.sampled_from([
                    b"path", b"linkpath", b"size", b"uid", b"mtime", b"SCHILY.xattr.user.x",
                    b"LIBARCHIVE.xattr.user.%41", b"GNU.sparse.map", b"hdrcharset",
                ]),
                st.binary(max_size=20),
            ),
            max_size=4,
        ).map(lambda records: b"".join(pax_record(*record) for record in records)),
    ),
    size=st.one_of(st.none(), st.integers(0, 2000), st.binary(max_size=12)),
    mode=fields,
    uid=fields,
    gid=fields,
    mtime=st.binary(max_size=12),
    link=st.binary(max_size=100),
    magic=st.sampled_from([b"ustar\x0000", b"ustar  \0", b"\0" * 8]),
    prefix=st.binary(max_size=155),
)  # fmt: skip


@settings(max_examples=1000, deadline=None)
@given(st.lists(headers, max_size=5), st.binary(max_size=600))
@example([pax((b"size", b"5")), member("x", data=b"12345", size=0)], b"")
def test_fuzz_headers_with_good_checksums(members: list[bytes], tail: bytes) -> None:
    survives(b"".join(members) + tail)


def test_flipped_bits_of_a_real_archive_never_crash_the_reader() -> None:
    data = archive(
        *GOOD, directory("d"), symlink("d/l", "x"), hardlink("d/h", "a"), gnu_long(b"n" * 300),
        member("x", data=b"C" * 5), pax((b"SCHILY.xattr.user.x", b"y"), (b"mtime", b"1.5")),
        member("z"),
    )  # fmt: skip
    choice = random.Random(1)
    for _ in range(4000):
        position = choice.randrange(len(data))
        flipped = bytearray(data)
        flipped[position] ^= 1 << choice.randrange(8)
        if position % 2:
            # Let the header itself pass, so that the field's own rule must decide.
            start = position // BLOCK * BLOCK
            block = flipped[start : start + BLOCK]
            block[148:156] = b" " * 8
            flipped[start + 148 : start + 156] = b"%06o\0 " % sum(block)
        survives(bytes(flipped))
