"""What a running pod uses: from its control groups where every app has one, else process by
process."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

from podctl.pods.release import GROUPS
from podctl.sys.files import read_small

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podctl.pods.signalling import RunningPod

_MAX_RECORD = 64 << 10
_TICKS = os.sysconf("SC_CLK_TCK")
#: a limit of cgroup v1 from here on is none
_UNLIMITED = 1 << 60


class Usage(NamedTuple):
    """What a pod has used up to now, and uses now.

    Args:
        cpu_seconds: of all processors together.
        memory: bytes; without file caches that can be given up.
        memory_limit: bytes; None where an app has none.
        pids: processes (and, in control groups, threads).
        read, written: bytes from and to block devices.
        grouped: whether the control groups said so.
    """

    cpu_seconds: float
    memory: int
    memory_limit: int | None
    pids: int
    read: int
    written: int
    grouped: bool


def usage(pod: RunningPod) -> Usage:
    """Measure a pod. What ends meanwhile is left out."""
    apps = pod.apps()
    groups = _groups(pod.pod.directory, apps)
    if groups is not None:
        return _add(map(_group_usage, groups))
    processes = {process.pid for app in apps for process in pod.flavor.processes(pod.prepared, app)}
    return _add(map(_process_usage, processes))


def _groups(directory: str, apps: Sequence[str]) -> list[list[str]] | None:
    """Each app's groups; None unless every app has its own."""
    try:
        found = json.loads(read_small(f"{directory}/{GROUPS}", _MAX_RECORD))
    except (OSError, ValueError):
        return None
    groups = [
        [f"{base}/{app}" for base in map(str, found) if os.path.isdir(f"{base}/{app}")]
        for app in apps
    ]
    return groups if all(groups) else None


def _add(parts: Iterable[Usage]) -> Usage:
    parts = list(parts)
    limits = [part.memory_limit for part in parts]
    known = [limit for limit in limits if limit is not None]
    return Usage(
        sum(part.cpu_seconds for part in parts),
        sum(part.memory for part in parts),
        sum(known) if known and len(known) == len(limits) else None,
        sum(part.pids for part in parts),
        sum(part.read for part in parts),
        sum(part.written for part in parts),
        any(part.grouped for part in parts),
    )


def _group_usage(directories: Sequence[str]) -> Usage:
    """An app's usage, from files of either version of control groups."""
    files = _Files(directories)
    statistics = files.table("memory.stat")
    cache = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
    memory = files.number("memory.current", "memory.usage_in_bytes")
    limit = files.number("memory.max", "memory.limit_in_bytes")
    cpu = files.number("cpuacct.usage") / 1e9
    read, written = files.io()
    return Usage(
        cpu or files.table("cpu.stat").get("usage_usec", 0) / 1e6,
        max(0, memory - cache),
        limit if 0 < limit < _UNLIMITED else None,
        files.number("pids.current"),
        read,
        written,
        True,
    )


class _Files:
    """The files of the groups an app is in, whichever of them has one."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = directories

    def text(self, name: str) -> str:
        for directory in self._directories:
            try:
                with open(f"{directory}/{name}") as file:
                    return file.read()
            except OSError:
                continue
        return ""

    def number(self, *names: str) -> int:
        for name in names:
            text = self.text(name).strip()
            if text.isdecimal():
                return int(text)
        return 0

    def table(self, name: str) -> dict[str, int]:
        words = (line.split() for line in self.text(name).splitlines())
        return {key: int(value) for key, value in (two for two in words if len(two) == 2)}

    def io(self) -> tuple[int, int]:
        """Bytes read and written: `8:0 rbytes=1 wbytes=2 ...`, or `8:0 Read 1` by the line."""
        read = written = 0
        for word in self.text("io.stat").split():
            key, _, value = word.partition("=")
            read += int(value) if key == "rbytes" else 0
            written += int(value) if key == "wbytes" else 0
        for line in self.text("blkio.throttle.io_service_bytes").splitlines():
            _, *rest = line.split()
            if len(rest) == 2:
                read += int(rest[1]) if rest[0] == "Read" else 0
                written += int(rest[1]) if rest[0] == "Write" else 0
        return read, written


def _process_usage(pid: int) -> Usage:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            memory = next((int(x.split()[1]) << 10 for x in rollup if x.startswith("Pss:")), 0)
        with open(f"/proc/{pid}/io") as io:
            counts = dict(line.split(": ") for line in io)
    except (OSError, ValueError):
        return Usage(0.0, 0, None, 0, 0, 0, False)
    # utime, stime, and those of children that were waited for.
    ticks = sum(int(value) for value in fields[11:15])
    read, written = int(counts["read_bytes"]), int(counts["write_bytes"])
    return Usage(ticks / _TICKS, memory, None, 1, read, written, False)
