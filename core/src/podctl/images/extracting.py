"""`image extract` and `image render`: a stored image as plain files somewhere else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.images.placing import output_directory
from podctl.images.render import Resolved, copy_layers, resolve, sources
from podctl.images.stored import ensure_unpacked
from podctl.images.verifying import verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.images.render import Whitelist
    from podctl.images.verifying import Problem
    from podctl.store import ImageRecord, Store


def extract(
    store: Store,
    record: ImageRecord,
    directory: str,
    *,
    rootfs_only: bool,
    overwrite: bool,
    say: Callable[[str], None],
) -> None:
    """Copy an image alone into a new directory: `manifest` and `rootfs`, or only the latter.

    Raises:
        Refused: the directory exists, or must not be overwritten.
        StoreCorrupt: the stored bytes are not the image.
    """
    with store.preparing():
        layers: list[tuple[str, Whitelist | None]] = [
            (path, None) for path in ensure_unpacked(store, record, say)
        ]
        _place(store, record, layers, directory, rootfs_only, overwrite, say)


def render(
    store: Store,
    record: ImageRecord,
    directory: str,
    *,
    rootfs_only: bool,
    overwrite: bool,
    say: Callable[[str], None],
) -> None:
    """Copy an image with its dependencies into a new directory.

    A tree that was rendered for it before is checked on the occasion, and repaired.

    Raises:
        NotFound, Refused: a dependency is missing or not what was pinned; the directory exists.
        StoreCorrupt: the stored bytes are not the image.
    """
    with store.preparing():
        resolved = _unpacked(store, record, say)
        _repair(store, resolved, say)
        _place(store, record, sources(store, resolved), directory, rootfs_only, overwrite, say)


def copied_sources(
    store: Store, record: ImageRecord, say: Callable[[str], None]
) -> list[tuple[str, Whitelist | None]]:
    """What an image with its dependencies is merged from, unpacked now where it was not.

    The caller holds `store.preparing()`.

    Raises:
        NotFound, Refused: a dependency is missing or not what was pinned.
        StoreCorrupt: the stored bytes are not the image.
    """
    return sources(store, _unpacked(store, record, say))


def _unpacked(store: Store, record: ImageRecord, say: Callable[[str], None]) -> Resolved:
    resolved = resolve(store, record.key)
    for part in resolved.parts:
        ensure_unpacked(store, part.record, say)
    return resolved


def _repair(store: Store, resolved: Resolved, say: Callable[[str], None]) -> None:
    for part in resolved.parts:

        def tell(problem: Problem, name: str = part.record.name) -> None:
            say(f"tree cache verification failed for image {name}: {problem};  rebuilding...")

        verify(store, part.record, repair=True, tell=tell)


def _place(
    store: Store,
    record: ImageRecord,
    layers: list[tuple[str, Whitelist | None]],
    directory: str,
    rootfs_only: bool,
    overwrite: bool,
    say: Callable[[str], None],
) -> None:
    protected = store.layout.top
    with output_directory(directory, overwrite=overwrite, protected=protected) as output:
        rootfs = f"{output.temporary}/rootfs"
        os.mkdir(rootfs, 0o755)
        copy_layers(layers, rootfs, say)
        if rootfs_only:
            output.result = rootfs
        else:
            with open(f"{output.temporary}/manifest", "xb") as file:
                file.write(_manifest(store, record))
    store.touch(record.key)


def _manifest(store: Store, record: ImageRecord) -> bytes:
    """An image's manifest; of a layered image the appc manifest it amounts to."""
    manifest = store.manifest(record.key)
    if not record.layered:
        return manifest
    from podctl.model import jsontext
    from podctl.model.image import appc_value
    from podctl.plugins import image_format

    return jsontext.dumps(appc_value(image_format(record.format).image(manifest)))
