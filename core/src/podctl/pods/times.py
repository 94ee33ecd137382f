"""Points in time and durations as rkt writes and reads them."""

from __future__ import annotations

import time

from podctl.errors import UsageError

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
#: (below this many seconds, seconds in one unit, its name)
_STEPS = (
    (60, 1, "second"),
    (3600, 60, "minute"),
    (86400, 3600, "hour"),
    (604800, 86400, "day"),
    (2592000, 604800, "week"),
    (31536000, 2592000, "month"),
    (float("inf"), 31536000, "year"),
)


def ago(moment: float, now: float) -> str:
    """A moment (seconds since the epoch) as seen from `now`: `2 minutes ago`, `now`."""
    distance = abs(now - moment)
    if distance < 1:
        return "now"
    index = 0
    while distance >= _STEPS[index][0]:
        index += 1
    _, size, name = _STEPS[index]
    count = int(distance // size)
    return f"{count} {name}{'' if count == 1 else 's'} {'ago' if now >= moment else 'from now'}"


def absolute(moment: float) -> str:
    """A moment as `2006-01-02 15:04:05.999 -0700 MST`, in local time; zeros at the end left out."""
    whole, thousandths = divmod(int(moment * 1000), 1000)
    local = time.localtime(whole)
    fraction = f".{thousandths:03}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%d %H:%M:%S", local) + fraction + time.strftime(" %z %Z", local)


def parse_duration(text: str, option: str) -> float:
    """Read a duration such as `30m`, `1h30m`, `1.5s` or `0`; return seconds.

    Raises:
        UsageError: it is no duration, or is negative.
    """
    rest = text
    total = 0.0
    if text == "0":
        return total
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        letters = len(rest) - len(rest.lstrip("nuµmsh"))
        unit, rest = rest[:letters], rest[letters:]
        if unit not in _UNITS or not _is_number(number):
            break
        total += float(number) * _UNITS[unit]
    else:
        if text:
            return total
    raise UsageError(
        f'{option}: "{text}" is not a duration', hint="write it like 30m, 1h30m or 10s"
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 20


def duration_text(seconds: float) -> str:
    """A duration as `30m0s`, `24h0m0s`, `1.5s`."""
    whole = int(seconds)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    fraction = f"{seconds - whole:.3f}"[1:].rstrip("0").rstrip(".")
    text = f"{second}{fraction}s"
    if minutes:
        text = f"{minute}m{text}"
    return f"{hours}h{text}" if hours else text
