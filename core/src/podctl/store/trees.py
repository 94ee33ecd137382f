"""Rendered trees: root filesystems that no stack of layers can express, made once and shared."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.store.layout import PRIVATE_MODE, make_directory
from podctl.store.staging import UNFINISHED
from podctl.sys.files import fsync_directory, remove_tree, syncfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.store.store import Store


def render_once(store: Store, tree: str, fill: Callable[[str], None]) -> str:
    """Return the path of a rendered tree's root filesystem, filling it first where it is missing.

    Args:
        tree: the tree's id, which is its directory's name.
        fill: makes the content of an empty directory.
    """
    layout = store.layout
    layout.create(privileged=True)
    final = f"{layout.trees}/{tree}"
    with store.tree_lock(tree):
        if not os.path.isdir(final):
            unfinished = f"{layout.trees}/{UNFINISHED}{os.urandom(8).hex()}"
            make_directory(unfinished, PRIVATE_MODE)
            try:
                make_directory(f"{unfinished}/rootfs", 0o755)
                fill(f"{unfinished}/rootfs")
                fd = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    syncfs(fd)
                finally:
                    os.close(fd)
                os.rename(unfinished, final)
                fsync_directory(layout.trees)
            finally:
                remove_tree(unfinished)
    return f"{final}/rootfs"
