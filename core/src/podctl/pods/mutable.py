"""Pods whose apps come and go while they run.

The manifest says which apps there are; everything else of an app is made before it names it and
removed after. What a command that was killed has left of an app the manifest does not name is
removed by the next one that changes the pod, or with the pod.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import NotFound, PodStateError, Refused
from podctl.pods.appstate import app_state
from podctl.pods.directories import AFTER_RUN
from podctl.pods.prepared import load_prepared
from podctl.sys.locks import LockedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from podctl.model.plan import PreparedApp, PreparedPod
    from podctl.plugins import FlavorHandle
    from podctl.pods.directories import Pod, PodDirectories

    Say = Callable[[str], None]

#: held by whoever changes the pod's apps
LOCK = "pod.lck"
#: seconds an app may take to end after it was sent SIGKILL, and to be asked to end by default
_LAST_WAIT, _STOP_TIMEOUT = 30, 10
_PAUSE = 0.02
#: beginnings of rkt's annotations
_LOGGING = ("coreos.com/rkt/experiment/logmode", "coreos.com/rkt/experiment/kubernetes-log-")


class MutablePod(NamedTuple):
    """A mutable pod while nobody else changes it."""

    pod: Pod
    prepared: PreparedPod
    flavor: FlavorHandle

    @property
    def running(self) -> bool:
        """Whether the pod runs."""
        return self.pod.state == "running"

    def require_running(self) -> None:
        """Raise PodStateError unless the pod runs."""
        if not self.running:
            raise PodStateError(f'pod "{self.pod.uuid}" is not running')

    def app(self, name: str) -> PreparedApp:
        """The app of that name. Raises NotFound."""
        return app_of(self.prepared, name)

    def app_runs(self, name: str) -> bool:
        """Whether an app was started and has not ended."""
        return self.running and app_state(self.pod, name).state == "running"


@contextmanager
def changing(pods: PodDirectories, uuid: str) -> Iterator[MutablePod]:
    """Hold off everybody else who would change the apps of a pod.

    Raises:
        PodStateError: the pod is not mutable, or being removed.
        NotFound: it was removed.
    """
    pod = _locate(pods, uuid)
    try:
        guard = LockedFile(pod.path(LOCK), mode=0o600)
        guard.acquire()
    except FileNotFoundError:
        raise PodStateError(f'pod "{uuid}" was moved or removed by another process') from None
    try:
        yield _load(_locate(pods, uuid))
    finally:
        guard.release()


def _locate(pods: PodDirectories, uuid: str) -> Pod:
    pod = pods.locate(uuid)
    if pod is None:
        raise NotFound(f'no matches found for "{uuid}"')
    if pod.state not in ("running", "exited", "exited garbage"):
        raise PodStateError(f'pod "{uuid}" is {pod.state}')
    return pod


def _load(pod: Pod) -> MutablePod:
    from podctl.plugins import flavor
    from podctl.pods.release import flavor_of

    prepared = load_prepared(pod.directory)
    if not prepared.mutable:
        raise PodStateError(
            f'pod "{pod.uuid}" is immutable', hint="apps come and go in pods of podctl app sandbox"
        )
    return MutablePod(pod, prepared, flavor(flavor_of(pod.directory)))


def app_of(pod: PreparedPod, name: str) -> PreparedApp:
    """The app of that name. Raises NotFound."""
    for app in pod.apps:
        if app.name == name:
            return app
    known = ", ".join(app.name for app in pod.apps)
    raise NotFound(
        f'pod "{pod.uuid}" has no app "{name}"', hint=f"it has {known}" if known else None
    )


def refuse_logging(annotations: Mapping[str, str]) -> None:
    """Refuse the annotations by which Kubernetes had rkt write log files.

    Raises:
        Refused: names the annotation.
    """
    for name in annotations:
        if name.startswith(_LOGGING):
            raise Refused(
                f"annotation {name}: podctl writes no logs in Kubernetes' format",
                hint="leave it out: what apps print is the pod's own output",
            )


def start(pods: PodDirectories, uuid: str, name: str, say: Say) -> None:
    """Start an app that does not run; again, if it has ended.

    Raises:
        PodStateError: the pod does not run.
        NotFound: it has no such app.
    """
    from podctl.pods.grouping import end_added

    with changing(pods, uuid) as held:
        held.require_running()
        held.app(name)
        if held.app_runs(name):
            say(f'app "{name}" is running already')
            return
        # Of the time before: its first process has ended, others may not have.
        end_added(held.pod.directory, name, remove=False)
        before = app_state(held.pod, name).started
        held.flavor.app_start(held.prepared, name)
        if app_state(held.pod, name).started == before:
            raise PodStateError(f'pod "{uuid}" is being stopped')


def stop(pods: PodDirectories, uuid: str, name: str, say: Say) -> None:
    """Stop an app: it is asked, then killed; returns when nothing of it is left.

    Raises:
        PodStateError: the pod does not run, or the app survives.
        NotFound: it has no such app.
    """
    with changing(pods, uuid) as held:
        held.require_running()
        app = held.app(name)
        if not held.app_runs(name):
            say(f'app "{name}" is not running')
            return
        held.flavor.app_stop(held.prepared, name)
    _wait_for_end(pods, held, app)


def _wait_for_end(pods: PodDirectories, held: MutablePod, app: PreparedApp) -> None:
    from podctl.pods.grouping import end_added

    timeout = _STOP_TIMEOUT if app.stop_timeout is None else app.stop_timeout
    deadline = time.monotonic() + timeout + _LAST_WAIT
    before = app_state(held.pod, app.name).started
    while True:
        now = app_state(held.pod, app.name)
        if now.state != "running" or now.started != before:
            break
        if time.monotonic() > deadline:
            if held.flavor.processes(held.prepared, app.name):
                raise PodStateError(f'app "{app.name}" has not ended')
            # Somebody has ended who would have written it down.
            break
        time.sleep(_PAUSE)
        pod = pods.locate(held.pod.uuid)
        if pod is None or pod.state in AFTER_RUN:
            return
    if now.started == before:
        end_added(held.pod.directory, app.name, remove=False)


def remove(pods: PodDirectories, uuid: str, name: str) -> None:
    """Remove an app: stop it if it runs, take its root out of the pod and delete it.

    Raises:
        NotFound: the pod has no such app.
        PodStateError: the app survives.
    """
    from podctl.pods.appfiles import AppFiles

    stopped = None
    while True:
        with changing(pods, uuid) as held:
            app = held.app(name)
            # It may have been started again meanwhile; or nobody was left to write its end down.
            if not held.app_runs(name) or app_state(held.pod, name).started == stopped:
                files = AppFiles(held)
                files.remove(name)
                files.sweep()
                return
            stopped = app_state(held.pod, name).started
            held.flavor.app_stop(held.prepared, name)
        _wait_for_end(pods, held, app)
