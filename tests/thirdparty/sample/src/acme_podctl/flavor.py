"""The flavor `bare`: an image's overlay as root, and nothing of the host in it but /proc."""

from __future__ import annotations

from podctl.api import hookimpl
from podctl.errors import Refused
from podctl.model.plan import (
    Account,
    Filesystem,
    FlavorDescription,
    LaunchPlan,
    Overlay,
    PreparedPod,
)
from podctl.sys import procs


class Bare:
    """See podctl.api.hookspecs.Stage1Spec."""

    @hookimpl
    def stage1_describe(self) -> FlavorDescription:
        return FlavorDescription("bare", 1, ("host",), frozenset(), frozenset())

    @hookimpl
    def stage1_plan(self, pod: PreparedPod) -> LaunchPlan:
        (app,) = pod.apps
        if app.rootfs.directory is not None:
            raise Refused("flavor bare needs an overlay", hint="drop --no-overlay")
        overlay = Overlay(app.root, app.rootfs.lowers, app.upper, app.work)
        return LaunchPlan(
            flavor="bare",
            namespaces=("NS",),
            root=app.root,
            steps=(overlay, Filesystem("proc", "/proc")),
            identity=Account("0", "0"),
            working_directory="/",
            environment={**app.environment, "FLAVOR": "bare"},
            argv=app.app.exec,
            records={"pid": "{pid}\n"},
        )

    @hookimpl
    def stage1_stop(self, pod: PreparedPod, force: bool) -> None:
        instance = procs.read_instance(pod.directory)
        pidfd = None if instance is None else procs.open_instance(instance)
        if pidfd is not None:
            procs.send(pidfd, 9 if force else 15)


bare = Bare()
