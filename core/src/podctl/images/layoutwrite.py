"""Writing the files of an image into a directory or an archive, each blob hashed on the way.

The same image gives the same archive: no times, no owners, the small files first.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from podctl.errors import ArchiveInvalid, HostLacks
from podctl.images import compression
from podctl.images.stored import BlobDamaged
from podctl.images.tarheader import BLOCK
from podctl.images.tarwrite import SIZED_HEADER, header, sized_header
from podctl.model.layout import ArchiveLimits
from podctl.sys.child import Privileges, spawn
from podctl.sys.files import syncfs, write_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.images.compression import Source
    from podctl.model.layoutfiles import Folded, FoldedLayer

    #: Opens the bytes of a layer by their digest; the descriptor is closed here.
    OpenBlob = Callable[[str], int]

_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_directory(folded: Folded, directory: str, open_blob: OpenBlob) -> None:
    """Write an image into an empty directory of ours, durably.

    Raises:
        StoreCorrupt: a blob is not what its name says.
    """
    for name, data in folded.documents.items():
        fd = _create(directory, name)
        try:
            write_all(fd, data)
        finally:
            os.close(fd)
    for layer in folded.layers:
        fd = _create(directory, layer.name)
        try:
            _copy(layer, fd, open_blob)
        finally:
            os.close(fd)
    fd = os.open(directory, _DIRECTORY)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def write_archive(folded: Folded, fd: int, open_blob: OpenBlob) -> None:
    """Write an image as a tar archive into an empty file.

    Raises:
        StoreCorrupt: a blob is not what its name says.
    """
    for name, data in folded.documents.items():
        write_all(fd, header(name.encode(), b"0", len(data), 0o644, 0, 0, 0, b"", {}))
        write_all(fd, data + bytes(-len(data) % BLOCK))
    for layer in folded.layers:
        start = os.lseek(fd, 0, os.SEEK_CUR)
        # How large a layer is that was compressed shows only when it has been written.
        write_all(fd, bytes(SIZED_HEADER))
        size = _copy(layer, fd, open_blob)
        write_all(fd, bytes(-size % BLOCK))
        os.pwrite(fd, sized_header(layer.name.encode(), size), start)
    write_all(fd, bytes(2 * BLOCK))


def _create(directory: str, name: str) -> int:
    path = f"{directory}/{name}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return os.open(path, _CREATE, 0o644)


def _copy(written: FoldedLayer, fd: int, open_blob: OpenBlob) -> int:
    """Write a layer's bytes to `fd`, in a child without privileges; return their number."""
    layer = written.layer
    blob_fd = open_blob(layer.blob)
    compression.preload()

    def work() -> Any:
        with open(blob_fd, "rb", buffering=0, closefd=False) as stream:
            source: Source = stream
            if written.unpacked:
                source = compression.decompressor(
                    stream, declared=layer.compression, limits=ArchiveLimits()
                )
            return _pour(source, fd)

    try:
        child = spawn(work, privileges=Privileges.NONE, keep=(blob_fd, fd), name="export")
        with child:
            answer: Any = child.wait()
    except ArchiveInvalid as error:
        raise BlobDamaged(layer.blob, error.message) from error
    finally:
        os.close(blob_fd)
    size, digest = int(answer[0]), str(answer[1])
    wanted = layer.diff_id.replace("-", ":", 1) if written.unpacked else layer.blob
    if digest != wanted or (not written.unpacked and size != layer.size):
        raise BlobDamaged(layer.blob, "they are another layer")
    return size


def _pour(source: Source, fd: int) -> list[Any]:
    digest = hashlib.sha256()
    size = 0
    while data := source.read(_CHUNK):
        digest.update(data)
        size += len(data)
        try:
            write_all(fd, data)
        except OSError as error:
            raise HostLacks(f"cannot write the image: {error.strerror}") from None
    return [size, f"sha256:{digest.hexdigest()}"]
