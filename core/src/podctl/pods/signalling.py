"""Signals for the apps of a running pod, which never reach a stranger."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from podctl.errors import NotFound, PodStateError
from podctl.sys import procs

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.model.plan import PreparedPod
    from podctl.plugins import FlavorHandle
    from podctl.pods.directories import Pod


class RunningPod:
    """A pod that runs, its flavor, and its value.

    Raises (on creation):
        PodStateError: the pod does not run.
        PluginMissing, StoreCorrupt: its flavor is not installed, or its files are damaged.
    """

    def __init__(self, pod: Pod) -> None:
        if pod.state != "running":
            raise PodStateError(f'pod "{pod.uuid}" is not running')
        from podctl.plugins import flavor
        from podctl.pods.prepared import load_prepared
        from podctl.pods.release import flavor_of

        self.pod = pod
        self.flavor: FlavorHandle = flavor(flavor_of(pod.directory))
        self.prepared: PreparedPod = load_prepared(pod.directory)

    def apps(self, wanted: str | None = None) -> list[str]:
        """Names of the apps, or the one wanted. Raises NotFound when there is no such app."""
        names = [app.name for app in self.prepared.apps]
        if wanted is None:
            return names
        if wanted not in names:
            raise NotFound(f'the pod has no app "{wanted}"', hint=f"it has {', '.join(names)}")
        return [wanted]


def kill(pod: Pod, number: int, app: str | None, say: Callable[[str], None]) -> None:
    """Send a signal to each app of a pod, or to one; SIGKILL for all ends the pod.

    Raises:
        PodStateError: the pod, or the app, does not run.
        NotFound: the pod has no such app.
    """
    if app is None and number == signal.SIGKILL:
        from podctl.pods.stop import stop

        stop(pod, force=True, say=say)
        return
    running = RunningPod(pod)
    reached = 0
    for name in running.apps(app):
        first = running.flavor.processes(running.prepared, name)[:1]
        reached += sum(send(process, number) for process in first)
    if not reached:
        which = "an app" if app is None else f'app "{app}"'
        raise PodStateError(f'{which} of pod "{pod.uuid}" isn\'t currently running')


def send(process: procs.Process, number: int) -> bool:
    """Signal exactly this process; False when it has ended."""
    pidfd = procs.open_process(process)
    if pidfd is None:
        return False
    try:
        return procs.send(pidfd, number)
    finally:
        os.close(pidfd)
