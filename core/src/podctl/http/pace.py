"""Deadlines below HTTP: every byte read from a server passes here.

A read time-out alone lets a server hold us for ever with one byte now and then, in a header, a
chunk length or a body. So the sockets measure: headers have a deadline, bodies a least speed.
Only time spent waiting for the server counts, never the time our own side takes.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podctl.http.limits import Limits

#: What chunked framing may add: bytes on the wire per byte of body, and beyond them. One-byte
#: chunks take six; extensions and trailers are never read by anybody and could go on for ever.
_FRAMING = 8
_FRAMING_FLOOR = 2 << 20
_LATE = "server is too slow: an answer was not complete in time"


class Pace:
    """How the server is keeping up with the answer being read."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._deadline: float | None = None
        self._speed = 0
        self._waited = 0.0
        self._arrived = 0
        self._wire = 0
        self._allowed = _FRAMING_FLOOR
        self._in_body = False
        #: Why a read was given up, for the message.
        self.reason: str | None = None
        #: What ended the body before its time.
        self.broken: OSError | None = None

    def expect_headers(self) -> None:
        """A request is about to be sent: its headers have a deadline."""
        self.reason = self.broken = None
        self._in_body = False
        self._deadline = time.monotonic() + self._limits.header
        self._speed = 0
        self._wire, self._allowed = 0, _FRAMING_FLOOR

    def expect_body(self, *, small: bool) -> None:
        """Headers are complete: a small body has a deadline, a large one a least speed."""
        self._in_body = True
        self._deadline = time.monotonic() + self._limits.small if small else None
        self._speed = 0 if small else self._limits.speed
        self._waited, self._arrived = 0.0, 0
        self._wire, self._allowed = 0, _FRAMING_FLOOR

    def delivered(self, size: int) -> None:
        """So many bytes of body came out of what was read."""
        self._allowed += size * _FRAMING

    def before_read(self) -> float:
        """Return how long the next read may wait, in seconds.

        Raises:
            TimeoutError: the deadline has passed.
        """
        if self._deadline is None:
            return self._limits.idle
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._give_up(_LATE)
        return min(left, self._limits.idle)

    def after_read(self, size: int, waited: float) -> None:
        """Count one read.

        Raises:
            TimeoutError: a whole window went by below the least speed, or nearly nothing of what
                arrives is body.
        """
        self._wire += size
        if self._wire > self._allowed:
            raise self._give_up("server sends framing without content")
        self._waited += waited
        self._arrived += size
        if self._waited < self._limits.window:
            return
        if self._arrived < self._speed * self._waited:
            raise self._give_up(f"server is too slow: less than {self._speed} bytes/s")
        self._waited, self._arrived = 0.0, 0

    def keep(self, error: OSError) -> bool:
        """Whether a failed read is to look like the end of the body for now.

        The buffers above throw away what they hold when a read fails, and would lose up to a
        chunk that did arrive. So they see an end; whoever reads the body looks at `broken` then.
        """
        if self._in_body:
            self.broken = error
        return self._in_body

    def timed_out(self) -> None:
        """The socket's own time-out struck."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = _LATE
        else:
            self.reason = "server sent nothing in time"

    def _give_up(self, reason: str) -> TimeoutError:
        self.reason = reason
        return TimeoutError(reason)


class _Paced:
    """Reads by the rules of `pace`; mixed into plain and TLS sockets."""

    pace: Pace | None = None

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        read = super().recv_into  # type: ignore[misc]
        pace = self.pace
        if pace is None:
            return int(read(buffer, nbytes, flags))
        if pace.broken is not None:
            return 0
        try:
            self.settimeout(pace.before_read())  # type: ignore[attr-defined]
            start = time.monotonic()
            size = int(read(buffer, nbytes, flags))
            pace.after_read(size, time.monotonic() - start)
        except OSError as error:
            if isinstance(error, TimeoutError) and pace.reason is None:
                pace.timed_out()
            if pace.keep(error):
                return 0
            raise
        return size


class PacedSocket(_Paced, socket.socket):
    """A TCP connection."""

    #: The host a certificate has to name.
    expected: str | None = None


class PacedTLSSocket(_Paced, ssl.SSLSocket):
    """A TLS connection. Its end must be announced: a bare end of file is an error, so that nobody
    between server and us can cut an answer of unknown length short."""

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self.suppress_ragged_eofs = False
        return super().recv_into(buffer, nbytes or 0, flags)
