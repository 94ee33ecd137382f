"""Waiting for a pod to be ready or to end, without asking again and again where that is possible.

A pod's lock is held until its last process that has it is gone: whoever asks for a shared lock
sleeps in the kernel until then.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from podctl.errors import NotFound, PodStateError
from podctl.pods.directories import AFTER_RUN, INSTANCE, LOCK, RUN

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from podctl.pods.directories import Pod, PodDirectories

#: seconds between two looks where nothing can be slept on
_INTERVAL = 0.1


class _Expired(Exception):
    """The time to wait is over."""


def wait_until_ended(pods: PodDirectories, uuid: str, seconds: float | None) -> Pod:
    """Return once the pod has run and ended (or was given up).

    Args:
        seconds: longest time to wait; None for no limit.

    Raises:
        PodStateError: the time is over.
        NotFound: the pod was removed.
    """
    return _wait(pods, uuid, seconds, _has_ended, _sleep_until_ended)


def wait_until_ready(pods: PodDirectories, uuid: str, seconds: float | None) -> Pod:
    """Return once the pod's app was started, or will never be. Arguments and errors: see above."""
    return _wait(pods, uuid, seconds, _is_ready, _doze)


def _has_ended(pod: Pod) -> bool:
    return pod.state in AFTER_RUN or pod.state == "aborted prepare"


def _is_ready(pod: Pod) -> bool:
    if pod.state == "running" and os.path.exists(pod.path(INSTANCE)):
        return True
    return _has_ended(pod)


def _wait(
    pods: PodDirectories,
    uuid: str,
    seconds: float | None,
    reached: Callable[[Pod], bool],
    sleep: Callable[[Pod, float | None], None],
) -> Pod:
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        pod = pods.locate(uuid)
        if pod is None:
            raise NotFound(f'error waiting for pod "{uuid}": it was removed')
        if reached(pod):
            return pod
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise PodStateError(
                f'error waiting for pod "{uuid}": it is still {pod.state} after the time given'
            )
        with suppress(_Expired):
            sleep(pod, left)


def _doze(pod: Pod, left: float | None) -> None:
    time.sleep(_INTERVAL if left is None else min(left, _INTERVAL))


def _sleep_until_ended(pod: Pod, left: float | None) -> None:
    """Sleep until something about the pod may have changed, at most `left` seconds."""
    if pod.place != RUN:
        _doze(pod, left)
    elif pod.held:
        _sleep_on_lock(pod, left)
    else:
        _sleep_on_process(pod, left)


def _sleep_on_lock(pod: Pod, left: float | None) -> None:
    from podctl.sys.locks import lock

    try:
        fd = os.open(pod.path(LOCK), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except PermissionError:
        _doze(pod, left)
        return
    previous = signal.signal(signal.SIGALRM, _expire)
    try:
        if left is not None:
            signal.setitimer(signal.ITIMER_REAL, left)
        lock(fd, exclusive=False)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        os.close(fd)


def _expire(_number: int, _frame: FrameType | None) -> None:
    raise _Expired


def _sleep_on_process(pod: Pod, left: float | None) -> None:
    """The lock was given up early; the first process that is left can be waited for."""
    from podctl.sys.procs import open_instance, read_instance

    try:
        instance = read_instance(pod.directory)
    except ValueError:
        instance = None
    pidfd = None if instance is None else open_instance(instance)
    if pidfd is None:
        _doze(pod, left)
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(None if left is None else max(1, int(left * 1000)))
    finally:
        os.close(pidfd)
