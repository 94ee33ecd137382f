"""What nspawn cannot do, refused by name before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import Refused
from podctl.model.confinement import Confinement
from podctl.model.rootsteps import refuse_target
from podctl.sys.devices import brings_devices

if TYPE_CHECKING:
    from podctl.model.plan import Bind, PreparedApp, PreparedPod

NAME = "nspawn"
#: pod options carried out
OPTIONS = frozenset({"dns", "dns-search", "dns-opt", "dns-domain", "event-handlers", "hosts-entry",
                     "hostname", "private-users", "stdin", "stdout", "stderr"})  # fmt: skip
#: enforced by records of podctl.model.confinement
ISOLATORS = frozenset({
    "os/linux/no-new-privileges", "os/linux/capabilities-retain-set",
    "os/linux/capabilities-remove-set", "os/linux/seccomp-retain-set",
    "os/linux/seccomp-remove-set",
    "os/linux/oom-score-adj", "os/linux/cpu-shares", "os/linux/selinux-context", "resource/cpu",
    "resource/memory", "resource/block-bandwidth", "resource/block-iops",
})  # fmt: skip
#: fields of a record that are carried out: all but settings of namespaces
CONFINES = frozenset(Confinement._fields) - {"sysctls"}
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
    if pod.options.get("private-users") == "true" and "host" in pod.networks:
        # systemd-nspawn takes CAP_NET_BIND_SERVICE from such a pod, which would be of no use.
        raise Refused(
            "flavor nspawn cannot give a pod on the host's network users of its own",
            hint="leave out --private-users or --net=host",
        )
    for prepared in pod.apps:
        if pod.interactive and prepared.streams is not None:
            raise Refused(
                f'app "{prepared.name}" has streams of its own, and --interactive connects it to '
                "ours",
                hint="leave out --interactive, and attach to the app",
            )
        for mount in prepared.mounts:
            refuse_target(mount.target)
            _refuse_read_only_device(prepared, mount)


def _refuse_read_only_device(app: PreparedApp, mount: Bind) -> None:
    """A mount that is read-only does not keep anybody from writing to a device."""
    if not mount.read_only or app.confinement.cgroup.devices is not None:
        return
    if brings_devices(mount.source):
        raise Refused(
            f'app "{app.name}" cannot be kept from writing to the device {mount.source}: '
            "there are no control groups of devices",
            hint="leave out readOnly",
        )
