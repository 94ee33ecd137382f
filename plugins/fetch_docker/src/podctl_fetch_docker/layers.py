"""One layer into a sink, from wherever it can be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import FetchFailed
from podctl.model.fetching import CacheState, Resume
from podctl.model.imagedocument import parse_document
from podctl.model.reference import parse as parse_reference
from podctl_fetch_docker.manifests import foreign_layers, parse_manifest
from podctl_fetch_docker.registry import converse
from podctl_fetch_docker.resolving import settings_of

if TYPE_CHECKING:
    from podctl.http.limits import Limits
    from podctl.model.fetching import Downloaded, FetchRequest, Resolution, Sink
    from podctl.model.image import Layer
    from podctl_fetch_docker.endpoints import Endpoint


class _Continuing:
    """A sink that several places fill in turn: to whoever reads, it is one body."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._skip = 0
        #: bytes the reader has; None before the first place has begun
        self.position: int | None = None

    def begin(self, offset: int, total: int | None, state: CacheState) -> None:
        """See podctl.model.fetching.Sink."""
        if self.position is None:
            self.position = offset
            self._sink.begin(offset, total, state)
        self._skip = self.position - offset

    def write(self, data: bytes) -> None:
        """See podctl.model.fetching.Sink."""
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        if skipped < len(data):
            self._sink.write(data[skipped:])
            self.position = (self.position or 0) + len(data) - skipped


def fetch_layer(
    resolution: Resolution,
    layer: Layer,
    resume: Resume | None,
    request: FetchRequest,
    limits: Limits,
    sink: Sink,
) -> Downloaded:
    """Stream one layer as published.

    Every place of the image is tried, first the one that had its manifest; another one goes on
    where it broke off. URLs inside a manifest are never asked (CVE-2020-15157).

    Raises:
        FetchFailed: none has the whole of it.
    """
    reference = parse_reference(resolution.location)
    body = _Continuing(sink)
    failures: list[FetchFailed] = []
    what = f"layer {layer.blob}"
    for endpoint, base in _in_order(settings_of(reference, request).endpoints, resolution.context):
        if body.position is not None:
            resume = Resume(body.position, CacheState())
        try:
            with converse(endpoint, request, limits, base) as repository:
                return repository.download(layer.blob, layer.size, resume, body, what)
        except FetchFailed as error:
            failures.append(error)
    raise _failure(failures, resolution, layer)


def _in_order(
    endpoints: tuple[Endpoint, ...], context: str | None
) -> list[tuple[Endpoint, str | None]]:
    """The endpoints, and the URL of the one that had the manifest, which comes first."""
    places: list[tuple[Endpoint, str | None]] = []
    for endpoint in endpoints:
        place = f"://{endpoint.host}/v2/{endpoint.repository}"
        if context is not None and context in (f"https{place}", f"http{place}"):
            places.insert(0, (endpoint, context))
        else:
            places.append((endpoint, None))
    return places


def _failure(failures: list[FetchFailed], resolution: Resolution, layer: Layer) -> FetchFailed:
    if resolution.document is not None:
        manifest = parse_manifest(parse_document(resolution.document).manifest)
        if layer.blob in {one.digest for one in foreign_layers(manifest)}:
            return FetchFailed(
                f"layer {layer.blob} is not to be had from the registry: {failures[0].message}",
                hint="its licence forbids to distribute it; podctl fetches from registries alone",
            )
    if len(failures) == 1:
        return failures[0]
    return FetchFailed("; ".join(error.message for error in failures), hint=failures[-1].hint)
