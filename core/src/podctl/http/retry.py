"""Waiting before another try: bounded, growing, jittered, and as asked by the server."""

from __future__ import annotations

from email.utils import parsedate_to_datetime  # noqa: TID253 - imported by transport_preload
from typing import TYPE_CHECKING

from podctl.errors import FetchFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.http.limits import Limits


class Patience:
    """The time one operation may spend waiting between tries."""

    def __init__(
        self, limits: Limits, sleep: Callable[[float], None], chance: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._sleep = sleep
        self._chance = chance
        self._left = limits.patience

    def wait(self, tries: int, asked: float | None, trouble: str) -> None:
        """Wait before try number `tries` + 1.

        Args:
            asked: seconds the server wants us to wait; None: our own choice, growing and jittered
                so that many clients do not come back at once.
            trouble: what went wrong, for the message.

        Raises:
            FetchFailed: it would be longer than the user should be kept waiting.
        """
        pause = asked
        if pause is None:
            longest = min(self._limits.pause * 2 ** (tries - 1), self._limits.longest_pause)
            pause = longest * (0.5 + self._chance() / 2)
        if pause > self._left:
            more = f" (the server asks to wait {asked:.0f} s)" if asked else ""
            raise FetchFailed(trouble + more, hint="try again later")
        self._left -= pause
        self._sleep(pause)


def retry_after(value: str | None, now: float) -> float | None:
    """Read a Retry-After header (RFC 9110 10.2.3): seconds or a date; None if it says nothing.

    Args:
        now: seconds since the epoch.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
