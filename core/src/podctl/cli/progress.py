"""A download's progress on a terminal: one line on standard error, redrawn in place."""

from __future__ import annotations

import sys
import time

#: Seconds between two drawings; more often only costs.
INTERVAL = 0.1
_WIDTH = 30


class ProgressLine:
    """Draws done, total, share and speed; leaves an empty line behind when cleared."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._drawn = 0.0
        self._visible = False

    def __call__(self, done: int, total: int | None) -> None:
        """Take one report: bytes done and total, None when the source did not say."""
        now = time.monotonic()
        finished = done == total
        if now - self._drawn < INTERVAL and not finished:
            return
        self._drawn = now
        speed = done / max(now - self._started, 0.001)
        sys.stderr.write(f"\r\x1b[K{render(done, total, speed)}")
        sys.stderr.flush()
        self._visible = True
        if finished:
            self.clear()

    def clear(self) -> None:
        """Take the line away, so that a message can stand there."""
        if self._visible:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._visible = False


def render(done: int, total: int | None, speed: float) -> str:
    """Return the line for one state.

    Args:
        speed: bytes per second.
    """
    rate = f"{_size(speed)}/s"
    if not total:
        return f"downloading {_size(done)} {rate}"
    share = min(done / total, 1.0)
    bar = ("=" * int(share * _WIDTH)).ljust(_WIDTH)
    return f"downloading [{bar}] {share:4.0%} of {_size(total)} {rate}"


def _size(amount: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
