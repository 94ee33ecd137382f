"""From a reference to an image's documents: tag, index, platform, manifest, configuration.

What a tag leads to is asked once; from its digest on, everything is asked for by digest, so that
a tag which moves meanwhile moves nothing (R13).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import FetchFailed
from podctl.model.fetching import Resolution
from podctl.model.imagedocument import ImageDocument
from podctl_fetch_docker.endpoints import Settings, plain_settings
from podctl_fetch_docker.manifests import Index, check_image, parse_named, parse_top
from podctl_fetch_docker.platforms import choose, wanted_platform
from podctl_fetch_docker.registry import converse
from podctl_fetch_docker.signatures import Collector, signature_tag

if TYPE_CHECKING:
    from podctl.http.limits import Limits
    from podctl.model.fetching import FetchRequest
    from podctl.model.reference import Reference
    from podctl_fetch_docker.descriptors import Descriptor
    from podctl_fetch_docker.endpoints import Endpoint
    from podctl_fetch_docker.manifests import Manifest
    from podctl_fetch_docker.registry import Repository


class _Found(NamedTuple):
    """What a place had: the documents, the digests a signature may be over, and its URL."""

    document: ImageDocument
    digests: list[str]
    base: str


def settings_of(reference: Reference, request: FetchRequest) -> Settings:
    """The endpoints of a reference."""
    settings = request.settings
    return settings if isinstance(settings, Settings) else plain_settings(reference)


def resolve(reference: Reference, request: FetchRequest, limits: Limits) -> Resolution:
    """Find an image, at the first place that has it.

    Raises:
        FetchFailed: none has.
        ManifestInvalid, Refused: it is no image that can be run here.
    """
    failures: list[FetchFailed] = []
    endpoints = settings_of(reference, request).endpoints
    for endpoint in endpoints:
        try:
            return _resolve_at(endpoint, reference, request, limits)
        except FetchFailed as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    tried = "; ".join(error.message for error in failures)
    raise FetchFailed(f'image "{reference.text}" was not found; tried: {tried}')


def _resolve_at(
    endpoint: Endpoint, reference: Reference, request: FetchRequest, limits: Limits
) -> Resolution:
    version = reference.version or "latest"
    with converse(endpoint, request, limits) as repository:
        held = request.cached.etag
        if held is not None and held == (
            version if ":" in version else repository.digest(version)
        ):  # fmt: skip
            return Resolution(
                format="oci",
                location=f"docker://{reference.name}@{held}",
                not_modified=True,
                etag=held,
            )
        found = _documents(repository, reference, version)
        signature = None
        if request.want_signature:
            signature = Collector(repository).collect(found.digests)
    if signature is None and request.want_signature:
        signature = _signatures_elsewhere(endpoint, reference, request, limits, found)
    top = found.digests[0]
    return Resolution(
        format="oci",
        location=f"docker://{reference.name}@{top}",
        latest=version == "latest",
        signature=signature,
        signature_location=f"docker://{reference.name}:{signature_tag(top)}",
        etag=top,
        context=found.base,
        document=found.document.dump(),
    )


def _documents(repository: Repository, reference: Reference, version: str) -> _Found:
    what = f"{reference.name}{'@' if ':' in version else ':'}{version}"
    served = repository.manifest(version)
    if served is None:
        raise FetchFailed(f"{repository.base}: no image {version}", hint="check name and tag")
    top = parse_top(served.data, served.content_type, what=what)
    if isinstance(top, Index):
        entry = choose(top, wanted_platform(reference.search_labels()), what)
        manifest = _manifest(repository, entry)
        document = ImageDocument("", served.data, manifest.data, b"")
        digests = [served.digest, entry.digest]
    else:
        manifest = top
        document = ImageDocument("", None, served.data, b"")
        digests = [served.digest]
    check_image(manifest, what=what)
    config = _config(repository, manifest)
    document = document._replace(reference=reference.path_or_url, config=config)
    return _Found(document, digests, repository.base)


def _manifest(repository: Repository, entry: Descriptor) -> Manifest:
    """The manifest an index names."""
    if entry.data is not None:
        return parse_named(entry.data, entry)
    served = repository.manifest(entry.digest)
    if served is None:
        raise FetchFailed(f"{repository.base}: no manifest {entry.digest}, though the index has it")
    return parse_named(served.data, entry, served.content_type)


def _config(repository: Repository, manifest: Manifest) -> bytes:
    config = manifest.config
    if config.data is not None:
        return config.data
    data = repository.blob(config.digest, config.size, "configuration")
    if data is None:
        raise FetchFailed(f"{repository.base}: no configuration {config.digest}")
    return data


def _signatures_elsewhere(
    used: Endpoint,
    reference: Reference,
    request: FetchRequest,
    limits: Limits,
    found: _Found,
) -> bytes | None:
    """Ask the places behind a mirror: many mirrors keep images alone."""
    for endpoint in settings_of(reference, request).endpoints:
        if endpoint is used:
            continue
        try:
            with converse(endpoint, request, limits) as repository:
                signature = Collector(repository).collect(found.digests)
        except FetchFailed:
            continue
        if signature is not None:
            return signature
    return None
