"""zstd frames by whichever library is there: the standard one, its backport, or `zstandard`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podctl.errors import HostLacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.images.compression import Frame


def codec(window_log: int) -> tuple[Callable[[], Frame], tuple[type[BaseException], ...]]:
    """Return what makes a frame's decoder with a window of at most 2**`window_log` bytes, and
    the errors it raises on bad input.

    Raises:
        HostLacks: no library is installed.
    """
    try:
        return _standard(window_log)
    except ImportError:
        pass
    try:
        return _zstandard(window_log)
    except ImportError:
        raise HostLacks(
            "zstd: no library to decompress it is installed",
            hint="install backports.zstd, or Debian's python3-zstandard",
        ) from None


def _standard(window_log: int) -> tuple[Callable[[], Frame], tuple[type[BaseException], ...]]:
    import importlib

    try:
        zstd: Any = importlib.import_module("compression.zstd")  # Python 3.14
    except ImportError:
        zstd = importlib.import_module("backports.zstd")
    options = {zstd.DecompressionParameter.window_log_max: window_log}
    return lambda: zstd.ZstdDecompressor(options=options), (zstd.ZstdError, MemoryError)


def _zstandard(window_log: int) -> tuple[Callable[[], Frame], tuple[type[BaseException], ...]]:
    import importlib

    zstandard: Any = importlib.import_module("zstandard")
    window = 1 << window_log
    return (
        lambda: _BlockwiseFrame(
            zstandard.ZstdDecompressor(max_window_size=window).decompressobj(), zstandard.ZstdError
        ),
        (zstandard.ZstdError, MemoryError),
    )


class _BlockwiseFrame:
    """A frame fed to `zstandard` block by block (RFC 8878 3.1.1).

    Its push interface knows no bound on output, and its readers end silently where the input ends.
    A block expands to at most 128 KiB, so giving it one at a time bounds the output, and the last
    block's flag says where the frame must end.
    """

    def __init__(self, decoder: Any, error: type[Exception]) -> None:
        self._decoder = decoder
        self._error = error
        self._input = b""
        self._output = b""
        self._checksum = False
        self._begun = False
        self._complete = False
        self._starved = True
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        return self._complete and not self._output

    @property
    def needs_input(self) -> bool:
        return self._starved and not self._output and not self._complete

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._input += data
        pieces = [self._output]
        have = len(self._output)
        at = 0
        self._starved = False
        while have < max_length and not self._complete:
            size = self._unit(at)
            if size == 0 or at + size > len(self._input):
                self._starved = True
                break
            piece = self._decoder.decompress(self._input[at : at + size])
            pieces.append(piece)
            have += len(piece)
            at += size
        self._input = self._input[at:]
        if self._complete:
            self.unused_data = self._input
        output = b"".join(pieces)
        self._output = output[max_length:]
        return output[:max_length]

    def _unit(self, at: int) -> int:
        """Length of the frame header or block (with checksum, if last) at `at`; 0: unknown yet."""
        data = self._input
        if not self._begun:
            return self._frame_header(at)
        if len(data) < at + 3:
            return 0
        head = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        if kind == 3:
            raise self._error("reserved block type")
        unit = 3 + (1 if kind == 1 else size)
        if last:
            unit += 4 if self._checksum else 0
            self._complete = len(data) >= at + unit
        return unit

    def _frame_header(self, at: int) -> int:
        data = self._input
        if len(data) < at + 5:
            return 0
        flags = data[at + 4]
        single = flags >> 5 & 1
        content = (single, 2, 4, 8)[flags >> 6]
        unit = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + content
        self._checksum = bool(flags & 4)
        self._begun = len(data) >= at + unit
        return unit
