"""Calling a transport in a child without privileges: arguments by fork, results as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podctl.errors import FetchFailed
from podctl.model.fetching import KeyLocation, Resolution
from podctl.sys.child import Privileges, spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.model.fetching import FetchRequest
    from podctl.model.reference import Reference
    from podctl.plugins import TransportHandle

#: A public key document; the key store's own cap is the same.
MAX_KEY_DOCUMENT = 1 << 20


def resolve(transport: TransportHandle, reference: Reference, request: FetchRequest) -> Resolution:
    """Ask a transport where an image is. See TransportSpec.transport_resolve."""

    def work() -> Any:
        found = transport.resolve(reference, request)
        return {name: getattr(found, name) for name in Resolution.__dataclass_fields__}

    value = _in_child(work, f"{reference.scheme} transport")
    return Resolution(
        format=str(value["format"]),
        location=str(value["location"]),
        name=_text(value["name"]),
        labels={str(k): str(v) for k, v in value["labels"].items()},
        latest=bool(value["latest"]),
        signature=_bytes(value["signature"]),
        signature_location=_text(value["signature_location"]),
        signature_deferred=bool(value["signature_deferred"]),
        not_modified=bool(value["not_modified"]),
        etag=_text(value["etag"]),
        max_age=int(value["max_age"]),
        context=_text(value["context"]),
        document=_bytes(value["document"]),
    )


def deferred_signature(
    transport: TransportHandle, resolution: Resolution, request: FetchRequest
) -> bytes | None:
    """Fetch the signature a server promised for later."""
    return _bytes(_in_child(lambda: transport.signature(resolution, request), "signature"))


def key_locations(
    transport: TransportHandle, prefix: str, request: FetchRequest
) -> list[KeyLocation]:
    """Discover the public keys announced for a prefix."""

    def work() -> Any:
        return [[found.prefix, found.url] for found in transport.keys(prefix, request)]

    return [KeyLocation(str(p), str(url)) for p, url in _in_child(work, "key discovery")]


def key_document(transport: TransportHandle, url: str, request: FetchRequest) -> bytes:
    """Download one public key.

    Raises:
        FetchFailed: it is not there or too large.
    """
    data = _in_child(lambda: transport.document(url, MAX_KEY_DOCUMENT, request), "key download")
    if not isinstance(data, bytes) or not data:
        raise FetchFailed(f'no public key at "{url}"')
    return data


def _in_child(work: Callable[[], object], name: str) -> Any:
    with spawn(work, privileges=Privileges.NONE, name=name) as child:
        return child.wait()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _bytes(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    raise FetchFailed("transport reported bytes that are none")
