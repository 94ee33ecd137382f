"""Who is sent which secret when the transport decides: challenges, bodies, client certificates."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import FetchFailed
from podctl.http.client import Client
from podctl.http.urls import Target, parse
from podctl.http.wire import tls_context
from podctl.testing.certs import Authority, Identity
from podctl.testing.httpserver import Protected, Reply, Sequence, redirect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Passwords:
    """Offers one password after the other, each time the server refuses."""

    def __init__(self, *passwords: str) -> None:
        self._left = list(passwords)
        self.asked: list[str] = []

    def headers(self, method: str, target: Target, extra: Mapping[str, str]) -> dict[str, str]:
        return {"Authorization": self._left[0]} if self._left else {}

    def challenged(self, target: Target, headers: Mapping[str, str]) -> bool:
        self.asked.append(headers.get("WWW-Authenticate", ""))
        if len(self._left) < 2:
            return False
        del self._left[0]
        return True

    def advice(self, target: Target) -> str | None:
        return "think of another"


def test_a_refused_request_is_repeated_with_what_the_challenge_led_to(
    serve: Any, client_for: Any
) -> None:
    server = serve({"/a": Protected("second", Reply(body=b"x"))})
    passwords = Passwords("first", "second")
    answer, data = client_for().document(
        parse(server.url("/a")), 10, "document", authorisation=passwords
    )
    assert (answer.status, data) == (200, b"x")
    assert passwords.asked == ['Basic realm="test"']
    assert [one.header("Authorization") for one in server.log] == ["first", "second"]
    assert len(server.connections) == 1, "an answer of 401 costs no connection"


def test_rounds_are_limited_whatever_the_authorisation_hopes(serve: Any, client_for: Any) -> None:
    server = serve({"/a": Reply(401)})
    passwords = Passwords(*"abcdefgh")
    with client_for().open(parse(server.url("/a")), authorisation=passwords) as answer:
        assert answer.status == 401
    assert [one.header("Authorization") for one in server.log] == ["a", "b", "c"]


def test_a_host_behind_a_redirect_cannot_ask_for_secrets(serve: Any, client_for: Any) -> None:
    away = serve({"/end": Reply(401, {"WWW-Authenticate": "Basic"})})
    server = serve({"/start": redirect(away.url("/end"))})
    passwords = Passwords("first", "second")
    with client_for().open(parse(server.url("/start")), authorisation=passwords) as answer:
        assert answer.status == 401
    assert passwords.asked == []
    assert [one.header("Authorization") for one in away.log] == [None]


def test_advice_comes_with_a_refusal(serve: Any, request_for: Any, quick: Any) -> None:
    server = serve({"/a": Reply(403), "/b": Reply(404)})
    with Client(request_for(), quick, authorisation=Passwords("x")) as client:
        for path, hint in (("/a", "think of another"), ("/b", None)):
            with client.open(parse(server.url(path))) as answer:
                assert client.refuse_status(answer).hint == hint


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_with_a_body(serve: Any, client_for: Any, status: int) -> None:
    away = serve({"/end": Reply()})
    server = serve({"/start": redirect(away.url("/end"), status)})
    with pytest.raises(FetchFailed, match="redirects a request with a body"):
        client_for().open(parse(server.url("/start")), method="POST", body=b"refresh_token=x")
    assert away.log == []


def test_a_body_is_sent_as_it_is_and_again_after_trouble(serve: Any, client_for: Any) -> None:
    server = serve({"/a": Sequence(Reply(503), Reply(body=b"ok"))})
    _, data = client_for().document(
        parse(server.url("/a")), 10, "document", method="POST", body=b"a=b"
    )
    assert data == b"ok"
    assert [(one.method, one.body) for one in server.log] == [("POST", b"a=b")] * 2


@pytest.fixture
def shown(authority: Authority, tmp_path: Path) -> tuple[str, str]:
    """Paths of a client certificate and its key."""
    return authority.issue("somebody").write(tmp_path, "client")


def _asks_for_certificates(identity: Identity, ca_file: str) -> Identity:
    class Asking(Identity):
        def context(self) -> ssl.SSLContext:
            context = identity.context()
            context.load_verify_locations(ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
            return context

    return Asking(*identity)


def test_a_client_certificate_is_shown_to_its_host_alone(
    serve: Any,
    request_for: Any,
    quick: Any,
    authority: Authority,
    ca_file: str,
    shown: tuple[str, str],
) -> None:
    identity = _asks_for_certificates(authority.issue("127.0.0.1", "localhost"), ca_file)
    server, other = (serve({"/a": Reply(body=b"x")}, identity=identity) for _ in range(2))
    server.routes["/away"] = redirect(other.url("/a"))
    own = tls_context(ca_file, verify=True, client=shown)
    origin = parse(server.url("/a")).origin
    with Client(request_for(), quick, contexts={origin: own}) as client:
        assert client.document(parse(server.url("/a")), 10, "document")[1] == b"x"
        with pytest.raises(FetchFailed):
            client.document(parse(server.url("/away")), 10, "document")
    assert other.log == []
    # The control: the other would have answered who shows one.
    with Client(request_for(), quick, context=own) as client:
        assert client.document(parse(server.url("/away")), 10, "document")[1] == b"x"


def test_further_authorities_are_believed_beside_the_usual_ones(
    serve: Any, request_for: Any, quick: Any, ca_file: str
) -> None:
    private = Authority("private")
    server = serve({"/a": Reply(body=b"x")}, identity=private.issue("127.0.0.1"))
    usual = serve({"/a": Reply(body=b"x")})
    context = tls_context(ca_file, verify=True, more=private.pem.decode())
    with Client(request_for(), quick, context=context) as client:
        for one in (server, usual):
            assert client.document(parse(one.url("/a")), 10, "document")[1] == b"x"
    # The control: without them it is nobody we know.
    with Client(request_for(), quick) as client, pytest.raises(FetchFailed, match="local issuer"):
        client.document(parse(server.url("/a")), 10, "document")


def test_a_certificate_without_its_key_is_named(shown: tuple[str, str], ca_file: str) -> None:
    with pytest.raises(FetchFailed, match=f'client certificate "{shown[0]}" with key'):
        tls_context(ca_file, verify=True, client=(shown[0], ca_file))
