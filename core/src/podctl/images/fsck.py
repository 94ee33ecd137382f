"""Checking what the store holds against the stored archives, and making the rest from them.

The archive is what cannot be made again; records, manifests, layers and trees can.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from podctl.errors import InvalidInput, NotFound, PluginError, PodctlError, StoreCorrupt
from podctl.images.render import resolve, rootfs
from podctl.images.stored import BlobDamaged, describe, layers_of, renew_record, reread
from podctl.images.verifying import refuse_in_use, replace_layer, tree_problem, verify
from podctl.images.verifylayered import rebuild
from podctl.model.imagedocument import (
    DOCUMENT_START,
    MAX_DOCUMENT,
    digest_of,
    parse_document,
)
from podctl.store import document_key
from podctl.store.fsck import Finding, Structure
from podctl.store.layout import IMAGES, LAYERS, TREES, VERIFIED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.store import ImageRecord, Store

#: How many differences of one layer are told.
_MOST = 20


class StoreCheck:
    """All of the store; iterate `findings` to its end before repairing anything."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._structure = Structure(store)
        #: blob -> the image it is, once it was read
        self._identified: dict[str, str] = {}
        #: root's notes and views that are told of already
        self._told: set[str] = set()

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong: places and records first, content after."""
        structure = self._structure
        found = list(structure.check())
        self._told = {one.path for one in found if one.path.startswith(f"{VERIFIED}/")}
        for finding in found:
            repair = finding.repair
            if finding.path.startswith(f"{IMAGES}/") and repair is None:
                repair = partial(self._rebuild, finding.path.split("/")[2])
            yield finding._replace(repair=repair)
        if not structure.complete:
            return
        # Documents first: they tell which image the others are layers of.
        for blob in sorted(structure.orphans, key=lambda blob: self._document(blob) is None):
            problem = self._orphan_problem(blob)
            if problem is not None:
                yield Finding(self._path(blob), problem, partial(self._adopt, blob))
        for record in structure.records:
            yield from self._content(record)
        for name, problem in structure.unmarked:
            yield Finding(f"{name}/done.json", problem, partial(self._remake, name))
        if self._store.privileged:
            yield from self._trees()

    # -- checks -------------------------------------------------------------------------------

    def _content(self, record: ImageRecord) -> Iterator[Finding]:
        try:
            with self._store.locks.preparing():
                found = verify(self._store, record, repair=False, most=_MOST, trees=False)
        except (StoreCorrupt, NotFound) as error:
            if not self._store.holds(record.key):
                return  # removed while we looked
            yield self._unusable(record, error)
            return
        except (InvalidInput, PluginError) as error:
            # The group can write it: it may name any format.
            name = f"{IMAGES}/{record.key}/record.json"
            yield Finding(name, f"cannot be used: {error.message}", partial(self._redo, record))
            return
        repair = partial(self._verify_again, record)
        for problem in found.problems:
            path = f"{problem.place}{problem.path}"
            if path not in self._told:
                yield Finding(path, problem.text, repair)

    def _unusable(self, record: ImageRecord, error: PodctlError) -> Finding:
        """What an image would have to be compared with is damaged."""
        layout = self._store.layout
        if isinstance(error, BlobDamaged) or not record.layered:
            blob = error.blob if isinstance(error, BlobDamaged) else record.blob
            return Finding(layout.blob(blob), error.message, partial(self._give_up, record, blob))
        for blob in record.blobs:
            if self._store.blob_size(blob) is None:
                give_up = partial(self._give_up, record, blob)
                return Finding(layout.blob(blob), "is missing", give_up)
        name = f"{layout.image(record.key)}/manifest"
        return Finding(name, error.message, partial(self._rebuild, record.key))

    def _trees(self) -> Iterator[Finding]:
        from podctl.store.trees import top_image

        unmarked = {name for name, _ in self._structure.unmarked}
        for leaf in self._store.area.names(TREES):
            key = None if leaf.startswith(".") else top_image(self._store, leaf)
            if key is None or f"{TREES}/{leaf}" in unmarked:
                continue
            try:
                with self._store.locks.preparing():
                    resolved = resolve(self._store, key)
                    if resolved.tree != leaf:
                        continue  # its dependencies are others today; image gc removes it
                    problem = tree_problem(self._store, resolved, repair=False)
            except PodctlError:
                continue  # its images are gone or damaged, which is reported with them
            if problem is not None:
                repair = partial(self._render_again, key)
                yield Finding(f"{problem.place}{problem.path}", problem.text, repair)

    def _orphan_problem(self, blob: str) -> str | None:
        """What is wrong with bytes that no record names.

        Nothing is with the layers of an image that did not become one: the next attempt needs not
        fetch them, and `image gc` removes them.
        """
        if not self._is_intact(blob):
            return "is damaged, and belongs to no image"
        if self._document(blob) is not None or self._identify(blob) is not None:
            return "belongs to no image whose record can be read"
        return None

    # -- repairs ------------------------------------------------------------------------------

    def _verify_again(self, record: ImageRecord) -> str:
        verify(self._store, record, repair=True, trees=False)
        return "made anew from the stored archive"

    def _render_again(self, key: str) -> str:
        tree_problem(self._store, resolve(self._store, key), repair=True)
        return "rendered again"

    def _rebuild(self, key: str) -> str:
        """Make the record of image `key` anew from its bytes or its documents."""
        if self._is_fine(key):
            return "made anew from the stored archive"
        for document in self._documents(key):
            with suppress(PodctlError):
                rebuild(self._store, document, self._readable(key))
                return "made anew from the image's documents"
        for blob in self._structure.orphans:
            if self._identify(blob) == key:
                self._commit(blob)
                return "made anew from the stored archive"
        return self._structure.quarantine(f"{IMAGES}/{key}")

    def _redo(self, record: ImageRecord) -> str:
        """Make a record anew that can be read but says what cannot be so."""
        if record.layered:
            rebuild(self._store, self._store.manifest(record.key), record)
        else:
            with reread(self._store, record.blob, unpack=False) as fresh:
                renew_record(self._store, record, fresh)
        return "made anew"

    def _adopt(self, blob: str) -> str:
        """Make an image of bytes that no record names."""
        owner = self._owner(blob)
        if owner is not None:
            return f"belongs to image {owner} again"
        document = self._document(blob)
        if document is not None:
            key = document_key(document)
            if not self._is_fine(key):
                try:
                    rebuild(self._store, document, self._readable(key))
                except PodctlError as error:
                    return f"{self._structure.quarantine(self._path(blob))}: {error.message}"
            return f"made image {key} of it"
        found = self._identify(blob)
        if found is None:
            return self._structure.quarantine(self._path(blob))
        if not self._is_fine(found):
            self._commit(blob)
        elif self._store.image(found).blob != blob:
            return self._structure.remove(self._path(blob))
        return f"made image {found} of it"

    def _give_up(self, record: ImageRecord, blob: str) -> str:
        """Remove an image whose bytes are damaged, and keep what is left of them aside."""
        path = self._path(blob)
        done = self._structure.quarantine(path) if self._store.area.exists(path) else "gone"
        if self._store.holds(record.key):
            self._store.remove(record.key)
        return f"{done}; the image is removed, fetch it again"

    def _remake(self, name: str) -> str:
        """Unpack a layer or render a tree again, if an image still has it; else remove it."""
        place, leaf = name.split("/")
        for key in sorted(self._store.keys()):
            record = self._readable(key)
            if record is None:
                continue
            if place == LAYERS and leaf in record.layers:
                self._unpack_again(record, leaf)
                return "unpacked again"
            if place == TREES and self._tree_of(key) == leaf:
                refuse_in_use(self._store, leaf)
                self._structure.remove(f"{name}/done.json")
                rootfs(self._store, key)
                return "rendered again"
        refuse_in_use(self._store, leaf)
        return self._structure.remove(name)

    # -- details ------------------------------------------------------------------------------

    def _unpack_again(self, record: ImageRecord, diff_id: str) -> None:
        if not record.layered:
            with reread(self._store, record.blob, record.format, unpack=True) as fresh:
                replace_layer(self._store, fresh, fresh.unpacked.manifest)
            return
        layers = layers_of(self._store, record)
        layer = next(layer for layer in layers if layer.diff_id == diff_id)
        with reread(self._store, layer.blob, record.format, unpack=True, layer=layer) as fresh:
            replace_layer(self._store, fresh, None)

    def _path(self, blob: str) -> str:
        return self._store.layout.blob(blob)

    def _owner(self, blob: str) -> str | None:
        """The image that needs a blob by now."""
        records = self._store.images()
        return next((record.key for record in records if blob in record.needs), None)

    def _documents(self, key: str) -> Iterator[bytes]:
        """What may be the documents of image `key`, and has its digest."""
        found: list[bytes | None] = []
        with suppress(PodctlError):
            found.append(self._store.shared_manifest(key))
        record = self._readable(key)
        blobs = [*self._structure.orphans, *((record.document,) if record is not None else ())]
        found += [self._document(blob) for blob in blobs if blob]
        for data in found:
            if data is not None and document_key(data) == key:
                yield data

    def _document(self, blob: str) -> bytes | None:
        """A blob that is the documents of a layered image; None where it is something else."""
        size = self._store.blob_size(blob)
        if size is None or size > MAX_DOCUMENT:
            return None
        try:
            data = self._store.area.read(self._path(blob), MAX_DOCUMENT)
            if digest_of(data) == blob and data.startswith(DOCUMENT_START):
                parse_document(data)
                return data
        except (OSError, ValueError, PodctlError):
            pass
        return None

    def _is_intact(self, blob: str) -> bool:
        import hashlib

        try:
            with open(self._store.open_blob(blob), "rb") as file:
                return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" == blob
        except (OSError, StoreCorrupt):
            return not self._store.area.exists(self._path(blob))

    def _tree_of(self, key: str) -> str | None:
        try:
            return resolve(self._store, key).tree
        except PodctlError:
            return None

    def _readable(self, key: str) -> ImageRecord | None:
        try:
            return self._store.image(key)
        except PodctlError:
            return None

    def _is_fine(self, key: str) -> bool:
        record = self._readable(key)
        if record is None or any(self._store.blob_size(blob) is None for blob in record.needs):
            return False
        try:
            self._store.manifest(key)
        except PodctlError:
            return not record.layered
        return True

    def _identify(self, blob: str) -> str | None:
        """Which image a blob is; None when it is damaged."""
        if blob not in self._identified:
            try:
                with reread(self._store, blob, unpack=False) as fresh:
                    describe(fresh)
                    self._identified[blob] = self._store.key_of(fresh.ingested.diff_id)
            except (PodctlError, OSError):
                return None
        return self._identified[blob]

    def _commit(self, blob: str) -> None:
        with reread(self._store, blob, unpack=self._store.privileged) as fresh:
            renew_record(self._store, None, fresh)
