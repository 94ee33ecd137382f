"""Which stored image a user means: by image ID, whole or shortened, by name, or by digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import NotFound, UsageError

if TYPE_CHECKING:
    from podctl.model.reference import Reference
    from podctl.store import ImageRecord, Store


def choose(store: Store, text: str) -> ImageRecord:
    """The stored image that `sha512-...`, `name[:version][,label=value...]`, `name@sha256:...` (of
    its manifest or index) or `docker://...` means.

    Of several with the name, the latest or the most recently imported one.

    Raises:
        NotFound, Ambiguous: none or several fit.
        UsageError, ReferenceInvalid: it is neither an image ID nor a name.
        StoreCorrupt: its record is damaged.
    """
    from podctl.model.reference import parse

    if text.startswith("sha512-"):
        return store.image(store.resolve_key(text))
    name, at, digest = text.rpartition("@")
    if at and digest.startswith(("sha256:", "sha512:")) and not name.startswith("docker:"):
        return _found(text, _by_digest(store, text, name, digest))
    # Only the store is asked, so a path of that name is of no interest.
    reference = parse(text, is_file=lambda path: False)
    if reference.kind == "docker":
        return _found(text, _of_registry(store, normalised(reference)))
    if reference.kind != "name" or reference.name is None:
        raise UsageError(
            f'"{text}" is neither an image ID nor an image name', hint="see podctl image list"
        )
    labels = dict(reference.labels)
    if reference.version is not None:
        labels["version"] = reference.version
    return _found(text, store.find(reference.name, labels))


def normalised(reference: Reference) -> Reference:
    """Fill in the registry by this host's rules for short names, where it was left open."""
    if not reference.short:
        return reference
    from podctl.plugins import transport

    assert reference.scheme is not None
    return transport(reference.scheme).normalise(reference)


def _of_registry(store: Store, reference: Reference) -> ImageRecord | None:
    """What was asked for by the reference; of one with a digest, also what has the digest."""
    from podctl.images.finding import find_digest, find_registry_image

    found = find_registry_image(store, reference)
    version, name = reference.version or "", reference.name or ""
    return find_digest(store, name, version) if found is None and ":" in version else found


def _by_digest(store: Store, text: str, name: str, digest: str) -> ImageRecord | None:
    from podctl.images.finding import find_digest
    from podctl.model.reference import check_digest

    check_digest(text, digest)
    return find_digest(store, name, digest)


def _found(text: str, record: ImageRecord | None) -> ImageRecord:
    if record is None:
        raise NotFound(f'image "{text}" is not in the store', hint="see podctl image list")
    return record
