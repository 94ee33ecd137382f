"""One pass over an image's bytes: keep, hash, check the signature, decompress, pass on.

Runs in a child without privileges, between the source (a local file, or a transport) and the
unpack child's pipe. What was verified, what is stored and what is unpacked are therefore the same
bytes (there is no second read that could see others).

Three threads share the work: the source's bytes are kept and hashed by the first, decompressed by
the second, and what comes out is hashed by the third while it goes down the pipe.
"""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from podctl.errors import (
    ArchiveInvalid,
    BrokenStream,
    DigestMismatch,
    FetchFailed,
    HostLacks,
)
from podctl.images import compression
from podctl.images.channel import Channel, Stage
from podctl.sys.files import write_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.model.layout import ArchiveLimits
    from podctl.model.trusting import Verdict, Verifier

CHUNK = 256 << 10
#: read of the source at a time; also the unit of the first channel.
_INTAKE = 256 << 10
_INTAKE_DEPTH = 8
_HASH_DEPTH = 8


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class Expectation(NamedTuple):
    """What a manifest says of a blob.

    Args:
        blob: `sha256:` digest of its bytes.
        size: their number.
        diff_id: `sha256-` digest of what they decompress to.
        compression: what they are compressed with.
    """

    blob: str
    size: int
    diff_id: str
    compression: str


class Ingested(NamedTuple):
    """What one pass over an image found out.

    Args:
        blob: `sha256:` digest of the bytes as downloaded.
        blob_size: their number.
        diff_id: `sha512-` or `sha256-` digest of the uncompressed tar.
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


class Intake:
    """The raw bytes of an image on their way in: kept, hashed and verified in order.

    Args:
        kept_fd: file the bytes are kept in; None where they are kept already.
        verifier: signature check to feed, if any.
        max_bytes: cap on the whole.
        expected: digest and size, where a manifest told them.
    """

    def __init__(
        self,
        *,
        kept_fd: int | None,
        verifier: Verifier | None,
        max_bytes: int,
        expected: Expectation | None = None,
    ) -> None:
        self._kept_fd = kept_fd
        self._verifier = verifier
        self._max_bytes = max_bytes
        self._expected = expected
        self._digest: _Hash = hashlib.sha256()
        self.channel = Channel(_INTAKE_DEPTH)
        self.size = 0

    def begin(self, offset: int) -> None:
        """Take the first `offset` bytes from the file they are kept in; what is behind them there
        is from another story."""
        if self._kept_fd is None:
            return
        if offset > os.fstat(self._kept_fd).st_size:
            raise FetchFailed("download resumed beyond the bytes that are here")
        os.ftruncate(self._kept_fd, offset)
        os.lseek(self._kept_fd, 0, os.SEEK_SET)
        while self.size < offset:
            data = os.read(self._kept_fd, min(_INTAKE, offset - self.size))
            if not data:
                raise FetchFailed("partial download shrank while it was read")
            self._pass(data)

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            DigestMismatch: they are more than the manifest says.
            FetchFailed: they are more than the cap.
            HostLacks: they cannot be kept.
            BrokenStream: what came before was refused.
        """
        if self._expected is not None and self.size + len(data) > self._expected.size:
            raise DigestMismatch(
                f'blob "{self._expected.blob}" has more than the {self._expected.size} bytes '
                "its manifest says"
            )
        if self._kept_fd is not None:
            _keep(self._kept_fd, data)
        self._pass(data)

    def read_from(self, fd: int, length: int | None) -> None:
        """Take `length` bytes of a file, from where it stands; None: all that is left."""
        left = self._max_bytes + 1 if length is None else length
        while left and (data := os.read(fd, min(_INTAKE, left))):
            left -= len(data)
            self.write(data)

    def end(self) -> None:
        """All bytes are in.

        Raises:
            DigestMismatch: they are not those the manifest names.
        """
        expected = self._expected
        if expected is not None:
            if self.size < expected.size:
                raise DigestMismatch(
                    f'blob "{expected.blob}" has {self.size} bytes, '
                    f"its manifest says {expected.size}"
                )
            if self.digest() != expected.blob:
                raise DigestMismatch(f'blob "{expected.blob}" came with digest {self.digest()}')
        self.channel.end()

    def digest(self) -> str:
        """The digest of what was taken so far, as a blob name."""
        return f"sha256:{self._digest.hexdigest()}"

    def _pass(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._max_bytes:
            raise FetchFailed(f"image is larger than the cap of {self._max_bytes} bytes")
        self._digest.update(data)
        if self._verifier is not None:
            self._verifier.update(data)
        self.channel.put(data)


def _keep(fd: int, data: bytes) -> None:
    try:
        write_all(fd, data)
    except OSError as error:
        hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise HostLacks(f"image cannot be kept: {error.strerror}", hint=hint) from error


class _ChannelSource:
    """The reading end of a channel, as a decompressor wants it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._rest = b""

    def read(self, size: int) -> bytes:
        data = self._rest or self._channel.get()
        self._rest = data[size:]
        return data[:size]


class _Unwrap:
    """Decompress what an intake hands over, into a pipe, hashing it on the way."""

    def __init__(
        self,
        intake: Intake,
        tar_fd: int,
        limits: ArchiveLimits,
        algorithm: str,
        declared: str | None,
    ) -> None:
        self._intake = intake
        self._tar_fd = tar_fd
        self._limits = limits
        self._declared = declared
        self._hashing = Channel(_HASH_DEPTH)
        self._digest: _Hash = hashlib.new(algorithm)
        self._hasher = Stage(self._hash, self._hashing)
        self.compression = ""
        self.size = 0

    def run(self) -> None:
        self._hasher.start()
        try:
            self._decompress()
        except BaseException:
            self._hashing.give_up()
            raise
        self._hashing.end()
        self._hasher.join()
        if self._hasher.error is not None:
            raise self._hasher.error

    def digest(self) -> str:
        return self._digest.hexdigest()

    def _decompress(self) -> None:
        source = _ChannelSource(self._intake.channel)
        reader = compression.decompressor(source, declared=self._declared, limits=self._limits)
        self.compression = reader.name
        while data := reader.read(CHUNK):
            self._hashing.put(data)
            self.size += len(data)
            try:
                write_all(self._tar_fd, data)
            except BrokenPipeError:
                # The unpack child has refused the archive; its own message says why.
                raise BrokenStream("image was refused while it was unpacked") from None
        os.close(self._tar_fd)
        if source.read(1):
            raise ArchiveInvalid("image has bytes after the end of its compressed stream")
        if self.size == 0:
            raise ArchiveInvalid("image is empty")

    def _hash(self) -> None:
        while data := self._hashing.get():
            self._digest.update(data)


def ingest(
    fill: Callable[[Intake], object],
    intake: Intake,
    tar_fd: int,
    limits: ArchiveLimits,
    *,
    verifier: Verifier | None = None,
    expected: Expectation | None = None,
) -> dict[str, Any]:
    """Stream what `fill` puts into `intake` through decompression into `tar_fd`.

    Returns:
        The fields of an Ingested, as JSON values.

    Raises:
        ArchiveInvalid: compression is malformed or beyond its caps.
        TrustRefused: the signature does not stand.
        DigestMismatch: the bytes, or what they decompress to, are not what the manifest names.
        FetchFailed: the source failed, passed its cap or was inconsistent.
    """
    algorithm = "sha512" if expected is None else "sha256"
    declared = None if expected is None else expected.compression
    unwrap = _Unwrap(intake, tar_fd, limits, algorithm, declared)
    stage = Stage(unwrap.run, intake.channel)
    stage.start()
    try:
        fill(intake)
        intake.end()
    except BaseException as error:
        intake.channel.give_up()
        stage.join()
        # Whose stream only broke is not the cause.
        if isinstance(error, BrokenStream) and stage.error is not None:
            raise stage.error from None
        raise
    stage.join()
    if stage.error is not None:
        raise stage.error
    diff_id = f"{algorithm}-{unwrap.digest()}"
    if expected is not None and diff_id != expected.diff_id:
        raise DigestMismatch(
            f'layer "{expected.blob}" unpacks to {diff_id}, its configuration says '
            f"{expected.diff_id}"
        )
    verdict = verifier.finish() if verifier is not None else None
    return {
        "blob": intake.digest(),
        "blob_size": intake.size,
        "diff_id": diff_id,
        "size": unwrap.size,
        "compression": unwrap.compression,
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


def verdict_from_json(raw: Any) -> Verdict | None:
    """Check what a child reported of a signature, field by field."""
    from podctl.model.trusting import Verdict

    if raw is None:
        return None
    expires = raw["expires"]
    return Verdict(
        scheme=str(raw["scheme"]),
        fingerprint=str(raw["fingerprint"]),
        signer=str(raw["signer"]),
        identities=tuple(str(identity) for identity in raw["identities"]),
        signed_at=int(raw["signed_at"]),
        expires=None if expires is None else int(expires),
        notes=tuple(str(note) for note in raw["notes"]),
    )


def ingested_from_json(value: Any) -> Ingested:
    """Check what a child reported, field by field."""
    return Ingested(
        blob=str(value["blob"]),
        blob_size=int(value["blob_size"]),
        diff_id=str(value["diff_id"]),
        size=int(value["size"]),
        compression=str(value["compression"]),
        verdict=verdict_from_json(value["verdict"]),
    )
