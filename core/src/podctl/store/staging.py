"""An image on its way into the store: where its bytes gather until they may count."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from podctl.model.fetching import CacheState
from podctl.store.layout import PRIVATE_MODE, SHARED_FILE, SHARED_MODE, make_directory, name_of
from podctl.store.records import dump
from podctl.sys.files import (
    fsync_directory,
    read_small,
    remove_tree,
    rename_durable,
    syncfs,
    write_all,
)
from podctl.sys.locks import LockedFile, lock, open_lock_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from podctl.store.layout import Layout
    from podctl.store.records import ImageRecord

#: Held shared by whoever stages; who gets it exclusively may clear away what was abandoned.
STAGING_LOCK = "staging"
#: Names of layers that are being unpacked.
UNFINISHED = ".unfinished-"
_MAX_STATE = 8192


class Staging:
    """Staging of one image; leaving the context removes what was not kept.

    Attributes:
        directory: where to unpack the root filesystem; None for who may not (no root).
    """

    def __init__(self, layout: Layout, *, privileged: bool) -> None:
        self._layout = layout
        self._name = os.urandom(8).hex()
        self._lock = LockedFile(layout.lock(STAGING_LOCK), exclusive=False, mode=SHARED_FILE)
        self._layer = f"{layout.layers}/{UNFINISHED}{self._name}" if privileged else None
        self._record = f"{layout.temporary}/{self._name}.image"
        self._blob = f"{layout.temporary}/{self._name}.blob"
        self._blob_fd = -1
        self._partial: Partial | None = None

    @property
    def directory(self) -> str | None:
        """See the class."""
        return None if self._layer is None else f"{self._layer}/rootfs"

    @property
    def blob_fd(self) -> int:
        """A file for the image's bytes as downloaded."""
        if self._blob_fd < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._blob_fd = os.open(self._blob, flags, 0o600)
            os.fchmod(self._blob_fd, SHARED_FILE)
        return self._blob_fd

    def adopt_blob(self, partial: Partial) -> None:
        """Take a finished download as the image's bytes."""
        self._partial = partial

    def __enter__(self) -> Staging:
        self._lock.acquire()
        if self._layer is not None:
            make_directory(self._layer, PRIVATE_MODE)
            make_directory(f"{self._layer}/rootfs", 0o755)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._blob_fd >= 0:
                os.close(self._blob_fd)
            for path in (self._blob, self._record, self._layer):
                if path is not None:
                    remove_tree(path)
        finally:
            self._lock.release()

    def write_layer_notes(self, diff_id: str, manifest: bytes) -> None:
        """Put manifest and completion mark beside the unpacked tree."""
        if self._layer is None:
            return
        _write(f"{self._layer}/manifest", manifest, 0o600)
        note = {"diff_id": diff_id}
        _write(f"{self._layer}/done.json", json.dumps(note).encode() + b"\n", 0o600)

    def write_record(self, record: ImageRecord, manifest: bytes, signature: bytes | None) -> str:
        """Write the directory that becomes the image's record; return its path."""
        make_directory(self._record, SHARED_MODE)
        _write(f"{self._record}/manifest", manifest, SHARED_FILE)
        if signature is not None:
            _write(f"{self._record}/signature", signature, SHARED_FILE)
        _write(f"{self._record}/record.json", dump(record), SHARED_FILE)
        return self._record

    def sync(self) -> None:
        """Make all of it durable at once: one syncfs costs less than an fsync for each file."""
        fd = os.open(self._layout.top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)

    def keep_blob(self, digest: str) -> None:
        """Rename the bytes to their digest. The partial's own lock is still held."""
        target = self._layout.blob(digest)
        if self._partial is not None:
            self._partial.become(target)
        elif self._blob_fd >= 0:
            rename_durable(self._blob, target)

    def keep_layer(self, diff_id: str) -> None:
        """Rename the tree to its digest; one that is there already is the same tree."""
        if self._layer is None:
            return
        target = self._layout.layer(diff_id)
        try:
            os.rename(self._layer, target)
        except OSError:
            if not os.path.exists(f"{target}/done.json"):
                raise
            return
        fsync_directory(self._layout.layers)


class Partial:
    """A download in progress, one process at a time; leaving the context removes it unless kept.

    Attributes:
        fd: the file the bytes are kept in, open for reading and writing.
        size: bytes of an earlier attempt that may be continued.
        state: validators of that attempt.
    """

    def __init__(self, layout: Layout, url: str, on_wait: Callable[[], None] | None) -> None:
        base = f"{layout.temporary}/{name_of(url)}"
        self._path = f"{base}.part"
        self._state_path = f"{base}.state"
        self._lock_path = f"{base}.lock"
        self._on_wait = on_wait
        self._lock_fd = -1
        self._keep = False
        self.fd = -1
        self.size = 0
        self.state = CacheState()

    def __enter__(self) -> Partial:
        self._lock_fd = open_lock_file(self._lock_path, mode=SHARED_FILE)
        if not lock(self._lock_fd, exclusive=True, blocking=False):
            if self._on_wait is not None:
                self._on_wait()
            lock(self._lock_fd, exclusive=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self.fd = os.open(self._path, flags, 0o600)
        if os.fstat(self.fd).st_uid == os.geteuid():
            os.fchmod(self.fd, SHARED_FILE)
        self.state = self._load_state()
        known = self.state.etag or self.state.last_modified
        self.size = os.fstat(self.fd).st_size if known else 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self.fd)
        try:
            if not self._keep:
                remove_tree(self._path)
                remove_tree(self._state_path)
        finally:
            # The lock file stays: whoever waits for it has it open, and would hold a lock on
            # nothing. It is cleared away with abandoned staging.
            os.close(self._lock_fd)

    def save_state(self, state: CacheState) -> None:
        """Remember the validators of the body that begins."""
        data = json.dumps([state.etag, state.last_modified]).encode()
        _write(self._state_path, data, SHARED_FILE)

    def keep(self) -> None:
        """Leave what arrived for the next attempt."""
        self._keep = True

    def rewind(self) -> None:
        """Read from the beginning again."""
        os.lseek(self.fd, 0, os.SEEK_SET)

    def become(self, target: str) -> None:
        """Rename the finished download."""
        rename_durable(self._path, target)

    def _load_state(self) -> CacheState:
        try:
            etag, last_modified = json.loads(read_small(self._state_path, _MAX_STATE))
        except (OSError, ValueError, TypeError):
            return CacheState()
        return CacheState(_text(etag), _text(last_modified))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _write(path: str, data: bytes, mode: int) -> None:
    """Write a new or own file; durability comes with the next sync."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        os.fchmod(fd, mode)
        write_all(fd, data)
    finally:
        os.close(fd)
