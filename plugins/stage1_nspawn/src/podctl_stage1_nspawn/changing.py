"""Running pods whose apps come and go: their root, and requests to their first process.

A request is a file that is made here and removed by the supervisor (supervisor.sh) once it has
carried it out; SIGUSR1 makes it look. Nobody but the host's root can make one.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from podctl.errors import PodStateError
from podctl.model.names import check_name
from podctl.model.plan import PodRoot
from podctl.sys import procs
from podctl_stage1_nspawn.living import instance_of, leader_of
from podctl_stage1_nspawn.stage1 import READY, REQUESTS, ROOT

if TYPE_CHECKING:
    from podctl.model.plan import PreparedPod

#: seconds the pod's first process may take to be ready, and to take a request
_PATIENCE = 30.0
#: seconds between two looks, and between two signals: one may come before the file can be seen
_PAUSE, _AGAIN = 0.005, 0.5


def root(pod: PreparedPod) -> PodRoot:
    """Where the apps' roots lie, of a pod whose first process is ready.

    Raises:
        PodStateError: it is not, or has ended.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        instance = instance_of(pod)
        if not procs.is_running(instance):
            raise PodStateError(f'pod "{pod.uuid}" is not running')
        if os.path.exists(f"{pod.directory}/{READY}"):
            leader = leader_of(instance.pid)
            started = None if leader is None else procs.start_time(leader)
            if leader is not None and started is not None:
                return PodRoot(f"{pod.directory}/{ROOT}", leader, started)
        if time.monotonic() > deadline:
            raise PodStateError(f'pod "{pod.uuid}" is not ready', hint="try again")
        time.sleep(_PAUSE)


def request(pod: PreparedPod, app: str, what: str) -> None:
    """Have an app started or stopped (`what`); returns once that was begun.

    Raises:
        PodStateError: the pod does not run, or ends meanwhile.
    """
    place = root(pod)
    first = procs.open_process(procs.Process(place.pid, place.start_time))
    if first is None:
        raise PodStateError(f'pod "{pod.uuid}" is not running')
    path = f"{pod.directory}/{REQUESTS}/{what}-{check_name(app, 'app name')}"
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        _see_done(pod, first, path)
    finally:
        os.close(first)


def _see_done(pod: PreparedPod, first: int, path: str) -> None:
    deadline, again = time.monotonic() + _PATIENCE, 0.0
    while os.path.lexists(path):
        now = time.monotonic()
        if now > deadline:
            raise PodStateError(f'the first process of pod "{pod.uuid}" does not answer')
        if now > again:
            again = now + _AGAIN
            if not procs.send(first, signal.SIGUSR1):
                raise PodStateError(f'pod "{pod.uuid}" is not running any more')
        time.sleep(_PAUSE)
