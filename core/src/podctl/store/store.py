"""The image store: what is in it, and how an image gets in and out of it whole.

Commit order is content before record: blob and layer are written, synced and renamed into place,
then the record. A kill at any instruction leaves unreferenced content (collected later) but never
a record whose content is missing.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import Ambiguous, ImageGone, NotFound, StoreCorrupt, UsageError
from podctl.store.area import Area, write_private
from podctl.store.layout import IMAGES, Layout
from podctl.store.locks import Locks
from podctl.store.records import (
    MAX_RECORD,
    ImageRecord,
    RemoteRecord,
    Verification,
    check_image,
    check_key,
    dump,
    is_digest,
    parse_image,
    parse_remote,
    parse_verification,
    unseal,
)
from podctl.sys.calls import openat2
from podctl.sys.constants import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS
from podctl.sys.files import read_descriptor, read_small

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from podctl.store.staging import Partial, Piece, Staging

#: Digits of an image ID that a prefix must have at least.
MIN_DIGITS = 2
KEY_DIGITS = 64
MAX_MANIFEST = 4 << 20
#: the documents of a layered image (podctl.model.imagedocument)
MAX_DOCUMENT = 16 << 20
MAX_SIGNATURE = 1 << 20
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class StagedLayer(NamedTuple):
    """One layer of a staged image.

    Args:
        size: bytes of the uncompressed layer.
        piece: where it lies in staging; None where the store has it already.
        implies: see LayerNote.
    """

    diff_id: str
    blob: str
    size: int
    piece: Piece | None
    implies: bool = False


class LayerNote(NamedTuple):
    """What a complete layer was unpacked from.

    Args:
        size: bytes of the uncompressed tar.
        implies: whether it has directories, besides its root, that look as those below it.
    """

    blob: str
    size: int
    implies: bool


class StagedImage(NamedTuple):
    """An image whose bytes lie in staging, checked and ready to be committed."""

    key: str
    format: str
    name: str
    labels: Mapping[str, str]
    layers: tuple[StagedLayer, ...]
    blob_size: int
    manifest: bytes
    signature: bytes | None
    source: str
    latest: bool

    @property
    def document(self) -> str:
        """Digest of the manifest as a blob, where that is a layered image's document."""
        if self.layers[0].diff_id.startswith("sha512-"):
            return ""
        import hashlib

        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"


class Store:
    """The images below a data directory.

    Args:
        data_dir: made with all its parts when something is first written.
    """

    def __init__(self, data_dir: str) -> None:
        self.layout = Layout(data_dir)
        self.area = Area(self.layout)
        self.locks = Locks(self.layout, self.area)
        #: whether this process may use layers and notes that are root's alone
        self.privileged = os.geteuid() == 0
        #: descriptors that keep images from being removed, by image ID
        self._kept: dict[str, int] = {}

    # -- looking up ---------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """IDs of all images that have a record, sorted."""
        return [name for name in self.area.names(IMAGES) if is_digest(name, "sha512-", 64)]

    def images(self, warn: Callable[[str], None] | None = None) -> list[ImageRecord]:
        """All readable image records, oldest import first; damaged ones are warned of."""
        found = []
        keys = self.keys()
        if keys:
            with self.area.directory(IMAGES) as directory:
                for key in keys:
                    try:
                        found.append(self._read_record(directory, key))
                    except FileNotFoundError:
                        continue  # removed while we looked, or fsck's business
                    except StoreCorrupt as error:
                        if warn is not None:
                            warn(str(error))
        return sorted(found, key=lambda record: (record.imported_at, record.key))

    def image(self, key: str) -> ImageRecord:
        """The record of one image.

        Raises:
            ImageGone: there is none.
            StoreCorrupt: it is damaged.
        """
        check_key(key)
        try:
            with self.area.directory(IMAGES) as directory:
                return self._read_record(directory, key)
        except FileNotFoundError:
            raise ImageGone(f'cannot find image with key "{key}"') from None

    def lookup(self, key: str) -> ImageRecord | None:
        """The record of one image, None where there is none."""
        try:
            return self.image(key)
        except NotFound:
            return None

    def holds(self, key: str) -> bool:
        """Whether there is a record of that image, damaged or not."""
        return self.area.exists(self.layout.image(key))

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
            raise Ambiguous(
                f'ambiguous image ID: "{prefix}" ({len(fitting)} images)', hint="give more digits"
            )
        return fitting[0]

    def find(self, name: str, labels: Mapping[str, str]) -> ImageRecord | None:
        """The image of that name with all these labels.

        Where no version is asked for, one fetched as the latest comes first; then the most
        recently imported. To root, a record that says something else than root's own note on the
        image does not exist.
        """
        fitting = [
            record
            for record in self.images()
            if record.name == name
            and all(record.labels.get(label) == value for label, value in labels.items())
        ]
        versioned = "version" in labels
        fitting.sort(key=lambda r: (not versioned and r.latest, r.imported_at), reverse=True)
        return next((record for record in fitting if not self._contradicted(record)), None)

    def remote(self, url: str) -> RemoteRecord | None:
        """What was last fetched from a URL; root believes what root fetched alone."""
        try:
            if self.privileged:
                data = read_small(self.layout.path(self.layout.own_remote(url)), MAX_RECORD)
            else:
                data = self.area.read(self.layout.remote(url), MAX_RECORD)
            record = parse_remote(data, url)
        except (OSError, ValueError, StoreCorrupt):
            # Only a cache: without it the source is asked again.
            return None
        return record if record.url == url else None

    def manifest(self, key: str) -> bytes:
        """An image's manifest as imported: root reads its own copy, not the group's, if it can.

        Raises:
            NotFound, StoreCorrupt: it is not there, or not readable.
        """
        record = self.image(key)
        if record.layered:
            return self._document(key)
        trusted = self.trusted_manifest(record)
        if trusted is not None:
            return trusted
        return self.shared_manifest(key)

    def shared_manifest(self, key: str) -> bytes:
        """The manifest beside an image's record, which the group can write.

        Raises:
            NotFound, StoreCorrupt: it is not there, or not readable.
        """
        return self._read_shared(f"{self.layout.image(check_key(key))}/manifest", MAX_DOCUMENT)

    def _document(self, key: str) -> bytes:
        """The documents of a layered image, which are what its ID is the digest of."""
        data = self.shared_manifest(key)
        if document_key(data) != key:
            name = self.layout.path(f"{self.layout.image(key)}/manifest")
            raise _unreadable(name, "it is not the image's")
        return data

    def trusted_manifest(self, record: ImageRecord) -> bytes | None:
        """An archive's manifest as root itself read it from the image; None before it did.

        Raises:
            StoreCorrupt: it cannot be read.
        """
        if self.layer(record.layers[0]) is None:
            return None
        path = f"{self.layout.layer(record.layers[0])}/manifest"
        try:
            return read_small(path, MAX_MANIFEST)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error

    def signature(self, key: str) -> bytes | None:
        """The detached signature kept with an image.

        Raises:
            StoreCorrupt: it cannot be read.
        """
        try:
            return self._read_shared(
                f"{self.layout.image(check_key(key))}/signature", MAX_SIGNATURE
            )
        except NotFound:
            return None

    def open_blob(self, digest: str) -> int:
        """Open an image's bytes as downloaded, read-only.

        Raises:
            StoreCorrupt: they are missing, or no regular file.
        """
        import stat

        try:
            fd = self.area.open(self.layout.blob(digest))
        except OSError as error:
            raise StoreCorrupt(
                f'blob "{digest}" cannot be opened: {error.strerror}',
                hint="fetch the image again",
            ) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise StoreCorrupt(f'blob "{digest}" is no regular file', hint="run podctl fsck")
        return fd

    def layer_note(self, diff_id: str) -> LayerNote | None:
        """What a complete layer was unpacked from; None where there is none, or that is unknown."""
        if self.layer(diff_id) is None:
            return None
        path = f"{self.layout.layer(diff_id)}/done.json"
        try:
            note = unseal(read_small(path, MAX_RECORD))
            return LayerNote(str(note["blob"]), int(note["size"]), bool(note["implies"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def blob_size(self, digest: str) -> int | None:
        """Bytes of a stored blob; None where there is none."""
        import stat

        try:
            status = self.area.status(self.layout.blob(digest))
        except OSError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def layer(self, diff_id: str) -> str | None:
        """Path of a layer's root filesystem once it is complete; None before, and without root."""
        directory = self.layout.layer(diff_id)
        if not self.privileged or not os.path.exists(f"{directory}/done.json"):
            return None
        return f"{directory}/rootfs"

    def verification(self, key: str) -> Verification | None:
        """Root's note on an image; None when there is none or it is damaged (it is made again)."""
        path = self.layout.verification(check_key(key))
        try:
            return parse_verification(read_small(path, MAX_RECORD), path)
        except (OSError, ValueError, StoreCorrupt):
            return None

    # -- changing -----------------------------------------------------------------------------

    def staging(self, *, unpack: bool = True) -> Staging:
        """A place for an image on its way in; use as a context manager.

        Args:
            unpack: whether its layer is unpacked there (as root) and kept with it.
        """
        from podctl.store.leftovers import clear_leftovers
        from podctl.store.staging import Staging

        self.layout.create(privileged=self.privileged)
        clear_leftovers(self)
        return Staging(self.layout, self.area, self.locks, unpack=unpack and self.privileged)

    def partial(
        self, url: str, *, on_wait: Callable[[], None] | None = None, unchanging: bool = False
    ) -> Partial:
        """The exclusive place for a download from `url`; use as a context manager.

        Args:
            on_wait: called when another process holds it, before waiting.
            unchanging: `url` names the bytes by their digest, whoever delivers them.
        """
        from podctl.store.staging import Partial

        self.layout.create(privileged=self.privileged)
        return Partial(self.area, url, on_wait, unchanging=unchanging)

    def commit(self, staging: Staging, staged: StagedImage) -> ImageRecord:
        """Make a staged image part of the store; committing one that is there renews its record.

        Raises:
            ImageGone: a layer the store had when the image was staged was removed meanwhile.
            Refused: what is to be remembered of it cannot be.
        """
        record = self._new_record(staged)
        check_image(record)
        manifest = None if record.layered else staged.manifest
        for layer in staged.layers:
            write_notes(layer, manifest)
        if record.document:
            staging.write_document(staged.manifest)
        directory = staging.write_record(record, staged.manifest, staged.signature)
        staging.sync()
        with self.locks.preparing(), self.locks.using():
            # An image may name one layer several times, the empty one of old builders above all.
            for layer in dict.fromkeys(staged.layers):
                self._keep_layer(layer)
            if record.document:
                staging.keep_document(record.document)
            self._keep_record(record, directory)
        return record

    def commit_layers(
        self, staging: Staging, layers: Iterable[StagedLayer], manifest: bytes | None
    ) -> None:
        """Keep unpacked layers of an image whose record exists already.

        Args:
            manifest: of an archive; None for layers of a layered image.
        """
        pieces = [(layer, layer.piece) for layer in layers if layer.piece is not None]
        for layer, _ in pieces:
            write_notes(layer, manifest)
        staging.sync()
        with self.locks.preparing():
            for layer, piece in pieces:
                piece.keep_layer(layer.diff_id)

    def _keep_layer(self, layer: StagedLayer) -> None:
        if layer.piece is not None:
            layer.piece.keep_blob(layer.blob)
            layer.piece.keep_layer(layer.diff_id)
        unpacked = not self.privileged or self.layer(layer.diff_id) is not None
        if not unpacked or self.blob_size(layer.blob) is None:
            raise ImageGone(f'layer "{layer.diff_id}" was removed')

    def put_remote(self, url: str, key: str, *, etag: str | None, max_age: int) -> None:
        """Remember what a URL delivered just now."""
        data = dump(RemoteRecord(url, check_key(key), etag, max_age, time.time()))
        # Only a cache: losing it in a crash costs one request.
        if self.privileged:
            path = self.layout.path(self.layout.own_remote(url))
            write_private(path, data, durable=False)
        self.area.write_atomic(self.layout.remote(url), data, durable=False)

    def mark_verified(self, key: str, verification: Verification) -> None:
        """Write root's note on an image."""
        self.layout.create(privileged=True)
        path = self.layout.verification(check_key(key))
        write_private(path, dump(verification))

    def set_tree_size(self, key: str, size: int) -> None:
        """Account a rendered tree to its image; one that is gone meanwhile is fine."""
        try:
            record = self.image(key)._replace(tree_size=size)
            name = f"{self.layout.image(key)}/record.json"
            self.area.write_atomic(name, dump(record), durable=False)
            self._set_last_used(name, record.last_used)
        except (NotFound, StoreCorrupt, OSError):
            return

    def restore_times(self, record: ImageRecord, last_used: float) -> None:
        """Give a record that was written anew the times it had."""
        name = f"{self.layout.image(record.key)}/record.json"
        self.area.write_atomic(name, dump(record))
        self._set_last_used(name, last_used)

    def touch(self, key: str) -> None:
        """Note that an image was used; not being allowed to is no reason to fail."""
        self._set_last_used(f"{self.layout.image(check_key(key))}/record.json", None)

    def keep(self, record: ImageRecord) -> None:
        """Hold off the removal of an image until this process ends or becomes a pod.

        Without root nothing can be held off: a look is all.

        Raises:
            ImageGone: it was removed before.
        """
        if self.privileged and record.key not in self._kept:
            self._kept[record.key] = self.locks.image(record)
        if not self.holds(record.key):
            raise ImageGone(f'cannot find image with key "{record.key}"')

    def remove(self, key: str, on_wait: Callable[[], None] = lambda: None) -> list[str]:
        """Remove an image: its record, then what nothing else needs.

        Args:
            on_wait: called before waiting for a pod that is being prepared from it.

        Returns:
            One line for each thing that could not be removed; the image is gone even so.

        Raises:
            NotFound: there is no such image.
        """
        from podctl.store.removal import remove_image

        return remove_image(self, check_key(key), on_wait)

    def preparing(self) -> AbstractContextManager[None]:
        """See podctl.store.locks.Locks.preparing."""
        return self.locks.preparing()

    # -- details ------------------------------------------------------------------------------

    def _new_record(self, staged: StagedImage) -> ImageRecord:
        now = time.time()
        try:
            before = self.lookup(staged.key)
        except StoreCorrupt:
            before = None
        return ImageRecord(
            key=staged.key,
            format=staged.format,
            name=staged.name,
            labels=staged.labels,
            layers=tuple(layer.diff_id for layer in staged.layers),
            blobs=tuple(layer.blob for layer in staged.layers),
            document=staged.document,
            blob_size=staged.blob_size,
            size=sum(layer.size for layer in staged.layers),
            imported_at=now,
            last_used=now,
            latest=staged.latest,
            source=staged.source,
            signed=staged.signature is not None,
            signature_digest=_digest(staged.signature),
            tree_size=0 if before is None else before.tree_size,
        )

    def _keep_record(self, record: ImageRecord, directory: str) -> None:
        """Put a record's directory in place, or swap it with the one that stands there."""
        target = self.layout.image(record.key)
        try:
            self.area.rename(directory, target)
        except OSError:
            if not self.area.exists(target):
                raise
            self.area.exchange(directory, target)
        self.area.sync_directory(IMAGES)

    def _read_record(self, images_fd: int, key: str) -> ImageRecord:
        """Read one record below the open directory of records."""
        name = f"{key}/record.json"
        what = self.layout.path(f"{IMAGES}/{name}")
        try:
            fd = openat2(images_fd, name, _READ, 0, _RESOLVE)
        except FileNotFoundError:
            if self.area.exists(f"{IMAGES}/{key}"):
                raise _unreadable(what, "it is missing") from None
            raise
        except OSError as error:
            raise _unreadable(what, error.strerror) from error
        try:
            data = read_descriptor(fd, MAX_RECORD, name)
            return parse_image(data, what, key, os.fstat(fd).st_mtime)
        except (OSError, ValueError) as error:
            raise _unreadable(what, error) from error
        finally:
            os.close(fd)

    def _contradicted(self, record: ImageRecord) -> bool:
        """Whether root's own note on the image says something else than its record."""
        note = self.verification(record.key) if self.privileged else None
        return note is not None and not note.agrees(record)

    def _set_last_used(self, name: str, seconds: float | None) -> None:
        try:
            fd = self.area.open(name)
            try:
                os.utime(fd, None if seconds is None else (seconds, seconds))
            finally:
                os.close(fd)
        except OSError:
            return

    def _read_shared(self, name: str, limit: int) -> bytes:
        try:
            return self.area.read(name, limit)
        except FileNotFoundError:
            raise NotFound(
                f'"{self.layout.path(name)}" is missing', hint="run podctl fsck"
            ) from None
        except (OSError, ValueError) as error:
            raise _unreadable(self.layout.path(name), error) from error


def write_notes(layer: StagedLayer, manifest: bytes | None) -> None:
    """Mark a staged layer as complete.

    Args:
        manifest: of an archive; None for a layer of a layered image.
    """
    if layer.piece is not None:
        layer.piece.write_notes(
            layer.diff_id, layer.blob, layer.size, manifest, implies=layer.implies
        )


def document_key(document: bytes) -> str:
    """The image ID of a layered image: of all its documents, and of what it was asked for by."""
    from podctl.store.digests import sha512_hex

    return f"sha512-{sha512_hex(document)[:KEY_DIGITS]}"


def _digest(signature: bytes | None) -> str:
    if signature is None:
        return ""
    import hashlib

    return hashlib.sha256(signature).hexdigest()


def _unreadable(path: str, reason: object) -> StoreCorrupt:
    return StoreCorrupt(f'"{path}" cannot be read: {reason}', hint="run podctl fsck --repair")
