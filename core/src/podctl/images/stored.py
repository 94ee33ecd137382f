"""Reading a stored image again from its bytes: to compare, to repair, to export.

The archive is read by the same children that read it when it was fetched, so what is compared
with is what unpacking it now would give, to the last attribute.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import ArchiveInvalid, StoreCorrupt
from podctl.model.layout import ArchiveLimits
from podctl.store import StagedImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.images.ingest import Ingested
    from podctl.images.transfer import Unpacked
    from podctl.model.image import Image
    from podctl.store import ImageRecord, Staging, Store

_MAX_BYTES = 64 << 30
#: A single file that is an image is an ACI.
_FORMAT = "aci"


class Reread(NamedTuple):
    """One pass over stored bytes, unpacked into staging or only checked."""

    ingested: Ingested
    unpacked: Unpacked
    staging: Staging


@contextmanager
def reread(store: Store, blob: str, form: str = _FORMAT, *, unpack: bool) -> Iterator[Reread]:
    """Read the bytes named `blob` through, as when they were fetched.

    Raises:
        StoreCorrupt: they are not what their name says, or no archive.
    """
    from podctl.images.transfer import Transfer, transfer_local
    from podctl.plugins import image_format

    layout = image_format(form).layout()
    with store.staging(unpack=unpack) as staging:
        fd = store.open_blob(blob)
        try:
            transfer = Transfer(layout, staging.directory, None, ArchiveLimits(), _MAX_BYTES)
            ingested, unpacked = transfer_local(fd, transfer, None)
        except ArchiveInvalid as error:
            raise damaged(blob, error.message) from error
        finally:
            os.close(fd)
        if ingested.blob != blob:
            raise damaged(blob, f"its digest is {ingested.blob}")
        yield Reread(ingested, unpacked, staging)


def damaged(blob: str, reason: str) -> StoreCorrupt:
    return StoreCorrupt(
        f'stored bytes "{blob}" are damaged: {reason}',
        hint="remove the image and fetch it again",
    )


def renew_record(store: Store, record: ImageRecord | None, fresh: Reread) -> None:
    """Write an image's record anew from its bytes.

    Args:
        record: what is known beyond them (source, times); None when it is lost.
    """
    staged = describe(fresh)
    signature = _signature(store, store.key_of(staged.diff_id))
    if record is None:
        store.commit(fresh.staging, staged._replace(signature=signature))
        return
    staged = staged._replace(source=record.source, latest=record.latest, signature=signature)
    renewed = store.commit(fresh.staging, staged)
    store.restore_times(renewed._replace(imported_at=record.imported_at), record.last_used)


def describe(fresh: Reread) -> StagedImage:
    """See describe_pass."""
    return describe_pass(fresh.ingested, fresh.unpacked)


def describe_pass(ingested: Ingested, unpacked: Unpacked) -> StagedImage:
    """What an image's bytes say of themselves, ready to be committed.

    Raises:
        ManifestInvalid: the manifest breaks the format.
    """
    from podctl.plugins import image_format

    image: Image = image_format(_FORMAT).image(unpacked.manifest)
    return StagedImage(
        format=image.format,
        name=image.name,
        labels=dict(image.labels),
        diff_id=ingested.diff_id,
        size=ingested.size,
        blob=ingested.blob,
        blob_size=ingested.blob_size,
        manifest=unpacked.manifest,
        signature=None,
        source="",
        latest=False,
    )


def _signature(store: Store, key: str) -> bytes | None:
    try:
        return store.signature(key)
    except StoreCorrupt:
        return None


def export(store: Store, record: ImageRecord, fd: int) -> None:
    """Write an image's uncompressed archive, byte for byte, to `fd`.

    Raises:
        StoreCorrupt: the stored bytes are not the image.
    """
    from podctl.sys.child import Privileges, spawn

    blob_fd = store.open_blob(record.blob)
    try:
        import hashlib  # noqa: F401 - for the child, which cannot import any more

        from podctl.images import compression

        compression.preload()
        child = spawn(
            lambda: _decompress(blob_fd, fd),
            privileges=Privileges.NONE,
            keep=(blob_fd, fd),
            name="export",
        )
        with child:
            diff_id = child.wait()
    except ArchiveInvalid as error:
        raise damaged(record.blob, error.message) from error
    finally:
        os.close(blob_fd)
    if diff_id != record.layers[0]:
        raise damaged(record.blob, "they are another image")


def _decompress(blob_fd: int, fd: int) -> str:
    import hashlib

    from podctl.images.compression import decompressor
    from podctl.sys.files import write_all

    digest = hashlib.sha512()
    with open(blob_fd, "rb", buffering=0, closefd=False) as stream:
        reader = decompressor(stream, declared=None, limits=ArchiveLimits())
        while data := reader.read(1 << 20):
            digest.update(data)
            write_all(fd, data)
    return f"sha512-{digest.hexdigest()}"


def ensure_unpacked(store: Store, record: ImageRecord, say: Callable[[str], None]) -> str:
    """Path of an image's layer, unpacked now if it was not; root only.

    Nothing is said about trust: the layer's name is its digest, so it is the image's bytes.

    Raises:
        StoreCorrupt: the stored bytes are not the image.
    """
    path = store.layer(record.layers[0])
    if path is None:
        say(f'unpacking image "{record.name}"')
        with reread(store, record.blob, record.format, unpack=True) as fresh:
            if fresh.ingested.diff_id != record.layers[0]:
                raise damaged(record.blob, "they are another image")
            store.commit_layer(fresh.staging, fresh.ingested.diff_id, fresh.unpacked.manifest)
        path = store.layer(record.layers[0])
        assert path is not None
    return path
