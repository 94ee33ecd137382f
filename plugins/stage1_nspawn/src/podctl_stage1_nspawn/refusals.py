"""What nspawn cannot do, refused by name before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from podctl.errors import Refused
from podctl.model.rootsteps import refuse_target

if TYPE_CHECKING:
    from podctl.model.manifest import App
    from podctl.model.plan import PreparedPod

NAME = "nspawn"
#: pod options carried out
OPTIONS = frozenset({"dns", "dns-search", "dns-opt", "dns-domain", "hosts-entry", "hostname"})
ISOLATORS = frozenset({
    "os/linux/no-new-privileges", "os/linux/capabilities-retain-set",
    "os/linux/capabilities-remove-set",
})  # fmt: skip
#: `default` is what a pod has that named none: until a plugin of the family *networking* provides
#: more, a loopback of its own, as with `none`.
NETWORKS = ("default", "none", "host")


def refuse_unsupported(pod: PreparedPod) -> None:
    """Raise Refused for the first thing the pod asks for that nspawn does not do."""
    for network in pod.networks:
        if network not in NETWORKS:
            raise Refused(
                f'flavor nspawn has no network "{network}"',
                hint="use --net=none or --net=host",
            )
    for option in pod.options:
        if option not in OPTIONS:
            raise Refused(f"flavor nspawn does not support --{option}", hint="leave it out")
    for prepared in pod.apps:
        for isolator in cast("App", prepared.app).isolators:
            if isolator.name not in ISOLATORS:
                raise Refused(
                    f'app "{prepared.name}" has isolator {isolator.name}, '
                    "which flavor nspawn cannot enforce",
                    hint="take it out of the manifest",
                )
        for mount in prepared.mounts:
            refuse_target(mount.target)
