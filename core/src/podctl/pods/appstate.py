"""Where the apps of a mutable pod are: told by files of the pod's directory, and their times.

rkt's files, below `status`: APP-created and APP-started are empty, APP holds the exit code.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from podctl.pods.directories import AFTER_RUN, EXITED_GARBAGE

if TYPE_CHECKING:
    from podctl.pods.directories import Pod

STATUS = "status"
CREATED, STARTED = "-created", "-started"
#: an app cannot be called so: its exit code would be another one's mark
MARKS = (CREATED, STARTED)


class AppState(NamedTuple):
    """One app. Times in nanoseconds since the epoch; None for what has not been.

    Args:
        state: `created`, `running` or `exited`; `unknown` to callers who may not see it.
        code: its exit code.
    """

    state: str
    created: int | None = None
    started: int | None = None
    finished: int | None = None
    code: int | None = None


def app_state(pod: Pod, app: str) -> AppState:
    """Look at one app of a mutable pod. One that was cut off with its pod has exited when the pod
    was found to have (rkt's rule), with no code."""
    if not _may_look(pod):
        return AppState("unknown")
    base = pod.path(f"{STATUS}/{app}")
    created, started = _modified(base + CREATED), _modified(base + STARTED)
    text = _read(base)
    if text:
        return AppState("exited", created, started, _modified(base), _code(text))
    if pod.state in AFTER_RUN:
        marked = os.stat(pod.directory).st_ctime_ns if pod.place == EXITED_GARBAGE else None
        return AppState("exited", created, started, marked)
    return AppState("created" if started is None else "running", created, started)


def _may_look(pod: Pod) -> bool:
    """Under nspawn it is root alone who may: the pod itself writes there."""
    directory = pod.path(STATUS)
    return os.access(directory, os.R_OK | os.X_OK) or not os.path.isdir(directory)


def forget_state(directory: str, app: str) -> None:
    """Remove the files of an app that is no more."""
    for name in (app, app + STARTED, app + CREATED):
        try:
            os.unlink(f"{directory}/{STATUS}/{name}")
        except FileNotFoundError:
            continue


def mark_created(directory: str, app: str) -> None:
    """From here on the app is there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(f"{directory}/{STATUS}/{app}{CREATED}", flags, 0o640))


def _modified(path: str) -> int | None:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime_ns
    except OSError:
        return None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(16)
    except OSError:
        return b""


def _code(text: bytes) -> int:
    """1 when the record cannot be read as one (rkt's rule)."""
    try:
        return int(text)
    except ValueError:
        return 1
