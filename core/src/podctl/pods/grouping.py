"""The control groups of a pod: made before it starts, removed when it is gone."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from podctl.errors import HostLacks, PodctlError
from podctl.model.confinement import NO_LIMITS
from podctl.pods.release import GROUPS
from podctl.sys.cgroups import PodGroups, remove
from podctl.sys.files import read_small, write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.plan import LaunchPlan, PreparedPod

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


def remove_groups(directory: str) -> None:
    """Remove the groups of a pod that is gone, ending what still lives there. Idempotent.

    Raises:
        PodctlError: one stays busy.
    """
    uuid = os.path.basename(directory.rstrip("/"))
    try:
        found = json.loads(read_small(f"{directory}/{GROUPS}", _MAX_RECORD))
    except FileNotFoundError:
        return
    except ValueError:
        # Cut off by a crash: it was written before the first group was made.
        return
    try:
        remove([str(one) for one in found], uuid)
    except OSError as error:
        raise PodctlError(f"control groups of pod {uuid}: {error}") from error
