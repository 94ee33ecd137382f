"""Bodies addressed by their digest: continued whatever the validators, never past their size."""

from __future__ import annotations

import os
from typing import Any

import pytest

from podctl.errors import FetchFailed
from podctl.http.download import download
from podctl.http.urls import parse
from podctl.model.fetching import CacheState, Downloaded, Resume
from podctl.testing.httpserver import Content, Reply, Request, Sequence, answer
from podctl.testing.transport import MemorySink

DATA = os.urandom(300_000)
SIZE = len(DATA)


def fetch(
    client: Any, server: Any, kept: bytes = b"", size: int = SIZE
) -> tuple[MemorySink, Downloaded]:
    """Download /blob, continuing `kept`."""
    sink = MemorySink(kept)
    resume = Resume(len(kept), CacheState()) if kept else None
    target = parse(server.url("/blob"))
    return sink, download(client, target, resume, sink, what="layer", size=size)


def ranges(server: Any) -> list[str | None]:
    """The Range headers of all requests."""
    return [request.header("Range") for request in server.log]


@pytest.mark.parametrize("etag", [None, '"v1"', 'W/"v1"'])
def test_a_partial_blob_is_continued_whatever_its_validators(
    serve: Any, client_for: Any, etag: str | None
) -> None:
    server = serve({"/blob": Content(DATA, etag=etag)})
    sink, done = fetch(client_for(), server, DATA[:1000])
    assert (sink.data, done.size) == (DATA, SIZE)
    assert sink.begun[0][0] == 1000
    assert ranges(server) == ["bytes=1000-"]
    assert server.log[0].header("If-Range") is None


def test_a_blob_cut_again_and_again_is_continued(serve: Any, client_for: Any) -> None:
    server = serve({"/blob": Content(DATA, etag=None, cuts=[30_000] * 9)})
    sink, _ = fetch(client_for(), server)
    assert sink.data == DATA
    assert ranges(server) == [None, *(f"bytes={30_000 * n}-" for n in range(1, 10))]


def test_a_complete_partial_is_not_asked_for(serve: Any, client_for: Any) -> None:
    server = serve({"/blob": Content(DATA)})
    sink, done = fetch(client_for(), server, DATA)
    assert (sink.data, done.size, server.log) == (DATA, SIZE, [])


def test_a_partial_larger_than_the_blob_starts_over(serve: Any, client_for: Any) -> None:
    server = serve({"/blob": Content(DATA)})
    sink, _ = fetch(client_for(), server, DATA + b"more")
    assert sink.data == DATA
    assert ranges(server) == [None]


class Spoilt:
    """Answers to Range requests with another Content-Range, or the whole."""

    def __init__(self, span: str | None, cuts: list[int] | None = None) -> None:
        self._content = Content(DATA, etag=None, cuts=cuts or [])
        self._span = span

    def __call__(self, request: Request) -> Reply:
        if self._span is None:
            request = request._replace(
                headers=tuple(one for one in request.headers if one[0] != "Range")
            )
        reply = answer(self._content, request)
        if reply.status == 206:
            reply.headers = {**reply.headers, "Content-Range": self._span or ""}
        return reply


@pytest.mark.parametrize("span", [None, "", f"bytes 0-{SIZE - 1}/{SIZE}", "bytes 1000-1999/9999"])
def test_a_wrong_range_starts_over(serve: Any, client_for: Any, span: str | None) -> None:
    server = serve({"/blob": Spoilt(span)})
    sink, _ = fetch(client_for(), server, DATA[:1000])
    assert sink.data == DATA
    assert sink.begun[0][0] == 0


@pytest.mark.parametrize("span", [None, "", f"bytes 0-{SIZE - 1}/{SIZE}"])
def test_a_wrong_range_in_the_middle_is_skipped_over(
    serve: Any, client_for: Any, span: str | None
) -> None:
    """The reader has the beginning already: it is the same body, so its beginning is passed by."""
    server = serve({"/blob": Spoilt(span, cuts=[100_000])})
    sink, _ = fetch(client_for(), server)
    assert sink.data == DATA
    assert len(sink.begun) == 1


def test_a_server_that_is_never_right_is_given_up(serve: Any, client_for: Any) -> None:
    def always_partial(request: Request) -> Reply:
        if not server.log[1:]:
            return Reply(200, {}, DATA, cut=1000, reset=True)
        return Reply(206, {"Content-Range": f"bytes 7-{SIZE - 1}/{SIZE}"}, DATA[7:])

    server = serve({"/blob": always_partial})
    with pytest.raises(FetchFailed, match="changed while it was downloaded"):
        fetch(client_for(), server)
    assert len(server.log) == 3


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        pytest.param(Reply(body=DATA + b"x"), "larger than 300000 bytes", id="longer"),
        pytest.param(
            Reply(body=DATA + b"x", framing="chunked"), "larger than 300000", id="longer-chunked"
        ),
        pytest.param(
            Reply(body=DATA, framing="chunked", endless=True), "larger than 300000", id="endless"
        ),
        pytest.param(Reply(body=DATA[:-1]), "has 299999 bytes instead of 300000", id="shorter"),
        pytest.param(
            Reply(body=DATA[:-1], framing="chunked"), "has 299999 bytes", id="shorter-chunked"
        ),
    ],
)
def test_another_size_is_no_such_blob(serve: Any, client_for: Any, reply: Reply, says: str) -> None:
    server = serve({"/blob": reply})
    sink = MemorySink()
    with pytest.raises(FetchFailed, match=f"layer.*{says}"):
        download(client_for(), parse(server.url("/blob")), None, sink, what="layer", size=SIZE)
    assert len(sink.data) <= SIZE


def test_the_cap_of_the_request_holds_as_well(serve: Any, client_for: Any) -> None:
    server = serve({"/blob": Content(DATA)})
    with pytest.raises(FetchFailed, match="larger than 1000 bytes"):
        fetch(client_for(max_bytes=1000), server)


def test_a_blob_whose_rest_lies_elsewhere_is_continued(serve: Any, client_for: Any) -> None:
    """A registry sends each request to a signed URL of its own."""
    store = serve({"/1": Content(DATA, etag=None, cuts=[100_000]), "/2": Content(DATA, etag=None)})
    hops = Sequence(*(Reply(307, {"Location": store.url(f"/{n}?sig=x")}) for n in (1, 2)))
    server = serve({"/blob": hops})
    sink, _ = fetch(client_for(), server)
    assert sink.data == DATA
    assert ranges(store) == [None, "bytes=100000-"]
