"""Checking the store's own files: what stands where, with which mode, and whether it can be read.

Whether content is what it should be is for podctl.images.fsck. Nothing is changed while looking;
each finding carries what would repair it.
"""

from __future__ import annotations

import os
import stat
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import PodctlError, StoreCorrupt
from podctl.store.layout import (
    BLOBS,
    FRESH,
    IMAGES,
    LAYERS,
    NOTE,
    OWN_REMOTES,
    PARTIAL,
    PARTIAL_STATE,
    PRIVATE,
    PRIVATE_FILE,
    PRIVATE_MODE,
    QUARANTINE,
    REMOTES,
    REMOVED,
    SHARED,
    STAGE,
    TEMPORARY,
    TREES,
    UNFINISHED,
    VERIFIED,
    VIEW,
    name_of,
)
from podctl.store.leftovers import left_record
from podctl.store.records import (
    MAX_RECORD,
    ImageRecord,
    is_digest,
    is_layer,
    parse_remote,
    parse_verification,
    unseal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.store.store import Store

_RECORD_FILES = ("manifest", "record.json", "signature")


class Finding(NamedTuple):
    """Something that is not as it should be.

    Args:
        path: below the data directory.
        problem: one line.
        repair: does what can be done and returns what that was; None: nothing can be.
        unusable: what is inside cannot be looked at.
    """

    path: str
    problem: str
    repair: Callable[[], str] | None
    unusable: bool = False


class Structure:
    """One look at the whole store; exhaust `check`, then read what it found.

    Attributes:
        records: images whose record can be read.
        damaged: IDs of images whose record cannot be.
        orphans: digests of blobs that no readable record names.
        complete: whether everything could be looked at; if not, repair first.
        unmarked: layers and trees that do not say that they are complete, and why not.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._area = store.area
        self.records: list[ImageRecord] = []
        self.damaged: list[str] = []
        self.orphans: list[str] = []
        self.unmarked: list[tuple[str, str]] = []
        self.complete = False

    def check(self) -> Iterator[Finding]:
        """Look at everything; commits and removals have to wait meanwhile."""
        if not self._area.exists("cas"):
            return
        broken = list(self._places())
        yield from broken
        if any(finding.unusable for finding in broken):
            # What lies below cannot be looked at before the place itself is repaired.
            return
        with self._store.locks.changing():
            for name in self._area.names(IMAGES):
                yield from self._image(name)
            yield from self._blobs()
            yield from self._remotes(REMOTES, self._area.file_mode())
            for name in self._area.names(TEMPORARY):
                yield from self._temporary(name)
            if self._store.privileged:
                yield from self._remotes(OWN_REMOTES, PRIVATE_FILE)
                yield from self._notes()
                for name in self._area.names(LAYERS):
                    yield from self._unpacked(LAYERS, name, ("manifest",))
                for name in self._area.names(TREES):
                    yield from self._unpacked(TREES, name, ())
        self.complete = True

    def quarantine(self, name: str) -> str:
        """Move something out of the way; says where to."""
        area = self._area
        area.make_directory(QUARANTINE)
        leaf = f"{os.path.basename(name)}.{os.urandom(4).hex()}"
        area.rename(name, f"{QUARANTINE}/{leaf}")
        return f"moved to {QUARANTINE}/{leaf}"

    def remove(self, name: str) -> str:
        """Remove something nothing depends on."""
        self._area.remove(name)
        return "removed"

    # -- places -------------------------------------------------------------------------------

    def _places(self) -> Iterator[Finding]:
        for name in SHARED:
            yield from self._place(name, self._area.directory_mode())
        if self._store.privileged:
            for name in PRIVATE:
                yield from self._place(name, PRIVATE_MODE)
        if self._store.privileged and self._area.exists("locks/prepareLock"):
            yield from self._mode("locks/prepareLock", PRIVATE_FILE, stat.S_IFREG, self.quarantine)

    def _place(self, name: str, mode: int) -> Iterator[Finding]:
        def make_anew(name: str) -> str:
            done = ""
            if self._area.exists(name):
                done = self.quarantine(name) + ", "
            self._store.layout.create(privileged=self._store.privileged)
            return f"{done}made anew"

        try:
            if not self._area.exists(name):
                yield Finding(name, "directory is missing", partial(make_anew, name), unusable=True)
                return
        except OSError:
            return  # its parent is a finding already
        yield from self._mode(name, mode, stat.S_IFDIR, make_anew)

    def _mode(
        self, name: str, mode: int, kind: int, replace: Callable[[str], str] | None
    ) -> Iterator[Finding]:
        """Check type, mode and, where root alone writes, owner."""
        status = self._area.status(name)
        if stat.S_IFMT(status.st_mode) != kind:
            what = "directory" if kind == stat.S_IFDIR else "regular file"
            repair = None if replace is None else partial(replace, name)
            yield Finding(name, f"is no {what}", repair, unusable=True)
            return
        private = name.split("/", 1)[0] in (LAYERS, VERIFIED, TREES, "locks")
        if private and status.st_uid != 0:
            yield Finding(name, f"belongs to user {status.st_uid}, not to root", None)
        elif kind == stat.S_IFREG and status.st_nlink != 1:
            yield Finding(name, "has other names (hard links)", partial(self._copy, name))
        elif stat.S_IMODE(status.st_mode) != mode:
            problem = f"has mode {stat.S_IMODE(status.st_mode):04o}, not {mode:04o}"
            yield Finding(name, problem, partial(self._set_mode, name, mode))

    def _set_mode(self, name: str, mode: int) -> str:
        fd = self._area.open(name, os.O_PATH)
        try:
            os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)
        return "mode set"

    def _copy(self, name: str) -> str:
        """Give a file an inode of its own: somebody may hold the other name."""
        from podctl.store.copying import copy_content

        temporary = f"{TEMPORARY}/{os.urandom(8).hex()}{REMOVED}"
        reader = self._area.open(name)
        writer = self._area.create(temporary)
        try:
            copy_content(reader, writer, os.fstat(reader).st_size)
            os.fchmod(writer, stat.S_IMODE(os.fstat(reader).st_mode))
            os.fsync(writer)
            self._area.rename(temporary, name)
        finally:
            os.close(reader)
            os.close(writer)
            self._area.remove(temporary)
        return "copied"

    # -- images -------------------------------------------------------------------------------

    def _image(self, key: str) -> Iterator[Finding]:
        name = f"{IMAGES}/{key}"
        if not is_digest(key, "sha512-", 64):
            yield Finding(name, "is no image", partial(self.quarantine, name))
            return
        wrong = list(self._mode(name, self._area.directory_mode(), stat.S_IFDIR, None))
        if any(finding.unusable for finding in wrong):
            self.damaged.append(key)
            yield Finding(name, "is no directory", None)
            return
        yield from wrong
        for leaf in self._area.names(name):
            path = f"{name}/{leaf}"
            if leaf not in _RECORD_FILES:
                yield Finding(path, "does not belong to the record", partial(self.remove, path))
                continue
            for finding in self._mode(path, self._area.file_mode(), stat.S_IFREG, None):
                # Of a wrong type it cannot be read either, which is reported below.
                if not finding.unusable:
                    yield finding
        try:
            record = self._store.image(key)
        except PodctlError as error:
            self.damaged.append(key)
            yield Finding(f"{name}/record.json", error.message, None)
            return
        self.records.append(record)
        yield from self._signature(record)

    def _signature(self, record: ImageRecord) -> Iterator[Finding]:
        """A lost signature cannot be made again: without it the image counts as unsigned."""
        import hashlib

        name = f"{IMAGES}/{record.key}/signature"

        def forget() -> str:
            unsigned = record._replace(signed=False, signature_digest="")
            self._area.remove(name)
            self._store.restore_times(unsigned, record.last_used)
            return "the image is unsigned now; fetch it again for its signature"

        try:
            data = self._store.signature(record.key)
        except StoreCorrupt as error:
            yield Finding(name, error.message, forget)
            return
        digest = hashlib.sha256(data).hexdigest() if data is not None else ""
        if record.signed and data is None:
            yield Finding(name, "is missing", forget)
        elif digest != record.signature_digest:
            yield Finding(name, "has other content than when it was imported", forget)

    def _blobs(self) -> Iterator[Finding]:
        known = {blob for record in self.records for blob in record.needs}
        left = {blob for record in self._left_records() for blob in record.needs}
        for shard in self._area.names(BLOBS):
            place = f"{BLOBS}/{shard}"
            wrong = list(
                self._mode(place, self._area.directory_mode(), stat.S_IFDIR, self.quarantine)
            )
            yield from wrong
            if any(finding.unusable for finding in wrong):
                continue
            for leaf in self._area.names(place):
                path = f"{place}/{leaf}"
                if not is_digest(leaf, "", 64) or not leaf.startswith(shard):
                    yield Finding(path, "is no blob", partial(self.quarantine, path))
                    continue
                yield from self._mode(path, self._area.file_mode(), stat.S_IFREG, self.quarantine)
                if f"sha256:{leaf}" not in known | left:
                    self.orphans.append(f"sha256:{leaf}")

    def _left_records(self) -> Iterator[ImageRecord]:
        for name in self._area.names(TEMPORARY):
            record = left_record(self._store, name) if name.endswith((STAGE, REMOVED)) else None
            if record is not None:
                yield record

    # -- caches and notes ---------------------------------------------------------------------

    def _remotes(self, place: str, mode: int) -> Iterator[Finding]:
        for leaf in self._area.names(place):
            if leaf.startswith(UNFINISHED):
                continue
            name = f"{place}/{leaf}"
            wrong = list(self._mode(name, mode, stat.S_IFREG, self.remove))
            yield from wrong
            if any(finding.unusable for finding in wrong):
                continue
            try:
                url = parse_remote(self._area.read(name, MAX_RECORD), name).url
                if f"{name_of(url)}.json" != leaf:
                    raise StoreCorrupt("is the record of another URL")
            except (OSError, ValueError, StoreCorrupt) as error:
                problem = error.message if isinstance(error, PodctlError) else str(error)
                yield Finding(name, problem, partial(self.remove, name))

    def _notes(self) -> Iterator[Finding]:
        for leaf in self._area.names(VERIFIED):
            name = f"{VERIFIED}/{leaf}"
            if name == OWN_REMOTES or leaf.startswith(UNFINISHED):
                continue
            key, end = os.path.splitext(leaf)
            if end not in (NOTE, VIEW) or not is_digest(key, "sha512-", 64):
                yield Finding(name, "is no verification", partial(self.quarantine, name))
                continue
            wrong = list(self._mode(name, PRIVATE_FILE, stat.S_IFREG, self.quarantine))
            yield from wrong
            if any(finding.unusable for finding in wrong):
                continue
            try:
                self._read_note(name, key, end)
            except (OSError, ValueError, StoreCorrupt) as error:
                problem = error.message if isinstance(error, PodctlError) else str(error)
                # Root verifies the image again, or reads its documents, before it uses it.
                yield Finding(name, problem, partial(self.remove, name))

    def _read_note(self, name: str, key: str, end: str) -> None:
        if end == VIEW:
            from podctl.store.views import MAX_VIEW, unseal_view

            unseal_view(self._area.read(name, MAX_VIEW), key)
        else:
            parse_verification(self._area.read(name, MAX_RECORD), name)

    def _temporary(self, leaf: str) -> Iterator[Finding]:
        name = f"{TEMPORARY}/{leaf}"
        if leaf.endswith((STAGE, REMOVED, FRESH)):
            return  # at work, or cleared away by the next command
        if not leaf.endswith((PARTIAL, PARTIAL_STATE)):
            yield Finding(name, "is nothing of podctl's", partial(self.quarantine, name))
            return
        mode = self._area.status(name).st_mode
        if not stat.S_ISREG(mode):
            yield Finding(name, "is no regular file", partial(self.remove, name))
            return
        # As it is made, for a process may be killed before it shares it.
        private = stat.S_IMODE(mode) == PRIVATE_FILE
        right = PRIVATE_FILE if private else self._area.file_mode()
        yield from self._mode(name, right, stat.S_IFREG, self.remove)

    def _unpacked(self, place: str, leaf: str, more: tuple[str, ...]) -> Iterator[Finding]:
        """A layer or a tree: its mark and its directory. Its content is compared elsewhere."""
        name = f"{place}/{leaf}"
        if leaf.startswith(UNFINISHED):
            return  # at work, or cleared away by the next command
        if not (is_layer(leaf) if place == LAYERS else is_digest(leaf, "deps-sha512-", 64)):
            yield Finding(name, "is nothing of podctl's", partial(self.quarantine, name))
            return
        wrong = list(self._mode(name, PRIVATE_MODE, stat.S_IFDIR, self.remove))
        yield from wrong
        if any(finding.unusable for finding in wrong):
            return
        expected = {"rootfs", "done.json", *more}
        for extra in set(self._area.names(name)) - expected:
            path = f"{name}/{extra}"
            yield Finding(path, "does not belong there", partial(self.remove, path))
        problem = self._mark_problem(name, leaf)
        if problem is not None:
            self.unmarked.append((name, problem))
            return
        for file in ("done.json", *more):
            if self._area.exists(f"{name}/{file}"):
                yield from self._mode(f"{name}/{file}", PRIVATE_FILE, stat.S_IFREG, self.remove)

    def _mark_problem(self, name: str, leaf: str) -> str | None:
        try:
            note = unseal(self._area.read(f"{name}/done.json", MAX_RECORD))
        except FileNotFoundError:
            return "is missing"
        except (OSError, ValueError) as error:
            return str(error)
        what = "diff_id" if name.startswith(LAYERS) else "id"
        return None if note.get(what) == leaf else "is the mark of something else"
