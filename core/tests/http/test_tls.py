"""Certificates: each bad one refused for its own reason, and let pass by --insecure-options=tls
alone (row R10)."""

from __future__ import annotations

import datetime
import ssl
from typing import Any

import pytest

from podctl.errors import FetchFailed
from podctl.http.urls import parse
from podctl.testing.certs import DAY, Authority, Identity
from podctl.testing.httpserver import Reply, names_at

HOST = "good.example"


def make(authority: Authority, kind: str) -> Identity:
    """A certificate that is bad in one way."""
    hour = datetime.timedelta(hours=1)
    if kind == "expired":
        return authority.issue(HOST, start=-2 * DAY, end=-hour)
    if kind == "not yet valid":
        return authority.issue(HOST, start=hour, end=2 * DAY)
    if kind == "self-signed":
        return authority.issue(HOST, self_signed=True)
    if kind == "unknown authority":
        return Authority("somebody else").issue(HOST)
    names = {
        "wrong name": "evil.example",
        "address instead of name": "127.0.0.1",
        "wildcard over two labels": "*.example.net",
        "wildcard at the top": "*.example",
        "partial wildcard": "g*d.example",
        "good": HOST,
    }
    return authority.issue(names[kind])


KINDS = {
    "expired": "expired",
    "not yet valid": "not yet valid",
    "self-signed": "self-signed",
    "unknown authority": "unable to get local issuer",
    "wrong name": "Hostname mismatch",
    "address instead of name": "Hostname mismatch",
    "partial wildcard": "Hostname mismatch",
}


def get(client: Any, server: Any, host: str = HOST) -> int:
    with (
        names_at({(host, server.port): (server.host, server.port)}),
        client.open(parse(server.url("/a", host))) as answer,
    ):
        return int(answer.status)


@pytest.mark.parametrize("kind, says", KINDS.items(), ids=KINDS)
def test_bad_certificate_is_refused(
    serve: Any, client_for: Any, authority: Authority, kind: str, says: str
) -> None:
    server = serve({"/a": Reply()}, identity=make(authority, kind))
    with pytest.raises(FetchFailed, match=f"TLS certificate is not valid: .*{says}") as caught:
        get(client_for(), server)
    assert "--insecure-options=tls" in str(caught.value.hint)
    assert server.log == [], "nothing is sent to a server nobody vouches for"
    # The control: the option, and nothing else, switches the check off.
    for option in ("http", "pubkey", "image"):
        with pytest.raises(FetchFailed):
            get(client_for(insecure={option}), server)
    assert get(client_for(insecure={"tls"}), server) == 200


def test_good_certificate_is_accepted(serve: Any, client_for: Any, authority: Authority) -> None:
    server = serve({"/a": Reply()}, identity=make(authority, "good"))
    assert get(client_for(), server) == 200


def test_wildcard_covers_one_label(serve: Any, client_for: Any, authority: Authority) -> None:
    identity = make(authority, "wildcard over two labels")
    server = serve({"/a": Reply()}, identity=identity)
    assert get(client_for(), server, "one.example.net") == 200
    for host in ("two.one.example.net", "example.net"):
        with pytest.raises(FetchFailed, match="Hostname mismatch"):
            get(client_for(), server, host)


def test_test_authority_is_not_trusted_by_default(serve: Any, client_for: Any) -> None:
    server = serve({"/a": Reply()}, HOST)
    with pytest.raises(FetchFailed, match="unable to get local issuer"):
        get(client_for(ca_file=None), server)


def test_missing_authorities_are_named(serve: Any, request_for: Any, quick: Any) -> None:
    from podctl.http.client import Client

    with pytest.raises(FetchFailed, match='authorities "/nonexistent.pem" cannot be read'):
        Client(request_for(ca_file="/nonexistent.pem"), quick)


def test_old_protocol_is_refused(serve: Any, client_for: Any, authority: Authority) -> None:
    identity = make(authority, "good")

    class Old(Identity):
        def context(self) -> ssl.SSLContext:
            context = identity.context()
            with pytest.warns(DeprecationWarning):
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = ssl.TLSVersion.TLSv1_1
            context.set_ciphers("ALL:@SECLEVEL=0")
            return context

    server = serve({"/a": Reply()}, identity=Old(*identity))
    with pytest.raises(FetchFailed, match="TLS failed: "):
        get(client_for(), server)
    # The control: the server does talk to who speaks its language.
    assert _speaks_old(server)


def _speaks_old(server: Any) -> bool:
    import socket

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection((server.host, server.port)) as plain,
        context.wrap_socket(plain) as tls,
    ):
        return tls.version() == "TLSv1.1"


def test_plain_server_at_a_tls_url_is_refused(serve: Any, client_for: Any) -> None:
    server = serve({"/a": Reply()}, tls=False)
    with pytest.raises(FetchFailed, match="TLS failed: wrong version number"):
        get(client_for(), _As("https", server))


class _As:
    """A server under another scheme."""

    def __init__(self, scheme: str, server: Any) -> None:
        self._scheme, self._server = scheme, server
        self.host, self.port = server.host, server.port

    def url(self, path: str, name: str) -> str:
        return str(self._server.url(path, name)).replace("http:", f"{self._scheme}:")
