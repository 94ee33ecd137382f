"""The image store: what is in it, and how an image gets in and out of it whole.

Commit order is content before record: blob and layer are written, synced and renamed into place,
then the record. A kill at any instruction leaves unreferenced content (collected later) but never
a record whose content is missing.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import Ambiguous, NotFound, StoreCorrupt, UsageError
from podctl.store.layout import SHARED_FILE, Layout, make_directory
from podctl.store.records import (
    ImageRecord,
    RemoteRecord,
    Verification,
    check_key,
    dump,
    load_image,
    load_remote,
    load_verification,
)
from podctl.store.staging import Partial, Staging
from podctl.sys.files import (
    fsync_directory,
    read_small,
    remove_tree,
    rename_exchange,
    rename_new,
    write_atomic,
)
from podctl.sys.locks import LockedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Digits of an image ID that a prefix must have at least.
MIN_DIGITS = 2
KEY_DIGITS = 64
MAX_MANIFEST = 4 << 20
MAX_SIGNATURE = 1 << 20


class StagedImage(NamedTuple):
    """An image whose bytes lie in staging, checked and ready to be committed."""

    format: str
    name: str
    labels: Mapping[str, str]
    diff_id: str
    size: int
    blob: str
    blob_size: int
    manifest: bytes
    signature: bytes | None
    source: str
    latest: bool


class Store:
    """The images below a data directory.

    Args:
        data_dir: made with all its parts when something is first written.
    """

    def __init__(self, data_dir: str) -> None:
        self.layout = Layout(data_dir)
        #: whether this process may use layers and notes that are root's alone
        self.privileged = os.geteuid() == 0

    # -- looking up ---------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """IDs of all images that have a record, sorted."""
        try:
            names = os.listdir(self.layout.images)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if name.startswith("sha512-"))

    def images(self, warn: Callable[[str], None] | None = None) -> list[ImageRecord]:
        """All readable image records, oldest import first; damaged ones are warned of."""
        found = []
        for key in self.keys():
            try:
                found.append(self.image(key))
            except (StoreCorrupt, NotFound) as error:
                if warn is not None:
                    warn(str(error))
        return sorted(found, key=lambda record: (record.imported_at, record.key))

    def image(self, key: str) -> ImageRecord:
        """The record of one image.

        Raises:
            NotFound: there is none.
            StoreCorrupt: it is damaged.
        """
        path = f"{self.layout.image(check_key(key))}/record.json"
        try:
            return load_image(path, key, os.stat(path, follow_symlinks=False).st_mtime)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f'cannot find image with key "{key}"') from None

    def lookup(self, key: str) -> ImageRecord | None:
        """The record of one image, None where there is none."""
        try:
            return self.image(key)
        except NotFound:
            return None

    @staticmethod
    def key_of(image_id: str) -> str:
        """The store's key of a full or halved SHA-512 image ID."""
        return image_id[: len("sha512-") + KEY_DIGITS]

    def resolve_key(self, prefix: str) -> str:
        """Complete an image ID prefix (`sha512-` and at least two digits).

        Raises:
            UsageError: it is no such prefix.
            NotFound: no image has it.
            Ambiguous: several do.
        """
        digits = prefix.removeprefix("sha512-")
        if digits == prefix:
            raise UsageError(f'wrong key prefix: "{prefix}"', hint="an image ID begins sha512-")
        if len(digits) < MIN_DIGITS:
            raise UsageError(f'image ID too short: "{prefix}"', hint="give at least two digits")
        wanted = self.key_of(prefix)
        fitting = [key for key in self.keys() if key.startswith(wanted)]
        if not fitting:
            raise NotFound(f'no image IDs found for "{prefix}"', hint="see podctl image list")
        if len(fitting) > 1:
            raise Ambiguous(f'ambiguous image ID: "{prefix}" ({len(fitting)} images)')
        return fitting[0]

    def find(self, name: str, labels: Mapping[str, str]) -> ImageRecord | None:
        """The image of that name with all these labels.

        Where no version is asked for, one fetched as the latest comes first; then the most
        recently imported.
        """
        fitting = [
            record
            for record in self.images()
            if record.name == name
            and all(record.labels.get(label) == value for label, value in labels.items())
        ]
        if not fitting:
            return None
        versioned = "version" in labels
        return max(fitting, key=lambda r: (not versioned and r.latest, r.imported_at))

    def remote(self, url: str) -> RemoteRecord | None:
        """What was last fetched from a URL."""
        return load_remote(self.layout.remote(url), url)

    def manifest(self, key: str) -> bytes:
        """An image's manifest as imported: root reads its own copy, not the group's.

        Raises:
            NotFound, StoreCorrupt: it is not there, or not readable.
        """
        record = self.image(key)
        if self.privileged and self.layer(record.layers[0]) is not None:
            return self._read(f"{self.layout.layer(record.layers[0])}/manifest", MAX_MANIFEST)
        return self._read(f"{self.layout.image(key)}/manifest", MAX_MANIFEST)

    def signature(self, key: str) -> bytes | None:
        """The detached signature kept with an image."""
        try:
            return self._read(f"{self.layout.image(check_key(key))}/signature", MAX_SIGNATURE)
        except NotFound:
            return None

    def open_blob(self, digest: str) -> int:
        """Open an image's bytes as downloaded, read-only.

        Raises:
            StoreCorrupt: they are missing, or no regular file.
        """
        import stat

        path = self.layout.blob(digest)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(path, flags)
        except OSError as error:
            raise StoreCorrupt(f'blob "{digest}" cannot be opened: {error.strerror}') from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise StoreCorrupt(f'blob "{digest}" is no regular file')
        return fd

    def layer(self, diff_id: str) -> str | None:
        """Path of a layer's root filesystem once it is complete; None before, and without root."""
        directory = self.layout.layer(diff_id)
        if not self.privileged or not os.path.exists(f"{directory}/done.json"):
            return None
        return f"{directory}/rootfs"

    def verification(self, key: str) -> Verification | None:
        """Root's note on an image."""
        return load_verification(self.layout.verification(check_key(key)))

    # -- changing -----------------------------------------------------------------------------

    def staging(self) -> Staging:
        """A place for an image on its way in; use as a context manager."""
        self.layout.create(privileged=self.privileged)
        return Staging(self.layout, privileged=self.privileged)

    def partial(self, url: str, *, on_wait: Callable[[], None] | None = None) -> Partial:
        """The exclusive place for a download from `url`; use as a context manager.

        Args:
            on_wait: called when another process holds it, before waiting.
        """
        self.layout.create(privileged=self.privileged)
        return Partial(self.layout, url, on_wait)

    def commit(self, staging: Staging, staged: StagedImage) -> ImageRecord:
        """Make a staged image part of the store; committing one that is there renews its record."""
        record = self._new_record(staged)
        staging.write_layer_notes(staged.diff_id, staged.manifest)
        directory = staging.write_record(record, staged.manifest, staged.signature)
        staging.sync()
        with self.image_lock(record.key):
            staging.keep_blob(record.blob)
            staging.keep_layer(staged.diff_id)
            self._keep_record(record, directory)
        return record

    def commit_layer(self, staging: Staging, diff_id: str, manifest: bytes) -> None:
        """Keep an unpacked layer of an image whose record exists already."""
        staging.write_layer_notes(diff_id, manifest)
        staging.sync()
        staging.keep_layer(diff_id)

    def put_remote(self, url: str, key: str, *, etag: str | None, max_age: int) -> None:
        """Remember what a URL delivered just now."""
        record = RemoteRecord(url, key, etag, max_age, time.time())
        # Only a cache: losing it in a crash costs one request.
        write_atomic(self.layout.remote(url), dump(record), mode=SHARED_FILE, durable=False)

    def mark_verified(self, key: str, verification: Verification) -> None:
        """Write root's note on an image."""
        self.layout.create(privileged=True)
        path = self.layout.verification(check_key(key))
        write_atomic(path, dump(verification), mode=0o600)

    def touch(self, key: str) -> None:
        """Note that an image was used; not being allowed to is no reason to fail."""
        with suppress(OSError):
            os.utime(f"{self.layout.image(check_key(key))}/record.json", follow_symlinks=False)

    def remove(self, key: str) -> list[str]:
        """Remove an image's record, then its blob; layers go when nobody uses them (gc).

        Returns:
            One line for each thing that could not be removed; the image is gone even so.

        Raises:
            NotFound: there is no such image.
        """
        with self.image_lock(key):
            record = self.image(key)
            doomed = f"{self.layout.temporary}/removed-{key}-{os.urandom(4).hex()}"
            os.rename(self.layout.image(key), doomed)
            fsync_directory(self.layout.images)
            stale = []
            for path in (self.layout.verification(key), *self._own_blob(record)):
                try:
                    os.unlink(path)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    stale.append(f"{path}: {error.strerror}")
            remove_tree(doomed)
        return stale

    def image_lock(self, key: str) -> LockedFile:
        """The lock that guards writing and removing one image."""
        return LockedFile(self.layout.lock(check_key(key)), mode=SHARED_FILE)

    def preparing(self, *, exclusive: bool = False) -> LockedFile:
        """Held shared while a pod is prepared that cannot be seen yet, exclusively while layers
        and trees nobody refers to are collected."""
        make_directory(f"{self.layout.top}/locks", 0o2750)
        path = f"{self.layout.top}/locks/prepare"
        return LockedFile(path, exclusive=exclusive, mode=0o640)

    # -- details ------------------------------------------------------------------------------

    def _new_record(self, staged: StagedImage) -> ImageRecord:
        now = time.time()
        return ImageRecord(
            key=self.key_of(staged.diff_id),
            format=staged.format,
            name=staged.name,
            labels=staged.labels,
            layers=(staged.diff_id,),
            blob=staged.blob,
            blob_size=staged.blob_size,
            size=staged.size,
            imported_at=now,
            last_used=now,
            latest=staged.latest,
            source=staged.source,
            signed=staged.signature is not None,
        )

    def _keep_record(self, record: ImageRecord, directory: str) -> None:
        """Rename a record's directory into place; what stands there is exchanged, then removed.

        Exchanging never looks at what is there: it may be a link a member of the group has made.
        """
        target = self.layout.image(record.key)
        fsync_directory(directory)
        try:
            rename_new(directory, target)
        except FileExistsError:
            rename_exchange(directory, target)
            remove_tree(directory)
        fsync_directory(self.layout.images)

    def _own_blob(self, record: ImageRecord) -> Iterator[str]:
        """The image's blob, unless another image is made of the same bytes."""
        if not any(other.blob == record.blob for other in self.images()):
            yield self.layout.blob(record.blob)

    @staticmethod
    def _read(path: str, limit: int) -> bytes:
        try:
            return read_small(path, limit)
        except FileNotFoundError:
            raise NotFound(f'"{path}" is missing', hint="run podctl fsck") from None
        except (OSError, ValueError) as error:
            raise StoreCorrupt(
                f'"{path}" cannot be read: {error}', hint="run podctl fsck"
            ) from error
