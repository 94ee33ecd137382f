"""Names of signals as Docker takes them: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `RTMAX-1`."""

from __future__ import annotations

from signal import Signals

from podctl.errors import InvalidInput

#: the first real-time signal a program may use (glibc keeps two to itself), and the last.
_RTMIN, _RTMAX = 34, 64


def signal_number(text: str) -> int:
    """The number of a signal on this host.

    Raises:
        InvalidInput: there is no such signal.
    """
    number = _number(text.upper().removeprefix("SIG"))
    if number is None:
        raise InvalidInput(f"{text[:40]!r} is no signal")
    return number


def signal_name(text: str) -> str:
    """The name of a signal, `SIG` before it; real-time signals count from `SIGRTMIN`.

    Raises:
        InvalidInput: there is no such signal.
    """
    number = signal_number(text)
    if number >= _RTMIN:
        return "SIGRTMIN" + (f"+{number - _RTMIN}" if number > _RTMIN else "")
    return Signals(number).name


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) < 3 else 0
        known = number in set(map(int, Signals)) or _RTMIN <= number <= _RTMAX
        return number if known else None
    if text.startswith("RT"):
        return _real_time(text)
    found = Signals.__members__.get(f"SIG{text}")
    return None if found is None else int(found)


def _real_time(text: str) -> int | None:
    base, sign, distance = text[:5], text[5:6], text[6:]
    start = {"RTMIN": _RTMIN, "RTMAX": _RTMAX}.get(base)
    if start is None or not sign:
        return start
    if sign != ("+" if base == "RTMIN" else "-"):
        return None
    if not (distance.isascii() and distance.isdigit()) or len(distance) > 2:
        return None
    number = start + int(distance) if sign == "+" else start - int(distance)
    return number if _RTMIN <= number <= _RTMAX else None
