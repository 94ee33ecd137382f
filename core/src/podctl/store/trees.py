"""Rendered trees: root filesystems that an overlay of layers cannot express.

A tree is a directory of its own whose files are hard links to those of the layers: neither is
ever written (both are lower directories of overlays), so sharing them costs no disk and no copy.
Where the file system refuses a link, the file is copied.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.store.copying import Source, merge
from podctl.store.digests import sha512_hex
from podctl.store.layout import PRIVATE_FILE, TREES, UNFINISHED
from podctl.store.records import is_digest, seal, unseal
from podctl.store.staging import lock_directory
from podctl.sys.files import (
    fsync_directory,
    read_small,
    remove_tree,
    rename_exchange,
    syncfs,
    write_atomic,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podctl.store.compare import Difference
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
    text = ",".join(keys) + "\n" + whitelists
    return f"deps-sha512-{sha512_hex(text.encode())[:64]}"


def finished(store: Store, name: str) -> str | None:
    """Path of a tree's root filesystem; None unless it is complete."""
    directory = store.layout.tree(name)
    return f"{directory}/rootfs" if os.path.exists(f"{directory}/done.json") else None


def top_image(store: Store, name: str) -> str | None:
    """Key of the image a tree was rendered for; None when that cannot be told."""
    path = f"{store.layout.tree(name)}/done.json"
    try:
        top = unseal(read_small(path, _MAX_NOTE)).get("top")
    except (OSError, ValueError):
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


def _merge(layers: Sequence[tuple[str, Choice | None]], directory: str) -> int:
    """Merge layers into a new directory; return bytes on disk."""
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


def difference_of(
    store: Store,
    name: str,
    keys: Sequence[str],
    layers: Sequence[tuple[str, Choice | None]],
    *,
    replace: Callable[[], None] | None,
) -> Difference | None:
    """Compare a rendered tree with a rendering of `layers`; the first difference, if any.

    Args:
        replace: called before a tree that differs is replaced (it may refuse); None: only look.
    """
    with store.locks.rendering():
        temporary, guard = _begin(store)
        try:
            size = _fill(temporary, name, keys, layers)
            right = os.open(f"{temporary}/rootfs", _DIRECTORY)
            try:
                problem = _compare(f"{store.layout.tree(name)}/rootfs", right)
            finally:
                os.close(right)
            if problem is None:
                return None
            if replace is not None:
                replace()
                syncfs(guard)
                rename_exchange(temporary, store.layout.tree(name))
                fsync_directory(store.layout.path(TREES))
                store.set_tree_size(keys[0], size)
            return problem
        finally:
            remove_tree(temporary)
            os.close(guard)


def _compare(path: str, right: int) -> Difference | None:
    from podctl.store.compare import Difference, differences

    try:
        found = os.open(path, _DIRECTORY)
    except OSError as error:
        return Difference("", f"cannot be opened: {error.strerror}")
    try:
        return next(differences(found, right), None)
    except OSError as error:
        return Difference("", f"cannot be read: {error.strerror}")
    finally:
        os.close(found)


def _make(
    store: Store, name: str, keys: Sequence[str], layers: Sequence[tuple[str, Choice | None]]
) -> int:
    temporary, guard = _begin(store)
    try:
        size = _fill(temporary, name, keys, layers)
        syncfs(guard)
        target = store.layout.tree(name)
        if os.path.lexists(target):
            remove_tree(target)  # without its mark it is nothing
        os.rename(temporary, target)
        fsync_directory(store.layout.path(TREES))
    except BaseException:
        remove_tree(temporary)
        raise
    finally:
        os.close(guard)
    return size


def _begin(store: Store) -> tuple[str, int]:
    """A new directory for a tree, and the descriptor that holds its lock.

    Whoever clears leftovers may take it for abandoned in between; then another one is made.
    """
    while True:
        temporary = f"{store.layout.path(TREES)}/{UNFINISHED}{os.urandom(8).hex()}"
        os.mkdir(temporary, 0o700)
        guard = lock_directory(temporary)
        if guard >= 0:
            return temporary, guard


def _fill(
    temporary: str, name: str, keys: Sequence[str], layers: Sequence[tuple[str, Choice | None]]
) -> int:
    size = _merge(layers, f"{temporary}/rootfs")
    note = seal({"id": name, "top": keys[0], "keys": list(keys), "size": size})
    path = f"{temporary}/done.json"
    write_atomic(path, note, mode=PRIVATE_FILE, durable=False)
    return size
