"""Move an image from its source into staging through three children at once.

    download (a transport) --pipe--> ingest (hash, signature, decompress) --pipe--> unpack

The first two run as nobody without capabilities; the third keeps just what setting owners and
modes needs, inside a root of its own. The caller keeps descriptors and waits: no byte of the
image is parsed in the process that holds root's privileges.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podctl.errors import BrokenStream, FetchFailed, PodctlError
from podctl.images import compression
from podctl.images.ingest import OFFSET_BYTES, Ingested, Source, ingest, ingested_from_json
from podctl.images.unpack import unpack
from podctl.model.fetching import CacheState, Downloaded
from podctl.sys.child import Child, Privileges, spawn
from podctl.sys.files import write_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.model.fetching import Sink
    from podctl.model.layout import ArchiveLayout, ArchiveLimits
    from podctl.model.trusting import Verifier

    #: Writes an image's bytes to a sink; runs in the download child.
    Download = Callable[[Sink], Downloaded]
    #: Told bytes done and the total, if known, as a download proceeds.
    Progress = Callable[[int, int | None], None]
    #: Told the validators of a body that begins.
    SaveState = Callable[[CacheState], None]

#: Longest validator (ETag, Last-Modified) worth keeping, in characters.
_MAX_VALIDATOR = 1024
#: A report line is shorter than this; a download child that writes more is out of order.
_MAX_REPORT = 8192


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What the unpack child reported: the manifest entry, entry count, logical bytes."""

    manifest: bytes
    entries: int
    size: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """Where bytes come from and go to.

    Args:
        layout: how the format lays out its archive.
        staging: directory the root filesystem is unpacked into; None: only check.
        verifier: makes the signature check, inside the ingest child; None: unverified.
        limits: caps on the archive.
        max_bytes: cap on the bytes as downloaded.
    """

    layout: ArchiveLayout
    staging: str | None
    verifier: Callable[[], Verifier] | None
    limits: ArchiveLimits
    max_bytes: int


class PipeSink:
    """A transport's sink: the offset frame, then bytes, into a pipe; reports beside it."""

    def __init__(self, fd: int, report_fd: int) -> None:
        self._fd = fd
        self._report_fd = report_fd
        self._done = 0
        self._total: int | None = None
        self._begun = False

    def begin(self, offset: int, total: int | None, state: CacheState) -> None:
        """See podctl.model.fetching.Sink."""
        if self._begun:
            raise PodctlError("transport began one body twice")
        self._begun = True
        self._done, self._total = offset, total
        validators = [_short(state.etag), _short(state.last_modified)]
        write_all(self._report_fd, b"begin " + json.dumps(validators).encode() + b"\n")
        self._put(offset.to_bytes(OFFSET_BYTES, "big"))
        self._report()

    def write(self, data: bytes) -> None:
        """See podctl.model.fetching.Sink."""
        self._put(data)
        self._done += len(data)
        self._report()

    def _put(self, data: bytes) -> None:
        try:
            write_all(self._fd, data)
        except BrokenPipeError:
            raise BrokenStream("download was not wanted any more") from None

    def _report(self) -> None:
        total = "-" if self._total is None else self._total
        write_all(self._report_fd, f"done {self._done} {total}\n".encode())


def _short(validator: str | None) -> str | None:
    return validator if validator is not None and len(validator) <= _MAX_VALIDATOR else None


class _End:
    """One end of a pipe, closed once: explicitly, or when the transfer is over."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def transfer_local(fd: int, transfer: Transfer, blob_fd: int | None) -> tuple[Ingested, Unpacked]:
    """Take in a local file: `fd` is read once, and kept in `blob_fd` unless that is None.

    Raises:
        ArchiveInvalid, TrustRefused: the bytes were refused.
    """
    compression.preload()
    with ExitStack() as stack:
        tar_write, unpacker = _start_unpacker(stack, transfer)
        ingester = _start_ingester(stack, transfer, fd, blob_fd, tar_write, framed=False)
        ingested, unpacked = _finish(ingester, unpacker)
        return ingested_from_json(ingested), _unpacked(unpacked)


def transfer_remote(
    download: Download,
    transfer: Transfer,
    partial_fd: int,
    progress: Progress | None,
    save_state: SaveState,
) -> tuple[Ingested, Unpacked, Downloaded]:
    """Download, check and unpack at once; bytes are kept in `partial_fd` as they arrive.

    Args:
        save_state: called with the body's validators before its first byte is kept, so that a
            later process knows what the partial file is a part of.

    Raises:
        FetchFailed: the source failed; what arrived is in the partial file.
        ArchiveInvalid, TrustRefused: the bytes were refused.
    """
    compression.preload()
    with ExitStack() as stack:
        tar_write, unpacker = _start_unpacker(stack, transfer)
        body_read, body_write = _pipe(stack)
        report_read, report_write = _pipe(stack)
        ingester = _start_ingester(
            stack, transfer, body_read.fd, partial_fd, tar_write, framed=True
        )
        downloader = stack.enter_context(
            spawn(
                lambda: _download(download, body_write.fd, report_write.fd),
                privileges=Privileges.NONE,
                keep=(body_write.fd, report_write.fd),
                name="download",
            )
        )
        for end in (body_read, body_write, report_write):
            end.close()
        _follow(report_read.fd, progress, save_state)
        done, ingested, unpacked = _finish(downloader, ingester, unpacker)
        return ingested_from_json(ingested), _unpacked(unpacked), _downloaded(done)


def _download(download: Download, body_fd: int, report_fd: int) -> Any:
    done = download(PipeSink(body_fd, report_fd))
    return {
        "size": done.size,
        "etag": done.state.etag,
        "last_modified": done.state.last_modified,
        "max_age": done.max_age,
    }


def _downloaded(value: Any) -> Downloaded:
    etag, last_modified = value["etag"], value["last_modified"]
    state = CacheState(
        etag=None if etag is None else str(etag),
        last_modified=None if last_modified is None else str(last_modified),
    )
    return Downloaded(size=int(value["size"]), state=state, max_age=int(value["max_age"]))


def _pipe(stack: ExitStack) -> tuple[_End, _End]:
    import fcntl

    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    ends = _End(read_fd), _End(write_fd)
    for end in ends:
        stack.callback(end.close)
    # Fewer switches between the children; 1 MiB is what an unprivileged process may set, and a
    # user with many pipes (pipe-user-pages-soft) is refused even that: the default will do.
    with suppress(OSError):
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 1 << 20)
    return ends


def _start_unpacker(stack: ExitStack, transfer: Transfer) -> tuple[_End, Child]:
    """Start the child that reads a tar from a pipe; return the pipe's write end and the child."""
    tar_read, tar_write = _pipe(stack)
    child = stack.enter_context(
        spawn(
            lambda: _unpack(tar_read.fd, transfer),
            privileges=Privileges.EXTRACT if transfer.staging else Privileges.NONE,
            keep=(tar_read.fd,),
            name="unpack",
            chroot_to=transfer.staging,
        )
    )
    tar_read.close()
    return tar_write, child


def _unpack(tar_fd: int, transfer: Transfer) -> Any:
    target_fd = None
    if transfer.staging is not None:
        target_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with open(tar_fd, "rb", buffering=0) as stream:
        done = unpack(stream, target_fd, transfer.layout, transfer.limits)
    return {
        "manifest": done.manifest,
        "entries": done.entries,
        "size": done.size,
        "warnings": list(done.warnings),
    }


def _start_ingester(
    stack: ExitStack,
    transfer: Transfer,
    source_fd: int,
    blob_fd: int | None,
    tar_write: _End,
    *,
    framed: bool,
) -> Child:
    def work() -> Any:
        verifier = transfer.verifier() if transfer.verifier is not None else None
        source = Source(
            source_fd,
            partial_fd=blob_fd,
            framed=framed,
            verifier=verifier,
            max_bytes=transfer.max_bytes,
        )
        return ingest(source, tar_write.fd, transfer.limits, verifier)

    keep = [source_fd, tar_write.fd]
    if blob_fd is not None:
        keep.append(blob_fd)
    child = stack.enter_context(spawn(work, privileges=Privileges.NONE, keep=keep, name="ingest"))
    tar_write.close()
    return child


def _follow(report_fd: int, progress: Progress | None, save: SaveState) -> None:
    """Act on the download child's reports until it is gone."""
    pending = b""
    while data := os.read(report_fd, 1 << 16):
        *lines, pending = (pending + data).split(b"\n")
        if len(pending) > _MAX_REPORT:
            raise FetchFailed("download child reports nonsense")
        for line in lines:
            if line.startswith(b"begin "):
                etag, last_modified = json.loads(line[6:])
                save(CacheState(etag, last_modified))
        if lines and progress is not None and lines[-1].startswith(b"done "):
            done, total = lines[-1][5:].split()
            progress(int(done), None if total == b"-" else int(total))


def _finish(*children: Child) -> list[Any]:
    """Wait for all, upstream first; return what each reports, or raise the first cause.

    A failing child closes its pipes, so its neighbours fail too: upstream they see a broken pipe
    (BrokenStream says so), downstream an early end that may look like a malformed archive. So
    the first in this order that failed by itself is the cause.

    Raises:
        PodctlError: that child's error.
    """
    outcomes = [_outcome(child) for child in children]
    failures = [value for ok, value in outcomes if not ok]
    if failures:
        raise _first_cause(failures)
    return [value for _, value in outcomes]


def _unpacked(value: Any) -> Unpacked:
    return Unpacked(
        manifest=bytes(value["manifest"] or b""),
        entries=int(value["entries"]),
        size=int(value["size"]),
        warnings=tuple(str(warning) for warning in value["warnings"]),
    )


def _outcome(child: Child) -> tuple[bool, Any]:
    try:
        return True, child.wait()
    except PodctlError as error:
        return False, error


def _first_cause(failures: list[PodctlError]) -> PodctlError:
    for error in failures:
        if not isinstance(error, BrokenStream):
            return error
    return failures[0]
