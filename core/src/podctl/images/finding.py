"""Stored images by what they were asked for in a registry: a reference, or a digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import InvalidInput, ManifestInvalid, NotFound, StoreCorrupt

if TYPE_CHECKING:
    from podctl.model.imagedocument import ImageDocument
    from podctl.model.reference import Reference
    from podctl.store import ImageRecord, Store


def remote_url(reference: Reference) -> str:
    """What the store remembers a registry's answer by."""
    return f"docker://{reference.path_or_url}"


def delivered(store: Store, url: str) -> ImageRecord | None:
    """The image that a URL delivered last, if it is still here."""
    remote = store.remote(url)
    return None if remote is None else store.lookup(remote.key)


def find_registry_image(store: Store, reference: Reference) -> ImageRecord | None:
    """The stored image of a reference to a registry: the one that was delivered last, or, where
    that is not known, one whose own documents say that it was asked for by this reference."""
    found = delivered(store, remote_url(reference))
    if found is not None:
        return found
    for record in _layered(store):
        if record.labels.get("version") == reference.version:
            document = _document(store, record)
            if document is not None and document.reference == reference.path_or_url:
                return record
    return None


def find_digest(store: Store, name: str, digest: str) -> ImageRecord | None:
    """The stored image of a name, its own or its repository's, whose manifest or index has a
    digest; of several the most recently imported.

    Args:
        digest: `sha256:` or `sha512:` and the digits, checked.
    """
    import hashlib

    from podctl.model.names import registry_identifier

    algorithm, _, digits = digest.partition(":")
    try:
        identifier = registry_identifier(name)
    except InvalidInput:
        identifier = name
    for record in _layered(store):
        document = _document(store, record) if record.name in (name, identifier) else None
        parts = () if document is None else document.digests().values()
        if any(hashlib.new(algorithm, part).hexdigest() == digits for part in parts):
            return record
    return None


def registry_digest(store: Store, record: ImageRecord) -> str | None:
    """The digest by which a registry has an image: of its index, or of its manifest where no index
    led to it. None for an archive, and for one whose documents are damaged.
    """
    if not record.layered:
        return None
    document = _document(store, record)
    return None if document is None else next(iter(document.digests()))


def _layered(store: Store) -> list[ImageRecord]:
    """The layered images, the most recently imported first."""
    return [record for record in reversed(store.images()) if record.layered]


def _document(store: Store, record: ImageRecord) -> ImageDocument | None:
    """An image's documents; None where they are damaged, or gone."""
    # Not at the top: what was delivered last is found without them.
    from podctl.model.imagedocument import parse_document

    try:
        return parse_document(store.manifest(record.key))
    except (StoreCorrupt, ManifestInvalid, NotFound):
        return None
