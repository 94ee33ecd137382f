"""`image gc`: what nobody uses any more is removed.

Order: rendered trees no pod has mounted, then images unused for the grace period, then layers and
bytes that belonged to no image. A pod keeps all it needs until its directory is gone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from podctl.errors import StoreCorrupt
from podctl.store.layout import (
    BLOBS,
    LAYERS,
    NOTE,
    PARTIAL,
    PARTIAL_STATE,
    TEMPORARY,
    TREES,
    VERIFIED,
    VIEW,
)
from podctl.store.leftovers import clear_leftovers, forget
from podctl.store.records import is_digest
from podctl.store.removal import remove_layer, remove_record, remove_tree_id
from podctl.store.usage import needs_of_pods

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.store.records import ImageRecord
    from podctl.store.store import Store
    from podctl.store.usage import Needs


def collect(store: Store, grace: float, say: Callable[[str], None]) -> list[str]:
    """Remove unused trees, images, layers and bytes; root only.

    Args:
        grace: seconds an image must have been unused.
        say: told each thing that was removed.

    Returns:
        One line for each thing that could not be removed.

    Raises:
        StoreCorrupt: a pod's needs cannot be read; nothing was removed.
    """
    store.layout.create(privileged=True)
    clear_leftovers(store)
    with store.locks.collecting(), store.locks.changing():
        needs = needs_of_pods(store.layout)
        stale = _collect_trees(store, needs, say)
        stale += _collect_images(store, needs, grace, say)
        damaged: list[str] = []
        records = store.images(damaged.append)
        if damaged:
            # A record we cannot read may need any layer and any bytes.
            return stale + damaged
        stale += _collect_layers(store, needs, records, say)
        stale += _collect_shared(store, records, grace, say)
    return stale


def _collect_trees(store: Store, needs: Needs, say: Callable[[str], None]) -> list[str]:
    from podctl.store.trees import top_image

    stale = []
    for tree_id in store.area.names(TREES):
        if tree_id in needs.trees or tree_id.startswith("."):
            continue
        top = top_image(store, tree_id)
        try:
            remove_tree_id(store, tree_id)
        except OSError as error:
            stale.append(f'tree "{tree_id}" cannot be removed: {error.strerror}')
            continue
        if top is not None:
            store.set_tree_size(top, 0)
        say(f'removed treestore "{tree_id}"')
    return stale


def _collect_images(
    store: Store, needs: Needs, grace: float, say: Callable[[str], None]
) -> list[str]:
    stale = []
    now = time.time()
    for record in sorted(store.images(), key=lambda record: record.last_used):
        if now - record.last_used < grace:
            break
        if record.key in needs.images:
            continue
        try:
            with store.locks.removing(record, _do_not_wait):
                removed = remove_record(store, record.key)
                if removed is not None:
                    stale += forget(store, record)
                    store.area.remove(removed[0])
        except BlockingIOError:
            continue  # being fetched or looked up just now
        say(f'removed image "{record.name}" ("{record.key}")')
    return stale


def _do_not_wait() -> None:
    raise BlockingIOError


def _collect_layers(
    store: Store, needs: Needs, records: list[ImageRecord], say: Callable[[str], None]
) -> list[str]:
    stale = []
    needed = needs.layers.union(*(record.layers for record in records))
    for diff_id in store.area.names(LAYERS):
        if diff_id in needed or diff_id.startswith("."):
            continue
        try:
            remove_layer(store, diff_id)
        except OSError as error:
            stale.append(f'layer "{diff_id}" cannot be removed: {error.strerror}')
            continue
        say(f'removed layer "{diff_id}"')
    return stale


def _collect_shared(
    store: Store, records: list[ImageRecord], grace: float, say: Callable[[str], None]
) -> list[str]:
    """Bytes without a record, notes without an image, downloads nobody continued."""
    doomed = []
    blobs = {store.layout.blob(blob) for record in records for blob in record.needs}
    for shard in store.area.names(BLOBS):
        names = store.area.names(f"{BLOBS}/{shard}")
        doomed += [path for name in names if (path := f"{BLOBS}/{shard}/{name}") not in blobs]
    keys = {record.key for record in records}
    for name in store.area.names(VERIFIED):
        key = name.removesuffix(NOTE).removesuffix(VIEW)
        if is_digest(key, "sha512-", 64) and key not in keys:
            doomed.append(f"{VERIFIED}/{name}")
    doomed += _old_downloads(store, grace)
    stale = []
    for name in doomed:
        try:
            store.area.remove(name)
        except OSError as error:
            stale.append(f'"{store.layout.path(name)}" cannot be removed: {error.strerror}')
            continue
        say(f'removed "{name}"')
    return stale


def _old_downloads(store: Store, grace: float) -> list[str]:
    from podctl.sys.locks import held

    old = []
    for name in store.area.names(TEMPORARY):
        if not name.endswith((PARTIAL, PARTIAL_STATE)):
            continue
        path = f"{TEMPORARY}/{name}"
        try:
            idle = time.time() - store.area.status(path).st_mtime >= grace
            if idle and not (name.endswith(PARTIAL) and held(store.layout.path(path))):
                old.append(path)
        except FileNotFoundError:
            continue  # complete, or given up, just now
        except OSError as error:
            raise StoreCorrupt(f'"{path}" cannot be looked at: {error.strerror}') from None
    return old
