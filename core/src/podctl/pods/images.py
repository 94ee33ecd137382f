"""Where a pod gets its images from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import NotFound

if TYPE_CHECKING:
    from podctl.images.session import FetchSession
    from podctl.pods.compose import PodImage
    from podctl.store import ImageRecord, Store


def obtain(session: FetchSession, text: str, policy: str, signature: str | None) -> PodImage:
    """Find or fetch an image and check that it may be used. Raises as `ensure_image` does."""
    from podctl.images.fetch import ensure_image

    record = ensure_image(session, text, policy=policy, signature_file=signature)
    return _with_image(session.store, record)


def stored(store: Store, text: str) -> PodImage:
    """Find an image without changing anything, not even when it was last used (--dry-run).

    Raises:
        NotFound: it is not in the store, or is a file.
    """
    from podctl.model.reference import parse as parse_reference

    reference = parse_reference(text)
    record = None
    if reference.kind == "hash":
        record = store.image(store.resolve_key(reference.path_or_url))
    elif reference.kind == "name" and reference.name is not None:
        record = store.find(reference.name, reference.search_labels())
    elif reference.kind == "docker":
        from podctl.images.choose import normalised
        from podctl.images.finding import find_registry_image

        record = find_registry_image(store, normalised(reference))
    elif reference.kind not in ("file", "layout"):
        remote = store.remote(reference.path_or_url)
        record = None if remote is None else store.lookup(remote.key)
    if record is None:
        raise NotFound(
            f'image "{text}" is not in the store', hint="--dry-run fetches nothing: fetch it first"
        )
    return _with_image(store, record)


def _with_image(store: Store, record: ImageRecord) -> PodImage:
    from podctl.images.converted import image_of
    from podctl.pods.compose import PodImage

    return PodImage(record, image_of(store, record))
