"""The entry points: transports `file`, `https`, `http`, `appc` and the format `aci`.

This module is light: what the work needs is imported where it is done, and all of it by
`transport_preload`, before a transport gives up its rights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.api import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.http.client import Client
    from podctl.http.limits import Limits
    from podctl.model.fetching import (
        Downloaded,
        FetchRequest,
        KeyLocation,
        LocalImage,
        Resolution,
        Resume,
        Sink,
    )
    from podctl.model.image import Image
    from podctl.model.layout import ArchiveLayout
    from podctl.model.reference import Reference


class FileTransport:
    """Images that are files on this host."""

    @hookimpl
    def transport_open_local(self, reference: Reference, request: FetchRequest) -> LocalImage:
        """Open the image and the signature beside it."""
        from podctl_fetch_aci.local import open_local

        return open_local(reference, request)

    @hookimpl
    def transport_resolve(self, reference: Reference, request: FetchRequest) -> Resolution:
        """Say where it is."""
        from podctl_fetch_aci.local import resolve_local

        return resolve_local(reference)


class WebTransport:
    """Images behind a URL.

    Args:
        limits: caps and time-outs; None for the defaults.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits

    @hookimpl
    def transport_preload(self) -> None:
        """Import the HTTP client and read the certificate authorities."""
        from podctl_fetch_aci.preload import preload

        preload()

    @hookimpl
    def transport_resolve(self, reference: Reference, request: FetchRequest) -> Resolution:
        """Fetch the signature; ask whether a held image has changed."""
        from podctl_fetch_aci.resolving import resolve_url

        with self._client(request) as client:
            return resolve_url(client, reference)

    @hookimpl
    def transport_download(
        self, resolution: Resolution, resume: Resume | None, request: FetchRequest, sink: Sink
    ) -> Downloaded:
        """Stream the image."""
        from podctl.http.download import download
        from podctl.http.urls import parse

        with self._client(request) as client:
            target = parse(resolution.location)
            named_by_server = client.reach.restore(resolution.context)
            return download(client, target, resume, sink, named_by_server=named_by_server)

    @hookimpl
    def transport_signature(self, resolution: Resolution, request: FetchRequest) -> bytes | None:
        """Fetch the signature that was deferred."""
        from podctl_fetch_aci.resolving import deferred_signature

        with self._client(request) as client:
            return deferred_signature(client, resolution)

    @hookimpl
    def transport_document(self, url: str, limit: int, request: FetchRequest) -> bytes:
        """Fetch a public key."""
        from podctl_fetch_aci.resolving import fetch_document

        with self._key_client(request) as client:
            return fetch_document(client, url, limit)

    def _client(self, request: FetchRequest, *, verify: bool | None = None) -> Client:
        from podctl.http.client import Client
        from podctl.http.limits import Limits

        return Client(request, self._limits or Limits(), verify=verify)

    def _key_client(self, request: FetchRequest) -> Client:
        """With `pubkey`, keys may come by plain http and from servers nobody vouches for."""
        from dataclasses import replace

        if "pubkey" not in request.insecure:
            return self._client(request)
        return self._client(replace(request, insecure=request.insecure | {"http"}), verify=False)


class DiscoveryTransport(WebTransport):
    """Images found by their names."""

    @hookimpl
    def transport_resolve(self, reference: Reference, request: FetchRequest) -> Resolution:
        """Discover the image and fetch its signature."""
        from podctl_fetch_aci.resolving import resolve_name

        with self._client(request) as client:
            return resolve_name(client, reference)

    @hookimpl
    def transport_keys(self, prefix: str, request: FetchRequest) -> Sequence[KeyLocation]:
        """Discover announced public keys."""
        from podctl_fetch_aci.resolving import key_locations

        with self._key_client(request) as client:
            return key_locations(client, prefix)


class AciFormat:
    """App Container Images (appc spec 0.8.11, aci.md)."""

    @hookimpl
    def format_layout(self) -> ArchiveLayout:
        """`manifest` and `rootfs/`; names beginning with .wh. mean nothing special."""
        from podctl.model.layout import ArchiveLayout

        return ArchiveLayout(manifest="manifest", rootfs="rootfs", whiteouts=False)

    @hookimpl
    def format_image(self, manifest: bytes) -> Image:
        """Parse an image manifest."""
        from podctl.model.image import parse_aci_image

        return parse_aci_image(manifest)


file = FileTransport()
https = WebTransport()
http = WebTransport()
appc = DiscoveryTransport()
aci = AciFormat()
