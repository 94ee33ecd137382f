"""A layout that is one tar archive: read where it lies, for only its headers need to be read first.

A child without privileges looks through the headers and finds the image. What it answers is where
each layer begins; the parent hands on a descriptor that stands there.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from podctl.errors import ArchiveInvalid, HostLacks, NotFound
from podctl.images import compression, tarstream
from podctl.images.tarstream import MAX_PATH, TarStream, display
from podctl.model.layout import ArchiveLimits
from podctl.model.layoutfiles import Member
from podctl.sys.child import Privileges, spawn
from podctl.sys.files import write_all

if TYPE_CHECKING:
    from podctl.images.tarstream import Entry
    from podctl.model.image import Layer
    from podctl.model.layoutfiles import LayoutRequest, Unfolded
    from podctl.plugins import FormatHandle
    from podctl.store import Store

#: Entries of an archive that holds images; `docker save` writes four for each layer.
MAX_ENTRIES = 100_000
_CHUNK = 1 << 20
#: Entries for the archive's own top, before the first that says what it is.
_MAX_TOPS = 16
_ACI = (b"manifest", b"rootfs")


class LayoutArchive:
    """An open archive.

    Args:
        fd: closed with it.
        store: where a compressed one is decompressed, for the time being.
        max_bytes: cap on what it may then have.

    Raises:
        ArchiveInvalid: it is compressed, and the stream is malformed or passes a cap.
    """

    def __init__(self, fd: int, store: Store, max_bytes: int) -> None:
        self._fd = fd
        self._places: dict[str, tuple[int, int]] = {}
        try:
            if look(fd)[0] != "none":
                self._fd = _decompressed(fd, store, max_bytes)
                os.close(fd)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def unfold(self, form: FormatHandle, request: LayoutRequest) -> Unfolded:
        """Find an image, in a child without privileges.

        Raises:
            ArchiveInvalid: the archive is malformed, or has entries no image has.
            NotFound, Refused, ManifestInvalid: see FormatSpec.format_unfold.
        """
        from podctl.images.layouts import unfolded_from_json, unfolded_to_json

        fd = self._fd

        def work() -> Any:
            files = _scan(fd)
            found = form.unfold(files, request)
            places = {digest: files.place(name) for digest, name in found.blobs.items()}
            return {**unfolded_to_json(found), "places": places}

        child = spawn(work, privileges=Privileges.NONE, keep=(fd,), name="reading the archive")
        with child:
            answer: Any = child.wait()
        size = os.fstat(fd).st_size
        for digest, (offset, length) in answer.pop("places").items():
            if not 0 <= int(offset) <= int(offset) + int(length) <= size:
                raise ArchiveInvalid(f"layer {digest} lies outside the archive")
            self._places[str(digest)] = int(offset), int(length)
        return unfolded_from_json(answer)

    def open_layer(self, layer: Layer) -> int:
        """Open the archive at a layer's first byte; see podctl.images.pull.LayerSource."""
        offset, size = self._places[layer.blob]
        if size != layer.size:
            raise ArchiveInvalid(
                f"layer {layer.blob} has {size} bytes, its manifest says {layer.size}"
            )
        # Anew, for an offset of its own.
        fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(fd, offset, os.SEEK_SET)
        return fd


def look(fd: int) -> tuple[str, bytes]:
    """The compression of an archive, and the first component of its first entry's name; in a
    child without privileges.

    Raises:
        ArchiveInvalid: it is no archive.
    """
    compression.preload()

    def work() -> Any:
        reader = compression.decompressor(_Pread(fd), declared=None, limits=ArchiveLimits())
        archive = TarStream(reader, ArchiveLimits())
        for _ in range(_MAX_TOPS):
            entry = archive.next_entry()
            parts = [] if entry is None else _parts(entry.name)
            if entry is None or parts:
                return [reader.name, parts[0] if parts else b""]
        raise ArchiveInvalid(f"more than {_MAX_TOPS} entries for the archive's top")

    with spawn(
        work, privileges=Privileges.NONE, keep=(fd,), name="looking at the archive"
    ) as child:
        answer: Any = child.wait()
    return str(answer[0]), bytes(answer[1])


def is_layout(fd: int) -> bool:
    """Whether an archive may be a layout: it is no App Container Image, nor anything else that its
    reader has a better word for."""
    try:
        return look(fd)[1] not in (b"", *_ACI)
    except ArchiveInvalid:
        return False


def scratch(store: Store) -> int:
    """A file without a name, below the data directory."""
    from podctl.store.layout import FRESH, TEMPORARY

    store.layout.create(privileged=store.privileged)
    name = f"{TEMPORARY}/{os.urandom(8).hex()}{FRESH}"
    fd = store.area.create(name)
    store.area.unlink(name)
    return fd


def _decompressed(fd: int, store: Store, max_bytes: int) -> int:
    """The archive's bytes in a file of their own: they are read from several places at once."""
    target = scratch(store)

    def work() -> None:
        reader = compression.decompressor(_Pread(fd), declared=None, limits=ArchiveLimits())
        size = 0
        while data := reader.read(_CHUNK):
            size += len(data)
            if size > max_bytes:
                raise ArchiveInvalid(f"archive has more than {max_bytes} bytes, decompressed")
            try:
                write_all(target, data)
            except OSError as error:
                raise HostLacks(f"cannot decompress the archive: {error.strerror}") from None

    try:
        child = spawn(
            work, privileges=Privileges.NONE, keep=(fd, target), name="decompressing the archive"
        )
        with child:
            child.wait()
    except BaseException:
        os.close(target)
        raise
    return target


class _Pread:
    """A file from its beginning, whatever position others have in it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._fd, size, self._at)
        self._at += len(data)
        return data

    def skip(self, size: int) -> None:
        self._at += size


class _Headers(TarStream):
    """A tar archive whose data is passed over without reading it."""

    def __init__(self, fd: int) -> None:
        self._file = _Pread(fd)
        super().__init__(self._file, ArchiveLimits())

    @property
    def position(self) -> int:
        """Where the archive is read next: behind a header, where its data begins."""
        return self._offset + self._at

    def skip(self) -> None:
        far = self._left - (len(self._buffer) - self._at)
        if far > 0:
            self._file.skip(far)
            self._offset += len(self._buffer) + far
            self._buffer, self._at, self._left = b"", 0, 0
        super().skip()


class _Scanned:
    """The files of an archive: podctl.model.layoutfiles.LayoutFiles."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._members: dict[str, tuple[Member, int]] = {}

    def add(self, name: str, member: Member, offset: int) -> None:
        if name in self._members:
            raise ArchiveInvalid(f"archive has {name[:128]!r} twice")
        self._members[name] = member, offset

    def find(self, name: str) -> Member | None:
        """See podctl.model.layoutfiles.LayoutFiles."""
        found = self._members.get(name)
        return None if found is None else found[0]

    def read(self, name: str, limit: int) -> bytes:
        """See podctl.model.layoutfiles.LayoutFiles."""
        offset, size = self.place(name)
        return os.pread(self._fd, min(limit, size), offset)

    def digest(self, name: str) -> str:
        """See podctl.model.layoutfiles.LayoutFiles."""
        offset, size = self.place(name)
        digest = hashlib.sha256()
        while size and (data := os.pread(self._fd, min(size, _CHUNK), offset)):
            digest.update(data)
            offset += len(data)
            size -= len(data)
        return f"sha256:{digest.hexdigest()}"

    def place(self, name: str) -> tuple[int, int]:
        """Where a regular file's data is: offset and size."""
        member, offset = self._members.get(name, (None, 0))
        if member is None or member.link is not None:
            raise NotFound(f"archive has no file {name[:128]!r}")
        return offset, member.size


def _scan(fd: int) -> _Scanned:
    archive = _Headers(fd)
    files = _Scanned(fd)
    end = os.fstat(fd).st_size
    count = 0
    while (entry := archive.next_entry()) is not None:
        count += 1
        if count > MAX_ENTRIES:
            raise ArchiveInvalid(f"archive has more than {MAX_ENTRIES} entries")
        if archive.position + entry.size > end:
            raise ArchiveInvalid(f"{entry}: cut short")
        _take(files, entry, archive.position)
    return files


def _take(files: _Scanned, entry: Entry, offset: int) -> None:
    name = _text(b"/".join(_parts(entry.name)))
    kind = entry.kind
    if kind is tarstream.DIRECTORY:
        return
    if kind is tarstream.FILE:
        files.add(name, Member(entry.size), offset)
    elif kind in (tarstream.SYMLINK, tarstream.HARDLINK):
        hard = kind is tarstream.HARDLINK
        target = b"/".join(_parts(entry.linkname)) if hard else entry.linkname
        files.add(name, Member(0, _text(target), hard), offset)
    else:
        raise ArchiveInvalid(f"{entry}: is a {kind}; archives of images have none")


def _parts(name: bytes) -> list[bytes]:
    """The components of a name; none for the archive's top."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/") or b".." in parts:
        raise ArchiveInvalid(f"archive entry {display(name[:128])} leads out of the archive")
    if len(name) > MAX_PATH:
        raise ArchiveInvalid(f"archive has a path over {MAX_PATH} bytes")
    return parts


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
