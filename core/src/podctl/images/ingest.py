"""One pass over an image's bytes: keep, hash, check the signature, decompress, pass on.

Runs in a child without privileges, between the source (a local file, or the download child's
pipe) and the unpack child's pipe. What was verified, what is stored and what is unpacked are
therefore the same bytes (there is no second read that could see others).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from podctl.errors import ArchiveInvalid, BrokenStream, FetchFailed
from podctl.images import compression
from podctl.sys.files import write_all

if TYPE_CHECKING:
    from podctl.model.layout import ArchiveLimits
    from podctl.model.trusting import Verdict, Verifier

CHUNK = 1 << 20
#: The download child writes the offset of its first byte before the first byte.
OFFSET_BYTES = 8


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Ingested:
    """What one pass over an image found out.

    Args:
        blob: `sha256:` digest of the bytes as downloaded.
        blob_size: their number.
        diff_id: `sha512-` digest (128 digits) of the uncompressed tar.
        size: bytes of the uncompressed tar.
        compression: name of the compression, `none` included.
        verdict: the good signature; None where none was asked for.
    """

    blob: str
    blob_size: int
    diff_id: str
    size: int
    compression: str
    verdict: Verdict | None


class Source:
    """The raw bytes of an image: hashed, verified and kept while they are read.

    Args:
        fd: where to read from.
        partial_fd: file the bytes are kept in; None when `fd` is that file already.
        framed: whether `fd` starts with the offset of its first byte (a download).
        verifier: signature check to feed, if any.
        max_bytes: cap on the whole.
    """

    def __init__(
        self,
        fd: int,
        *,
        partial_fd: int | None,
        framed: bool,
        verifier: Verifier | None,
        max_bytes: int,
    ) -> None:
        self._fd = fd
        self._partial_fd = partial_fd
        self._verifier = verifier
        self._max_bytes = max_bytes
        self._digest: _Hash = hashlib.sha256()
        self.size = 0
        self._kept = self._accept_offset() if framed else 0

    def read(self, size: int = CHUNK) -> bytes:
        """Return up to `size` bytes, b"" at the end."""
        data = self._read_kept(size) if self.size < self._kept else self._read_new(size)
        if not data:
            return b""
        self.size += len(data)
        if self.size > self._max_bytes:
            raise FetchFailed(f"image is larger than the cap of {self._max_bytes} bytes")
        self._digest.update(data)
        if self._verifier is not None:
            self._verifier.update(data)
        return data

    def digest(self) -> str:
        """Return the digest of what was read so far, as a blob name."""
        return f"sha256:{self._digest.hexdigest()}"

    def _accept_offset(self) -> int:
        """Read the frame's offset; bytes after it in the partial file are from another story."""
        header = b""
        while len(header) < OFFSET_BYTES:
            data = os.read(self._fd, OFFSET_BYTES - len(header))
            if not data:
                raise BrokenStream("download ended before its first byte")
            header += data
        offset = int.from_bytes(header, "big")
        if self._partial_fd is not None:
            if offset > os.fstat(self._partial_fd).st_size:
                raise FetchFailed("download resumed beyond the bytes that are here")
            os.ftruncate(self._partial_fd, offset)
            os.lseek(self._partial_fd, 0, os.SEEK_SET)
        return offset

    def _read_kept(self, size: int) -> bytes:
        assert self._partial_fd is not None
        data = os.read(self._partial_fd, min(size, self._kept - self.size))
        if not data:
            raise FetchFailed("partial download shrank while it was read")
        return data

    def _read_new(self, size: int) -> bytes:
        data = os.read(self._fd, size)
        if data and self._partial_fd is not None:
            write_all(self._partial_fd, data)
        return data


def ingest(source: Source, tar_fd: int, limits: ArchiveLimits, verifier: Verifier | None) -> Any:
    """Stream `source` through decompression into `tar_fd`; return an Ingested as JSON value.

    Raises:
        ArchiveInvalid: compression is malformed or beyond its caps.
        TrustRefused: the signature does not stand.
        FetchFailed: the source passed its cap or was inconsistent.
    """
    reader = compression.decompressor(source, declared=None, limits=limits)
    digest: _Hash = hashlib.sha512()
    size = 0
    while data := reader.read(CHUNK):
        digest.update(data)
        size += len(data)
        try:
            write_all(tar_fd, data)
        except BrokenPipeError:
            # The unpack child has refused the archive; its own message says why.
            raise BrokenStream("image was refused while it was unpacked") from None
    os.close(tar_fd)
    if source.read(1):
        raise ArchiveInvalid("image has bytes after the end of its compressed stream")
    if size == 0:
        raise ArchiveInvalid("image is empty")
    verdict = verifier.finish() if verifier is not None else None
    return {
        "blob": source.digest(),
        "blob_size": source.size,
        "diff_id": f"sha512-{digest.hexdigest()}",
        "size": size,
        "compression": reader.name,
        "verdict": None if verdict is None else verdict_to_json(verdict),
    }


def verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    """Turn a verdict into what crosses the child's pipe."""
    return {
        "scheme": verdict.scheme,
        "fingerprint": verdict.fingerprint,
        "signer": verdict.signer,
        "identities": list(verdict.identities),
        "signed_at": verdict.signed_at,
        "expires": verdict.expires,
        "notes": list(verdict.notes),
    }


def ingested_from_json(value: Any) -> Ingested:
    """Check what a child reported, field by field."""
    from podctl.model.trusting import Verdict

    raw = value["verdict"]
    verdict = None
    if raw is not None:
        expires = raw["expires"]
        verdict = Verdict(
            scheme=str(raw["scheme"]),
            fingerprint=str(raw["fingerprint"]),
            signer=str(raw["signer"]),
            identities=tuple(str(identity) for identity in raw["identities"]),
            signed_at=int(raw["signed_at"]),
            expires=None if expires is None else int(expires),
            notes=tuple(str(note) for note in raw["notes"]),
        )
    return Ingested(
        blob=str(value["blob"]),
        blob_size=int(value["blob_size"]),
        diff_id=str(value["diff_id"]),
        size=int(value["size"]),
        compression=str(value["compression"]),
        verdict=verdict,
    )
