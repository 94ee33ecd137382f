"""Bodies that break off, and servers that answer a range request with something else (row R7)."""

from __future__ import annotations

import os
from typing import Any

import pytest

from podctl.errors import FetchFailed
from podctl.http.download import content_range, download
from podctl.http.urls import parse
from podctl.model.fetching import CacheState, Downloaded, Resume
from podctl.testing.httpserver import Content, Reply, Request, Sequence, answer
from podctl.testing.transport import MemorySink

DATA = os.urandom(1_000_000)
TENTHS = [len(DATA) * n // 10 for n in range(11)]


def fetch(
    client: Any, server: Any, resume: Resume | None = None, kept: bytes = b""
) -> tuple[MemorySink, Downloaded]:
    """Download /app.aci."""
    sink = MemorySink(kept)
    target = parse(server.url("/app.aci"))
    return sink, download(client, target, resume, sink, named_by_server=False)


def ranges(server: Any) -> list[str | None]:
    """The Range headers of all requests."""
    return [request.header("Range") for request in server.log]


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("cut", TENTHS)
def test_reset_body_is_continued(serve: Any, client_for: Any, cut: int, tls: bool) -> None:
    server = serve({"/app.aci": Content(DATA, cuts=[cut])}, tls=tls)
    sink, done = fetch(client_for(), server)
    assert sink.data == DATA
    assert done == Downloaded(len(DATA), CacheState('"v1"', None))


def test_body_reset_at_every_tenth_is_continued(serve: Any, client_for: Any) -> None:
    server = serve({"/app.aci": Content(DATA, cuts=[TENTHS[1]] * 9)})
    sink, _ = fetch(client_for(), server)
    assert sink.data == DATA
    assert len([r for r in ranges(server) if r is not None]) >= 9


def test_a_server_that_drips_is_given_up_though_each_drop_is_kept(
    serve: Any, client_for: Any, quick: Any
) -> None:
    """R8: some bytes before each time-out are not what keeps a transfer going."""
    content = Content(DATA)

    def drip(request: Request) -> Reply:
        reply = content(request)
        reply.body_trickle = 0.02
        return reply

    server = serve({"/app.aci": drip})
    with pytest.raises(FetchFailed, match="too slow"):
        fetch(client_for(), server)
    assert len(server.log) == quick.attempts
    # They were not for nothing: each request continues the one before.
    assert len(set(ranges(server))) == quick.attempts


@pytest.mark.parametrize("offset", TENTHS)
def test_partial_of_an_earlier_run_is_continued(serve: Any, client_for: Any, offset: int) -> None:
    server = serve({"/app.aci": Content(DATA, last_modified="Thu, 01 Jan 2026 00:00:00 GMT")})
    state = CacheState('"v1"', None)
    sink, _ = fetch(client_for(), server, Resume(offset, state), DATA[:offset])
    assert sink.data == DATA
    assert ranges(server) == [f"bytes={offset}-" if offset else None]
    assert sink.begun[0][0] == offset


def test_last_modified_is_a_validator_too(serve: Any, client_for: Any) -> None:
    date = "Thu, 01 Jan 2026 00:00:00 GMT"
    server = serve({"/app.aci": Content(DATA, etag=None, last_modified=date)})
    resume = Resume(1000, CacheState(None, date))
    sink, _ = fetch(client_for(), server, resume, DATA[:1000])
    assert sink.begun[0][0] == 1000
    assert server.log[0].header("If-Range") == date


@pytest.mark.parametrize(
    "state",
    [
        CacheState('"another"', None),
        CacheState(None, "Thu, 01 Jan 1970 00:00:00 GMT"),
        CacheState(None, None),
        CacheState('W/"v1"', None),
        CacheState("v1", None),
    ],
)
def test_partial_without_the_same_validator_starts_over(
    serve: Any, client_for: Any, state: CacheState
) -> None:
    server = serve({"/app.aci": Content(DATA)})
    sink, _ = fetch(client_for(), server, Resume(5000, state), bytes(5000))
    assert sink.data == DATA
    assert sink.begun[0][0] == 0


def test_weak_validator_never_continues(serve: Any, client_for: Any) -> None:
    """It stands for equal meaning, not equal bytes; no range is asked for."""
    server = serve({"/app.aci": Content(DATA, etag='W/"v1"')})
    resume = Resume(5000, CacheState('W/"v1"', "Thu, 01 Jan 2026 00:00:00 GMT"))
    sink, _ = fetch(client_for(), server, resume, bytes(5000))
    assert sink.data == DATA
    assert ranges(server) == [None]


class Careless:
    """A server that knows Range and nothing of If-Range, as many do."""

    def __init__(self, content: Content, **spoil: str) -> None:
        self._content = content
        self._spoil = {name.replace("_", "-"): value for name, value in spoil.items()}

    def __call__(self, request: Request) -> Reply:
        headers = tuple(h for h in request.headers if h[0].lower() != "if-range")
        reply = answer(self._content, request._replace(headers=headers))
        if reply.status == 206:
            reply.headers = {**reply.headers, **self._spoil}
        return reply


TOTAL = len(DATA)


@pytest.mark.parametrize(
    "spoil",
    [
        {"ETag": '"v2"'},
        {"ETag": 'W/"v1"'},
        {"ETag": ""},
        {"Content_Range": f"bytes 4999-{TOTAL - 1}/{TOTAL}"},
        {"Content_Range": f"bytes 5001-{TOTAL - 1}/{TOTAL}"},
        {"Content_Range": f"bytes 0-{TOTAL - 1}/{TOTAL}"},
        {"Content_Range": f"bytes 5000-6000/{TOTAL}"},
        {"Content_Range": f"bytes 5000-{TOTAL - 1}/*"},
        {"Content_Range": f"bytes 5000-{TOTAL - 1}"},
        {"Content_Range": f"items 5000-{TOTAL - 1}/{TOTAL}"},
        {"Content_Range": "bytes -5--1/0"},
        {"Content_Range": ""},
    ],
)
def test_wrong_range_starts_over(serve: Any, client_for: Any, spoil: dict[str, str]) -> None:
    """Taking the answer for the rest of the file would give another file."""
    server = serve({"/app.aci": Careless(Content(DATA), **spoil)})
    kept = DATA[:5000]
    sink, _ = fetch(client_for(), server, Resume(5000, CacheState('"v1"', None)), kept)
    assert sink.data == DATA
    assert sink.begun[0][0] == 0
    assert ranges(server) == ["bytes=5000-", None]


def test_careless_server_with_the_same_tag_is_continued(serve: Any, client_for: Any) -> None:
    """The control of the test above."""
    server = serve({"/app.aci": Careless(Content(DATA))})
    sink, _ = fetch(client_for(), server, Resume(5000, CacheState('"v1"', None)), DATA[:5000])
    assert sink.data == DATA
    assert sink.begun[0][0] == 5000


def test_whole_answer_to_a_range_request_starts_over(serve: Any, client_for: Any) -> None:
    """rkt appended it to what it had."""
    server = serve({"/app.aci": Content(DATA, ranges=False)})
    sink, _ = fetch(client_for(), server, Resume(5000, CacheState('"v1"', None)), DATA[:5000])
    assert sink.data == DATA
    assert sink.begun == [(0, len(DATA), CacheState('"v1"', None))]


def test_range_beyond_the_end_starts_over(serve: Any, client_for: Any) -> None:
    server = serve({"/app.aci": Content(DATA[:4000])})
    sink, _ = fetch(client_for(), server, Resume(5000, CacheState('"v1"', None)), bytes(5000))
    assert sink.data == DATA[:4000]
    assert ranges(server) == ["bytes=5000-", None]


def test_complete_partial_needs_no_byte(serve: Any, client_for: Any) -> None:
    """The download was done, what came after it was not."""
    server = serve({"/app.aci": Content(DATA)})
    resume = Resume(len(DATA), CacheState('"v1"', None))
    sink, done = fetch(client_for(), server, resume, DATA)
    assert sink.data == DATA
    assert done.size == len(DATA)
    assert sink.begun[0][0] == len(DATA)


def test_server_without_ranges_is_read_again_and_compared(serve: Any, client_for: Any) -> None:
    content = Content(DATA, etag=None, ranges=False, cuts=[300_000, 700_000])
    server = serve({"/app.aci": content})
    sink, _ = fetch(client_for(), server)
    assert sink.data == DATA
    assert ranges(server) == [None] * 3


def test_other_bytes_the_second_time_are_refused(serve: Any, client_for: Any) -> None:
    """Two halves of two files make a third that nobody published."""
    first = Content(DATA, etag=None, ranges=False, cuts=[300_000])
    second = Content(DATA[::-1], etag=None, ranges=False)
    server = serve({"/app.aci": Sequence(first, second)})
    with pytest.raises(FetchFailed, match="changed while it was downloaded"):
        fetch(client_for(), server)


@pytest.mark.parametrize("etag", ['"v2"', None])
def test_other_version_after_a_cut_is_refused(
    serve: Any, client_for: Any, etag: str | None
) -> None:
    server = serve(
        {"/app.aci": Sequence(Content(DATA, cuts=[300_000]), Content(DATA[::-1], etag=etag))}
    )
    with pytest.raises(FetchFailed, match="changed while it was downloaded") as caught:
        fetch(client_for(), server)
    assert "run the command again" in str(caught.value.hint)


def test_other_weak_tag_after_a_cut_is_refused(serve: Any, client_for: Any) -> None:
    first = Content(DATA, etag='W/"v1"', cuts=[300_000])
    server = serve({"/app.aci": Sequence(first, Content(DATA, etag='W/"v2"'))})
    with pytest.raises(FetchFailed, match="changed while it was downloaded"):
        fetch(client_for(), server)


def test_server_that_never_gets_further_is_given_up(serve: Any, client_for: Any) -> None:
    server = serve({"/app.aci": Content(DATA, cuts=[0] * 50)})
    with pytest.raises(FetchFailed, match="at byte 0"):
        fetch(client_for(), server)
    assert len(server.log) == 5


def test_server_that_always_breaks_off_is_given_up(serve: Any, client_for: Any, quick: Any) -> None:
    from dataclasses import replace

    server = serve({"/app.aci": Content(DATA, cuts=[200_000] * 50)})
    with pytest.raises(FetchFailed, match="at byte") as caught:
        fetch(client_for(replace(quick, interruptions=3)), server)
    assert "resume" in str(caught.value.hint)
    assert len(server.log) == 4


@pytest.mark.parametrize("status", [202, 204, 206, 304, 404, 416])
def test_other_status_is_no_image(serve: Any, client_for: Any, status: int) -> None:
    server = serve({"/app.aci": Reply(status)})
    with pytest.raises(FetchFailed, match=f"app.aci: bad HTTP status code: {status}"):
        fetch(client_for(), server)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(body=bytes(2000)), id="declared"),
        pytest.param(Reply(body=bytes(2000), framing="chunked"), id="chunked"),
        pytest.param(Reply(body=bytes(2000), framing="close", endless=True), id="endless"),
    ],
)
def test_image_over_the_cap_is_refused(serve: Any, client_for: Any, reply: Reply) -> None:
    server = serve({"/app.aci": reply})
    sink = MemorySink()
    with pytest.raises(FetchFailed, match="larger than 1000 bytes"):
        download(
            client_for(max_bytes=1000),
            parse(server.url("/app.aci")),
            None,
            sink,
            named_by_server=False,
        )
    assert len(sink.data) <= 1000


def test_content_encoding_of_an_image_is_not_undone(serve: Any, client_for: Any) -> None:
    """Servers declare a .aci's own compression; the signature is over the bytes as they are."""
    server = serve({"/app.aci": Reply(200, {"Content-Encoding": "gzip"}, b"\x1f\x8bzip")})
    sink, _ = fetch(client_for(), server)
    assert sink.data == b"\x1f\x8bzip"


@pytest.mark.parametrize(
    "header, age",
    [
        (None, 0),
        ("max-age=60", 60),
        ("public, MAX-AGE=60", 60),
        ('max-age="60"', 60),
        ("max-age=60, no-cache", 0),
        ("no-store, max-age=60", 0),
        ("max-age=-1", 0),
        ("max-age=soon", 0),
        ("s-maxage=60", 0),
        ("max-age=" + "9" * 400, 365 * 86400),
    ],
)
def test_cache_control(serve: Any, client_for: Any, header: str | None, age: int) -> None:
    server = serve({"/app.aci": Content(DATA, cache_control=header)})
    assert fetch(client_for(), server)[1].max_age == age


def test_validators_unfit_to_be_sent_back_are_dropped(serve: Any, client_for: Any) -> None:
    server = serve({"/app.aci": Content(DATA, etag='"' + "x" * 5000 + '"')})
    assert fetch(client_for(), server)[1].state == CacheState(None, None)


@pytest.mark.parametrize(
    "value, parsed",
    [
        ("bytes 5-9/10", (5, 10)),
        ("bytes */10", (None, 10)),
        ("bytes 5-8/10", (None, 10)),
        ("bytes 9-5/10", (None, 10)),
        ("bytes 5-9/*", (None, None)),
        ("bytes 5-" + "9" * 30 + "/10", (None, 10)),
        ("", (None, None)),
        ("bytes ٥-9/10", (None, 10)),
    ],
)
def test_content_range(value: str, parsed: tuple[int | None, int | None]) -> None:
    assert content_range(value) == parsed
