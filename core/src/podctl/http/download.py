"""A large body into a sink: resumed where that is provably the same body, else from zero."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import FetchFailed
from podctl.http.caching import max_age, state_of, strong_validator
from podctl.http.troubles import Interrupted
from podctl.model.fetching import CacheState, Downloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.http.client import Answer, Client
    from podctl.http.urls import Target
    from podctl.model.fetching import Resume, Sink

_AGAIN = "run the command again to start over"


class Range(NamedTuple):
    """A Content-Range header: first byte, and total if known; start None in an answer 416."""

    start: int | None
    total: int | None


def download(
    client: Client,
    target: Target,
    resume: Resume | None,
    sink: Sink,
    *,
    named_by_server: bool = False,
    what: str = "image",
    size: int | None = None,
) -> Downloaded:
    """Stream the body at `target` into `sink`.

    A partial body is continued only under a validator that changes with every byte (a strong ETag,
    or the Last-Modified it came with), sent as If-Range and compared with the answer's own
    (RFC 9110 13.1.5, 14.2); rkt took any answer to a range request for the rest of the file.

    Args:
        what: the body's name in messages.
        size: the body is addressed by its digest and has so many bytes: it never changes, so it is
            continued whatever its validators, and the receiver checks what it gets.

    Raises:
        FetchFailed: the status is not 200, the cap is passed, or the server breaks off for good.
    """
    transfer = _Transfer(client, target, sink, what, size, named_by_server=named_by_server)
    return transfer.run(resume)


class _Transfer:
    """One body on its way; `position` counts its bytes from zero."""

    def __init__(
        self, client: Client, target: Target, sink: Sink, what: str, size: int | None,
        *, named_by_server: bool,
    ) -> None:  # fmt: skip
        self._client = client
        self._target = target
        self._sink = sink
        self._what = what
        self._size = size
        self._named_by_server = named_by_server
        self._position = 0
        self._started_at: int | None = None
        self._total: int | None = None
        self._state = CacheState()
        self._max_age = 0
        self._digest = hashlib.sha256()
        self._ranges = True

    def run(self, resume: Resume | None) -> Downloaded:
        if resume is not None and resume.offset and self._continuable(resume.state):
            if self._size is None or resume.offset <= self._size:
                self._position, self._state = resume.offset, resume.state
            if self._position == self._size:
                self._total = self._size
                self._begin()
                return Downloaded(self._position, self._state)
        limits = self._client.limits
        failures = interruptions = 0
        while True:
            before, begun = self._position, time.monotonic()
            try:
                if self._attempt():
                    return Downloaded(self._position, self._state, self._max_age)
                continue
            except Interrupted as trouble:
                message = trouble.message
            interruptions += 1
            # A few bytes before each time-out are no progress: a server could go on so for an hour.
            least = limits.speed * (time.monotonic() - begun)
            failures = 1 if self._position - before > least else failures + 1
            if failures >= limits.attempts or interruptions > limits.interruptions:
                raise FetchFailed(
                    f"{message} at byte {self._position}", hint="run the command again to resume"
                )
            self._client.patience.wait(failures, None, message)

    def _attempt(self) -> bool:
        """Ask once and take what comes; False: ask again at once, from zero."""
        asked = self._position
        with self._client.open(
            self._target, headers=self._range_headers(), named_by_server=self._named_by_server
        ) as answer:
            chunks = answer.chunks()
            if answer.status == 200:
                self._begin_whole(answer, chunks)
            elif answer.status in (206, 416) and asked:
                if not self._continues(answer):
                    return self._restart()
                self._expect(asked, answer)
            else:
                raise self._client.refuse_status(answer)
            if answer.status != 416:
                self._take(chunks)
            self._begin()
        if self._total is not None and self._position != self._total:
            raise Interrupted(f"{self._target.shown}: connection was cut")
        if self._size is not None and self._position != self._size:
            self._total = self._position
            raise self._too_small()
        return True

    def _continuable(self, state: CacheState) -> bool:
        """Whether the rest of a body can be asked for and known to be its rest."""
        return self._size is not None or strong_validator(state) is not None

    def _range_headers(self) -> dict[str, str]:
        if not self._position or not self._ranges or not self._continuable(self._state):
            # Asked from zero, the server sends everything and what is here already is skipped.
            return {}
        headers = {"Range": f"bytes={self._position}-"}
        validator = strong_validator(self._state)
        if self._size is None and validator is not None:
            headers["If-Range"] = validator
        return headers

    def _restart(self) -> bool:
        """Forget the partial body; False, to ask again."""
        if self._started_at is not None:
            if self._size is None or not self._ranges:
                raise self._changed()
            # It is still the same body: its beginning is skipped when it comes whole.
            self._ranges = False
            return False
        self._position, self._total, self._state = 0, None, CacheState()
        return False

    def _continues(self, answer: Answer) -> bool:
        """Whether a 206 is the rest of our body, or a 416 says that there is no rest."""
        found = content_range(answer.headers.get("Content-Range", ""))
        same = strong_validator(state_of(answer.headers)) == strong_validator(self._state)
        if self._size is None and not same:
            return False
        if answer.status == 416:
            self._total = found.total
            return found.total == self._position
        if found.start != self._position:
            return False
        if self._total is not None and found.total != self._total:
            return False
        self._total = found.total
        return True

    def _begin_whole(self, answer: Answer, chunks: Iterator[bytes]) -> None:
        """A 200 carries the body from its first byte, whatever was asked."""
        if self._started_at is None:
            self._total = answer.length()
            self._expect(0, answer)
            return
        # The sink has taken the beginning: read it again, it must be the same.
        same = answer.length() == self._total and state_of(answer.headers) == self._state
        if self._size is None and (self._started_at != 0 or not same):
            raise self._changed()
        self._skip_known(chunks)

    def _skip_known(self, chunks: Iterator[bytes]) -> None:
        digest = hashlib.sha256()
        left = self._position
        rest = b""
        while left:
            data = next(chunks, b"")
            if not data:
                raise Interrupted(f"{self._target.shown}: connection was cut")
            if self._replayable():
                digest.update(data[:left])
            rest = data[left:]
            left -= min(left, len(data))
        if digest.digest() != self._digest.digest():
            raise self._changed()
        if rest:
            self._take(iter((rest,)))

    def _expect(self, offset: int, answer: Answer) -> None:
        """The body comes from `offset` on. The sink hears of it with the first byte, since until
        then we are free to begin anew."""
        if (self._total or 0) > self._cap():
            raise self._too_large()
        if self._size is not None and self._total not in (None, self._size):
            raise self._too_small()
        if self._started_at is None:
            self._position = offset
            self._state = state_of(answer.headers)
            self._max_age = max_age(answer.headers.get("Cache-Control"))

    def _begin(self) -> None:
        if self._started_at is None:
            self._started_at = self._position
            self._sink.begin(self._position, self._total, self._state)

    def _take(self, chunks: Iterator[bytes]) -> None:
        cap, replayable = self._cap(), self._replayable()
        for data in chunks:
            self._begin()
            if self._position + len(data) > cap:
                raise self._too_large()
            if replayable:
                self._digest.update(data)
            self._sink.write(data)
            self._position += len(data)

    def _replayable(self) -> bool:
        """Only a body that cannot be continued by range is ever read again and compared."""
        return not self._continuable(self._state)

    def _cap(self) -> int:
        limit = self._client.request.max_bytes
        return limit if self._size is None else min(limit, self._size)

    def _too_large(self) -> FetchFailed:
        return FetchFailed(f"{self._target.shown}: {self._what} is larger than {self._cap()} bytes")

    def _too_small(self) -> FetchFailed:
        return FetchFailed(
            f"{self._target.shown}: {self._what} has {self._total} bytes instead of {self._size}"
        )

    def _changed(self) -> FetchFailed:
        return FetchFailed(
            f"{self._target.shown}: {self._what} changed while it was downloaded", hint=_AGAIN
        )


def content_range(value: str) -> Range:
    """Read `bytes FIRST-LAST/TOTAL` and `bytes */TOTAL`; what is malformed is None.

    The last byte must be the total's: less is not the rest of the file.
    """
    unit, _, rest = value.strip().partition(" ")
    span, slash, total_text = rest.partition("/")
    total = _number(total_text)
    if unit.lower() != "bytes" or not slash:
        return Range(None, None)
    first, _, last = span.partition("-")
    start, end = _number(first), _number(last)
    if start is None or end is None or total is None or end != total - 1 or start > end:
        start = None
    return Range(start, total)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
