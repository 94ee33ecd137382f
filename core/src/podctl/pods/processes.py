"""The processes of a running pod, as `top` shows them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from podctl.pods.signalling import RunningPod

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Seen(NamedTuple):
    """One process.

    Args:
        app: its app.
        pid: number on the host.
        inside: number in the pod.
        uid: user id in the pod.
        state: letter of proc(5).
        memory: resident bytes.
        seconds: processor time.
        command: its words, or its name in brackets.
    """

    app: str
    pid: int
    inside: int
    uid: int
    state: str
    memory: int
    seconds: float
    command: str


def processes(pod: RunningPod, wanted: str | None) -> list[Seen]:
    """The processes of an app, or of all, each app's own first."""
    found = (
        _look(app, process.pid)
        for app in pod.apps(wanted)
        for process in pod.flavor.processes(pod.prepared, app)
    )
    return [one for one in found if one is not None]


def _look(app: str, pid: int) -> Seen | None:
    """None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
        with open(f"/proc/{pid}/status", errors="replace") as file:
            status = dict(line.rstrip("\n").split(":", 1) for line in file)
        with open(f"/proc/{pid}/cmdline", "rb") as line:
            words = os.fsdecode(line.read()).rstrip("\0").split("\0")
        uid = _inside(pid, int(status["Uid"].split()[1]))
    except (OSError, ValueError, KeyError):
        return None
    fields = rest.split()
    command = " ".join(words) if words != [""] else f"[{name}]"
    seconds = (int(fields[11]) + int(fields[12])) / _TICKS
    number = int(status["NSpid"].split()[-1])
    return Seen(app, pid, number, uid, fields[0], int(fields[21]) * _PAGE, seconds, command)


def _inside(pid: int, uid: int) -> int:
    """A user id of the host as the process's user namespace has it (user_namespaces(7))."""
    with open(f"/proc/{pid}/uid_map") as file:
        for line in file:
            inside, outside, count = map(int, line.split())
            if outside <= uid < outside + count:
                return inside + uid - outside
    return uid
