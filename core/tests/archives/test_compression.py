"""Compressed streams, good and hostile (catalogue Z1-Z8), by every library that may serve."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import struct
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from archive_lab import LIMITS, Dribble, archive, directory, member, run, unpack_to
from hypothesis import example, given, settings
from hypothesis import strategies as st

from podctl.errors import ArchiveInvalid, HostLacks
from podctl.images import compression, zstd
from podctl.images.compression import decompressor, sniff
from podctl.model.layout import ArchiveLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
TEXT = b"".join(b"line %d of a text that compresses\n" % n for n in range(3000))


def zstd_compress(data: bytes, *options: str) -> bytes:
    return run(["zstd", "-q", "-c", *options], input=data).stdout


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd_compress,
}
#: (format, library): what may serve, each run through every test.
BACKENDS = [
    ("gzip", "isal"),
    ("gzip", "zlib"),
    ("bzip2", "bz2"),
    ("xz", "lzma"),
    ("zstd", "backports.zstd"),
    ("zstd", "zstandard"),
]


@pytest.fixture(params=BACKENDS, ids=lambda backend: "-".join(backend))
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a format that the chosen library serves alone."""
    name, library = request.param
    choose(library, monkeypatch)
    return str(name)


@pytest.fixture(params=["isal", "zlib"])
def gzip_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(request.param, monkeypatch)


@pytest.fixture(params=["backports.zstd", "zstandard"])
def zstd_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(request.param, monkeypatch)


def choose(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the other libraries of the format impossible to import."""
    if library == "zlib":
        monkeypatch.setitem(sys.modules, "isal.igzip_lib", None)
    if library == "zstandard":
        monkeypatch.setitem(sys.modules, "compression.zstd", None)
        monkeypatch.setitem(sys.modules, "backports.zstd", None)
    if library == "backports.zstd":
        monkeypatch.setitem(sys.modules, "zstandard", None)


def read(
    data: bytes | Any, declared: str | None = None, limits: ArchiveLimits = LIMITS, size: int = MIB
) -> bytes:
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    reader = decompressor(source, declared=declared, limits=limits)
    pieces = []
    while piece := reader.read(size):
        assert len(piece) <= size
        pieces.append(piece)
    return b"".join(pieces)


def refused(data: bytes | Any, match: str | None = None, **options: Any) -> None:
    with pytest.raises(ArchiveInvalid, match=match) as caught:
        read(data, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"x", TEXT, os.urandom(300_000), bytes(5 * MIB)],
                         ids=["empty", "byte", "text", "random", "zeros"])  # fmt: skip
@pytest.mark.parametrize("size", [1000, 65536, MIB])
def test_good_streams_read_back(backend: str, content: bytes, size: int) -> None:
    packed = COMPRESS[backend](content)
    assert read(packed, size=size) == content
    assert read(packed, backend, size=size) == content
    assert read(Dribble(packed), size=size) == content


def test_good_streams_of_several_frames_read_back(backend: str) -> None:
    compress = COMPRESS[backend]
    packed = compress(TEXT) + compress(b"") + compress(b"second") + compress(bytes(3 * MIB))
    for source in (packed, Dribble(packed)):
        assert read(source) == TEXT + b"second" + bytes(3 * MIB)


def test_counts_what_went_in_and_came_out(backend: str) -> None:
    packed = COMPRESS[backend](TEXT)
    reader = decompressor(io.BytesIO(packed), declared=None, limits=LIMITS)
    while reader.read(100):
        pass
    assert (reader.name, reader.consumed, reader.produced) == (backend, len(packed), len(TEXT))


def test_plain_bytes_pass() -> None:
    assert read(TEXT) == read(Dribble(TEXT)) == read(TEXT, "none") == TEXT
    assert read(b"x") == b"x"
    reader = decompressor(io.BytesIO(TEXT), declared=None, limits=LIMITS)
    assert (reader.name, len(reader.read(7))) == ("none", 7)


def test_streams_of_the_usual_programs_read_back(backend: str) -> None:
    for level in ("-1", "-9"):
        packed = run([backend, level, "-c"], input=TEXT).stdout
        assert read(packed) == TEXT


# --- Z1, Z3 bombs ---


class Endless:
    """A source that repeats a period after a head, without holding it."""

    def __init__(self, *pieces: bytes, count: int = 1 << 40) -> None:
        self._pieces: Iterator[bytes] = iter(pieces[:-1])
        self._last, self._count = pieces[-1], count

    def read(self, size: int, /) -> bytes:
        piece = next(self._pieces, None)
        if piece is None:
            self._count -= 1
            piece = self._last if self._count >= 0 else b""
        return piece


def test_z1_z3_bombs_stop_at_the_ratio(backend: str) -> None:
    """Zeros, until more than 1000 times (here: 50 times) as much comes out as went in."""
    limits = ArchiveLimits(ratio=50, ratio_floor=4 * MIB)
    packed = COMPRESS[backend](bytes(64 * MIB))
    reader = decompressor(io.BytesIO(packed), declared=None, limits=limits)
    with pytest.raises(ArchiveInvalid, match="expands more than 50 times"):
        while reader.read(MIB):
            pass
    assert reader.produced <= len(packed) * 50 + 5 * MIB


def test_z1_ratio_below_the_floor_is_allowed(backend: str) -> None:
    limits = ArchiveLimits(ratio=2, ratio_floor=2 * MIB)
    assert len(read(COMPRESS[backend](bytes(2 * MIB)), limits=limits)) == 2 * MIB


def test_z1_ten_gigabytes_of_zeros_are_refused_at_the_default_cap(gzip_library: None) -> None:
    """deflate's best is 1032:1, just above the cap; the stream is never finished."""
    work = zlib.compressobj(9, wbits=31)
    head = work.compress(bytes(MIB)) + work.flush(zlib.Z_FULL_FLUSH)
    body = work.compress(bytes(64 * MIB)) + work.flush(zlib.Z_FULL_FLUSH)
    refused(Endless(head, body), "expands more than 1000 times")


def test_z1_nested_archive_is_not_unpacked_twice() -> None:
    inner = gzip.compress(archive(member("x")))
    assert read(gzip.compress(inner)) == inner
    with pytest.raises(ArchiveInvalid):
        unpack_to(None, read(gzip.compress(inner)))


def test_z1_flood_of_empty_members_ends(
    gzip_library: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "MAX_FRAMES", 5000)
    empty = gzip.compress(b"", mtime=0)
    assert read(empty * 5000) == b""
    refused(Endless(empty * 1000), "more than 5000 frames")


def resident_peak(data: bytes, hidden: str = "") -> int:
    """Decompress in a new interpreter, without a library; return its peak resident memory."""
    program = (
        "import sys\n"
        "from podctl.errors import ArchiveInvalid\n"
        "from podctl.images.compression import decompressor\n"
        "from podctl.model.layout import ArchiveLimits\n"
        "if sys.argv[1]: sys.modules[sys.argv[1]] = None\n"
        "try:\n"
        "    limits = ArchiveLimits(ratio=10**9)\n"
        "    r = decompressor(sys.stdin.buffer, declared=None, limits=limits)\n"
        "    while r.read(1 << 20): pass\n"
        "except ArchiveInvalid: pass\n"
        "print([line for line in open('/proc/self/status') if 'VmHWM' in line][0].split()[1])\n"
    )
    return int(run([sys.executable, "-c", program, hidden], input=data).stdout) * 1024


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("gzip", ""),
        ("gzip", "isal.igzip_lib"),
        ("bzip2", ""),
        ("zstd", ""),
        ("zstd", "backports.zstd"),
    ],
)
def test_memory_of_a_bomb_stays_below_the_ceiling(name: str, hidden: str) -> None:
    assert resident_peak(COMPRESS[name](bytes(66 * MIB)), hidden) < 64 * MIB


def test_memory_of_the_largest_windows_stays_below_the_ceiling() -> None:
    packed = lzma.compress(bytes(70 * MIB), preset=9)
    assert 64 * MIB < resident_peak(packed) < 128 * MIB
    packed = zstd_compress(bytes(200 * MIB), "--long=27", "-1")
    for hidden in ("", "backports.zstd"):
        assert 128 * MIB < resident_peak(packed, hidden) < 200 * MIB


# --- Z2 zstd ---


@pytest.mark.parametrize(("log", "good"), [(20, True), (27, True), (28, False), (31, False)])
def test_z2_window_is_capped_at_128_mib(zstd_library: None, log: int, good: bool) -> None:
    packed = zstd_compress(TEXT, f"--long={log}", "--ultra", "-1")
    header = bytearray(packed)
    assert header[4] & 0x20 == 0, "has a window descriptor"
    assert header[5] >> 3 == log - 10
    if good:
        assert read(packed) == TEXT
    else:
        refused(packed)


SKIPPABLE = struct.pack("<II", 0x184D2A53, 5) + b"skip!"


def test_z2_skippable_frames_are_passed_over(zstd_library: None) -> None:
    packed = SKIPPABLE + zstd_compress(TEXT) + SKIPPABLE * 2 + zstd_compress(b"end") + SKIPPABLE
    for source in (packed, Dribble(packed)):
        assert read(source) == TEXT + b"end"


@pytest.mark.parametrize(
    "packed",
    [
        SKIPPABLE[:9],
        struct.pack("<II", 0x184D2A50, 0xFFFFFFFF) + b"short",
        zstd_compress(TEXT) + SKIPPABLE[:-1],
        zstd_compress(TEXT) + SKIPPABLE[:6],
    ],
)
def test_z2_skippable_frame_cut_short_is_refused(zstd_library: None, packed: bytes) -> None:
    refused(packed)


def test_z2_endless_skippable_frame_takes_no_memory(zstd_library: None) -> None:
    head = struct.pack("<II", 0x184D2A50, 0x7FFFFFFF)
    refused(Endless(head, bytes(MIB), count=200), "cut short inside a skippable frame")


def test_z2_dictionary_is_refused(zstd_library: None, tmp_path: Any) -> None:
    samples = [tmp_path / str(n) for n in range(200)]
    for number, sample in enumerate(samples):
        sample.write_bytes(TEXT[number * 100 : number * 100 + 800])
    dictionary = tmp_path / "dictionary"
    run(["zstd", "-q", "--train", *samples, "-o", dictionary, "--maxdict=4096"])
    refused(zstd_compress(TEXT, "-D", str(dictionary)))


@pytest.mark.parametrize("header", [b"\x08", b"\x18", b"\xff", b"\x04\x00\x07\x00\x00"])
def test_z2_malformed_frames_are_refused(zstd_library: None, header: bytes) -> None:
    refused(b"\x28\xb5\x2f\xfd" + header + bytes(100))


def test_without_a_zstd_library_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    choose("zstandard", monkeypatch)
    choose("backports.zstd", monkeypatch)
    with pytest.raises(HostLacks, match="zstandard"):
        read(zstd_compress(TEXT))


def test_zstandard_is_never_asked_for_more_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its push interface would return a whole bomb at once."""
    choose("zstandard", monkeypatch)
    packed = zstd_compress(bytes(100 * MIB))
    new, _ = zstd.codec(27)
    frame = new()
    assert len(frame.decompress(packed, 1000)) == 1000
    assert not frame.eof
    assert len(frame._output) <= 128 << 10  # type: ignore[attr-defined]


# --- Z3 xz ---


def test_z3_xz_dictionary_of_4_gib_is_refused() -> None:
    """The dictionary's size stands in one byte of the block header."""
    packed = bytearray(lzma.compress(TEXT, preset=6))
    start = packed.index(b"\x21\x01", 12)
    for value in (40, 39, 34):
        packed[start + 2] = value
        size = (packed[12] + 1) * 4
        packed[12 + size - 4 : 12 + size] = struct.pack(
            "<I", zlib.crc32(packed[12 : 12 + size - 4])
        )
        refused(bytes(packed), "[Mm]emory")


def test_z3_xz_of_the_highest_preset_fits() -> None:
    assert read(lzma.compress(TEXT, preset=9 | lzma.PRESET_EXTREME)) == TEXT


@pytest.mark.parametrize("check", [lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_SHA256])
def test_xz_checks(check: int) -> None:
    packed = lzma.compress(TEXT, check=check)
    assert read(packed) == TEXT


def test_z3_lzma_alone_format_is_not_xz() -> None:
    assert sniff(lzma.compress(TEXT, format=lzma.FORMAT_ALONE)) == "none"


# --- Z4 gzip members ---


def gzip_member(
    content: bytes = TEXT,
    *,
    flags: int = 0,
    extra: bytes = b"",
    crc: int | None = None,
    size: int | None = None,
    method: int = 8,
) -> bytes:
    work = zlib.compressobj(wbits=-15)
    body = work.compress(content) + work.flush()
    trailer = struct.pack(
        "<II",
        zlib.crc32(content) if crc is None else crc,
        len(content) & 0xFFFFFFFF if size is None else size,
    )
    return bytes([0x1F, 0x8B, method, flags, 0, 0, 0, 0, 0, 3]) + extra + body + trailer


HEADER_CRC = bytes([0x1F, 0x8B, 8, 2, 0, 0, 0, 0, 0, 3])


@pytest.mark.parametrize(
    "packed",
    [
        gzip_member(flags=4, extra=struct.pack("<H", 65535) + os.urandom(65535)),
        gzip_member(flags=8, extra=b"n" * 3 * MIB + b"\0"),
        gzip_member(flags=16, extra=b"c" * 3 * MIB + b"\0"),
        gzip_member(flags=1),
        gzip_member(flags=2, extra=struct.pack("<H", zlib.crc32(HEADER_CRC) & 0xFFFF)),
        gzip_member() + gzip_member(b"") + gzip_member(b""),
    ],
    ids=["extra", "name", "comment", "text", "header crc", "members"],
)
def test_z4_unusual_members_are_good(gzip_library: None, packed: bytes) -> None:
    assert read(packed) == TEXT
    assert read(Dribble(packed)) == TEXT


@pytest.mark.parametrize(
    "packed",
    [
        gzip_member(crc=1),
        gzip_member(size=len(TEXT) + 1),
        gzip_member(size=0),
        gzip_member(method=7),
        gzip_member(flags=0x20),
        gzip_member(flags=0x80),
        gzip_member(flags=2, extra=b"\0\0"),
        gzip_member(b"first") + gzip_member(crc=1),
        gzip_member(b"first") + gzip_member(flags=0x40),
        gzip_member() + b"garbage",
        gzip_member() + b"\0",
        gzip_member() + bytes(512),
        gzip_member() + b"\x1f\x8b",
        gzip_member() + b"\x1f\x8b\x08",
        gzip_member() + gzip_member()[:-1],
        gzip_member() + bz2.compress(TEXT),
        gzip_member()[:10] + b"\xff" * 100,
    ],
)
def test_z4_bad_members_are_refused(gzip_library: None, packed: bytes) -> None:
    # A stream whose first member has an unknown method does not sniff as gzip: declare it.
    refused(packed, declared="gzip")
    refused(Dribble(packed), declared="gzip")


@pytest.mark.parametrize("tail", [b"garbage", b"\0", bytes(4), b"\n"])
def test_z4_bytes_after_any_stream_are_refused(backend: str, tail: bytes) -> None:
    refused(COMPRESS[backend](TEXT) + tail, "bytes after its end")


def test_z4_frame_of_another_format_is_refused(backend: str) -> None:
    for other, compress in COMPRESS.items():
        if other != backend:
            refused(COMPRESS[backend](TEXT) + compress(TEXT), "bytes after its end")


# --- Z5, Z6 every byte ---


def small_layer() -> bytes:
    choice = random.Random(5)
    return archive(
        directory("d"),
        *[member(f"d/{n}", data=choice.randbytes(choice.randrange(900))) for n in range(8)],
    )


def test_z5_truncated_at_every_byte_is_refused(backend: str) -> None:
    packed = COMPRESS[backend](small_layer())
    assert len(packed) > 3000
    for length in range(len(packed)):
        with pytest.raises(ArchiveInvalid):
            read(packed[:length], declared=backend)


@pytest.mark.parametrize("library", ["isal", "zlib"])
def test_z5_truncated_layer_of_64_kib_at_every_byte(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """65,536 lengths in one pass: all that was read of a prefix must still lack its end."""
    choose(library, monkeypatch)
    packed = COMPRESS["gzip"](random.Random(6).randbytes(65_480))[:65_536]
    source = Hungry(packed)
    reader = decompressor(source, declared="gzip", limits=LIMITS)
    with pytest.raises(ArchiveInvalid, match="cut short"):
        while True:
            assert reader.read(MIB), "ended before its last byte"
    assert source.asked > len(packed) - 16


class Hungry:
    """A source that gives one byte a time, all but the last."""

    def __init__(self, data: bytes) -> None:
        self._data = data[:-1]
        self.asked = 0

    def read(self, size: int, /) -> bytes:
        self.asked += 1
        return self._data[self.asked - 1 : self.asked]


def test_z5_control_lenient_reader_takes_a_truncated_layer() -> None:
    packed = gzip.compress(small_layer(), mtime=0)
    assert zlib.decompressobj(31).decompress(packed[:-8]) == small_layer()


def checked(name: str, data: bytes) -> bool:
    """Whether the format itself protects the data with a checksum (zstd's is optional)."""
    return name != "zstd" or bool(data[4] & 4)


def test_z6_flipped_bit_is_refused_or_changes_nothing(backend: str) -> None:
    """Of what is stored unprotected (a gzip name, a time) the blob's digest takes care."""
    content = small_layer()
    packed = COMPRESS[backend](content)
    assert checked(backend, packed)
    choice = random.Random(7)
    outcomes: set[bool | None] = set()
    for _ in range(1500):
        flipped = bytearray(packed)
        flipped[choice.randrange(len(packed))] ^= 1 << choice.randrange(8)
        try:
            outcomes.add(read(bytes(flipped), declared=backend) == content)
        except ArchiveInvalid:
            outcomes.add(None)
        assert hashlib.sha256(flipped).digest() != hashlib.sha256(packed).digest()
    assert False not in outcomes
    assert None in outcomes


def test_z6_control_without_the_checksum_a_flip_goes_through() -> None:
    content = small_layer()
    packed = gzip.compress(content, mtime=0)
    choice = random.Random(8)
    silent = 0
    for _ in range(300):
        flipped = bytearray(packed)
        flipped[choice.randrange(20, len(packed) - 8)] ^= 1 << choice.randrange(8)
        try:
            silent += zlib.decompressobj(-15).decompress(bytes(flipped[10:])) != content
        except zlib.error:
            continue
    assert silent > 0


# --- Z7, Z8 ---


@pytest.mark.parametrize("declared", [*COMPRESS, "none"])
@pytest.mark.parametrize("actual", [*COMPRESS, "none"])
def test_z7_declared_and_actual_must_agree(declared: str, actual: str) -> None:
    content = small_layer()
    packed = COMPRESS[actual](content) if actual != "none" else content
    if declared == actual:
        assert read(packed, declared) == content
    else:
        refused(packed, f"declared as {declared}, but its bytes say {actual}", declared=declared)


@pytest.mark.parametrize("name", [b"BZh91-notes", b"BZh", b"\x1f\x8b-odd", b"7zXZ", b"(\xb5/x"])
def test_z7_tar_whose_first_name_looks_compressed_is_a_tar(name: bytes) -> None:
    data = archive(member(name, data=b"1"))
    assert sniff(data) == "none"
    assert unpack_to(None, read(data)).entries == 1


@pytest.mark.parametrize("declared", [*COMPRESS, "none", None])
def test_empty_stream_is_refused(declared: str | None) -> None:
    refused(b"", "empty", declared=declared)


def test_z8_digest_of_the_decompressed_bytes_is_of_all_of_them(backend: str) -> None:
    """What a diff id is compared with: two archives that unpack alike are told apart."""
    content = small_layer()
    digests = set()
    for data in (content, content + bytes(512), content[:-1024]):
        digests.add(hashlib.sha512(read(COMPRESS[backend](data))).hexdigest())
        assert unpack_to(None, data).entries == 9
    assert len(digests) == 3


# --- fuzz ---


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"\x1f\x8b\x08\0", b"BZh91AY&SY", b"\xfd7zXZ\0\0\x04", b"\x28\xb5\x2f\xfd",
                     b"\x50\x2a\x4d\x18", b""]),
    st.binary(max_size=400),
)  # fmt: skip
@example(b"\x28\xb5\x2f\xfd", b"\x00")
def test_fuzz_only_the_expected_error_comes(magic: bytes, data: bytes) -> None:
    for library in ("isal", "zlib", "zstandard", "backports.zstd"):
        with pytest.MonkeyPatch.context() as patch:
            choose(library, patch)
            try:
                read(magic + data, limits=ArchiveLimits(ratio=10, ratio_floor=MIB))
            except ArchiveInvalid as error:
                assert "\n" not in error.message


def test_preload_imports_what_decompression_needs() -> None:
    """After it, a process without a file system can decompress."""
    program = (
        "import os, sys, tempfile\n"
        "from podctl.images import compression\n"
        "from podctl.model.layout import ArchiveLimits\n"
        "import io\n"
        "data = [bytes.fromhex(text) for text in sys.argv[1:]]\n"
        "compression.preload()\n"
        "with tempfile.TemporaryDirectory() as root:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os.chroot(root); os.chdir('/')\n"
        "        for one in data:\n"
        "            r = compression.decompressor(\n"
        "                io.BytesIO(one), declared=None, limits=ArchiveLimits())\n"
        "            assert r.read(100) == b'content', r.name\n"
        "        os._exit(0)\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    packed = [compress(b"content").hex() for compress in COMPRESS.values()]
    subprocess.run([sys.executable, "-c", program, *packed], check=True)
