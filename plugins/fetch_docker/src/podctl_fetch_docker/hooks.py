"""The entry point: transport `docker`.

This module is light: what the work needs is imported where it is done, and all of it by
`transport_preload`, before the transport gives up its rights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.api import hookimpl

if TYPE_CHECKING:
    from podctl.http.limits import Limits
    from podctl.model.fetching import Downloaded, FetchRequest, Resolution, Resume, Sink
    from podctl.model.image import Layer
    from podctl.model.reference import Reference


class DockerTransport:
    """Images in a registry (OCI distribution-spec 1.1, Docker's registry API v2).

    Args:
        limits: caps and time-outs; None for the defaults.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits

    @hookimpl
    def transport_normalise(self, reference: Reference) -> Reference:
        """Complete a name without a registry by registries.conf."""
        from podctl_fetch_docker.shortnames import complete

        return complete(reference)

    @hookimpl
    def transport_configure(self, reference: Reference, request: FetchRequest) -> object:
        """Read registries.conf, credentials and certificates."""
        from podctl_fetch_docker.configure import configure

        return configure(reference, request)

    @hookimpl
    def transport_preload(self) -> None:
        """Import the HTTP client and read the certificate authorities."""
        from podctl_fetch_docker.preload import preload

        preload()

    @hookimpl
    def transport_resolve(self, reference: Reference, request: FetchRequest) -> Resolution:
        """Fetch the documents and the signatures."""
        from podctl_fetch_docker.resolving import resolve

        return resolve(reference, request, self._bounds())

    @hookimpl
    def transport_layer(
        self,
        resolution: Resolution,
        layer: Layer,
        resume: Resume | None,
        request: FetchRequest,
        sink: Sink,
    ) -> Downloaded:
        """Stream one layer."""
        from podctl_fetch_docker.layers import fetch_layer

        return fetch_layer(resolution, layer, resume, request, self._bounds(), sink)

    def _bounds(self) -> Limits:
        from podctl.http.limits import Limits

        return self._limits or Limits()


docker = DockerTransport()
