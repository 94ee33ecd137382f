"""An image on its way into the store: where its bytes gather until they may count.

Each thing that is being made is locked by its maker (flock on the directory, or on the file of a
download), so what nobody holds was abandoned; podctl.store.leftovers clears it away.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from podctl.errors import StoreCorrupt
from podctl.model.fetching import CacheState
from podctl.store.area import is_own_file
from podctl.store.layout import (
    LAYERS,
    PARTIAL,
    PARTIAL_STATE,
    PRIVATE_FILE,
    PRIVATE_MODE,
    STAGE,
    TEMPORARY,
    UNFINISHED,
    name_of,
)
from podctl.store.records import MAX_RECORD, dump, seal, unseal
from podctl.sys.files import (
    fsync_directory,
    read_small,
    remove_tree,
    rename_exchange,
    syncfs,
    write_atomic,
)
from podctl.sys.locks import lock, unlock

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from podctl.store.area import Area
    from podctl.store.layout import Layout
    from podctl.store.locks import Locks
    from podctl.store.records import ImageRecord

_MAX_STATE = 8192
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Inside a staging directory: the bytes as downloaded, and what becomes the image's record.
STAGED_BLOB, STAGED_RECORD, STAGED_DOCUMENT = "blob", "image", "document"


class Staging:
    """Staging of one image; leaving the context removes what was not kept.

    Attributes:
        pieces: the archive, or the layers, that are being brought in with it.
    """

    def __init__(self, layout: Layout, area: Area, locks: Locks, *, unpack: bool) -> None:
        self._layout = layout
        self._area = area
        self._locks = locks
        self._unpack = unpack
        self._name = os.urandom(8).hex()
        self._stage = f"{TEMPORARY}/{self._name}{STAGE}"
        self._stage_fd = -1
        self.pieces: list[Piece] = []

    def piece(self, *, unpack: bool = True) -> Piece:
        """A place for one more archive or layer.

        Args:
            unpack: whether it gets a directory to unpack into (as root).
        """
        name = f"{self._name}-{len(self.pieces)}"
        layer = f"{self._layout.path(LAYERS)}/{UNFINISHED}{name}"
        blob = f"{self._stage}/{STAGED_BLOB}-{len(self.pieces)}"
        piece = Piece(self._layout, self._area, blob, layer if unpack and self._unpack else None)
        self.pieces.append(piece)
        piece.make()
        return piece

    def renew(self, piece: Piece) -> Piece:
        """A place to begin anew what was unpacked halfway in `piece`."""
        return self.piece(unpack=piece.directory is not None)

    def __enter__(self) -> Staging:
        try:
            self._lock_stage()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._clear()

    def write_record(self, record: ImageRecord, manifest: bytes, signature: bytes | None) -> str:
        """Write the directory that becomes the image's record; return its name."""
        name = f"{self._stage}/{STAGED_RECORD}"
        self._area.make_directory(name)
        self._area.write_new(f"{name}/manifest", manifest)
        if signature is not None:
            self._area.write_new(f"{name}/signature", signature)
        self._area.write_new(f"{name}/record.json", dump(record))
        return name

    def write_document(self, document: bytes) -> None:
        """Stage a layered image's document as a blob: from it the record can be made anew."""
        self._area.write_new(f"{self._stage}/{STAGED_DOCUMENT}", document)

    def keep_document(self, digest: str) -> None:
        """Rename the document to its digest."""
        keep_as_blob(self._area, f"{self._stage}/{STAGED_DOCUMENT}", self._layout.blob(digest))

    def sync(self) -> None:
        """Make all of it durable at once: one syncfs costs less than an fsync for each file."""
        with self._area.directory(TEMPORARY) as fd:
            syncfs(fd)

    def _lock_stage(self) -> None:
        """Make and lock the staging directory, while nobody looks for abandoned ones."""
        with self._locks.using():
            self._area.make_directory(self._stage)
            self._stage_fd = self._area.open(self._stage, os.O_RDONLY | os.O_DIRECTORY)
            lock(self._stage_fd, exclusive=True)

    def _clear(self) -> None:
        try:
            self._area.remove(self._stage)
            for piece in self.pieces:
                piece.clear()
        finally:
            for piece in self.pieces:
                piece.close()
            if self._stage_fd >= 0:
                os.close(self._stage_fd)
            self._stage_fd = -1


class Piece:
    """One archive or layer on its way in: its bytes as published, and what they unpack to."""

    def __init__(self, layout: Layout, area: Area, blob: str, layer: str | None) -> None:
        self._layout = layout
        self._area = area
        self._blob = blob
        self._blob_fd = -1
        self._layer = layer
        self._layer_fd = -1
        self._note = b""
        self._partial: Partial | None = None

    @property
    def directory(self) -> str | None:
        """Where to unpack the root filesystem; None for who may not (no root)."""
        return None if self._layer is None else f"{self._layer}/rootfs"

    @property
    def blob_fd(self) -> int:
        """A file for the bytes as published, open for reading and writing."""
        if self._blob_fd < 0:
            self._blob_fd = self._area.create(self._blob)
        return self._blob_fd

    def adopt_blob(self, partial: Partial) -> None:
        """Take a finished download as the bytes."""
        self._partial = partial

    def make(self) -> None:
        """Make the directory to unpack into, locked."""
        if self._layer is None:
            return
        while self._layer_fd < 0:
            # Taken for abandoned between mkdir and lock, it is made again.
            os.mkdir(self._layer, PRIVATE_MODE)
            self._layer_fd = lock_directory(self._layer)
        os.mkdir("rootfs", PRIVATE_MODE, dir_fd=self._layer_fd)
        os.chmod("rootfs", 0o755, dir_fd=self._layer_fd)

    def write_notes(
        self, diff_id: str, blob: str, size: int, manifest: bytes | None, *, implies: bool = False
    ) -> None:
        """Put the completion mark, and the archive's manifest, beside the unpacked tree.

        Args:
            size: bytes of the uncompressed layer.
            implies: whether it has directories, besides its root, that look as those below it.
        """
        if self._layer is None:
            return
        self._note = seal({"diff_id": diff_id, "blob": blob, "size": size, "implies": implies})
        if manifest is not None:
            write_atomic(f"{self._layer}/manifest", manifest, mode=PRIVATE_FILE, durable=False)
        write_atomic(f"{self._layer}/done.json", self._note, mode=PRIVATE_FILE, durable=False)

    def keep_blob(self, digest: str) -> None:
        """Rename the bytes to their digest; an older file of that name may be damaged.

        Raises:
            StoreCorrupt: somebody has exchanged the file meanwhile.
        """
        target = self._layout.blob(digest)
        if self._partial is not None:
            keep_as_blob(self._area, self._partial.check(), target)
            self._partial.became()
        elif self._blob_fd >= 0:
            _check_still(self._area, self._blob_fd, self._blob)
            keep_as_blob(self._area, self._blob, target)

    def keep_layer(self, diff_id: str) -> None:
        """Rename the tree to its digest; one that is there already is the same tree, whose mark is
        written anew if it cannot be read."""
        if self._layer is None:
            return
        target = self._layout.layer(diff_id)
        try:
            os.rename(self._layer, target)
        except OSError:
            if not os.path.exists(f"{target}/done.json"):
                self.replace_layer(diff_id)
            elif not _is_mark(f"{target}/done.json", diff_id):
                remove_tree(f"{target}/done.json")
                write_atomic(f"{target}/done.json", self._note, mode=PRIVATE_FILE)
            return
        self._settle_layer()

    def replace_layer(self, diff_id: str) -> None:
        """Put the tree in place of a damaged one, which is left where this one was unpacked."""
        if self._layer is None:
            return
        target = self._layout.layer(diff_id)
        if os.path.lexists(target):
            rename_exchange(self._layer, target)
        else:
            os.rename(self._layer, target)
        self._settle_layer()

    def clear(self) -> None:
        """Remove what was not kept."""
        if self._layer is not None:
            remove_tree(self._layer)

    def close(self) -> None:
        """Let go of it."""
        for fd in (self._blob_fd, self._layer_fd):
            if fd >= 0:
                os.close(fd)
        self._blob_fd = self._layer_fd = -1

    def _settle_layer(self) -> None:
        fsync_directory(self._layout.path(LAYERS))
        # The lock went along with the directory, and is for what is being made only.
        unlock(self._layer_fd)


class Partial:
    """A download in progress, one process at a time; leaving the context removes it unless kept.

    Attributes:
        fd: the file the bytes are kept in, open for reading and writing, locked.
        size: bytes of an earlier attempt that may be continued.
        state: validators of that attempt.
    """

    def __init__(
        self, area: Area, url: str, on_wait: Callable[[], None] | None, *, unchanging: bool = False
    ) -> None:
        base = f"{TEMPORARY}/{name_of(url)}"
        self._area = area
        self._name = f"{base}{PARTIAL}"
        self._state_name = f"{base}{PARTIAL_STATE}"
        self._on_wait = on_wait
        #: what is downloaded is named by its digest, so that any part of it may be continued
        self._unchanging = unchanging
        self._keep = False
        self._became = False
        self.fd = -1
        self.size = 0
        self.state = CacheState()

    def __enter__(self) -> Partial:
        while True:
            self.fd = self._open()
            self._wait_for_lock()
            if self._area.is_at(self.fd, self._name) and self._usable():
                break
            os.close(self.fd)
            self.fd = -1
        self.state = self._load_state()
        known = self._unchanging or self.state.etag or self.state.last_modified
        self.size = os.fstat(self.fd).st_size if known else 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._became:
                self._area.remove(self._state_name)
            elif not self._worth_keeping() and self._area.is_at(self.fd, self._name):
                self._area.remove(self._name)
                self._area.remove(self._state_name)
        finally:
            os.close(self.fd)
            self.fd = -1

    def save_state(self, state: CacheState) -> None:
        """Remember the validators of the body that begins."""
        data = json.dumps([state.etag, state.last_modified]).encode()
        self._area.write_atomic(self._state_name, data, durable=False)

    def keep(self) -> None:
        """Leave what arrived for the next attempt."""
        self._keep = True

    def discard(self) -> None:
        """Forget what arrived so far."""
        os.ftruncate(self.fd, 0)
        self.size = 0

    def rewind(self) -> None:
        """Read from the beginning again."""
        os.lseek(self.fd, 0, os.SEEK_SET)

    def check(self) -> str:
        """Return the finished download's name.

        Raises:
            StoreCorrupt: somebody has exchanged the file meanwhile.
        """
        _check_still(self._area, self.fd, self._name)
        return self._name

    def became(self) -> None:
        """The download was renamed to what it was for."""
        self._became = True

    def _worth_keeping(self) -> bool:
        return self._keep and os.fstat(self.fd).st_size > 0

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY
        while True:
            try:
                return self._area.create(self._name)
            except FileExistsError:
                try:
                    return self._area.open(self._name, flags)
                except FileNotFoundError:
                    continue
                except OSError:
                    # A directory, a link or a FIFO without a reader: nothing of ours.
                    self._area.remove(self._name)

    def _wait_for_lock(self) -> None:
        if not lock(self.fd, exclusive=True, blocking=False):
            if self._on_wait is not None:
                self._on_wait()
            lock(self.fd, exclusive=True)

    def _usable(self) -> bool:
        """Whether writing to the file writes to nothing else; if not, it is unlinked.

        Root continues its own files only. Members of the group continue one another's.
        """
        if is_own_file(self.fd):
            return True
        status = os.fstat(self.fd)
        plain = status.st_nlink == 1 and (status.st_mode & 0o170000) == 0o100000
        if plain and os.geteuid() != 0:
            return True
        self._area.remove(self._name)
        self._area.remove(self._state_name)
        return False

    def _load_state(self) -> CacheState:
        try:
            etag, last_modified = json.loads(self._area.read(self._state_name, _MAX_STATE))
        except (OSError, ValueError, TypeError, RecursionError):
            return CacheState()
        return CacheState(_text(etag), _text(last_modified))


def keep_as_blob(area: Area, name: str, target: str) -> None:
    """Rename finished bytes to the name of their digest, durably."""
    shard = os.path.dirname(target)
    area.make_directory(shard)
    area.rename(name, target)
    area.sync_directory(shard)
    area.sync_directory(os.path.dirname(shard))


def lock_directory(path: str) -> int:
    """Lock a directory just made; -1 when a cleaner has taken it for abandoned in between."""
    try:
        fd = os.open(path, _OPEN_DIRECTORY)
    except FileNotFoundError:
        return -1
    os.fchmod(fd, PRIVATE_MODE)  # whatever the umask
    lock(fd, exclusive=True)
    try:
        if os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False)):
            return fd
    except FileNotFoundError:
        pass
    os.close(fd)
    return -1


def _is_mark(path: str, diff_id: str) -> bool:
    try:
        return unseal(read_small(path, MAX_RECORD)).get("diff_id") == diff_id
    except (OSError, ValueError):
        return False


def _check_still(area: Area, fd: int, name: str) -> None:
    if not area.is_at(fd, name):
        raise StoreCorrupt(
            f'"{name}" was exchanged while it was written', hint="see who is in the group podctl"
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
