"""From a reference to an image's location and signature."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import FetchFailed
from podctl.http import urls
from podctl.http.caching import conditions, max_age, state_of
from podctl.http.client import bad_status
from podctl.model.fetching import KeyLocation, Resolution
from podctl_fetch_aci.discovery import Endpoint, endpoints, find_tags, simple
from podctl_fetch_aci.limits import SIGNATURE

if TYPE_CHECKING:
    from podctl.http.client import Answer, Client
    from podctl.http.urls import Target
    from podctl.model.reference import Reference

#: There is no such document.
_ABSENT = (404, 410)
_NO_HEAD = (403, 405, 501)


class Signature(NamedTuple):
    """The outcome of asking for a signature: bytes, or that it will come, or neither."""

    data: bytes | None = None
    deferred: bool = False


def resolve_url(client: Client, reference: Reference) -> Resolution:
    """Resolve an image that is named by its URL.

    Raises:
        FetchFailed: the server did not answer, or not well.
    """
    target = urls.parse(reference.path_or_url)
    endpoint = Endpoint(target, _signature_of(target))
    unchanged = _unchanged(client, endpoint, named_by_server=False)
    return unchanged or _resolution(client, endpoint, named_by_server=False)


def resolve_name(client: Client, reference: Reference) -> Resolution:
    """Resolve an image by discovery: every endpoint is asked in turn until one has it.

    Raises:
        FetchFailed: none has; the message lists what was tried.
    """
    name = reference.name
    if name is None:
        raise FetchFailed(f'image "{reference.text}" has no name to discover it by')
    labels = reference.search_labels()
    found = find_tags(client, name, "ac-discovery")
    tried = found.tried
    candidates = endpoints(client, [tag.value for tag in found.values], name, labels, tried)
    announced = bool(candidates)
    if not found.values:
        candidates = simple(client, name, labels, tried)
    resolution = _first_that_answers(client, candidates, tried, named_by_server=announced)
    if resolution is None:
        raise FetchFailed(
            f'image "{reference.text}" was not found; tried: {"; ".join(tried)}',
            hint="name the image by URL or file, or check name and labels",
        )
    from dataclasses import replace

    return replace(
        resolution,
        name=name,
        labels=labels,
        latest=reference.version is None,
        context=client.reach.note() if announced else None,
    )


def _first_that_answers(
    client: Client, candidates: list[Endpoint], tried: list[str], *, named_by_server: bool
) -> Resolution | None:
    """Prefer the first endpoint with image and signature, then the first with the image alone."""
    unsigned = None
    for endpoint in candidates:
        try:
            held = _unchanged(client, endpoint, named_by_server=named_by_server)
            if held is not None:
                return held
            found = _resolution(client, endpoint, named_by_server=named_by_server)
            signed = found.signature is not None or found.signature_deferred
            # With one endpoint the download will tell whether the image is there.
            if signed and len(candidates) == 1:
                return found
            _probe(client, endpoint.image, named_by_server=named_by_server)
        except FetchFailed as error:
            tried.append(error.message)
            continue
        if signed or not client.request.want_signature:
            return found
        tried.append(f"{endpoint.signature.shown}: no signature")
        unsigned = unsigned or found
    return unsigned


def _resolution(client: Client, endpoint: Endpoint, *, named_by_server: bool) -> Resolution:
    signature = Signature()
    if client.request.want_signature:
        signature = fetch_signature(client, endpoint.signature, named_by_server=named_by_server)
    return Resolution(
        format="aci",
        location=endpoint.image.url,
        signature=signature.data,
        signature_location=endpoint.signature.url,
        signature_deferred=signature.deferred,
    )


def _unchanged(client: Client, endpoint: Endpoint, *, named_by_server: bool) -> Resolution | None:
    """Ask whether the image we hold is still the server's; None where it is not, or unknown."""
    headers = conditions(client.request.cached)
    if not headers:
        return None
    with _head(client, endpoint.image, headers, named_by_server=named_by_server) as answer:
        if answer.status != 304:
            return None
        state = state_of(answer.headers)
        return Resolution(
            format="aci",
            location=endpoint.image.url,
            signature_location=endpoint.signature.url,
            not_modified=True,
            etag=state.etag or client.request.cached.etag,
            max_age=max_age(answer.headers.get("Cache-Control")),
        )


def _probe(client: Client, target: Target, *, named_by_server: bool) -> None:
    """Raise FetchFailed unless the image is there."""
    with _head(client, target, {}, named_by_server=named_by_server) as answer:
        if answer.status != 200:
            raise client.refuse_status(answer)


def _head(
    client: Client, target: Target, headers: dict[str, str], *, named_by_server: bool
) -> Answer:
    answer = client.open(target, method="HEAD", headers=headers, named_by_server=named_by_server)
    if answer.status not in _NO_HEAD:
        return answer
    with answer:
        pass
    # Some stores sign or allow GET alone; closing its answer unread costs little.
    return client.open(target, headers=headers, named_by_server=named_by_server)


def fetch_signature(client: Client, target: Target, *, named_by_server: bool) -> Signature:
    """Ask for a detached signature. What is no signature at all is for trust to refuse.

    Raises:
        FetchFailed: a status that neither brings one nor says that there is none.
    """
    answer, data = client.document(target, SIGNATURE, "signature", named_by_server=named_by_server)
    if answer.status == 200:
        return Signature(data=data)
    if answer.status == 202:
        return Signature(deferred=True)
    if answer.status in _ABSENT:
        return Signature()
    raise client.refuse_status(answer)


def deferred_signature(client: Client, resolution: Resolution) -> bytes | None:
    """Ask again for a signature the server had deferred.

    Raises:
        FetchFailed: it is still not there.
    """
    if resolution.signature_location is None:
        return resolution.signature
    target = urls.parse(resolution.signature_location)
    named_by_server = client.reach.restore(resolution.context)
    signature = fetch_signature(client, target, named_by_server=named_by_server)
    if signature.deferred:
        raise FetchFailed(f"{target.shown}: signature is still deferred (HTTP status code: 202)")
    return signature.data


def key_locations(client: Client, prefix: str) -> list[KeyLocation]:
    """Discover the public keys announced for a prefix; plain http locations are for the caller
    to judge.

    Raises:
        FetchFailed: none is announced; the message lists what was tried.
    """
    found = find_tags(client, prefix, "ac-discovery-pubkeys")
    locations = []
    for tag in found.values:
        try:
            target = urls.parse(tag.value)
            client.reach.check_host(target.host, first=False)
            location = KeyLocation(tag.prefix, target.url)
        except FetchFailed as error:
            found.tried.append(f"key location refused: {error.message}")
            continue
        if location not in locations:
            locations.append(location)
    if not locations:
        raise FetchFailed(
            f"meta discovery on {prefix} resulted in no keys; tried: {'; '.join(found.tried)}"
        )
    return locations


def fetch_document(client: Client, url: str, limit: int) -> bytes:
    """Fetch one small document (a public key).

    Raises:
        FetchFailed: it is not there, too large, or by plain http without leave.
    """
    target = urls.parse(url)
    client.allow_plain(target, f"{target.shown} is plain http")
    answer, data = client.document(target, limit, "document")
    if answer.status != 200:
        raise FetchFailed(bad_status(answer))
    return data


def _signature_of(target: Target) -> Target:
    """The URL of an image's detached signature: `.aci` becomes `.aci.asc`."""
    return target._replace(path=target.path + ".asc")
