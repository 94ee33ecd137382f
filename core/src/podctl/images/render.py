"""An image with its dependencies as one root filesystem.

The flat list of images goes from highest to lowest priority: the image itself, then its
dependencies depth first, of which later listed ones override earlier ones (appc image manifest,
`dependencies`). Without path whitelists the list simply is a stack of overlay layers; with one, no
overlay can express what is left out, and a tree is rendered once and shared.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import NotFound, Refused
from podctl.model.labels import host_labels
from podctl.model.plan import RootFilesystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.images.copying import Filter
    from podctl.model.image import Image
    from podctl.model.manifest import Dependency
    from podctl.store import ImageRecord, Store

    #: Reads an image's manifest: (format, bytes) -> Image.
    Parse = Callable[[str, bytes], Image]

MAX_DEPTH = 64
#: Images in one flat list; each is an overlay layer, and the kernel takes 500 at most.
MAX_IMAGES = 400


class Item(NamedTuple):
    """One image of the flat list and every whitelist that applies to it (its own and those of
    the images it is a dependency of)."""

    record: ImageRecord
    whitelists: tuple[frozenset[str], ...]


def flat_list(store: Store, key: str, parse: Parse) -> list[Item]:
    """Resolve an image's dependencies within the store, highest priority first.

    An image that is reached twice stands once, at its highest priority.

    Raises:
        NotFound: a dependency is not in the store.
        Refused: the dependencies form a loop, or are too deep or too many.
    """
    found: dict[str, Item] = {}

    def visit(record: ImageRecord, inherited: tuple[frozenset[str], ...], path: list[str]) -> None:
        if record.key in path:
            raise Refused(f'image "{record.name}" depends on itself')
        if len(path) >= MAX_DEPTH:
            raise Refused(f'image "{record.name}": more than {MAX_DEPTH} levels of dependencies')
        image = parse(record.format, store.manifest(record.key))
        own = frozenset(_clean(entry) for entry in image.path_whitelist)
        whitelists = (*inherited, own) if own else inherited
        if record.key not in found:
            found[record.key] = Item(record, whitelists)
            if len(found) > MAX_IMAGES:
                raise Refused(f'image "{record.name}": more than {MAX_IMAGES} dependencies')
        for dependency in reversed(image.dependencies):
            visit(_find(store, image, dependency), whitelists, [*path, record.key])

    visit(store.image(key), (), [])
    return list(found.values())


def rootfs(store: Store, key: str, parse: Parse) -> tuple[RootFilesystem, list[Item]]:
    """Return what an overlay's lower layers are for an image, rendering a tree if it must.

    Raises:
        NotFound: an image or a layer is not there.
        Refused: see `flat_list`.
    """
    items = flat_list(store, key, parse)
    if any(item.whitelists for item in items):
        return RootFilesystem(lowers=(_tree(store, items),)), items
    return RootFilesystem(lowers=tuple(_layers(store, items))), items


def copy_into(store: Store, key: str, directory: str, parse: Parse) -> list[Item]:
    """Render an image with its dependencies as a copy of its own into an empty directory."""
    items = flat_list(store, key, parse)
    _copy(store, items, directory, link=False)
    return items


def copy_alone(store: Store, key: str, directory: str) -> None:
    """Copy the image's own layers into an empty directory, without dependencies."""
    _copy(store, [Item(store.image(key), ())], directory, link=False)


def tree_id(items: list[Item]) -> str:
    """Name of the rendered tree of a flat list: the same images in the same order, one tree."""
    import hashlib

    keys = ",".join(item.record.key for item in items)
    return f"deps-sha512-{hashlib.sha512(keys.encode()).hexdigest()[:64]}"


def _tree(store: Store, items: list[Item]) -> str:
    """Render the tree of a flat list unless it is there; return its root filesystem's path."""
    from podctl.store.trees import render_once

    def fill(directory: str) -> None:
        _copy(store, items, directory, link=True)

    return render_once(store, tree_id(items), fill)


def _copy(store: Store, items: list[Item], directory: str, *, link: bool) -> None:
    from podctl.images.copying import TreeCopy

    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        copy = TreeCopy(fd, link=link)
        for item in items:
            accept = _filter(item.whitelists)
            for layer in _layers(store, [item]):
                copy.add(layer, accept)
        copy.finish()
    finally:
        os.close(fd)


def _filter(whitelists: tuple[frozenset[str], ...]) -> Filter | None:
    """What the whitelists leave of an image: the paths in all of them, and the directories above.

    A listed directory does not stand for its content (appc: the list is complete).
    """
    if not whitelists:
        return None
    allowed = frozenset.intersection(*whitelists)
    above = {parent for path in allowed for parent in _parents(path)}

    def accept(path: str, is_directory: bool) -> bool:
        return path in allowed or (is_directory and path in above)

    return accept


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _clean(path: str) -> str:
    return os.path.normpath(path).lstrip("/")


def _layers(store: Store, items: list[Item]) -> list[str]:
    paths = []
    for item in items:
        for diff_id in reversed(item.record.layers):
            path = store.layer(diff_id)
            if path is None:
                raise NotFound(
                    f'image "{item.record.name}" is not unpacked', hint="fetch it as root"
                )
            paths.append(path)
    return paths


def _find(store: Store, image: Image, dependency: Dependency) -> ImageRecord:
    """Find a dependency in the store: by its image ID where it pins one, else by name."""
    if dependency.image_id is not None:
        record = store.lookup(store.key_of(dependency.image_id))
        if record is not None and record.name != dependency.image_name:
            raise Refused(
                f'dependency {dependency.image_id} of "{image.name}" is named "{record.name}", '
                f'not "{dependency.image_name}"'
            )
    else:
        labels = dict(dependency.labels)
        record = store.find(dependency.image_name, labels) or store.find(
            dependency.image_name, {**host_labels(), **labels}
        )
    if record is None:
        raise NotFound(
            f'dependency "{dependency.image_name}" of image "{image.name}" is not in the store',
            hint=f"podctl fetch {dependency.image_name}",
        )
    return record
