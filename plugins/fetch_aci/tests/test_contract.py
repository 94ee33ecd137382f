"""The transports keep the contract every transport keeps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from podctl.model.reference import parse
from podctl.testing.httpserver import Content, Reply, page
from podctl.testing.transport import Published, TransportContract
from podctl_fetch_aci import hooks
from podctl_fetch_aci.hooks import DiscoveryTransport, WebTransport

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = os.urandom(300_000)
SIGNATURE = b"a detached signature"


class TestHttps(TransportContract):
    @pytest.fixture
    def published(self, serve: Any, request_for: Any, quick: Any) -> Published:
        server = serve({"/app.aci": Content(DATA), "/app.aci.asc": Reply(body=SIGNATURE)})
        return Published(
            WebTransport(quick),
            parse(server.url("/app.aci", "localhost")),
            request_for(),
            DATA,
            SIGNATURE,
            parse(server.url("/none.aci", "localhost")),
            "podctl_fetch_aci.hooks:https",
        )


class TestHttp(TransportContract):
    @pytest.fixture
    def published(self, serve: Any, request_for: Any, quick: Any) -> Published:
        server = serve({"/app.aci": Content(DATA, etag=None)}, tls=False)
        return Published(
            WebTransport(quick),
            parse(server.url("/app.aci")),
            request_for(),
            DATA,
            None,
            parse(server.url("/none.aci")),
            "podctl_fetch_aci.hooks:http",
        )


class TestDiscovery(TransportContract):
    @pytest.fixture
    def published(
        self, serve: Any, request_for: Any, quick: Any, named: Callable[..., None]
    ) -> Published:
        template = "https://example.com/{name}-{version}-{os}-{arch}.{ext}"
        server = serve({"/app": page(("ac-discovery", f"example.com {template}"))}, "example.com")
        image = "/example.com/app-1.0-linux-amd64.aci"
        server.routes |= {image: Content(DATA), f"{image}.asc": Reply(body=SIGNATURE)}
        named("example.com", server)
        return Published(
            DiscoveryTransport(quick),
            parse("example.com/app:1.0,os=linux,arch=amd64"),
            request_for(),
            DATA,
            SIGNATURE,
            parse("example.com/app:2.0,os=linux,arch=amd64"),
            "podctl_fetch_aci.hooks:appc",
            {("example.com", 443): (server.host, server.port)},
        )


def test_providers_match_the_hook_specs() -> None:
    import pluggy

    from podctl.api.hookspecs import FormatSpec, TransportSpec

    for spec, providers in (
        (TransportSpec, (hooks.file, hooks.http, hooks.https, hooks.appc)),
        (FormatSpec, (hooks.aci,)),
    ):
        for provider in providers:
            manager = pluggy.PluginManager("podctl")
            manager.add_hookspecs(spec)
            manager.register(provider)
            manager.check_pending()
