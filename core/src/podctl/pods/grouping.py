"""The control groups of a pod: made before it starts, removed when it is gone."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from podctl.errors import HostLacks, PodctlError
from podctl.model.confinement import NO_LIMITS
from podctl.pods.release import GROUPS
from podctl.sys.cgroups import PodGroups, kill, remove, remove_app
from podctl.sys.files import read_small, write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.plan import AppLaunch, LaunchPlan, PreparedPod

    #: app -> `cgroup.procs` of each of its groups
    AppGroups = dict[str, Sequence[str]]


_MODE = 0o640
_MAX_RECORD = 64 << 10


def make_groups(plan: LaunchPlan, pod: PreparedPod) -> AppGroups:
    """Make the groups of every app that has limits, and write down what is to be removed later.

    Raises:
        HostLacks: the kernel refuses a group or a limit.
    """
    limits = {app.name: app.confinement.cgroup for app in plan.apps}
    if plan.confinement.cgroup != NO_LIMITS:
        limits[pod.apps[0].name] = plan.confinement.cgroup
    groups = PodGroups(pod.uuid)
    record = json.dumps(groups.directories).encode() + b"\n"
    try:
        # Before there is anything to remove. After a reboot it means nothing, so no fsync.
        write_atomic(f"{pod.directory}/{GROUPS}", record, mode=_MODE, durable=False)
        if pod.mutable:
            groups.make_pod()
        return {
            name: groups.make_app(name, wanted._asdict())
            for name, wanted in limits.items()
            if wanted != NO_LIMITS
        }
    except OSError as error:
        remove_groups(pod.directory)
        raise HostLacks(
            f"no control groups for the pod: {error}",
            hint="under systemd, give the unit Delegate=yes",
        ) from error


def make_added_groups(directory: str, app: AppLaunch) -> Sequence[str]:
    """Make the groups of an app that comes to the running pod in `directory`; returns
    `cgroup.procs` of each.

    Raises:
        HostLacks: the kernel refuses a group or a limit.
    """
    limits = app.confinement.cgroup
    if limits == NO_LIMITS:
        return ()
    groups = PodGroups(os.path.basename(directory), _recorded(directory))
    try:
        return groups.make_app(app.name, limits._asdict())
    except OSError as error:
        raise HostLacks(f"no control groups for the app: {error}") from error


def end_added(directory: str, app: str, *, remove: bool) -> None:
    """End what still lives in the groups of an app that has ended, and (`remove`) remove them.
    Idempotent.

    Raises:
        PodctlError: one stays busy.
    """
    uuid = os.path.basename(directory)
    groups = _recorded(directory)
    try:
        if remove:
            remove_app(groups, uuid, app)
        else:
            kill(f"{group}/{app}" for group in groups if uuid in os.path.basename(group))
    except OSError as error:
        raise PodctlError(f"control groups of app {app}: {error}") from error


def _recorded(directory: str) -> list[str]:
    try:
        found = json.loads(read_small(f"{directory}/{GROUPS}", _MAX_RECORD))
    except (FileNotFoundError, ValueError):
        return []
    return [str(one) for one in found]


def remove_groups(directory: str) -> None:
    """Remove the groups of a pod that is gone, ending what still lives there. Idempotent.

    Raises:
        PodctlError: one stays busy.
    """
    uuid = os.path.basename(directory.rstrip("/"))
    # One cut off by a crash was written before the first group was made.
    try:
        remove(_recorded(directory), uuid)
    except OSError as error:
        raise PodctlError(f"control groups of pod {uuid}: {error}") from error
