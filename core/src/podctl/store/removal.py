"""Taking images, layers and trees out of the store.

An image is gone when its record is renamed away; the rest follows, and is finished by the next
command if we are killed in between (podctl.store.leftovers).
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from podctl.errors import NotFound, StoreCorrupt
from podctl.store.layout import IMAGES, LAYERS, REMOTES, REMOVED, TEMPORARY, TREES, UNFINISHED
from podctl.store.leftovers import forget
from podctl.sys.files import fsync_directory, remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.store.records import ImageRecord
    from podctl.store.store import Store


def remove_image(store: Store, key: str, on_wait: Callable[[], None]) -> list[str]:
    """Remove an image and, as root, its layer if neither an image nor a pod needs it.

    Returns, raises: see Store.remove.
    """
    with ExitStack() as stack:
        _wait_for_users(store, stack, key, on_wait)
        collects = store.privileged and _try_collecting(store, stack)
        _change(store, stack, key)
        record = remove_record(store, key)
        if record is None:
            return []
        stale = forget(store, record[1])
        _forget_remotes(store, key)
        if collects:
            stale += _remove_unused_layers(store, record[1])
        store.area.remove(record[0])
    return stale


def remove_record(store: Store, key: str) -> tuple[str, ImageRecord] | None:
    """Rename an image's record away; where to, and what it said (None: it was damaged, and is
    removed). The caller has the `changing` lock.

    Raises:
        NotFound: there is no such image.
    """
    record = None
    with suppress(StoreCorrupt):
        record = store.image(key)
    doomed = f"{TEMPORARY}/{os.urandom(8).hex()}{REMOVED}"
    try:
        store.area.rename(store.layout.image(key), doomed)
    except FileNotFoundError:
        raise NotFound(f'cannot find image with key "{key}"') from None
    store.area.sync_directory(IMAGES)
    if record is None:
        store.area.remove(doomed)
        return None
    return doomed, record


def remove_layer(store: Store, diff_id: str) -> None:
    """Remove a layer; it is gone at once, however long its files take."""
    _remove_directory(store, LAYERS, diff_id)


def remove_tree_id(store: Store, tree_id: str) -> None:
    """Remove a rendered tree."""
    _remove_directory(store, TREES, tree_id)


def _remove_directory(store: Store, place: str, name: str) -> None:
    parent = store.layout.path(place)
    doomed = f"{parent}/{UNFINISHED}{os.urandom(8).hex()}"
    try:
        os.rename(f"{parent}/{name}", doomed)
    except FileNotFoundError:
        return
    fsync_directory(parent)
    remove_tree(doomed)


def _wait_for_users(store: Store, stack: ExitStack, key: str, on_wait: Callable[[], None]) -> None:
    """Let who has looked the image up come to the end of what it needs the record for."""
    with suppress(StoreCorrupt):
        if store.privileged:
            stack.enter_context(store.locks.removing(store.image(key), on_wait))


def _try_collecting(store: Store, stack: ExitStack) -> bool:
    """Whether layers may go now; while a pod is being prepared that is left to `image gc`."""
    try:
        stack.enter_context(store.locks.collecting(blocking=False))
    except BlockingIOError:
        return False
    return True


def _change(store: Store, stack: ExitStack, key: str) -> None:
    try:
        stack.enter_context(store.locks.changing())
    except FileNotFoundError:
        raise NotFound(f'cannot find image with key "{key}"') from None


def _remove_unused_layers(store: Store, record: ImageRecord) -> list[str]:
    from podctl.store.usage import needs_of_pods

    try:
        needed = set(needs_of_pods(store.layout).layers)
    except StoreCorrupt:
        return []  # image gc says so
    damaged: list[str] = []
    for other in store.images(damaged.append):
        needed.update(other.layers)
    if damaged:
        return []  # it may need any layer; image gc says so
    stale = []
    for diff_id in set(record.layers) - needed:
        try:
            remove_layer(store, diff_id)
        except OSError as error:
            stale.append(f'layer "{diff_id}" cannot be removed: {error.strerror}')
    return stale


def _forget_remotes(store: Store, key: str) -> None:
    """Drop what URLs delivered this image: they are asked again."""
    from podctl.store.layout import OWN_REMOTES
    from podctl.store.records import MAX_RECORD, parse_remote

    places = (REMOTES, OWN_REMOTES) if store.privileged else (REMOTES,)
    for place in places:
        for name in store.area.names(place):
            path = f"{place}/{name}"
            try:
                if parse_remote(store.area.read(path, MAX_RECORD), path).key == key:
                    store.area.unlink(path)
            except (OSError, ValueError, StoreCorrupt):
                continue
