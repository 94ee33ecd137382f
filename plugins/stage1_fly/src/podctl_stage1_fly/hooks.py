"""The provider `fly`: the app itself, chrooted into its image in a mount namespace of its own.

There is no isolation: the app shares processes, users, network and devices with the host, and as
root it can leave its root. What it asks for and fly cannot give is refused by name.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, cast

from podctl.api import hookimpl
from podctl.errors import NotFound, PodStateError
from podctl.model.plan import Account, EnterPlan, FlavorDescription, LaunchPlan
from podctl.sys import procs
from podctl_stage1_fly.refusals import (
    CONFINES,
    ISOLATORS,
    NAME,
    OPTIONS,
    refuse_unsupported,
)
from podctl_stage1_fly.steps import root_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.manifest import App
    from podctl.model.plan import PreparedApp, PreparedPod

#: rounds of killing: a process may fork between being listed and being killed
_ROUNDS = 100


class Fly:
    """See podctl.api.hookspecs.Stage1Spec."""

    @hookimpl
    def stage1_describe(self) -> FlavorDescription:
        return FlavorDescription(
            name=NAME,
            max_apps=1,
            networks=("host",),
            options=OPTIONS,
            isolators=ISOLATORS,
            confines=CONFINES,
        )

    @hookimpl
    def stage1_check_host(self) -> Sequence[str]:
        from podctl_stage1_fly.host import missing

        return missing()

    @hookimpl
    def stage1_prepare(self, pod: PreparedPod) -> None:
        refuse_unsupported(pod)

    @hookimpl
    def stage1_plan(self, pod: PreparedPod) -> LaunchPlan:
        refuse_unsupported(pod)
        prepared = pod.apps[0]
        app = _app(prepared)
        return LaunchPlan(
            flavor=NAME,
            namespaces=("NS",),
            root=prepared.root,
            steps=root_steps(pod, prepared),
            identity=_account(app),
            working_directory=app.working_directory,
            environment=dict(prepared.environment),
            argv=app.exec,
            read_only_root=prepared.read_only_rootfs,
            no_new_privileges=prepared.confinement.no_new_privileges,
            records={"pid": "{pid}\n"},
            confinement=prepared.confinement,
        )

    @hookimpl
    def stage1_enter(self, pod: PreparedPod, app: str, argv: Sequence[str]) -> EnterPlan:
        prepared = next((one for one in pod.apps if one.name == app), None)
        if prepared is None:
            raise NotFound(f'pod "{pod.uuid}" has no app "{app}"')
        section = _app(prepared)
        pid, start_time = _living_process(pod)
        return EnterPlan(
            pid=pid,
            start_time=start_time,
            namespaces=("NS",),
            identity=_account(section),
            no_new_privileges=prepared.confinement.no_new_privileges,
            working_directory="/",
            environment={**prepared.environment, "TERM": os.environ.get("TERM") or "vt100"},
            argv=tuple(argv),
            confinement=prepared.confinement,
        )

    @hookimpl
    def stage1_processes(self, pod: PreparedPod, app: str) -> Sequence[procs.Process]:
        instance = _instance(pod)
        first = [instance.pid] if procs.is_running(instance) else []
        others = procs.pod_processes(pod.directory, instance)
        return procs.look_at([*first, *(pid for pid in others if pid not in first)])

    @hookimpl
    def stage1_stop(self, pod: PreparedPod, force: bool) -> None:
        instance = _instance(pod)
        number = signal.SIGKILL if force else pod.apps[0].stop_signal
        pidfd = procs.open_instance(instance)
        if pidfd is not None:
            try:
                procs.send(pidfd, number)
            finally:
                os.close(pidfd)
            if not force:
                return
        for _ in range(_ROUNDS if force else 1):
            if not procs.signal_pod(pod.directory, instance, number):
                return

    @hookimpl
    def stage1_gc(self, pod: PreparedPod) -> None:
        from podctl.sys.mounts import detach_below

        # The pod's mounts went with its last process; anything here was left by other hands.
        detach_below(pod.directory)


def _app(prepared: PreparedApp) -> App:
    return cast("App", prepared.app)


def _account(app: App) -> Account:
    return Account(app.user or "0", app.group, app.supplementary_gids)


def _instance(pod: PreparedPod) -> procs.Instance:
    instance = procs.read_instance(pod.directory)
    if instance is None:
        raise PodStateError(f'pod "{pod.uuid}" has not started yet', hint="try again")
    return instance


def _living_process(pod: PreparedPod) -> tuple[int, int]:
    """(number, start time) of the pod's first process, or of another one that outlived it."""
    instance = _instance(pod)
    if procs.is_running(instance):
        return instance.pid, instance.start_time
    for pid in procs.pod_processes(pod.directory, instance):
        started = procs.start_time(pid)
        if started is not None:
            return pid, started
    raise PodStateError(f'pod "{pod.uuid}" isn\'t currently running')


fly = Fly()
