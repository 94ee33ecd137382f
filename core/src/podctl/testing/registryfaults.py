"""What can go wrong between a registry and its client: faults for Registry.spoil.

    registry.spoil("blob", first(2, reset_at(0.5)))
    registry.spoil("manifest", typed("text/html"), name="latest")

A fault is a function of the request and of the way to the honest answer.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from podctl.testing.httpserver import Content, Handler, Reply, Request, redirect

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.testing.ociimages import Document
    from podctl.testing.registry import Fault


def first(count: int, fault: Fault) -> Fault:
    """The fault for the first `count` requests, honesty afterwards."""
    return in_turn(*[fault] * count)


def in_turn(*faults: Fault | None) -> Fault:
    """One fault for each request in turn (None: honesty), honesty afterwards."""
    left = list(faults)
    lock = threading.Lock()

    def choose(request: Request, honest: Handler) -> Reply:
        with lock:
            fault = left.pop(0) if left else None
        return honest(request) if fault is None else fault(request, honest)

    return choose


def answered(reply: Reply) -> Fault:
    """This answer, whatever is asked."""
    return lambda request, honest: reply


def refused(status: int, **headers: str) -> Fault:
    """An error without a body; `Retry_After="1"` is the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answered(Reply(status, named))


def elsewhere(location: str | Callable[[Request], str], status: int = 307) -> Fault:
    """A redirect, with a cookie that must not come back."""

    def send_away(request: Request, honest: Handler) -> Reply:
        return redirect(location if isinstance(location, str) else location(request), status)

    return send_away


def served(data: bytes, *, ranges: bool = True) -> Fault:
    """Other bytes, served with all care; the headers stay those of the right ones."""

    def serve(request: Request, honest: Handler) -> Reply:
        reply = honest(request)
        other = Content(data, etag=None, ranges=ranges)(request)
        other.headers = {**reply.headers, **other.headers}
        return other

    return serve


def document(one: Document) -> Fault:
    """Another document, with the headers that fit it."""
    headers = {"Content-Type": one.media_type, "Docker-Content-Digest": one.digest}
    return answered(Reply(200, headers, one.data))


def changed(alter: Callable[[Reply], None]) -> Fault:
    """The honest answer after `alter` has worked on it."""

    def change(request: Request, honest: Handler) -> Reply:
        reply = honest(request)
        alter(reply)
        return reply

    return change


def headed(**headers: str | None) -> Fault:
    """The honest answer with headers replaced (`Content_Type=...`); None takes one away."""

    def alter(reply: Reply) -> None:
        named = {**reply.headers, **{n.replace("_", "-"): v for n, v in headers.items()}}
        reply.headers = {name: value for name, value in named.items() if value is not None}

    return changed(alter)


def corrupted(position: float = 0.5) -> Fault:
    """One bit of the body flipped, at this share of its length."""

    def alter(reply: Reply) -> None:
        body = bytearray(reply.body)
        if body:
            body[min(int(len(body) * position), len(body) - 1)] ^= 1
        reply.body = bytes(body)

    return changed(alter)


def longer(count: int = 1, *, told: bool = True) -> Fault:
    """More bytes than there are; told: the Content-Length says so."""

    def alter(reply: Reply) -> None:
        if not told:
            reply.framing = "close"
        reply.body += b"\0" * count

    return changed(alter)


def shorter(count: int = 1, *, told: bool = True) -> Fault:
    """Fewer bytes than there are; not told: the connection ends before its Content-Length."""

    def alter(reply: Reply) -> None:
        if not told:
            reply.length = len(reply.body)
        reply.body = reply.body[:-count]

    return changed(alter)


def reset_at(position: float) -> Fault:
    """A connection reset at this share of the body (of what was asked for)."""

    def alter(reply: Reply) -> None:
        reply.cut, reply.reset = int(len(reply.body) * position), True

    return changed(alter)


def without_ranges(request: Request, honest: Handler) -> Reply:
    """A server that knows no Range and says so."""
    reply = whole(request, honest)
    reply.headers = {k: v for k, v in reply.headers.items() if k != "Accept-Ranges"}
    return reply


def whole(request: Request, honest: Handler) -> Reply:
    """200 and the whole body to whoever asks for a part."""
    headers = tuple(pair for pair in request.headers if pair[0].lower() != "range")
    return honest(request._replace(headers=headers))


def wrong_range(span: str | None = None) -> Fault:
    """206 with another Content-Range than the bytes have; None: with none."""

    def alter(reply: Reply) -> None:
        if reply.status == 206:
            kept = {name: v for name, v in reply.headers.items() if name != "Content-Range"}
            reply.headers = kept if span is None else {**kept, "Content-Range": span}

    return changed(alter)


def other_part(offset: int = -1) -> Fault:
    """206 that says what was asked for, with the bytes from `offset` further on."""

    def shift(request: Request, honest: Handler) -> Reply:
        reply = honest(request)
        if reply.status == 206:
            length = len(reply.body)
            body = whole(request, honest).body
            start = max(len(body) - length + offset, 0)
            reply.body = (body[start:] + bytes(length))[:length]
        return reply

    return shift


def slowly(seconds: float, *, head: bool = False) -> Fault:
    """One byte in so many seconds, from the head or the body on."""

    def alter(reply: Reply) -> None:
        if head:
            reply.trickle = seconds
        else:
            reply.body_trickle = seconds

    return changed(alter)


def endless(reply: Reply) -> None:
    """For `changed`: a body without an end, in chunks."""
    reply.framing, reply.endless = "chunked", True


def held(until: threading.Event, after: int = 0, reached: threading.Event | None = None) -> Fault:
    """The body waits for an event, `after` so many bytes; `reached` is set once they are sent."""

    def alter(reply: Reply) -> None:
        reply.hold, reply.held = until, reached
        reply.hold_at = min(after, len(reply.body))

    return changed(alter)


def then(action: Callable[[], object], count: int = 1) -> Fault:
    """The honest answer, after which something happens (a tag is moved, a process is killed)."""
    left = [count]

    def act(request: Request, honest: Handler) -> Reply:
        reply = honest(request)
        if left[0]:
            left[0] -= 1
            action()
        return reply

    return act
