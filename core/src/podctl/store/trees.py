"""Rendered trees: root filesystems that an overlay of layers cannot express.

A tree is a directory of its own whose files are hard links to those of the layers: neither is
ever written (both are lower directories of overlays), so sharing them costs no disk and no copy.
Where the file system refuses a link, the file is copied.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from podctl.store.copying import Source, merge
from podctl.store.layout import PRIVATE_FILE, TREES, UNFINISHED
from podctl.store.records import is_digest
from podctl.sys.files import fsync_directory, read_small, remove_tree, syncfs, write_atomic
from podctl.sys.locks import lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podctl.store.copying import Choice
    from podctl.store.store import Store

_MAX_NOTE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def tree_id(keys: Iterable[str], whitelists: str) -> str:
    """The id of a tree: `deps-sha512-` and half the SHA-512 of its images' keys and whitelists.

    Args:
        keys: of the flat dependency list, highest priority first.
        whitelists: which whitelists hold for which of them; two ways to reach the same images
            may differ in that.
    """
    import hashlib

    text = ",".join(keys) + "\n" + whitelists
    return f"deps-sha512-{hashlib.sha512(text.encode()).hexdigest()[:64]}"


def finished(store: Store, name: str) -> str | None:
    """Path of a tree's root filesystem; None unless it is complete."""
    directory = store.layout.tree(name)
    return f"{directory}/rootfs" if os.path.exists(f"{directory}/done.json") else None


def top_image(store: Store, name: str) -> str | None:
    """Key of the image a tree was rendered for; None when that cannot be told."""
    path = f"{store.layout.tree(name)}/done.json"
    try:
        top = json.loads(read_small(path, _MAX_NOTE))["top"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return top if isinstance(top, str) and is_digest(top, "sha512-", 64) else None


def render(
    store: Store, name: str, keys: Sequence[str], layers: Sequence[tuple[str, Choice | None]]
) -> str:
    """Return the root filesystem of tree `name`, made now unless it is there.

    Args:
        keys: images of the flat list, the top one first.
        layers: their root filesystems, highest priority first, and what counts of each.
    """
    ready = finished(store, name)
    if ready is not None:
        return ready
    with store.locks.rendering():
        ready = finished(store, name)
        if ready is None:
            size = _make(store, name, keys, layers)
            store.set_tree_size(keys[0], size)
    return f"{store.layout.tree(name)}/rootfs"


def render_again(store: Store, layers: Sequence[tuple[str, Choice | None]], directory: str) -> int:
    """Merge layers into a new directory `directory`; return bytes on disk."""
    os.mkdir(directory, 0o700)
    fds = [os.open(path, _DIRECTORY) for path, _ in layers]
    target = os.open(directory, _DIRECTORY)
    try:
        choices = [choice for _, choice in layers]
        sources = [Source(fd, choice) for fd, choice in zip(fds, choices, strict=True)]
        return merge(sources, target, link=True)
    finally:
        for fd in (*fds, target):
            os.close(fd)


def _make(
    store: Store, name: str, keys: Sequence[str], layers: Sequence[tuple[str, Choice | None]]
) -> int:
    parent = store.layout.path(TREES)
    temporary = f"{parent}/{UNFINISHED}{os.urandom(8).hex()}"
    os.mkdir(temporary, 0o700)
    guard = os.open(temporary, _DIRECTORY)
    try:
        lock(guard, exclusive=True)
        size = render_again(store, layers, f"{temporary}/rootfs")
        note = json.dumps({"id": name, "top": keys[0], "keys": list(keys), "size": size})
        path = f"{temporary}/done.json"
        write_atomic(path, note.encode() + b"\n", mode=PRIVATE_FILE, durable=False)
        syncfs(guard)
        target = store.layout.tree(name)
        if os.path.lexists(target):
            remove_tree(target)  # without its mark it is nothing
        os.rename(temporary, target)
        fsync_directory(parent)
    except BaseException:
        remove_tree(temporary)
        raise
    finally:
        os.close(guard)
    return size
