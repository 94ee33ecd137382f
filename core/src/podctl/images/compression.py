"""Decompression of a stream of unknown honesty: gzip, bzip2, xz, zstd or none, named by its magic.

The reader gives exactly the bytes of the complete frames (gzip members, bzip2 and xz streams, zstd
frames) and refuses everything else: a stream cut short, bytes after the last frame, a checksum
or length that does not match, a ratio or a window beyond its cap. Memory stays below 160 MiB.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Protocol

from podctl.errors import ArchiveInvalid, HostLacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.model.layout import ArchiveLimits

#: most bytes asked of the source, and given to the caller, at a time.
INPUT = 128 << 10
OUTPUT = 256 << 10
#: memory an xz decoder may ask for; `xz -9` needs 65 MiB (xz(1), "Memory usage").
XZ_MEMORY = 128 << 20
#: log2 of the largest zstd window; RFC 8878 3.1.1.1.2 lets a decoder refuse what it cannot hold.
ZSTD_WINDOW_LOG = 27
#: frames in one stream; bgzip makes one per 64 KiB.
MAX_FRAMES = 1_000_000

_SKIPPABLE = b"\x2a\x4d\x18"


class Source(Protocol):
    """Where bytes come from: `b""` ends it, short reads do not."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes."""


class Frame(Protocol):
    """One decoder for one frame, as in `bz2.BZ2Decompressor`."""

    @property
    def eof(self) -> bool:
        """Whether the frame's end has been reached and its checks passed."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out without new input."""

    @property
    def unused_data(self) -> bytes:
        """What followed the frame's end in the input."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Take all of `data`, return at most `max_length` bytes."""


class Reader:
    """Decompressed bytes of `source`.

    Args:
        name: `gzip`, `bzip2`, `xz`, `zstd` or `none`.
        pending: bytes of the source that were read to find the name.
        limits: for the ratio.

    Attributes:
        consumed: compressed bytes taken from the source.
        produced: decompressed bytes given out.
    """

    def __init__(self, source: Source, name: str, pending: bytes, limits: ArchiveLimits) -> None:
        self.name = name
        self.consumed = len(pending)
        self.produced = 0
        self._source = source
        self._pending = pending
        self._limits = limits
        self._frames = 0
        self._frame: Frame | None = None
        self._new, self._errors = _codec(name)

    def read(self, size: int = OUTPUT) -> bytes:
        """Return at least one and at most `size` bytes; `b""` only at a proper end.

        Raises:
            ArchiveInvalid: the stream breaks its format or passes a cap.
        """
        while True:
            if self._frame is None and not self._next_frame():
                return b""
            output = self._step(min(size, OUTPUT))
            if output:
                self.produced += len(output)
                self._check_ratio()
                return output

    def _step(self, size: int) -> bytes:
        frame = self._frame
        assert frame is not None
        data = b""
        if frame.needs_input:
            data = self._pending or self._fetch()
            self._pending = b""
            if not data:
                raise ArchiveInvalid(f"{self.name} stream: cut short inside a frame")
        try:
            output = frame.decompress(data, size)
        except self._errors as error:
            raise ArchiveInvalid(f"{self.name} stream: {error}") from None
        if frame.eof:
            self._pending = frame.unused_data
            self._frame = None
        return output

    def _fetch(self) -> bytes:
        data = self._source.read(INPUT)
        self.consumed += len(data)
        return data

    def _has(self, size: int) -> bool:
        """Read until `size` bytes are pending; False where the source ends before."""
        while len(self._pending) < size:
            data = self._fetch()
            if not data:
                return False
            self._pending += data
        return True

    def _next_frame(self) -> bool:
        """Begin the next frame; False at the end of the source. Every frame starts anew with the
        format's magic: what does not is garbage, which `gzip -d` would only warn about."""
        while self._has(1):
            if self._frames == MAX_FRAMES:
                raise ArchiveInvalid(f"{self.name} stream: more than {MAX_FRAMES} frames")
            if self._frames and not (self._has(10) and sniff(self._pending) == self.name):
                raise ArchiveInvalid(f"{self.name} stream: bytes after its end")
            self._frames += 1
            if not self._has(8):
                raise ArchiveInvalid(f"{self.name} stream: cut short inside a frame")
            if self.name == "gzip" and self._pending[3] & 0xE0:
                # RFC 1952 2.3.1.2; isal does not look at them.
                raise ArchiveInvalid("gzip stream: reserved header flags are set")
            if self.name == "zstd" and self._pending[1:4] == _SKIPPABLE:
                self._skip_frame()
                continue
            self._frame = self._new()
            return True
        return False

    def _skip_frame(self) -> None:
        """Pass over a zstd skippable frame (RFC 8878 3.1.2)."""
        left = 8 + int.from_bytes(self._pending[4:8], "little")
        while left:
            if not self._has(1):
                raise ArchiveInvalid("zstd stream: cut short inside a skippable frame")
            taken = min(left, len(self._pending))
            self._pending = self._pending[taken:]
            left -= taken

    def _check_ratio(self) -> None:
        limits = self._limits
        if self.produced > limits.ratio_floor:
            used = self.consumed - len(self._pending)
            if self.produced > used * limits.ratio:
                raise ArchiveInvalid(
                    f"{self.name} stream: expands more than {limits.ratio} times"
                    f" (over {limits.ratio_floor} bytes)"
                )


class _PlainReader(Reader):
    """Bytes as they are."""

    def read(self, size: int = OUTPUT) -> bytes:
        output = self._pending[:size]
        self._pending = self._pending[size:]
        if not output:
            output = self._source.read(size)
            self.consumed += len(output)
        self.produced += len(output)
        return output


def sniff(head: bytes) -> str:
    """Name the compression a stream's first 10 bytes announce; `none` where they announce nothing.

    bzip2's magic is taken with the first block's (or the end's), for a tar may well begin with an
    entry whose name starts with `BZh`.
    """
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    if head[:6] == b"\xfd7zXZ\0":
        return "xz"
    if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == _SKIPPABLE and head[0] >> 4 == 5):
        return "zstd"
    if head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return "bzip2"
    return "none"


def decompressor(source: Source, *, declared: str | None, limits: ArchiveLimits) -> Reader:
    """Open a stream whose compression is `declared`, or found by its magic where that is None.

    Raises:
        ArchiveInvalid: the stream is empty, or its magic is not that of `declared`.
        HostLacks: the codec's library is not installed.
    """
    head = b""
    while len(head) < 10:
        data = source.read(INPUT)
        if not data:
            break
        head += data
    if not head:
        raise ArchiveInvalid("archive: the stream is empty")
    name = sniff(head)
    if declared is not None and declared != name:
        raise ArchiveInvalid(f"archive: declared as {declared}, but its bytes say {name}")
    return (_PlainReader if name == "none" else Reader)(source, name, head, limits)


def preload() -> None:
    """Import every codec there is, before privileges and the file system go."""
    for name in ("gzip", "bzip2", "xz", "zstd"):
        try:
            _codec(name)
        except HostLacks:
            continue


def _codec(name: str) -> tuple[Callable[[], Frame], tuple[type[BaseException], ...]]:
    """Return what makes a frame's decoder, and what it raises on bad input."""
    if name == "gzip":
        return _gzip()
    if name == "bzip2":
        import bz2

        return bz2.BZ2Decompressor, (OSError, ValueError)
    if name == "xz":
        import lzma

        return (
            lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY),
            (lzma.LZMAError, MemoryError),
        )
    if name == "zstd":
        from podctl.images.zstd import codec

        return codec(ZSTD_WINDOW_LOG)
    return _Inflate, (zlib.error,)


def _gzip() -> tuple[Callable[[], Frame], tuple[type[BaseException], ...]]:
    """isal inflates about twice as fast as zlib and checks the same trailer; it is optional."""
    import importlib

    try:
        igzip: Any = importlib.import_module("isal.igzip_lib")
    except ImportError:
        return _Inflate, (zlib.error,)
    return lambda: igzip.IgzipDecompressor(flag=igzip.DECOMP_GZIP), (igzip.IsalError,)


class _Inflate:
    """zlib's decompressor with the interface of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
