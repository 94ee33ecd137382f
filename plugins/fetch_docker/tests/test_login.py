"""Who is told which secret: anonymous, Basic and token authentication (rows R1, R2, R3, R15)."""

from __future__ import annotations

import base64
import json
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from podctl.errors import FetchFailed, PodctlError
from podctl.model.fetching import Credential
from podctl.testing.httpserver import Reply, redirect
from podctl.testing.registry import Registry
from podctl.testing.registryauth import Basic, Challenge, Tokens
from podctl.testing.registryfaults import elsewhere, in_turn, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.testing.httpserver import Request

USER, PASSWORD = "alice", "hunter2-very-secret"
HEADER = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
TOKEN = "identity-hunter2-token"


def login(site: Any, user: str = USER, password: str = PASSWORD) -> tuple[Credential, ...]:
    """The `dockerAuth` entry for a site."""
    return (Credential(site.name, "basic", {"user": user, "password": password}),)


def authorisations(requests: list[Request]) -> list[str | None]:
    return [request.header("Authorization") for request in requests]


@pytest.fixture
def guarded(at: Callable[..., Any], serve: Any, app: Any) -> Callable[..., tuple[Any, Tokens, Any]]:
    """A registry whose tokens come from a service on another port."""

    def make(tls: bool = True, **fields: Any) -> tuple[Any, Tokens, Any]:
        service = serve(tls=tls)
        tokens = Tokens(service.url("/token"), **fields)
        service.routes["/token"] = tokens.service
        site = at(Registry(guard=tokens))
        site.registry.put("library/app", app, "1.0")
        return site, tokens, service

    return make


def test_a_public_image_takes_an_anonymous_token(guarded: Any, app: Any) -> None:
    site, tokens, service = guarded()
    resolution = site.resolve(want_signature=False)
    assert site.layers(resolution) == [layer.blob for layer in app.layers]
    assert authorisations(service.log) == [None] * 3
    assert tokens.asked[0].query["scope"] == ["repository:library/app:pull"]
    assert tokens.asked[0].query["service"] == ["registry.test"]
    assert "account" not in tokens.asked[0].query


def test_one_token_serves_a_conversation(guarded: Any) -> None:
    site, tokens, _ = guarded()
    site.resolve()
    assert len(tokens.asked) == 1
    assert [visit.status for visit in site.registry.log].count(401) == 1


def test_a_private_image_takes_the_credentials_to_the_service(guarded: Any, app: Any) -> None:
    site, tokens, service = guarded(users={USER: PASSWORD})
    with pytest.raises(FetchFailed, match="bad HTTP status code: 401"):
        site.resolve()
    service.log.clear()
    resolution = site.resolve(registry_credentials=login(site))
    assert resolution.document
    assert authorisations(service.log) == [HEADER]
    assert tokens.asked[-1].query["account"] == [USER]
    sent = authorisations([visit.request for visit in site.registry.log])
    assert HEADER not in sent, "the registry itself wants a token, and gets nothing else"


def test_basic_credentials_are_sent_after_the_registry_asked(at: Any, app: Any) -> None:
    site = at(Registry(guard=Basic({USER: PASSWORD})))
    site.registry.put("library/app", app, "1.0")
    request = site.asked(registry_credentials=login(site))
    resolution = site.resolve(registry_credentials=login(site))
    assert site.layers(resolution, request) == [layer.blob for layer in app.layers]
    sent = authorisations([visit.request for visit in site.registry.log])
    assert sent[:2] == [None, HEADER]
    assert set(sent) == {None, HEADER}


def test_an_identity_token_is_exchanged_by_post(guarded: Any, host: Any) -> None:
    site, tokens, service = guarded(users={"nobody": "else"}, refresh_tokens=(TOKEN,))
    entry = {"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": TOKEN}
    host.write("run/containers/auth.json", json.dumps({"auths": {site.name: entry}}))
    assert site.resolve().document
    (asked,) = tokens.asked
    assert asked.method == "POST"
    assert parse_qs(asked.body.decode()) == {
        "grant_type": ["refresh_token"],
        "service": ["registry.test"],
        "scope": ["repository:library/app:pull"],
        "client_id": ["podctl"],
        "refresh_token": [TOKEN],
    }
    assert authorisations(service.log) == [None]


def test_an_identity_token_follows_no_redirect(guarded: Any, host: Any, serve: Any) -> None:
    site, _, service = guarded(refresh_tokens=(TOKEN,))
    evil = serve({"/token": Reply()})
    service.routes["/token"] = redirect(evil.url("/token"), 307)
    entry = {"identitytoken": TOKEN}
    host.write("run/containers/auth.json", json.dumps({"auths": {site.name: entry}}))
    with pytest.raises(FetchFailed, match="redirects a request with a body"):
        site.resolve()
    assert evil.log == []


def test_a_registry_token_is_used_as_it_is(guarded: Any, host: Any) -> None:
    site, tokens, service = guarded()
    tokens.issued["ready-made"] = ["repository:library/app:pull"]
    entry = {"registrytoken": "ready-made"}
    host.write("run/containers/auth.json", json.dumps({"auths": {site.name: entry}}))
    assert site.resolve().document
    assert service.log == []


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_either_name_of_a_token_is_read(guarded: Any, name: str) -> None:
    site, _, _ = guarded(field_name=name)
    assert site.resolve().document


def test_a_token_that_expires_is_fetched_anew(guarded: Any, app: Any) -> None:
    site, tokens, _ = guarded(uses=2)
    resolution = site.resolve()
    assert resolution.document
    assert len(tokens.asked) >= 2


def test_a_token_that_expires_within_a_layer_is_fetched_anew(guarded: Any, app: Any) -> None:
    """The body breaks off; when the rest is asked for, the token is no good any more."""
    site, tokens, _ = guarded()
    resolution = site.resolve(want_signature=False)
    blob = max(app.layers, key=lambda one: len(one.blob))

    def cut_and_expire(request: Request, honest: Any) -> Reply:
        reply = honest(request)
        if reply.status == 200:
            reply.cut, reply.reset = 10, True
            tokens.expire()
        return reply

    site.registry.spoil("blob", cut_and_expire, name=blob.digest)
    assert site.layers(resolution) == [layer.blob for layer in app.layers]
    # One for resolving, one for each layer, one more for the rest.
    assert len(tokens.asked) == 4


# -- registries that ask for ever, or for too much ------------------------------------------------


def test_a_registry_that_is_never_content_ends_after_one_token(at: Any, serve: Any) -> None:
    """Row R1."""
    service = serve({"/token": Reply(body=b'{"token": "useless"}')})
    site = at(Registry(guard=Challenge(f'Bearer realm="{service.url("/token")}",service="x"')))
    with pytest.raises(FetchFailed, match="bad HTTP status code: 401") as caught:
        site.resolve()
    assert "if it is not public" in str(caught.value.hint)
    assert len(service.log) == 1
    assert len(site.registry.log) == 2


def test_refused_basic_credentials_are_not_offered_again(at: Any, app: Any) -> None:
    site = at(Registry(guard=Challenge('Basic realm="x"')))
    with pytest.raises(FetchFailed, match="401") as caught:
        site.resolve(registry_credentials=login(site))
    assert "kind dockerAuth were not accepted" in str(caught.value.hint)
    assert authorisations([v.request for v in site.registry.log]) == [None, HEADER]


@pytest.mark.parametrize(
    ("realm", "says"),
    [
        ("http://evil.example/token", "token service by plain http: refused"),
        ("file:///etc/shadow", "neither https nor http"),
        ("ftp://evil.example/", "neither https nor http"),
        ("//evil.example/token", "neither https nor http"),
        ("", "neither https nor http"),
        ("https://user:pass@evil.example/", "user name or password"),
        ("https://evil.example/" + "x" * 9000, "WWW-Authenticate is longer"),
        ("https://169.254.169.254/token", "link-local address: refused"),
        ("https://a b.example/", "no URL may hold"),
    ],
)
def test_a_bad_realm_is_asked_for_nothing(at: Any, realm: str, says: str) -> None:
    """Row R3."""
    site = at(Registry(guard=Challenge(f'Bearer realm="{realm}",service="x"')))
    with pytest.raises(FetchFailed, match=says) as caught:
        site.resolve(registry_credentials=login(site))
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_a_realm_without_a_name_and_other_schemes_lead_nowhere(at: Any) -> None:
    for header in ("Bearer", "Negotiate", 'Digest realm="x"'):
        site = at(Registry(guard=Challenge(header)))
        with pytest.raises(FetchFailed, match="401|bad token service"):
            site.resolve(registry_credentials=login(site))
        assert authorisations([v.request for v in site.registry.log]) == [None]


def test_credentials_go_to_no_service_by_plain_http(guarded: Any) -> None:
    """Not even where plain http was called acceptable: whoever listens would have them."""
    site, _, service = guarded(tls=False)
    with pytest.raises(FetchFailed, match="plain http: credentials are not sent"):
        site.resolve(registry_credentials=login(site), insecure={"http"})
    assert service.log == []
    # The control: without credentials it is asked.
    assert site.resolve(insecure={"http"}).document
    assert len(service.log) == 1


def test_the_scope_is_ours_whatever_the_registry_asks_for(at: Any, serve: Any) -> None:
    """A token for more could be used for more, by whoever is at the other end."""
    service = serve({"/token": Reply(body=b'{"token": "t"}')})
    words = f'Bearer realm="{service.url("/token")}",scope="repository:victim/app:pull,push"'
    site = at(Registry(guard=Challenge(words)))
    with pytest.raises(FetchFailed):
        site.resolve(registry_credentials=login(site))
    assert service.log[0].query["scope"] == ["repository:library/app:pull"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"<html>",
        b'{"token": ""}',
        b'{"token": 5}',
        b'{"token": "a\\r\\nX-Evil: 1"}',
        b'{"token": "a b"}',
        b'{"token": "a", "token": "b"}',
        b'{"token": "' + b"x" * 70_000 + b'"}',
        b'{"token": "' + b"x" * 300_000 + b'"}',
        b'{"token": "\xff"}',
    ],
)
def test_an_answer_without_a_fit_token_is_refused(at: Any, serve: Any, body: bytes) -> None:
    service = serve({"/token": Reply(body=body)})
    site = at(Registry(guard=Challenge(f'Bearer realm="{service.url("/token")}"')))
    with pytest.raises(FetchFailed, match="token"):
        site.resolve()
    assert len(site.registry.log) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_service_that_refuses_is_named(at: Any, serve: Any, status: int) -> None:
    service = serve({"/token": Reply(status)})
    site = at(Registry(guard=Challenge(f'Bearer realm="{service.url("/token")}"')))
    with pytest.raises(FetchFailed, match=f"/token.*bad HTTP status code: {status}") as caught:
        site.resolve()
    assert caught.value.hint


# -- redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_token_does_not_follow_a_blob_elsewhere(
    guarded: Any, serve: Any, app: Any, status: int, name: str
) -> None:
    """Row R2: another port, or another name of the same address."""
    site, _, _ = guarded()
    blobs = {layer.digest: layer.blob for layer in app.layers}
    away = serve({f"/{digest}": Reply(body=blob) for digest, blob in blobs.items()})
    sent: list[str] = []

    def send_away(request: Request, honest: Any) -> Reply:
        token = request.header("Authorization")
        if token is None:
            return honest(request)
        sent.append(token)
        return redirect(away.url("/" + request.path.rpartition("/")[2], name), status)

    resolution = site.resolve(want_signature=False)
    site.registry.spoil("blob", send_away)
    assert site.layers(resolution) == list(blobs.values())
    assert authorisations(away.log) == [None, None]
    assert {request.header("Cookie") for request in away.log} == {None}
    # The control: at home there was something to lose.
    assert len(sent) == 2


# -- plain http -----------------------------------------------------------------------------------


def test_a_configured_secret_is_not_sent_by_plain_http(at: Any, app: Any) -> None:
    site = at(Registry(guard=Basic({USER: PASSWORD})), tls=False)
    site.registry.put("library/app", app, "1.0")
    with pytest.raises(FetchFailed, match="401") as caught:
        site.resolve(registry_credentials=login(site), insecure={"http"})
    assert "not sent by plain http" in str(caught.value.hint)
    assert set(authorisations([v.request for v in site.registry.log])) == {None}


def test_an_anonymous_token_works_by_plain_http(at: Any, serve: Any, app: Any) -> None:
    service = serve(tls=False)
    tokens = Tokens(service.url("/token"))
    service.routes["/token"] = tokens.service
    site = at(Registry(guard=tokens), tls=False)
    site.registry.put("library/app", app, "1.0")
    assert site.resolve(insecure={"http"}).document


# -- secrets in what people see -------------------------------------------------------------------

FAILURES: dict[str, Any] = {
    "401": refused(401, WWW_Authenticate='Basic realm="x"'),
    "403": refused(403),
    "404": refused(404),
    "500": refused(500),
    "redirect": elsewhere(f"https://user:{PASSWORD}@evil.example/"),
    "signed-redirect": elsewhere(f"https://127.0.0.1:1/?X-Amz-Signature={PASSWORD}"),
    "nonsense": lambda request, honest: Reply(raw=b"nonsense\r\n\r\n"),
    "huge": lambda request, honest: Reply(length=1 << 40),
    "other-bytes": lambda request, honest: Reply(body=b"{}"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("kind", ["basic", "token"])
def test_secrets_are_in_no_message(
    at: Any, guarded: Any, app: Any, failure: str, kind: str
) -> None:
    """Row R15: not in message, hint, traceback, nor any value a message could quote."""
    if kind == "basic":
        site = at(Registry(guard=Basic({USER: PASSWORD})))
        site.registry.put("library/app", app, "1.0")
    else:
        site, _, _ = guarded(users={USER: PASSWORD})
    site.registry.spoil("manifest", in_turn(None, FAILURES[failure], FAILURES[failure]))
    request = site.asked(registry_credentials=login(site))
    site = site._replace(limits=replace(site.limits, attempts=2))
    with pytest.raises(PodctlError) as caught:
        site.transport.transport_resolve(site.reference(), request)
    text = f"{caught.value} {caught.value.hint} {request!r} {request.settings!r}"
    text += "".join(traceback.format_exception(caught.value))
    for secret in (PASSWORD, HEADER.removeprefix("Basic ")):
        assert secret not in text
    # The control: something secret did travel.
    assert any(authorisations([v.request for v in site.registry.log]))
