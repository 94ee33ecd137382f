"""A download's progress on a terminal: lines on standard error, redrawn in place."""

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


class LayerLines:
    """Draws a line for each layer under way; `clear` takes them away."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}
        self._drawn = 0.0
        self._height = 0

    def __call__(self, layer: str, done: int, total: int) -> None:
        """Take one report: the layer's digest, bytes done and in all."""
        self._layers[layer] = done, total
        if done >= total:
            del self._layers[layer]
        now = time.monotonic()
        if self._layers and now - self._drawn < INTERVAL:
            return
        self._drawn = now
        self._draw([render_layer(name, *state) for name, state in self._layers.items()])

    def clear(self) -> None:
        """Take the lines away, so that a message can stand there."""
        self._draw([])

    def _draw(self, lines: list[str]) -> None:
        up = f"\x1b[{self._height}A" if self._height else ""
        if up or lines:
            # \x1b[J clears what stood below, of a longer list.
            sys.stderr.write(f"{up}\r\x1b[J" + "".join(f"{line}\n" for line in lines))
            sys.stderr.flush()
        self._height = len(lines)


def render_layer(layer: str, done: int, total: int) -> str:
    """Return the line of one layer, which is named by the first digits of its digest."""
    share = min(done / total, 1.0) if total else 1.0
    bar = ("=" * int(share * _WIDTH)).ljust(_WIDTH)
    name = layer.partition(":")[2][:12]
    return f"layer {name} [{bar}] {share:4.0%} of {_size(total)}"


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
