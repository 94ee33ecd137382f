"""Ending a pod for good: asked first, then every process of it killed, and its end waited for."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from podctl.errors import PodStateError
from podctl.pods.directories import LOCK
from podctl.pods.stop import stop
from podctl.pods.waiting import wait_until_ended
from podctl.sys import procs

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.pods.directories import Pod, PodDirectories

#: the record of a pod's keeper, as of an instance (podctl.sys.procs)
KEEPER = "keeper"
#: seconds within which what was killed must be gone, and between two rounds of killing
_LAST_WAIT, _ROUND = 30.0, 0.1


def stop_and_wait(
    pods: PodDirectories, pod: Pod, seconds: float, *, force: bool, say: Callable[[str], None]
) -> None:
    """Ask a pod to end, kill it `seconds` later if it has not (at once with `force`), and return
    when nothing of it is left.

    Raises:
        PodStateError: the pod does not run, or something of it survived SIGKILL.
    """
    if not force:
        stop(pod, force=False, say=say)
        if _ends(pods, pod, seconds):
            return
    deadline = time.monotonic() + _LAST_WAIT
    while time.monotonic() < deadline:
        _kill(pod, say)
        if _ends(pods, pod, _ROUND):
            return
    raise PodStateError(f'pod "{pod.uuid}" has not ended although its processes were killed')


def _ends(pods: PodDirectories, pod: Pod, seconds: float) -> bool:
    try:
        wait_until_ended(pods, pod.uuid, seconds)
    except PodStateError:
        return False
    return True


def _kill(pod: Pod, say: Callable[[str], None]) -> None:
    """Everything the flavor knows, then whoever holds the pod's lock: each of its processes
    inherited that, and nothing but the pod's own keeper has it otherwise."""
    # The first process may be gone already, and others not.
    with suppress(PodStateError):
        stop(pod, force=True, say=say)
    spared = {os.getpid(), *_keepers(pod)}
    for process in _holders(pod.path(LOCK)):
        if process.pid not in spared:
            pidfd = procs.open_process(process)
            if pidfd is not None:
                procs.send(pidfd, signal.SIGKILL)
                os.close(pidfd)


def _keepers(pod: Pod) -> list[int]:
    """Numbers of the pod's keeper and of the one that would follow it: they end by themselves."""
    try:
        with open(pod.path(KEEPER), encoding="ascii") as file:
            found = [procs.Process(*map(int, line.split())) for line in file]
    except (OSError, ValueError, TypeError):
        return []
    return [one.pid for one in found if procs.start_time(one.pid) == one.start_time]


def _holders(path: str) -> list[procs.Process]:
    """Processes that have the file open."""
    try:
        wanted = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return []
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and _has_open(name, wanted):
            found.append(int(name))
    return procs.look_at(found)


def _has_open(pid: str, wanted: os.stat_result) -> bool:
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for number in numbers:
        try:
            if os.path.samestat(os.stat(f"/proc/{pid}/fd/{number}"), wanted):
                return True
        except OSError:
            continue
    return False
