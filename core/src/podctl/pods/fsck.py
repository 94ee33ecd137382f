"""Checking pods' directories: each is one pod, in one place, and its files can be read."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from podctl.errors import PodctlError
from podctl.pods.directories import LOCK, PLACES, PREPARED, RUN
from podctl.pods.prepared import load_parts
from podctl.store.fsck import Finding
from podctl.store.usage import FILE, read_needs
from podctl.sys.locks import held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.store import Store

#: Places whose pods must be complete; in the others they are being made or deleted.
_COMPLETE = (PREPARED, RUN)


def check_pods(store: Store) -> Iterator[Finding]:
    """Yield what is wrong with pods. Root looks at all of it, others at what they may read.

    Nothing of a pod can be made again, so there is no repair: `podctl rm` removes it.
    """
    seen: dict[str, str] = {}
    for place in PLACES:
        path = store.layout.path(f"pods/{place}")
        try:
            names = sorted(os.listdir(path))
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Finding(f"pods/{place}", f"cannot be read: {error.strerror}", None)
            continue
        for name in names:
            yield from _pod(store, place, name, seen)


def _pod(store: Store, place: str, name: str, seen: dict[str, str]) -> Iterator[Finding]:
    from podctl.model.uuids import is_uuid

    where = f"pods/{place}/{name}"
    path = store.layout.path(where)
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return  # moved on meanwhile
    if not is_uuid(name):
        yield Finding(where, "is no pod: its name is no UUID", None)
        return
    if not stat.S_ISDIR(status.st_mode):
        yield Finding(where, "is no directory", None)
        return
    if name in seen and os.path.isdir(store.layout.path(seen[name])):
        yield Finding(where, f"is also in {seen[name]}", None)
    seen[name] = where
    if store.privileged and status.st_uid != 0:
        yield Finding(where, f"belongs to user {status.st_uid}, not to root", None)
    if status.st_mode & stat.S_IWOTH:
        yield Finding(where, "may be written by everybody", None)
    try:
        yield from _files(store, place, where)
    except PermissionError:
        return  # root can tell
    except FileNotFoundError:
        return  # moved on meanwhile


def _files(store: Store, place: str, where: str) -> Iterator[Finding]:
    path = store.layout.path(where)
    lock = f"{path}/{LOCK}"
    if os.path.lexists(lock):
        if not stat.S_ISREG(os.stat(lock, follow_symlinks=False).st_mode):
            yield Finding(f"{where}/{LOCK}", "is no regular file", None)
            return
    elif place in _COMPLETE:
        yield Finding(f"{where}/{LOCK}", "is missing", None)
    if place not in _COMPLETE or not os.path.isdir(path):
        return
    try:
        load_parts(path)
    except PodctlError as error:
        if os.path.isdir(path):
            yield Finding(where, error.message, None)
    yield from _needs(store, place, where)


def _needs(store: Store, place: str, where: str) -> Iterator[Finding]:
    """What the pod needs must be there, or it could not start (or runs on nothing)."""
    path = store.layout.path(where)
    try:
        needs = read_needs(path)
    except PodctlError as error:
        yield Finding(f"{where}/{FILE}", error.message, None)
        return
    if needs is None:
        if os.path.isdir(path):
            yield Finding(f"{where}/{FILE}", "is missing", None)
        return
    starts = place == PREPARED or held(f"{path}/{LOCK}")
    if not (store.privileged and starts):
        return
    for diff_id in sorted(needs.layers):
        if store.layer(diff_id) is None:
            yield Finding(where, f'needs layer "{diff_id}", which is not there', None)
    for tree in sorted(needs.trees):
        if not os.path.isdir(f"{store.layout.tree(tree)}/rootfs"):
            yield Finding(where, f'needs tree "{tree}", which is not there', None)
