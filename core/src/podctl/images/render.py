"""From an image to the root filesystem of an app: dependencies in order, whitelists applied.

The flat list has the image first; behind each image stand its dependencies, those listed later
before those listed earlier, so that a later dependency overrides an earlier one and the image all
of them (appc specification, dependency matching; rkt's order). Without a whitelist the list is an
overlay's list of lower directories; with one, a tree is rendered.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import NotFound, Refused, StoreCorrupt
from podctl.images.converted import image_of
from podctl.model.plan import RootFilesystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.model.image import Image
    from podctl.model.manifest import Dependency
    from podctl.store import ImageRecord, Store

#: Levels of dependencies below the image.
MAX_DEPTH = 64
#: Entries of the flat list; an overlay takes some 500 lower directories.
MAX_IMAGES = 256


class Whitelist:
    """The paths that are kept of an image, by its own whitelist and those of its ancestors.

    A path counts when every one of the whitelists names it. Directories that lead to such a path
    count as well. A directory's entries are not named with it.
    """

    __slots__ = ("_exact", "_parents")

    def __init__(self, whitelists: list[tuple[str, ...]]) -> None:
        named = (frozenset(map(_relative, whitelist)) for whitelist in whitelists)
        # No entry of a tree has a component `..`, and directories on the way to one do not count.
        exact = {path for path in frozenset.intersection(*named) if ".." not in path.split("/")}
        self._exact = exact
        self._parents = {
            path[:at] for path in exact for at, letter in enumerate(path) if letter == "/"
        }

    def keeps(self, path: str, is_directory: bool) -> bool:
        """See podctl.store.copying.Choice."""
        return path in self._exact or (is_directory and path in self._parents)


def _relative(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


class Part(NamedTuple):
    """One entry of the flat list.

    Args:
        record: the image.
        whitelists: the whitelists that hold for it, by the key of the image that has them.
    """

    record: ImageRecord
    whitelists: dict[str, tuple[str, ...]]

    def layers(self) -> list[str]:
        """The image's layers, highest first.

        A layer that stands in it twice counts where it is highest: that one shows all its files
        and hides all it hides, so the lower one can add nothing (and an overlay takes no
        directory twice).
        """
        return list(dict.fromkeys(reversed(self.record.layers)))

    def implies(self, store: Store) -> bool:
        """Whether a layer above others has directories that must look as those below them; one
        whose mark cannot be read may have some."""
        notes = (store.layer_note(layer) for layer in self.layers()[:-1])
        return any(note is None or note.implies for note in notes)


class Resolved(NamedTuple):
    """An image with its dependencies.

    Args:
        parts: the flat list, highest priority first.
        tree: id of the rendered tree that is needed; None where an overlay does.
    """

    parts: tuple[Part, ...]
    tree: str | None

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the images, the top one first."""
        return tuple(part.record.key for part in self.parts)

    @property
    def layers(self) -> tuple[str, ...]:
        """Digests of their layers, highest priority first, each once."""
        return tuple(dict.fromkeys(layer for part in self.parts for layer in part.layers()))

    def needs(self) -> bytes:
        """Content of the `images.json` of a pod whose only image this is."""
        from podctl.store.usage import dump_needs

        return dump_needs(self.keys, self.layers, [self.tree] if self.tree else [])


def resolve(
    store: Store, key: str, *, check: Callable[[ImageRecord], None] | None = None
) -> Resolved:
    """Find an image's dependencies in the store and put them in order.

    Args:
        check: called for each image before its manifest is believed; raises to refuse it.

    Raises:
        NotFound: a dependency is not in the store.
        Refused: a loop, too many levels or images, or a dependency that is not what was pinned.
        ManifestInvalid, StoreCorrupt: a manifest cannot be used, or a record does not fit it.
    """
    parts = tuple(_Walk(store, check).walk(key))
    tree = None
    if any(part.whitelists or part.implies(store) for part in parts):
        from podctl.store.trees import tree_id

        holding = ";".join(",".join(part.whitelists) for part in parts)
        tree = tree_id((part.record.key for part in parts), holding)
    return Resolved(parts, tree)


def rootfs(store: Store, image: str | Resolved) -> RootFilesystem:
    """Where an app's root comes from: layers for an overlay, or a rendered tree; root only.

    The caller holds `store.locks.preparing()`.

    Raises:
        NotFound: a layer is not unpacked; and what `resolve` raises.
    """
    resolved = resolve(store, image) if isinstance(image, str) else image
    if resolved.tree is None:
        return RootFilesystem(tuple(path for path, _ in sources(store, resolved)))
    from podctl.store.trees import render

    return RootFilesystem((render(store, resolved.tree, resolved.keys, sources(store, resolved)),))


def copy_into(
    store: Store,
    image: str | Resolved,
    directory: str,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Copy an image's root filesystem, dependencies included, into an empty directory; root only.

    Raises:
        NotFound: a layer is not unpacked; and what `resolve` raises.
        OSError: it cannot be written.
    """
    resolved = resolve(store, image) if isinstance(image, str) else image
    copy_layers([(path, choice) for path, choice in sources(store, resolved)], directory, warn)


def copy_layers(
    layers: list[tuple[str, Whitelist | None]],
    directory: str,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Merge layers into an empty directory, sharing nothing with them."""
    from podctl.store.copying import Source, merge

    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fds: list[int] = []
    try:
        fds = [os.open(path, flags) for path, _ in layers]
        fds.append(os.open(directory, flags))
        merge([Source(fds[at], layers[at][1]) for at in range(len(layers))], fds[-1], warn=warn)
    finally:
        for fd in fds:
            os.close(fd)


def sources(store: Store, resolved: Resolved) -> list[tuple[str, Whitelist | None]]:
    """Root filesystems of the flat list, and what counts of each.

    Raises:
        NotFound: one is not unpacked.
    """
    found: list[tuple[str, Whitelist | None]] = []
    for part in resolved.parts:
        whitelists = list(part.whitelists.values())
        for layer in part.layers():
            path = store.layer(layer)
            if path is None:
                raise NotFound(
                    f'image "{part.record.name}" ({part.record.key}) is not unpacked',
                    hint="fetch it as root",
                )
            if (path, None) not in found:
                found.append((path, Whitelist(whitelists) if whitelists else None))
    return found


class _Walk:
    """Depth first through dependencies, each image once for each set of whitelists above it."""

    def __init__(self, store: Store, check: Callable[[ImageRecord], None] | None) -> None:
        self._store = store
        self._check = check
        self._parts: list[Part] = []
        self._images: dict[str, Image] = {}
        #: for each image, the sets of whitelists (by key) under which it is in the list
        self._seen: dict[str, list[frozenset[str]]] = {}

    def walk(self, key: str) -> list[Part]:
        record = self._store.image(key)
        #: (image, whitelists from above, the images above it)
        pending: list[tuple[ImageRecord, dict[str, tuple[str, ...]], tuple[str, ...]]] = [
            (record, {}, ())
        ]
        while pending:
            record, whitelists, above = pending.pop()
            self._check_path(record, above)
            image = self._image(record)
            if image.path_whitelist:
                whitelists = {**whitelists, record.key: image.path_whitelist}
            if self._covered(record.key, frozenset(whitelists)):
                continue
            self._parts.append(Part(record, whitelists))
            if len(self._parts) > MAX_IMAGES:
                raise Refused(f'image "{key}" depends on more than {MAX_IMAGES} images')
            # A stack: what is pushed last, the dependency listed last, comes first.
            path = (*above, record.key)
            pending += [
                (self._find(dependency, image.name), whitelists, path)
                for dependency in image.dependencies
            ]
        return self._parts

    def _check_path(self, record: ImageRecord, above: tuple[str, ...]) -> None:
        if record.key in above:
            names = [self._images[key].name for key in above[above.index(record.key) :]]
            loop = " -> ".join([*names, record.name])
            raise Refused(f"dependency loop: {loop}", hint="the images' authors must break it")
        if len(above) > MAX_DEPTH:
            top = self._images[above[0]].name
            raise Refused(f'image "{top}" has more than {MAX_DEPTH} levels of dependencies')

    def _covered(self, key: str, whitelists: frozenset[str]) -> bool:
        """Whether the image stands higher up already, restricted by no more than now."""
        sets = self._seen.setdefault(key, [])
        if any(seen <= whitelists for seen in sets):
            return True
        sets.append(whitelists)
        return False

    def _image(self, record: ImageRecord) -> Image:
        image = self._images.get(record.key)
        if image is None:
            if self._check is not None:
                self._check(record)
            image = self._images[record.key] = image_of(self._store, record)
            check_layers(record, image)
        return image

    def _find(self, dependency: Dependency, parent: str) -> ImageRecord:
        name, image_id = dependency.image_name, dependency.image_id
        if image_id is None:
            record = self._store.find(name, dependency.labels)
        else:
            record = self._store.lookup(self._store.key_of(image_id))
        if record is None:
            what = image_id or ",".join([name, *(f"{k}={v}" for k, v in dependency.labels.items())])
            raise NotFound(
                f'image "{parent}": dependency "{what}" is not in the store',
                hint=f"podctl fetch {name}",
            )
        _check_dependency(dependency, record, parent)
        return record


def _check_dependency(dependency: Dependency, record: ImageRecord, parent: str) -> None:
    """Hold what was found against all a dependency says of it."""
    what = f'image "{parent}": dependency "{dependency.image_name}"'
    image_id = dependency.image_id
    found = record.key if record.layered else record.layers[0]
    if image_id is not None and not found.startswith(image_id):
        raise Refused(f"{what} is pinned to {image_id}, found {found}")
    if record.name != dependency.image_name:
        raise Refused(f'{what} is an image of the name "{record.name}"')
    for label, value in dependency.labels.items():
        if record.labels.get(label) != value:
            raise Refused(
                f'{what} must have label {label} "{value}", found "{record.labels.get(label)}"'
            )
    if dependency.size is not None and dependency.size not in (record.size, record.blob_size):
        raise Refused(f"{what} must have {dependency.size} bytes, found {record.size}")


def check_layers(record: ImageRecord, image: Image) -> None:
    """Hold the layers that a record lists against the image's own documents.

    An archive's layer is its ID. The record of a layered image is in the group's hands, also
    between the time root has looked at it and now; the documents are certain by the ID.

    Raises:
        StoreCorrupt: the record lists others.
    """
    if record.layered and tuple(layer.diff_id for layer in image.layers) != record.layers:
        raise StoreCorrupt(
            f'record of image "{record.key}" does not fit its documents',
            hint="run podctl fsck --repair",
        )
