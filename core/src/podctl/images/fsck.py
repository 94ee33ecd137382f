"""Checking what the store holds against the stored archives, and making the rest from them.

The archive is what cannot be made again; records, manifests, layers and trees can.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from podctl.errors import PodctlError, StoreCorrupt
from podctl.images.render import resolve, rootfs
from podctl.images.stored import describe, renew_record, reread
from podctl.images.verifying import refuse_in_use, replace_layer, tree_problem, verify
from podctl.store.fsck import Finding, Structure
from podctl.store.layout import IMAGES, LAYERS, TREES

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

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong: places and records first, content after."""
        structure = self._structure
        found = list(structure.check())
        for finding in found:
            repair = finding.repair
            if finding.path.startswith(f"{IMAGES}/") and repair is None:
                repair = partial(self._rebuild, finding.path.split("/")[2])
            yield finding._replace(repair=repair)
        if not structure.complete:
            return
        for blob in structure.orphans:
            path = self._store.layout.blob(blob)
            problem = "belongs to no image whose record can be read"
            yield Finding(path, problem, partial(self._adopt, blob))
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
        except StoreCorrupt as error:
            if self._store.lookup(record.key) is None:
                return  # removed while we looked
            path = self._store.layout.blob(record.blob)
            yield Finding(path, error.message, partial(self._give_up, record))
            return
        repair = partial(self._verify_again, record)
        for problem in found.problems:
            yield Finding(f"{problem.place}{problem.path}", problem.text, repair)

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

    # -- repairs ------------------------------------------------------------------------------

    def _verify_again(self, record: ImageRecord) -> str:
        verify(self._store, record, repair=True, trees=False)
        return "made anew from the stored archive"

    def _render_again(self, key: str) -> str:
        tree_problem(self._store, resolve(self._store, key), repair=True)
        return "rendered again"

    def _rebuild(self, key: str) -> str:
        """Make the record of image `key` anew from the blob that is this image."""
        if self._is_fine(key):
            return "made anew from the stored archive"
        for blob in self._structure.orphans:
            if self._identify(blob) == key:
                self._commit(blob)
                return "made anew from the stored archive"
        return self._structure.quarantine(f"{IMAGES}/{key}")

    def _adopt(self, blob: str) -> str:
        """Make an image of bytes that no record names."""
        key = self._identify(blob)
        if key is None:
            return self._structure.quarantine(self._store.layout.blob(blob))
        if not self._is_fine(key):
            self._commit(blob)
        elif self._store.image(key).blob != blob:
            return self._structure.remove(self._store.layout.blob(blob))
        return f"made image {key} of it"

    def _give_up(self, record: ImageRecord) -> str:
        """Remove an image whose bytes are damaged, and keep what is left of them aside."""
        path = self._store.layout.blob(record.blob)
        done = self._structure.quarantine(path) if self._store.area.exists(path) else "gone"
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
                with reread(self._store, record.blob, record.format, unpack=True) as fresh:
                    replace_layer(self._store, fresh)
                return "unpacked again"
            if place == TREES and self._tree_of(key) == leaf:
                refuse_in_use(self._store, leaf)
                self._structure.remove(f"{name}/done.json")
                rootfs(self._store, key)
                return "rendered again"
        refuse_in_use(self._store, leaf)
        return self._structure.remove(name)

    # -- details ------------------------------------------------------------------------------

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
        return record is not None and self._store.area.exists(self._store.layout.blob(record.blob))

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
