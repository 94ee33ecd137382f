"""The output of detached pods, read back: from the pod's files, or from the host's journal."""

from __future__ import annotations

import os
import time
from collections import deque
from heapq import merge
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import NotFound, PodStateError, UsageError
from podctl.pods.directories import AFTER_RUN
from podctl.sys.logfiles import DIRECTORY, IN_JOURNAL, LOST, OLD, POD, SUFFIX, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from podctl.pods.directories import Pod, PodDirectories

#: seconds between two looks at a file that is followed
_INTERVAL = 0.1
_CHUNK = 1 << 16
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
#: earlier than anything
BEGINNING = b""


class Record(NamedTuple):
    """A piece of an app's output.

    Args:
        when: as podctl.sys.logfiles.stamp writes it; texts compare like moments.
        stream: b"stdout", b"stderr", or b"lost" (then `text` is a number of bytes).
        complete: whether a line ends here; the newline is not part of `text`.
    """

    when: bytes
    stream: bytes
    complete: bool
    text: bytes


class Wanted(NamedTuple):
    """What of the output is asked for.

    Args:
        app: the app; None for all.
        since: stamp of the first moment.
        tail: how many lines at most, from the end; None for all.
        follow: whether to wait for more until the pod ends.
    """

    app: str | None = None
    since: bytes = BEGINNING
    tail: int | None = None
    follow: bool = False


def parse_since(text: str, now: float) -> bytes:
    """Read --since: a duration before `now`, seconds since the epoch, or a date with a time.

    Raises:
        UsageError: it is none of them.
    """
    from podctl.pods.times import parse_duration

    try:
        seconds = now - parse_duration(text, "--since")
    except UsageError:
        seconds = _moment(text)
    return stamp(max(0, int(seconds * 1_000_000_000)))


def _moment(text: str) -> float:
    from datetime import datetime

    if text.replace(".", "", 1).isdecimal() and text.isascii() and len(text) < 20:
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f'--since: "{text}" is neither a duration nor a time',
            hint="write it like 10m, 2026-01-31, 2026-01-31T12:00:00Z or as seconds of Unix",
        ) from None


def read(pods: PodDirectories, pod: Pod, wanted: Wanted) -> Iterator[Record]:
    """The output of a pod, in order.

    Raises:
        PodStateError: nothing was kept.
        NotFound: the pod has no such app.
    """
    directory = pod.path(DIRECTORY)
    if not os.path.isdir(directory):
        raise _nothing_kept(pod)
    if os.path.exists(f"{directory}/{IN_JOURNAL}"):
        from podctl.pods.journal import read_journal

        return read_journal(pod, wanted)
    apps = apps_of(pod, wanted.app)
    if wanted.app is None:
        apps.append(POD)
    followers = [_Follower(directory, app) for app in apps]
    records = _tail(_since(_merged(followers), wanted.since), wanted.tail)
    return _follow(pods, pod, followers, records, wanted) if wanted.follow else records


def _nothing_kept(pod: Pod) -> PodStateError:
    if pod.state in ("running", *AFTER_RUN):
        return PodStateError(
            f'the output of pod "{pod.uuid}" went to whoever started it',
            hint="that of a pod run with --detach is kept",
        )
    return PodStateError(f'pod "{pod.uuid}" has not run: it is {pod.state}')


def apps_of(pod: Pod, wanted: str | None) -> list[str]:
    """The app wanted, or all; raises NotFound."""
    from podctl.pods.summary import brief

    names = [name for name, _, _ in brief(pod)]
    if wanted is None:
        return names
    if wanted not in names:
        raise NotFound(f'the pod has no app "{wanted}"', hint=f"it has {', '.join(names)}")
    return [wanted]


class _Follower:
    """Reads an app's log across the moment when it is put aside."""

    def __init__(self, directory: str, app: str) -> None:
        self._path = f"{directory}/{app}{SUFFIX}"
        self._old = f"{directory}/{app}{OLD}"
        self._fd = -1
        self._rest = b""
        self._started = False

    def read(self) -> Iterator[Record]:
        """All records since the last call."""
        if not self._started:
            self._started = True
            self._fd = self._open(self._old)
        while True:
            yield from self._read_file()
            following = self._open_next()
            if following < 0:
                return
            # What was written between the last look and the rename.
            yield from self._read_file()
            self._close()
            self._fd = following

    def _read_file(self) -> Iterator[Record]:
        while self._fd >= 0 and (data := os.read(self._fd, _CHUNK)):
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                record = _parse(line)
                if record is not None:
                    yield record

    def _open_next(self) -> int:
        """The file that continues the one we have read; -1 while ours is the last."""
        fd = self._open(self._path)
        if fd >= 0 and self._fd >= 0 and os.path.samestat(os.fstat(fd), os.fstat(self._fd)):
            os.close(fd)
            return -1
        return fd

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._rest = b""

    @staticmethod
    def _open(path: str) -> int:
        try:
            return os.open(path, _FLAGS)
        except FileNotFoundError:
            return -1


def _parse(line: bytes) -> Record | None:
    fields = line.split(b" ", 3)
    if len(fields) != 4:
        return None
    when, stream, tag, text = fields
    return Record(when, stream, tag == b"F", text)


def _merged(followers: Iterable[_Follower]) -> Iterator[Record]:
    return merge(*(follower.read() for follower in followers), key=lambda record: record.when)


def _since(records: Iterable[Record], since: bytes) -> Iterator[Record]:
    return (record for record in records if record.when >= since)


def _tail(records: Iterator[Record], count: int | None) -> Iterator[Record]:
    """The last `count` lines. A line that has not ended is one."""
    if count is None:
        return records
    kept: deque[Record] = deque()
    lines = 0
    for record in records:
        kept.append(record)
        lines += record.complete
        while lines > count:
            lines -= kept.popleft().complete
    if kept and not kept[-1].complete:
        lines += 1
        while kept and lines > count:
            lines -= kept.popleft().complete
    return iter(kept)


def _follow(
    pods: PodDirectories,
    pod: Pod,
    followers: list[_Follower],
    records: Iterator[Record],
    wanted: Wanted,
) -> Iterator[Record]:
    yield from records
    while True:
        # Looked at first: what is written before the end is read after it.
        ended = _has_ended(pods, pod)
        yield from _since(_merged(followers), wanted.since)
        if ended:
            return
        time.sleep(_INTERVAL)


def _has_ended(pods: PodDirectories, pod: Pod) -> bool:
    now = pods.locate(pod.uuid)
    return now is None or now.state != "running"


def lost(record: Record) -> int | None:
    """How many bytes a record says could not be kept; None for output."""
    if record.stream != LOST:
        return None
    return int(record.text) if record.text.isdigit() else 0
