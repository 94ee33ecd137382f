"""One server that is slow, broken, endless or busy; secrets that stay secret (rows R1, R6, R8, R9,
R15, R16)."""

from __future__ import annotations

import errno
import os
import socket
import traceback
from dataclasses import replace
from typing import Any

import pytest

from podctl.errors import FetchFailed, PodctlError
from podctl.http.client import Client
from podctl.http.limits import Limits
from podctl.http.retry import Patience, retry_after
from podctl.http.urls import parse
from podctl.model.fetching import Credential
from podctl.testing.httpserver import Content, Reply, Sequence, page, redirect

SECRET = "hunter2-very-secret"


def document(client: Client, url: str, limit: int = 1000) -> bytes:
    """A small document of status 200."""
    answer, data = client.document(parse(url), limit, "document")
    assert answer.status == 200
    return data


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_trouble_is_waited_out(serve: Any, client_for: Any, status: int) -> None:
    server = serve({"/a": Sequence(Reply(status), Reply(status), Reply(body=b"ok"))})
    assert document(client_for(), server.url("/a")) == b"ok"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 501])
def test_final_status_is_asked_for_once(serve: Any, client_for: Any, status: int) -> None:
    server = serve({"/a": Reply(status)})
    answer, _ = client_for().document(parse(server.url("/a")), 10, "document")
    assert (answer.status, len(server.log)) == (status, 1)


def test_lasting_trouble_ends(serve: Any, client_for: Any) -> None:
    server = serve({"/a": Reply(503)})
    answer, _ = client_for().document(parse(server.url("/a")), 10, "document")
    assert (answer.status, len(server.log)) == (503, 5)


def test_pauses_grow_vary_and_are_bounded(serve: Any, request_for: Any) -> None:
    server = serve({"/a": Reply(503)})
    pauses: list[float] = []
    limits = Limits(attempts=8)
    with Client(request_for(), limits, sleep=pauses.append) as client:
        client.document(parse(server.url("/a")), 10, "document")
    bounds = [min(0.5 * 2**n, 15) for n in range(7)]
    assert all(b / 2 <= p <= b for p, b in zip(pauses, bounds, strict=True))
    assert len(set(pauses)) == len(pauses)


def test_retry_after_is_honoured_up_to_our_patience(serve: Any, request_for: Any) -> None:
    server = serve({"/a": Sequence(Reply(429, {"Retry-After": "7"}), Reply(body=b"ok"))})
    server.routes["/b"] = Reply(429, {"Retry-After": "1000000000"})
    pauses: list[float] = []
    with Client(request_for(), Limits(), sleep=pauses.append) as client:
        assert document(client, server.url("/a")) == b"ok"
        assert pauses == [7]
        with pytest.raises(FetchFailed, match="429 .the server asks to wait 1000000000 s"):
            document(client, server.url("/b"))
    assert pauses == [7]


@pytest.mark.parametrize(
    "value, seconds",
    [
        (None, None),
        ("5", 5),
        ("-5", None),
        ("1e9", None),
        ("soon", None),
        ("", None),
        ("9" * 400, 999999999999),
        ("Thu, 01 Jan 1970 00:16:40 GMT", 0),
        ("Thu, 01 Jan 1970 00:33:50 GMT", 30),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=2000) == seconds


def test_patience_is_one_for_the_whole_operation() -> None:
    slept: list[float] = []
    patience = Patience(Limits(patience=10), slept.append, lambda: 1.0)
    patience.wait(1, 6, "busy")
    with pytest.raises(FetchFailed, match="busy"):
        patience.wait(2, 6, "busy")
    assert slept == [6]


def test_connection_reset_is_tried_again(serve: Any, client_for: Any) -> None:
    broken = Reply(body=b"abcdef", cut=3, reset=True)
    server = serve({"/a": Sequence(broken, broken, Reply(body=b"abcdef"))})
    assert document(client_for(), server.url("/a")) == b"abcdef"


def test_nobody_listening_is_said_at_once(client_for: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(FetchFailed, match=os.strerror(errno.ECONNREFUSED)):
        document(client_for(), f"http://127.0.0.1:{port}/")


def test_unknown_host_is_said(client_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(FetchFailed, match="cannot resolve host no.example: Name or service"):
        document(client_for(), "https://no.example/")


def test_dead_address_does_not_delay_the_other(
    serve: Any, client_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that never answers stands in for a host that drops packets."""
    server = serve({"/a": Reply(body=b"ok")}, "two.example")
    with socket.socket() as full:
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [_half_open("127.0.0.2", port) for _ in range(4)]
        answers = [_stream("127.0.0.2", port), _stream("127.0.0.1", server.port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers)
        assert document(client_for(), "https://two.example/a") == b"ok"
        for filler in fillers:
            filler.close()


def _half_open(host: str, port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex((host, port))
    return sock


def _stream(host: str, port: int) -> Any:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))


#: One try, and a body's pace a test can wait for.
HASTY = Limits(connect=5, header=5, idle=5, window=0.3, small=5, attempts=1, speed=1000, patience=1)


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize(
    "reply, says",
    [
        pytest.param(Reply(raw=b""), "cut", id="no-answer"),
        pytest.param(Reply(raw=b"\x16\x03\x01 nonsense\r\n\r\n"), "cut", id="no-http"),
        pytest.param(Reply(raw=b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000), "cut", id="giant-line"),
        pytest.param(
            Reply(raw=b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"), "cut", id="many-lines"
        ),
    ],
)
def test_bad_headers_end(serve: Any, client_for: Any, reply: Reply, says: str, tls: bool) -> None:
    server = serve({"/a": reply}, tls=tls)
    with pytest.raises(FetchFailed, match=says):
        document(client_for(HASTY), server.url("/a"))


@pytest.mark.parametrize("tls", [True, False])
def test_trickling_headers_are_given_up(serve: Any, client_for: Any, tls: bool) -> None:
    """One byte now and then keeps every read time-out happy; the deadline is not."""
    server = serve({"/a": Reply(body=b"x", trickle=0.02)}, tls=tls)
    with pytest.raises(FetchFailed, match="not complete in time"):
        document(client_for(replace(HASTY, header=0.3)), server.url("/a"))


@pytest.mark.parametrize("tls", [True, False])
def test_silent_server_is_given_up(client_for: Any, serve: Any, tls: bool) -> None:
    """It takes the connection and never says a word, not even of TLS."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http{'s' if tls else ''}://127.0.0.1:{silent.getsockname()[1]}/"
        limits = replace(HASTY, connect=0.3, idle=0.3)
        with pytest.raises(FetchFailed, match="in time|timed out"):
            document(client_for(limits), url)


@pytest.mark.parametrize("small", [True, False])
def test_trickling_body_is_given_up(serve: Any, client_for: Any, small: bool) -> None:
    server = serve({"/a": Reply(body=b"y" * 10_000, body_trickle=0.02)}, tls=False)
    client = client_for(replace(HASTY, small=0.3))
    says = "not complete in time" if small else "less than 1000 bytes/s"
    with pytest.raises(Exception, match=says), client.open(parse(server.url("/a"))) as answer:
        if small:
            answer.small_body(10_000, "document")
        else:
            list(answer.chunks())


def test_fast_body_passes_the_same_pace(serve: Any, client_for: Any) -> None:
    """The control: the limits above do not refuse everything."""
    server = serve({"/a": Reply(body=b"y" * 10_000)}, tls=False)
    client = client_for(HASTY)
    with client.open(parse(server.url("/a"))) as answer:
        assert len(b"".join(answer.chunks())) == 10_000


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(body=b"x" * 1001), id="declared"),
        pytest.param(Reply(body=b"x" * 1001, framing="chunked"), id="chunked"),
        pytest.param(Reply(body=b"x" * 1001, framing="close"), id="until-close"),
        pytest.param(Reply(body=b"x" * 999, framing="chunked", endless=True), id="endless-chunks"),
        pytest.param(Reply(body=b"x" * 999, framing="close", endless=True), id="endless"),
    ],
)
def test_document_is_capped(serve: Any, client_for: Any, reply: Reply) -> None:
    server = serve({"/a": reply, "/control": Reply(body=b"x" * 1000)})
    assert len(document(client_for(), server.url("/control"))) == 1000
    with pytest.raises(FetchFailed, match="larger than 1000 bytes"):
        document(client_for(), server.url("/a"))


def test_bytes_beyond_the_declared_length_are_not_read(serve: Any, client_for: Any) -> None:
    server = serve({"/a": Reply(body=b"abcdef", length=3)})
    assert document(client_for(), server.url("/a")) == b"abc"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(body=b"abc", length=6), id="shorter"),
        pytest.param(Reply(body=b"abcdef", framing="chunked", cut=3), id="chunks-cut"),
        pytest.param(
            Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"),
            id="chunk-length",
        ),
        pytest.param(
            Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n"),
            id="negative-chunk",
        ),
    ],
)
def test_body_that_ends_early_is_no_document(serve: Any, client_for: Any, reply: Reply) -> None:
    server = serve({"/a": reply})
    with pytest.raises(FetchFailed):
        document(client_for(), server.url("/a"))
    assert len(server.log) == 5


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"1;" + b"x" * 60_000 + b"\r\ny\r\n", id="extensions"),
        pytest.param(b"0\r\n" + b"X: y\r\n" * 10_000, id="trailers"),
    ],
)
def test_framing_without_content_ends(serve: Any, client_for: Any, raw: bytes, large: bool) -> None:
    """Never too slow, never silent, never over a cap on the body: and never done."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server = serve({"/a": Reply(raw=head + raw * 200)}, tls=False)
    with (
        pytest.raises(Exception, match="framing without content"),
        client_for().open(parse(server.url("/a"))) as answer,
    ):
        list(answer.chunks()) if large else answer.small_body(10_000, "document")


def test_single_byte_chunks_pass(serve: Any, client_for: Any) -> None:
    """The control: wasteful framing is no attack yet."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    count = 600_000
    server = serve({"/a": Reply(raw=head + b"1\r\nx\r\n" * count + b"0\r\n\r\n")}, tls=False)
    with client_for().open(parse(server.url("/a"))) as answer:
        assert sum(map(len, answer.chunks())) == count


def test_truncated_tls_is_no_end(serve: Any, client_for: Any) -> None:
    """Without a length the end of the connection is the end of the body, so it must be the
    server's own word, not that of somebody between us."""
    server = serve({"/a": Reply(body=b"abcdef", framing="close", cut=3, reset=True)})
    server.routes["/control"] = Reply(body=b"abcdef", framing="close")
    assert document(client_for(), server.url("/control")) == b"abcdef"
    with pytest.raises(FetchFailed, match="cut|reset"):
        document(client_for(), server.url("/a"))


def test_content_encoding_is_not_asked_for_nor_undone(serve: Any, client_for: Any) -> None:
    server = serve({"/a": Reply(200, {"Content-Encoding": "gzip"}, b"\x1f\x8b....")})
    with pytest.raises(FetchFailed, match="content encoding"):
        document(client_for(), server.url("/a"))
    assert server.log[0].header("Accept-Encoding") == "identity"


def test_user_agent_is_the_request_s(serve: Any, client_for: Any) -> None:
    server = serve({"/a": Reply(body=b"x")})
    document(client_for(user_agent="podctl/1.2"), server.url("/a"))
    assert server.log[0].header("User-Agent") == "podctl/1.2"


def test_environment_and_netrc_have_no_say(
    serve: Any, client_for: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """CVE-2024-47081 class: .netrc secrets, and proxies nobody told the transport of."""
    server = serve({"/a": Reply(body=b"x")})
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login user password {SECRET}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    assert document(client_for(), server.url("/a")) == b"x"
    assert server.log[0].header("Authorization") is None


FAILURES: dict[str, Any] = {
    "401": Reply(401, {"WWW-Authenticate": 'Basic realm="http://evil.example"'}),
    "403": Reply(403),
    "503": Reply(503),
    "202": Reply(202),
    "cut": Reply(body=b"abc", length=6),
    "nonsense": Reply(raw=b"nonsense\r\n\r\n"),
    "redirect": redirect(f"https://user:{SECRET}@example.com/"),
    "signed-redirect": redirect(f"/next?X-Amz-Signature={SECRET}"),
    "huge": Reply(length=1 << 40),
}


@pytest.mark.parametrize("kind", ["basic", "oauth", "aws"])
@pytest.mark.parametrize("failure", FAILURES)
def test_secrets_are_in_no_message(
    serve: Any, client_for: Any, quick: Limits, failure: str, kind: str
) -> None:
    """Not in the message, the hint, the traceback, nor any object a message could quote."""
    fields = {
        "basic": {"user": "user", "password": SECRET},
        "oauth": {"token": SECRET},
        "aws": {"accessKeyID": "AKID", "secretAccessKey": SECRET},
    }[kind]
    server = serve({"/app.aci": FAILURES[failure], "/next": Reply(403)})
    entry = Credential(f"127.0.0.1:{server.port}", kind, fields)
    from podctl.http.download import download

    client = client_for(
        credentials=(entry,), proxies={"https": "", "http": f"http://u:{SECRET}@127.0.0.1:1"}
    )
    with pytest.raises(PodctlError) as caught:
        download(
            client,
            parse(server.url(f"/app.aci?token={SECRET}")),
            None,
            _Nowhere(),
            named_by_server=False,
        )
    text = f"{caught.value} {caught.value.hint} {client!r} {client.request!r} {entry!r}"
    text += "".join(traceback.format_exception(caught.value))
    assert SECRET not in text
    assert "hunter2" not in text
    # The control: the secret did travel, so it was there to be told.
    assert server.log[0].header("Authorization") is not None


class _Nowhere:
    def begin(self, *_: Any) -> None:
        """Take it."""

    def write(self, _: bytes) -> None:
        """Lose it."""


def test_unauthorised_says_what_to_configure(serve: Any, client_for: Any) -> None:
    server = serve({"/a": Reply(401)})
    for credentials, says in (
        ((), "configure credentials for 127.0.0.1"),
        ((Credential(f"127.0.0.1:{server.port}", "oauth", {"token": "x"}),), "were not accepted"),
    ):
        client = client_for(credentials=credentials)
        with client.open(parse(server.url("/a"))) as answer:
            refusal = client.refuse_status(answer)
        assert "bad HTTP status code: 401" in refusal.message
        assert says in str(refusal.hint)
    assert len(server.log) == 2, "a refused secret is not offered again"


def test_connection_is_used_again(serve: Any, client_for: Any) -> None:
    server = serve({"/a": Content(b"x"), "/b": page()})
    client = client_for()
    for path in ("/a", "/b", "/a"):
        document(client, server.url(path))
    assert len(server.connections) == 1
