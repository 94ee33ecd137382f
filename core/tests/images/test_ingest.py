"""One pass over the bytes of an image: what is kept and passed on, what is refused and when."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from podctl.errors import (
    ArchiveInvalid,
    BrokenStream,
    DigestMismatch,
    FetchFailed,
    PodctlError,
    TrustRefused,
)
from podctl.images.ingest import Expectation, Intake, ingest, ingested_from_json
from podctl.model.layout import ArchiveLimits
from podctl.model.trusting import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

TAR = b"".join(b"%d " % (number * number) for number in range(100_000))
BLOBS = {
    "gzip": gzip.compress(TAR, mtime=0),
    "zstd": zstandard.ZstdCompressor().compress(TAR),
    "none": TAR,
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def expected(kind: str = "gzip", **changed: Any) -> Expectation:
    """What a manifest says of a blob, if it tells the truth."""
    blob = BLOBS[kind]
    right = Expectation(f"sha256:{sha256(blob)}", len(blob), f"sha256-{sha256(TAR)}", kind)
    return right._replace(**changed)


class Pass:
    """One pass: what went through it, and what is kept of it."""

    def __init__(self, path: Path) -> None:
        self.kept_fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.unpacked = b""

    def kept(self) -> bytes:
        return os.pread(self.kept_fd, 64 << 20, 0)

    def run(
        self,
        fill: Callable[[Intake], object],
        expected: Expectation | None = None,
        *,
        max_bytes: int = 1 << 30,
        limits: ArchiveLimits | None = None,
        verifier: Any = None,
    ) -> dict[str, Any]:
        """Fill an intake, and read what it unpacks to as the unpack child would."""
        read, write = os.pipe()

        def unpack() -> None:
            with open(read, "rb") as stream:
                self.unpacked = stream.read()

        reader = threading.Thread(target=unpack)
        reader.start()
        intake = Intake(
            kept_fd=self.kept_fd, verifier=verifier, max_bytes=max_bytes, expected=expected
        )
        try:
            limits = ArchiveLimits() if limits is None else limits
            return ingest(fill, intake, write, limits, verifier=verifier, expected=expected)
        finally:
            # Who writes to it closes it at its own end alone.
            with suppress(OSError):
                os.close(write)
            reader.join()


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Pass]:
    one = Pass(tmp_path / "kept")
    yield one
    os.close(one.kept_fd)


def pieces(data: bytes, size: int = 4096) -> Callable[[Intake], None]:
    def fill(intake: Intake) -> None:
        for at in range(0, len(data), size):
            intake.write(data[at : at + size])

    return fill


@pytest.mark.parametrize("kind", BLOBS)
@pytest.mark.parametrize("size", [1000, 1 << 20, 8 << 20])
def test_bytes_are_kept_and_unpacked_in_one_pass(one: Pass, kind: str, size: int) -> None:
    found = ingested_from_json(one.run(pieces(BLOBS[kind], size), expected(kind)))
    assert one.kept() == BLOBS[kind]
    assert one.unpacked == TAR
    assert found[:5] == (
        f"sha256:{sha256(BLOBS[kind])}",
        len(BLOBS[kind]),
        f"sha256-{sha256(TAR)}",
        len(TAR),
        kind,
    )


def test_without_expectation_an_image_is_named_by_its_sha512(one: Pass) -> None:
    found = ingested_from_json(one.run(pieces(BLOBS["gzip"])))
    assert found.diff_id == f"sha512-{hashlib.sha512(TAR).hexdigest()}"


# -- what a manifest says --------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 999, 1 << 20])
def test_m1_a_blob_that_is_too_long_is_stopped_at_the_first_byte_too_many(
    one: Pass, chunk: int
) -> None:
    """Whatever the pieces are that it comes in: nothing behind the last byte is kept or read."""
    blob = BLOBS["gzip"][:5000]
    given: list[int] = []

    def fill(intake: Intake) -> None:
        while True:
            intake.write(bytes(chunk) if given else blob)
            given.append(chunk)

    wanted = expected(size=len(blob), blob=f"sha256:{sha256(blob)}")
    with pytest.raises(DigestMismatch, match=r"has more than the 5000 bytes its manifest says"):
        one.run(fill, wanted)
    assert given == [chunk]
    assert one.kept() == blob


def test_m1_a_blob_that_is_too_short_is_refused(one: Pass) -> None:
    """Though it is a whole compressed stream."""
    wanted = expected(size=len(BLOBS["gzip"]) + 1)
    with pytest.raises(DigestMismatch, match="its manifest says"):
        one.run(pieces(BLOBS["gzip"]), wanted)


def test_m1_a_blob_of_another_digest_is_refused(one: Pass) -> None:
    other = gzip.compress(TAR[:-1] + b"!", mtime=0).ljust(len(BLOBS["gzip"]), b"\0")
    wanted = expected(size=len(other))
    with pytest.raises(PodctlError) as caught:
        one.run(pieces(other), wanted)
    assert isinstance(caught.value, DigestMismatch | ArchiveInvalid)


def test_z8_what_it_unpacks_to_must_be_what_the_configuration_says(one: Pass) -> None:
    wanted = expected(diff_id=f"sha256-{sha256(b'other')}")
    with pytest.raises(DigestMismatch, match="its configuration says"):
        one.run(pieces(BLOBS["gzip"]), wanted)


@pytest.mark.parametrize("kind", BLOBS)
@pytest.mark.parametrize("declared", BLOBS)
def test_z7_what_is_declared_must_be_so(one: Pass, kind: str, declared: str) -> None:
    """Plain bytes are what they are; whoever declares them cannot be contradicted but by digest."""
    wanted = expected(kind, compression=declared)
    if kind == declared:
        one.run(pieces(BLOBS[kind]), wanted)
        return
    with pytest.raises(PodctlError) as caught:
        one.run(pieces(BLOBS[kind]), wanted)
    assert isinstance(caught.value, DigestMismatch | ArchiveInvalid)


# -- an end too early, or too late ---------------------------------------------------------------


def test_z4_bytes_behind_a_compressed_stream_are_refused(one: Pass) -> None:
    blob = BLOBS["zstd"] + b"more"
    wanted = expected("zstd", size=len(blob), blob=f"sha256:{sha256(blob)}")
    with pytest.raises(ArchiveInvalid):
        one.run(pieces(blob), wanted)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@pytest.mark.parametrize("left", [0, 1, 10, 1000, -1])
def test_z5_a_truncated_stream_is_refused(one: Pass, kind: str, left: int) -> None:
    blob = BLOBS[kind][:left]
    wanted = expected(kind, size=len(blob), blob=f"sha256:{sha256(blob)}")
    with pytest.raises(ArchiveInvalid):
        one.run(pieces(blob), wanted)


def test_z1_a_bomb_is_stopped_while_it_is_read(one: Pass) -> None:
    bomb = gzip.compress(bytes(64 << 20), mtime=0)
    limits = ArchiveLimits(ratio=10, ratio_floor=1 << 20)
    with pytest.raises(ArchiveInvalid):
        one.run(pieces(bomb), limits=limits)
    assert len(one.unpacked) < 8 << 20


def test_an_image_beyond_the_cap_is_stopped(one: Pass) -> None:
    with pytest.raises(FetchFailed, match="larger than the cap of 5000 bytes"):
        one.run(pieces(TAR), max_bytes=5000)
    assert len(one.kept()) < 5000 + 4096 + 1


# -- who fails -------------------------------------------------------------------------------------


def test_the_cause_is_told_whichever_thread_it_is_in(one: Pass) -> None:
    class Lost(FetchFailed):
        pass

    def lose(intake: Intake) -> None:
        intake.write(BLOBS["gzip"][:1000])
        raise Lost("the connection broke")

    with pytest.raises(Lost):
        one.run(lose, expected())
    with pytest.raises(ArchiveInvalid):
        one.run(pieces(b"\x1f\x8b\x08garbage" * 100_000), expected(size=1 << 30))


def test_a_source_that_goes_on_after_a_refusal_is_stopped(one: Pass) -> None:
    """What decompresses gives up; what fills learns of it at its next write, not at its end."""

    def fill(intake: Intake) -> None:
        while True:
            intake.write(b"\x1f\x8b\x08garbage" * 1000)

    with pytest.raises(ArchiveInvalid):
        one.run(fill)


def test_who_unpacks_may_end_first(one: Pass) -> None:
    """Its own message says why; this one only that the stream broke."""
    read, write = os.pipe()
    os.close(read)
    intake = Intake(kept_fd=None, verifier=None, max_bytes=1 << 30)
    with pytest.raises(BrokenStream, match="refused while it was unpacked"):
        ingest(pieces(BLOBS["gzip"]), intake, write, ArchiveLimits())
    os.close(write)


def test_no_thread_is_left_whatever_happens(one: Pass) -> None:
    before = threading.active_count()
    for blob in (BLOBS["gzip"], BLOBS["gzip"][:-4], b"garbage" * 1000):
        with suppress(PodctlError):
            one.run(pieces(blob), expected(size=len(blob)))
        os.ftruncate(one.kept_fd, 0)
        os.lseek(one.kept_fd, 0, os.SEEK_SET)
    assert threading.active_count() == before


# -- continuing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [0, 1, 5000, 300_000])
def test_what_is_here_already_is_read_before_what_comes(one: Pass, begun: int) -> None:
    blob = BLOBS["none"]
    os.write(one.kept_fd, blob[:begun] + b"from another story")

    def fill(intake: Intake) -> None:
        intake.begin(begun)
        pieces(blob[begun:])(intake)

    found = ingested_from_json(one.run(fill, expected("none")))
    assert found.blob == f"sha256:{sha256(blob)}"
    assert one.kept() == blob
    assert one.unpacked == TAR


def test_a_source_cannot_begin_beyond_what_is_here(one: Pass) -> None:
    os.write(one.kept_fd, b"short")
    with pytest.raises(FetchFailed, match="resumed beyond"):
        one.run(lambda intake: intake.begin(6), expected())


# -- signatures ------------------------------------------------------------------------------------


class Check:
    """A verifier that remembers what it was fed."""

    def __init__(self, *, good: bool) -> None:
        self.data = b""
        self._good = good

    def update(self, data: bytes) -> None:
        self.data += data

    def finish(self) -> Verdict:
        if not self._good:
            raise TrustRefused("bad signature")
        return Verdict("scheme", "ABCD", "me", ("me <me@example.com>",), 1, None, ("a note",))


def test_the_signature_is_checked_over_the_bytes_that_are_kept(one: Pass) -> None:
    check = Check(good=True)
    found = ingested_from_json(one.run(pieces(BLOBS["gzip"]), verifier=check))
    assert check.data == one.kept() == BLOBS["gzip"]
    assert found.verdict == Check(good=True).finish()
    with pytest.raises(TrustRefused):
        one.run(pieces(BLOBS["gzip"]), verifier=Check(good=False))
