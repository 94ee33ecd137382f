"""Which stored image a user means: by image ID, whole or shortened, or by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import NotFound, UsageError

if TYPE_CHECKING:
    from podctl.store import ImageRecord, Store


def choose(store: Store, text: str) -> ImageRecord:
    """The stored image that `sha512-...` or `name[:version][,label=value...]` means.

    Of several with the name, the latest or the most recently imported one.

    Raises:
        NotFound, Ambiguous: none or several fit.
        UsageError, ReferenceInvalid: it is neither an image ID nor a name.
        StoreCorrupt: its record is damaged.
    """
    from podctl.model.reference import parse

    if text.startswith("sha512-"):
        return store.image(store.resolve_key(text))
    # Only the store is asked, so a path of that name is of no interest.
    reference = parse(text, is_file=lambda path: False)
    if reference.kind != "name" or reference.name is None:
        raise UsageError(
            f'"{text}" is neither an image ID nor an image name', hint="see podctl image list"
        )
    labels = dict(reference.labels)
    if reference.version is not None:
        labels["version"] = reference.version
    record = store.find(reference.name, labels)
    if record is None:
        raise NotFound(f'image "{text}" is not in the store', hint="see podctl image list")
    return record
