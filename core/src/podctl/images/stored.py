"""Reading a stored image again from its bytes: to compare, to repair, to export.

The archive is read by the same children that read it when it was fetched, so what is compared
with is what unpacking it now would give, to the last attribute.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import ArchiveInvalid, DigestMismatch, Refused, StoreCorrupt
from podctl.images.ingest import Expectation
from podctl.images.render import check_layers
from podctl.model.layout import ArchiveLimits
from podctl.store import StagedImage, StagedLayer, document_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.images.ingest import Ingested
    from podctl.images.transfer import Unpacked
    from podctl.model.image import Image, Layer
    from podctl.store import ImageRecord, Staging, Store
    from podctl.store.staging import Piece

_MAX_BYTES = 64 << 30
#: A single file that is an image is an ACI.
_FORMAT = "aci"


class Reread(NamedTuple):
    """One pass over stored bytes, unpacked into staging or only checked."""

    ingested: Ingested
    unpacked: Unpacked
    staging: Staging
    piece: Piece

    def as_layer(self) -> StagedLayer:
        """What was read, ready to be kept."""
        ingested = self.ingested
        return StagedLayer(
            ingested.diff_id, ingested.blob, ingested.size, self.piece, self.unpacked.implies
        )


class BlobDamaged(StoreCorrupt):
    """The stored bytes of an image or layer are not what their name says."""

    def __init__(self, blob: str, reason: str) -> None:
        super().__init__(
            f'stored bytes "{blob}" are damaged: {reason}',
            hint="remove the image and fetch it again",
        )
        self.blob = blob


@contextmanager
def reread(
    store: Store, blob: str, form: str = _FORMAT, *, unpack: bool, layer: Layer | None = None
) -> Iterator[Reread]:
    """Read the bytes named `blob` through, as when they were fetched.

    Args:
        layer: what the image's documents say of them, if it is a layered one.

    Raises:
        BlobDamaged: they are not what their name says, or no archive.
    """
    from podctl.images.transfer import Transfer, transfer_local
    from podctl.plugins import image_format

    layout = image_format(form).layout()
    expected = None if layer is None else expectation(layer)
    with store.staging(unpack=unpack) as staging:
        piece = staging.piece()
        fd = store.open_blob(blob)
        try:
            transfer = Transfer(
                layout, piece.directory, None, ArchiveLimits(), _MAX_BYTES, expected
            )
            ingested, unpacked = transfer_local(fd, transfer, None)
        except (ArchiveInvalid, DigestMismatch) as error:
            raise BlobDamaged(blob, error.message) from error
        finally:
            os.close(fd)
        if ingested.blob != blob:
            raise BlobDamaged(blob, f"its digest is {ingested.blob}")
        yield Reread(ingested, unpacked, staging, piece)


def expectation(layer: Layer) -> Expectation:
    """What a layer's bytes must be."""
    return Expectation(layer.blob, layer.size, layer.diff_id, layer.compression)


def layers_of(store: Store, record: ImageRecord) -> tuple[Layer, ...]:
    """The layers of a layered image as its own documents name them.

    Raises:
        StoreCorrupt: the documents are damaged, or are not those of the record.
        ManifestInvalid: they break the format.
    """
    from podctl.plugins import image_format

    image: Image = image_format(record.format).image(store.manifest(record.key))
    check_layers(record, image)
    return image.layers


def renew_record(store: Store, record: ImageRecord | None, fresh: Reread) -> None:
    """Write an image's record anew from its bytes.

    Args:
        record: what is known beyond them (source, times); None when it is lost.
    """
    renew(store, fresh.staging, describe(fresh), record)


def renew(store: Store, staging: Staging, staged: StagedImage, record: ImageRecord | None) -> None:
    """Commit a staged image again, with the signature that is kept beside it.

    Args:
        record: what is known beyond its bytes (source, times); None when it is lost.
    """
    staged = staged._replace(signature=_signature(store, staged.key))
    if record is None:
        store.commit(staging, staged)
        return
    staged = staged._replace(source=record.source, latest=record.latest)
    renewed = store.commit(staging, staged)
    store.restore_times(renewed._replace(imported_at=record.imported_at), record.last_used)


def describe(fresh: Reread) -> StagedImage:
    """See describe_archive."""
    return describe_archive(fresh.as_layer(), fresh.ingested.blob_size, fresh.unpacked.manifest)


def describe_document(image: Image, layers: tuple[StagedLayer, ...]) -> StagedImage:
    """What a layered image's documents say of it, ready to be committed."""
    return StagedImage(
        key=document_key(image.manifest),
        format=image.format,
        name=image.name,
        labels=dict(image.labels),
        layers=layers,
        blob_size=sum(layer.size for layer in image.layers),
        manifest=image.manifest,
        signature=None,
        source="",
        latest=False,
    )


def describe_archive(layer: StagedLayer, blob_size: int, manifest: bytes) -> StagedImage:
    """What an archive's bytes say of themselves, ready to be committed.

    Raises:
        ManifestInvalid: the manifest breaks the format.
    """
    from podctl.plugins import image_format

    image: Image = image_format(_FORMAT).image(manifest)
    return StagedImage(
        key=layer.diff_id[: len("sha512-") + 64],
        format=image.format,
        name=image.name,
        labels=dict(image.labels),
        layers=(layer,),
        blob_size=blob_size,
        manifest=manifest,
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
        Refused: it is no archive.
    """
    from podctl.sys.child import Privileges, spawn

    if record.layered:
        raise Refused(
            f'image "{record.name}" is no App Container Image', hint="export it with --format=oci"
        )
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
        raise BlobDamaged(record.blob, error.message) from error
    finally:
        os.close(blob_fd)
    if diff_id != record.layers[0]:
        raise BlobDamaged(record.blob, "they are another image")


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


def ensure_unpacked(store: Store, record: ImageRecord, say: Callable[[str], None]) -> list[str]:
    """Paths of an image's layers, highest first, unpacked now where they were not; root only.

    Nothing is said about trust: a layer's name is its digest, so it is the image's bytes.

    Raises:
        StoreCorrupt: the stored bytes are not the image.
    """
    sources = _sources(store, record)
    if any(store.layer(layer) is None for layer in record.layers):
        say(f'unpacking image "{record.name}"')
        for layer, blob, known in sources:
            if store.layer(layer) is None:
                _unpack_layer(store, record, layer, blob, known)
    paths = [store.layer(layer) for layer in dict.fromkeys(reversed(record.layers))]
    return [path for path in paths if path is not None]


def _sources(store: Store, record: ImageRecord) -> list[tuple[str, str, Layer | None]]:
    """Each layer with its blob, and what the documents say of it."""
    if not record.layered:
        return [(record.layers[0], record.blob, None)]
    return [(layer.diff_id, layer.blob, layer) for layer in layers_of(store, record)]


def _unpack_layer(
    store: Store, record: ImageRecord, diff_id: str, blob: str, layer: Layer | None
) -> None:
    with reread(store, blob, record.format, unpack=True, layer=layer) as fresh:
        if fresh.ingested.diff_id != diff_id:
            raise BlobDamaged(blob, "they are another image")
        manifest = None if record.layered else fresh.unpacked.manifest
        store.commit_layers(fresh.staging, [fresh.as_layer()], manifest)
