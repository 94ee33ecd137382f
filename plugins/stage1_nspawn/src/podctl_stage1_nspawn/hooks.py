"""The provider `nspawn`: apps in namespaces made by systemd-nspawn, which podctl becomes.

Inside, process 1 is a shell that starts the apps and waits for them (supervisor.sh); each app is
started by podctl's launcher, which confines it and becomes it. Nothing of podctl stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.api import hookimpl
from podctl.model.plan import FlavorDescription
from podctl_stage1_nspawn.refusals import (
    CONFINES,
    ISOLATORS,
    NAME,
    NETWORKS,
    OPTIONS,
    refuse_unsupported,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.plan import AppLaunch, EnterPlan, LaunchPlan, PodRoot, PreparedPod
    from podctl.sys.procs import Process


class Nspawn:
    """See podctl.api.hookspecs.Stage1Spec."""

    @hookimpl
    def stage1_describe(self) -> FlavorDescription:
        return FlavorDescription(
            name=NAME,
            max_apps=None,
            networks=NETWORKS,
            options=OPTIONS,
            isolators=ISOLATORS,
            confines=CONFINES,
            defaults=True,
            mutable=True,
        )

    @hookimpl
    def stage1_check_host(self) -> Sequence[str]:
        from podctl_stage1_nspawn.host import missing

        return missing()

    @hookimpl
    def stage1_prepare(self, pod: PreparedPod) -> None:
        from podctl_stage1_nspawn.stage1 import make

        refuse_unsupported(pod)
        make(pod)

    @hookimpl
    def stage1_plan(self, pod: PreparedPod) -> LaunchPlan:
        from podctl_stage1_nspawn.planning import plan

        return plan(pod)

    @hookimpl
    def stage1_enter(self, pod: PreparedPod, app: str, argv: Sequence[str]) -> EnterPlan:
        from podctl_stage1_nspawn.living import enter

        return enter(pod, app, argv)

    @hookimpl
    def stage1_processes(self, pod: PreparedPod, app: str) -> Sequence[Process]:
        from podctl_stage1_nspawn.living import processes

        return processes(pod, app)

    @hookimpl
    def stage1_stop(self, pod: PreparedPod, force: bool) -> None:
        from podctl_stage1_nspawn.living import stop

        stop(pod, force=force)

    @hookimpl
    def stage1_gc(self, pod: PreparedPod) -> None:
        from podctl.sys.mounts import detach_below

        # The pod's mounts went with its last process; anything here was left by other hands.
        detach_below(pod.directory)

    @hookimpl
    def stage1_root(self, pod: PreparedPod) -> PodRoot:
        from podctl_stage1_nspawn.changing import root

        return root(pod)

    @hookimpl
    def stage1_app_launch(self, pod: PreparedPod, app: str) -> AppLaunch:
        from podctl_stage1_nspawn.planning import added

        return added(pod, app)

    @hookimpl
    def stage1_app_start(self, pod: PreparedPod, app: str) -> None:
        from podctl_stage1_nspawn.changing import request

        request(pod, app, "start")

    @hookimpl
    def stage1_app_stop(self, pod: PreparedPod, app: str) -> None:
        from podctl_stage1_nspawn.changing import request

        request(pod, app, "stop")

    @hookimpl
    def stage1_app_rm(self, pod: PreparedPod, app: str) -> None:
        from podctl_stage1_nspawn.stage1 import forget

        forget(pod, app)


nspawn = Nspawn()
