"""Clearing away what a killed process left behind, while others work.

What is being made is locked by its maker, so what can be locked was abandoned. An image that was
being committed or removed leaves its record behind in `cas/tmp`: it tells which blob may have lost
the only record that named it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from podctl.errors import StoreCorrupt
from podctl.store.layout import (
    FRESH,
    LAYERS,
    NOTE,
    OWN_REMOTES,
    REMOVED,
    STAGE,
    TEMPORARY,
    TREES,
    UNFINISHED,
    VERIFIED,
    VIEW,
)
from podctl.store.records import MAX_RECORD, is_digest, parse_image, unseal
from podctl.sys.files import remove_tree
from podctl.sys.locks import lock

if TYPE_CHECKING:
    from podctl.store.records import ImageRecord
    from podctl.store.store import Store

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Where root alone makes things.
_PLACES = (LAYERS, TREES, VERIFIED, OWN_REMOTES)


def clear_leftovers(store: Store) -> None:
    """Remove abandoned staging and finish interrupted removals.

    What cannot be removed now (no permission, somebody at work) is left for the next time.
    """
    with suppress(OSError):
        _clear_shared(store)
    if store.privileged:
        for place in _PLACES:
            with suppress(OSError):
                for name in unfinished(store, place):
                    remove_abandoned(f"{store.layout.path(place)}/{name}")


def _clear_shared(store: Store) -> None:
    names = [name for name in store.area.names(TEMPORARY) if name.endswith((STAGE, REMOVED, FRESH))]
    if names:
        with store.locks.changing(blocking=False):
            for name in names:
                _finish(store, name)


def unfinished(store: Store, place: str) -> list[str]:
    """Names in a place of root's of what is being made or deleted."""
    return [name for name in store.area.names(place) if name.startswith(UNFINISHED)]


def remove_abandoned(path: str) -> bool:
    """Remove something unless its maker holds its lock; whether it was removed."""
    try:
        fd = os.open(path, _OPEN)
    except FileNotFoundError:
        return False
    try:
        if not lock(fd, exclusive=True, blocking=False):
            return False
        remove_tree(path)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def left_record(store: Store, name: str) -> ImageRecord | None:
    """The image record inside a leftover of `cas/tmp`, if it has one."""
    inside = "image/record.json" if name.endswith(STAGE) else "record.json"
    path = f"{TEMPORARY}/{name}/{inside}"
    try:
        data = store.area.read(path, MAX_RECORD)
        key = _key_in(data)
        return parse_image(data, path, key, 0)
    except (OSError, ValueError, StoreCorrupt):
        return None


def forget(store: Store, record: ImageRecord) -> list[str]:
    """Remove what belonged to a record that is gone, unless an image needs it still.

    The caller has the store's `changing` lock. While there is a record that cannot be read, layers'
    bytes stay, for it may need any of them.

    Returns:
        One line for each thing that could not be removed.
    """
    stale: list[str] = []
    damaged: list[str] = []
    others = store.images(damaged.append)
    needed = {blob for other in others for blob in other.needs}
    if damaged and record.layered:
        needed.update(record.blobs)
    doomed = [store.layout.blob(blob) for blob in set(record.needs) - needed]
    if not any(other.key == record.key for other in others) and store.privileged:
        doomed += [f"{VERIFIED}/{record.key}{end}" for end in (NOTE, VIEW)]
    for name in doomed:
        try:
            store.area.remove(name)
        except OSError as error:
            stale.append(f'"{store.layout.path(name)}" cannot be removed: {error.strerror}')
    return stale


def _finish(store: Store, name: str) -> None:
    """Clear one leftover; the caller has the `changing` lock, so no removal is under way."""
    path = f"{TEMPORARY}/{name}"
    try:
        fd = store.area.open(path)
    except OSError:
        store.area.remove(path)
        return
    try:
        if not lock(fd, exclusive=True, blocking=False):
            return
        record = None if name.endswith(FRESH) else left_record(store, name)
        # The layers of an image that did not become one are what the next attempt need not fetch.
        if record is not None and not (record.layered and name.endswith(STAGE)):
            forget(store, record)
        store.area.remove(path)
    finally:
        os.close(fd)


def _key_in(data: bytes) -> str:
    key = unseal(data).get("key")
    if not isinstance(key, str) or not is_digest(key, "sha512-", 64):
        raise ValueError("no image ID")
    return key
