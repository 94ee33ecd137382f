"""What fly cannot enforce, refused by name: rkt's fly ignored it without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from podctl.errors import Refused
from podctl.model.confinement import Confinement
from podctl.model.rootsteps import refuse_target

if TYPE_CHECKING:
    from podctl.model.manifest import App
    from podctl.model.plan import PreparedPod

NAME = "fly"
#: pod options carried out: those that end in the texts of resolv.conf and hosts
OPTIONS = frozenset({"dns", "dns-search", "dns-opt", "dns-domain", "hosts-entry"})
_OTHER_FLAVOR = "use another flavor, such as --stage1=nspawn"
#: enforced by records of podctl.model.confinement; without one, nothing is held
ISOLATORS = frozenset({
    "os/linux/no-new-privileges", "os/linux/capabilities-retain-set",
    "os/linux/capabilities-remove-set", "os/linux/seccomp-retain-set",
    "os/linux/seccomp-remove-set",
    "os/linux/oom-score-adj", "os/linux/cpu-shares", "os/linux/selinux-context", "resource/cpu",
    "resource/memory", "resource/block-bandwidth", "resource/block-iops",
})  # fmt: skip
#: fields of a record that are carried out. The host's own /proc and /sys are shared: to hide parts
#: of them from a process that may see everything else would be a pretence.
CONFINES = frozenset(Confinement._fields) - {"masked_paths", "read_only_paths", "sysctls"}


def refuse_unsupported(pod: PreparedPod) -> None:
    """Raise Refused for the first thing the pod asks for that fly does not do."""
    if len(pod.apps) != 1:
        raise Refused(
            f"flavor fly runs exactly one app per pod, this one has {len(pod.apps)}",
            hint=_OTHER_FLAVOR,
        )
    for network in pod.networks:
        # `default` is what a pod has that named none; for fly that is the host's.
        if network not in ("default", "host"):
            raise Refused(
                f'flavor fly shares the host\'s network, "{network}" is not possible',
                hint=f"leave --net out, or {_OTHER_FLAVOR}",
            )
    for option in pod.options:
        if option not in OPTIONS:
            raise Refused(f"flavor fly does not support --{option}", hint=_OTHER_FLAVOR)
    prepared = pod.apps[0]
    _refuse_in_app(prepared.name, cast("App", prepared.app))
    for mount in prepared.mounts:
        refuse_target(mount.target)


def _refuse_in_app(name: str, app: App) -> None:
    for handler in app.event_handlers:
        # A post-stop handler would need somebody to outlive the app, a pre-start handler a
        # supervisor that reports its failure as the app's.
        raise Refused(
            f'app "{name}" has a {handler} event handler, which flavor fly cannot run',
            hint=_OTHER_FLAVOR,
        )
