"""Credentials of the configuration reach the server they are for."""

from __future__ import annotations

from typing import Any

import pytest

from podctl.errors import FetchFailed
from podctl.model.fetching import Credential
from podctl.model.reference import parse as parse_reference
from podctl.testing.httpserver import Content, Protected, Reply
from podctl.testing.transport import MemorySink
from podctl_fetch_aci.hooks import WebTransport


@pytest.mark.parametrize(
    "kind, fields, header",
    [
        ("basic", {"user": "u", "password": "p"}, "Basic dTpw"),
        ("oauth", {"token": "t"}, "Bearer t"),
    ],
)
def test_protected_image_is_fetched(
    serve: Any, request_for: Any, quick: Any, kind: str, fields: dict[str, str], header: str
) -> None:
    server = serve(
        {
            "/x.aci": Protected(header, Content(b"image")),
            "/x.aci.asc": Protected(header, Reply(body=b"sig")),
        }
    )
    transport = WebTransport(quick)
    reference = parse_reference(server.url("/x.aci"))
    with pytest.raises(FetchFailed, match="bad HTTP status code: 401"):
        transport.transport_resolve(reference, request_for())
    request = request_for(credentials=(Credential(f"127.0.0.1:{server.port}", kind, fields),))
    resolution = transport.transport_resolve(reference, request)
    sink = MemorySink()
    transport.transport_download(resolution, None, request, sink)
    assert (resolution.signature, sink.data) == (b"sig", b"image")
