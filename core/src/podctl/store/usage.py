"""What pods need of the store: read from the file `images.json` of each pod's directory.

A pod names what it needs before it can be seen outside the preparation lock, and needs it until
its directory is gone, whatever its state.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import StoreCorrupt
from podctl.store.records import seal, unseal
from podctl.sys.files import read_small
from podctl.sys.locks import held

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from podctl.store.layout import Layout

#: in the order pods pass through them: a pod that moves on while we look is met again
PLACES = ("embryo", "prepare", "prepared", "run", "exited-garbage", "garbage")
FILE = "images.json"
#: held exclusively while the pod runs
LOCK = "lock"
_MAX = 1 << 20


class Needs(NamedTuple):
    """Image IDs, layer digests and tree ids."""

    images: frozenset[str]
    layers: frozenset[str]
    trees: frozenset[str]


def dump_needs(images: Iterable[str], layers: Iterable[str], trees: Iterable[str]) -> bytes:
    """Content of a pod's `images.json`."""
    value = {"images": sorted(images), "layers": sorted(layers), "trees": sorted(trees)}
    return seal(value)


def parse_needs(data: bytes, what: str) -> Needs:
    """Read a pod's `images.json`.

    Raises:
        StoreCorrupt: it is damaged.
    """
    try:
        value = unseal(data)
        return Needs(*(_words(value[name]) for name in Needs._fields))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f'"{what}" is damaged: {error}', hint="run podctl fsck") from error


def needs_of_pods(layout: Layout) -> Needs:
    """What all pods together need. Only complete under the exclusive preparation lock.

    Raises:
        StoreCorrupt: a pod does not say what it needs, so that nothing may be collected.
    """
    return _needs_of(pod_directories(layout))


def needs_of_running_pods(layout: Layout) -> Needs:
    """What pods need whose lock is held: their apps have it mounted.

    Raises:
        StoreCorrupt: one of them does not say what it needs.
    """
    running = (path for path in pod_directories(layout) if f"{layout.top}/pods/run/" in path)
    return _needs_of(path for path in running if held(f"{path}/{LOCK}"))


def _needs_of(directories: Iterable[str]) -> Needs:
    images: set[str] = set()
    layers: set[str] = set()
    trees: set[str] = set()
    for directory in directories:
        needs = read_needs(directory)
        if needs is None:
            # Moved on, deleted, or died before it had looked for an image.
            continue
        images |= needs.images
        layers |= needs.layers
        trees |= needs.trees
    return Needs(frozenset(images), frozenset(layers), frozenset(trees))


def read_needs(directory: str) -> Needs | None:
    """What one pod needs; None when it does not say.

    Raises:
        StoreCorrupt: the file is damaged.
    """
    path = f"{directory}/{FILE}"
    try:
        return parse_needs(read_small(path, _MAX), path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StoreCorrupt(f'"{path}" cannot be read: {error}', hint="run podctl fsck") from None


def pod_directories(layout: Layout) -> Iterator[str]:
    """Paths of all pod directories."""
    for place in PLACES:
        path = layout.path(f"pods/{place}")
        try:
            names = sorted(os.listdir(path))
        except FileNotFoundError:
            continue
        for name in names:
            yield f"{path}/{name}"


def _words(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise TypeError("a list of strings is missing")
    return frozenset(value)
