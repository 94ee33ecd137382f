"""The output of apps, written to files with a size cap: one line for each line, as CRI has it.

`2026-11-25T15:00:00.123456789Z stdout F text`: when it was read, the stream, whether the line ends
here (F) or goes on (P), and the bytes as they came. A record `lost` counts bytes that could not be
written.
"""

from __future__ import annotations

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Second(Protocol):
        """A process that would take over from this one: its pidfd, and how to make a new one."""

        fd: int

        def replace(self) -> None: ...


#: directory of a pod, and what files in it end in
DIRECTORY, SUFFIX, OLD = "logs", ".log", ".log.1"
#: file in that directory that says that the output is in the host's journal instead
IN_JOURNAL = "journal"
#: stands for the name of an app (it can be none) in what the pod itself says
POD = "_pod"
#: bytes after which a file is put aside; the one put aside before goes
CAP = 8 << 20
LOST = b"lost"
_CHUNK = 1 << 16
#: characters of a line that are kept waiting for its end, and milliseconds
_MAX_LINE, _PATIENCE = 1 << 14, 100
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


def stamp(nanoseconds: int) -> bytes:
    """A moment as RFC 3339 has it, to the nanosecond, in UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    date = b"%04d-%02d-%02dT%02d:%02d:%02d" % (year, month, day, hour, minute, second)
    return b"%b.%09dZ" % (date, rest)


class LogFile:
    """The log of one app. Nothing it does raises for a disk that is full or gone."""

    def __init__(self, pod_fd: int, app: str, cap: int = CAP) -> None:
        self._pod_fd = pod_fd
        self._path = f"{DIRECTORY}/{app}{SUFFIX}"
        self._old = f"{DIRECTORY}/{app}{OLD}"
        self._cap = cap
        self._fd = -1
        self._size = 0
        self._lost = 0

    def write(self, records: bytes, size: int) -> None:
        """Append whole records, which carry `size` bytes of output."""
        if self._lost:
            note = b"%b %b F %d\n" % (stamp(time.time_ns()), LOST, self._lost)
            if not self._append(note):
                self._lost += size
                return
            self._lost = 0
        if not self._append(records):
            self._lost += size

    def _append(self, data: bytes) -> bool:
        """Whether all of it was written; if not, none of it stays."""
        try:
            if self._fd >= 0 and self._size + len(data) > self._cap:
                self._rotate()
            if self._fd < 0:
                self._fd = os.open(self._path, _FLAGS, 0o600, dir_fd=self._pod_fd)
                self._size = os.fstat(self._fd).st_size
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            self._take_back()
            return False
        self._size += len(data)
        return True

    def _rotate(self) -> None:
        os.close(self._fd)
        self._fd = -1
        os.rename(self._path, self._old, src_dir_fd=self._pod_fd, dst_dir_fd=self._pod_fd)

    def _take_back(self) -> None:
        """A record cut short would run into the next one."""
        if self._fd >= 0:
            try:
                os.ftruncate(self._fd, self._size)
            except OSError:
                return


class _Stream:
    """One descriptor an app writes to."""

    def __init__(self, fd: int, name: bytes, log: LogFile, echo: int) -> None:
        self.fd = fd
        self._name = name
        self._log = log
        self._echo = echo
        #: of a FIFO that is open for both there is no end
        self.endless = not os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
        self.pending = b""

    def read_rest(self) -> None:
        """Take what is there once nobody writes any more."""
        while self._read_some():
            pass
        self.flush()

    def _read_some(self) -> bool:
        try:
            data = os.read(self.fd, _CHUNK)
        except OSError:
            return False
        if data:
            self._take(data)
        return bool(data)

    def read(self) -> bool:
        """Take what is there; False at the end."""
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if self._echo >= 0:
            _echo(self._echo, data)
        if not data:
            self.flush()
            return False
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        lines = (self.pending + data).split(b"\n")
        self.pending = lines.pop()
        when = stamp(time.time_ns())
        if lines:
            head = b"%b %b F " % (when, self._name)
            records = head + (b"\n" + head).join(lines) + b"\n"
            self._log.write(records, sum(map(len, lines)) + len(lines))
        if len(self.pending) >= _MAX_LINE:
            self.flush()

    def flush(self) -> None:
        """Write down a line that has not ended."""
        if self.pending:
            head = b"%b %b P " % (stamp(time.time_ns()), self._name)
            self._log.write(head + self.pending + b"\n", len(self.pending))
            self.pending = b""


def _echo(fd: int, data: bytes) -> None:
    try:
        os.write(fd, data)
    except OSError:
        return


def _watch(poll: select.poll, second: Second | None) -> int:
    if second is None or second.fd < 0:
        return -1
    poll.register(second.fd, select.POLLIN)
    return second.fd


class Drain:
    """Reads what a pod's apps write.

    Args:
        pod_fd: the pod's directory.
        streams: (app, descriptor of its stdout, of its stderr) each.
        echo: descriptor that gets what comes on stderr, too; -1 for none.
    """

    def __init__(self, pod_fd: int, streams: Sequence[tuple[str, int, int]], echo: int) -> None:
        self._streams: dict[int, _Stream] = {}
        for app, out, err in streams:
            log = LogFile(pod_fd, app)
            self._streams[out] = _Stream(out, b"stdout", log, -1)
            self._streams[err] = _Stream(err, b"stderr", log, echo)
        for fd in self._streams:
            os.set_blocking(fd, False)

    def run(self, pidfd: int, second: Second | None = None) -> None:
        """Return when the process has ended and nobody writes any more.

        Args:
            second: who is to be replaced when it dies; the caller may go on in its place.
        """
        poll = select.poll()
        for fd in (pidfd, *self._streams):
            poll.register(fd, select.POLLIN)
        waited_for = {pidfd, *self._streams}
        watched = _watch(poll, second)
        while waited_for:
            patience = _PATIENCE if any(s.pending for s in self._streams.values()) else None
            found = poll.poll(patience)
            for fd, _ in found:
                if second is not None and fd == watched:
                    poll.unregister(fd)
                    second.replace()
                    watched = _watch(poll, second)
                    continue
                stream = self._streams.get(fd)
                if stream is not None and stream.read():
                    continue
                done = [fd] if stream is not None else [fd, *self._end()]
                for one in waited_for.intersection(done):
                    poll.unregister(one)
                    waited_for.discard(one)
            if not found:
                for stream in self._streams.values():
                    stream.flush()

    def _end(self) -> list[int]:
        """The pod's first process has ended, and with it whoever had a FIFO."""
        endless = [stream for stream in self._streams.values() if stream.endless]
        for stream in endless:
            stream.read_rest()
        return [stream.fd for stream in endless]
