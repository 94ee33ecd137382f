"""Move an image, or a layer of one, from its source into staging through two children at once.

    ingest (transport or file, hash, signature, decompress) --pipe--> unpack

The first runs as nobody without capabilities; the second keeps just what setting owners and modes
needs, inside a root of its own. The caller keeps descriptors and waits: no byte of the image is
parsed in the process that holds root's privileges.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podctl.errors import BrokenStream, FetchFailed, PodctlError
from podctl.images import compression
from podctl.images.ingest import Expectation, Ingested, Intake, ingest, ingested_from_json
from podctl.images.marks import mark
from podctl.images.unpack import unpack
from podctl.model.fetching import CacheState, Downloaded
from podctl.sys.child import Child, Privileges, spawn
from podctl.sys.files import write_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from podctl.model.fetching import Sink
    from podctl.model.layout import ArchiveLayout, ArchiveLimits
    from podctl.model.trusting import Verifier

    #: Writes an image's bytes to a sink; runs in the ingest child.
    Download = Callable[[Sink], Downloaded]
    #: Told bytes done and the total, if known, as a transfer proceeds.
    Progress = Callable[[int, int | None], None]
    #: Told the validators of a body that begins.
    SaveState = Callable[[CacheState], None]

#: Longest validator (ETag, Last-Modified) worth keeping, in characters.
_MAX_VALIDATOR = 1024
#: A report line is shorter than this; a child that writes more is out of order.
_MAX_REPORT = 8192
_NONSENSE = "download child reports nonsense"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What the unpack child reported: the manifest entry, entry count, logical bytes, opaque
    directories and those no entry describes (marked as such), and what was left out."""

    manifest: bytes
    entries: int
    size: int
    opaque: tuple[str, ...]
    implied: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def implies(self) -> bool:
        """Whether a directory besides the root looks as the one below it."""
        return any(path != "." for path in self.implied)


@dataclass(frozen=True, slots=True)
class Transfer:
    """What becomes of the bytes.

    Args:
        layout: how the format lays out its archive.
        staging: directory the root filesystem is unpacked into; None: only check.
        verifier: makes the signature check, inside the ingest child; None: unverified.
        limits: caps on the archive.
        max_bytes: cap on the bytes as downloaded.
        expected: what a manifest says of the bytes; None where nothing is known beforehand.
    """

    layout: ArchiveLayout
    staging: str | None
    verifier: Callable[[], Verifier] | None
    limits: ArchiveLimits
    max_bytes: int
    expected: Expectation | None = None


class _Reports:
    """The ingest child's side channel: how far it is, and validators of the body that begins."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def begin(self, state: CacheState) -> None:
        validators = [_short(state.etag), _short(state.last_modified)]
        write_all(self._fd, b"begin " + json.dumps(validators).encode() + b"\n")

    def done(self, size: int, total: int | None) -> None:
        text = "-" if total is None else total
        write_all(self._fd, f"done {size} {text}\n".encode())


def _short(validator: str | None) -> str | None:
    return validator if validator is not None and len(validator) <= _MAX_VALIDATOR else None


class _IntakeSink:
    """A transport's sink: what it writes goes to the intake, and is reported."""

    def __init__(self, intake: Intake, reports: _Reports) -> None:
        self._intake = intake
        self._reports = reports
        self._total: int | None = None
        self._begun = False

    def begin(self, offset: int, total: int | None, state: CacheState) -> None:
        """See podctl.model.fetching.Sink."""
        if self._begun:
            raise PodctlError("transport began one body twice")
        self._begun = True
        self._total = total
        self._reports.begin(state)
        self._intake.begin(offset)
        self._reports.done(offset, total)

    def write(self, data: bytes) -> None:
        """See podctl.model.fetching.Sink."""
        self._intake.write(data)
        self._reports.done(self._intake.size, self._total)


class Passage:
    """One image or layer on its way; a context manager, which ends what still runs.

    Several may be under way at once: poll `report_fd`, call `follow` when it is readable, and
    `finish` once that says that no more will come.

    Attributes:
        report_fd: readable when there is something to follow.
    """

    def __init__(
        self,
        transfer: Transfer,
        progress: Progress | None = None,
        save_state: SaveState | None = None,
    ) -> None:
        compression.preload()
        self._transfer = transfer
        self._progress = progress
        self._save_state = save_state
        self._stack = ExitStack()
        self._children: tuple[Child, Child] | None = None
        self._pending = b""
        self.report_fd = -1

    def start_local(self, fd: int, blob_fd: int | None, length: int | None = None) -> None:
        """Read an open file from where it stands, once.

        Args:
            blob_fd: where its bytes are kept; None: nowhere else.
            length: how many bytes belong to it; None: all that are left.
        """

        def fill(intake: Intake, reports: _Reports) -> None:
            intake.read_from(fd, length)

        self._start(fill, blob_fd, keep=(fd,))

    def start_remote(self, download: Download, partial_fd: int) -> None:
        """Take what a transport writes, and keep it in `partial_fd` as it arrives."""

        def fill(intake: Intake, reports: _Reports) -> Downloaded:
            return download(_IntakeSink(intake, reports))

        self._start(fill, partial_fd)

    def follow(self) -> bool:
        """Act on what the child reports; False when it has ended.

        Raises:
            FetchFailed: it reports nonsense.
        """
        data = os.read(self.report_fd, 1 << 16)
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > _MAX_REPORT:
            raise FetchFailed(_NONSENSE)
        try:
            self._act_upon(lines)
        except (ValueError, TypeError):
            raise FetchFailed(_NONSENSE) from None
        return bool(data)

    def _act_upon(self, lines: list[bytes]) -> None:
        for line in lines:
            if line.startswith(b"begin ") and self._save_state is not None:
                etag, last_modified = json.loads(line[6:])
                self._save_state(CacheState(etag, last_modified))
        if lines and self._progress is not None and lines[-1].startswith(b"done "):
            done, total = lines[-1][5:].split()
            self._progress(int(done), None if total == b"-" else int(total))

    def finish(self) -> tuple[Ingested, Unpacked, Downloaded | None]:
        """Wait for the end.

        Raises:
            FetchFailed: the source failed; what arrived is in the partial file.
            ArchiveInvalid, DigestMismatch, TrustRefused: the bytes were refused.
        """
        assert self._children is not None
        while self.follow():
            pass
        report, unpacked_raw = _finish(*self._children)
        unpacked = _unpacked(unpacked_raw)
        if self._transfer.staging is not None and self._transfer.layout.whiteouts:
            mark(self._transfer.staging, unpacked.opaque, unpacked.implied)
        done = report["done"]
        return (
            ingested_from_json(report["ingested"]),
            unpacked,
            None if done is None else _downloaded(done),
        )

    def __enter__(self) -> Passage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(
        self,
        fill: Callable[[Intake, _Reports], Downloaded | None],
        kept_fd: int | None,
        keep: tuple[int, ...] = (),
    ) -> None:
        transfer = self._transfer
        tar_write, unpacker = _start_unpacker(self._stack, transfer)
        report_read, report_write = _pipe(self._stack)
        self.report_fd = report_read.fd

        def work() -> Any:
            return _ingest(fill, kept_fd, tar_write.fd, _Reports(report_write.fd), transfer)

        kept = () if kept_fd is None else (kept_fd,)
        ingester = self._stack.enter_context(
            spawn(
                work,
                privileges=Privileges.NONE,
                keep=(*keep, *kept, tar_write.fd, report_write.fd),
                name="ingest",
            )
        )
        tar_write.close()
        report_write.close()
        self._children = (ingester, unpacker)


def transfer_local(fd: int, transfer: Transfer, blob_fd: int | None) -> tuple[Ingested, Unpacked]:
    """Take in a local file: `fd` is read once, and kept in `blob_fd` unless that is None.

    Raises:
        ArchiveInvalid, TrustRefused: the bytes were refused.
    """
    with Passage(transfer) as passage:
        passage.start_local(fd, blob_fd)
        ingested, unpacked, _ = passage.finish()
        return ingested, unpacked


def transfer_remote(
    download: Download,
    transfer: Transfer,
    partial_fd: int,
    progress: Progress | None,
    save_state: SaveState,
) -> tuple[Ingested, Unpacked, Downloaded]:
    """Download, check and unpack at once; bytes are kept in `partial_fd` as they arrive.

    Args:
        save_state: called with the body's validators as it begins, so that a later process knows
            what the partial file is a part of.

    Raises:
        FetchFailed: the source failed; what arrived is in the partial file.
        ArchiveInvalid, TrustRefused: the bytes were refused.
    """
    with Passage(transfer, progress, save_state) as passage:
        passage.start_remote(download, partial_fd)
        ingested, unpacked, done = passage.finish()
        assert done is not None
        return ingested, unpacked, done


def _ingest(
    fill: Callable[[Intake, _Reports], Downloaded | None],
    kept_fd: int | None,
    tar_fd: int,
    reports: _Reports,
    transfer: Transfer,
) -> dict[str, Any]:
    verifier = transfer.verifier() if transfer.verifier is not None else None
    intake = Intake(
        kept_fd=kept_fd,
        verifier=verifier,
        max_bytes=transfer.max_bytes,
        expected=transfer.expected,
    )
    done: list[Downloaded | None] = []
    ingested = ingest(
        lambda intake: done.append(fill(intake, reports)),
        intake,
        tar_fd,
        transfer.limits,
        verifier=verifier,
        expected=transfer.expected,
    )
    return {"ingested": ingested, "done": _downloaded_to_json(done[0])}


def _downloaded_to_json(done: Downloaded | None) -> dict[str, Any] | None:
    if done is None:
        return None
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


class _End:
    """One end of a pipe, closed once: explicitly, or when the transfer is over."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


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
        "opaque": _encoded(done.opaque),
        "implied": _encoded(done.implied),
        "warnings": list(done.warnings),
    }


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
        opaque=_decoded(value["opaque"]),
        implied=_decoded(value["implied"]),
        warnings=tuple(str(warning) for warning in value["warnings"]),
    )


def _encoded(paths: tuple[str, ...]) -> list[bytes]:
    return [path.encode("utf-8", "surrogateescape") for path in paths]


def _decoded(paths: Any) -> tuple[str, ...]:
    return tuple(bytes(path).decode("utf-8", "surrogateescape") for path in paths)


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
