"""What fly cannot enforce, refused by name: rkt's fly ignored it without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from podctl.errors import Refused
from podctl.model.rootsteps import refuse_target

if TYPE_CHECKING:
    from podctl.model.manifest import App
    from podctl.model.plan import PreparedPod

NAME = "fly"
#: pod options carried out: those that end in the texts of resolv.conf and hosts
OPTIONS = frozenset({"dns", "dns-search", "dns-opt", "dns-domain", "hosts-entry"})
_OTHER_FLAVOR = "use another flavor, such as --stage1=nspawn"
#: isolators that an insecure option excuses: beginning of the name -> option
_EXCUSED = {"os/linux/capabilities-": "capabilities", "os/linux/seccomp-": "seccomp"}
_ENFORCED = frozenset({"os/linux/no-new-privileges"})


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
    _refuse_in_app(prepared.name, cast("App", prepared.app), pod.insecure)
    for mount in prepared.mounts:
        refuse_target(mount.target)


def _refuse_in_app(name: str, app: App, insecure: frozenset[str]) -> None:
    for handler in app.event_handlers:
        # A post-stop handler would need somebody to outlive the app, a pre-start handler a
        # supervisor that reports its failure as the app's.
        raise Refused(
            f'app "{name}" has a {handler} event handler, which flavor fly cannot run',
            hint=_OTHER_FLAVOR,
        )
    for isolator in app.isolators:
        if isolator.name in _ENFORCED:
            continue
        option = next((o for start, o in _EXCUSED.items() if isolator.name.startswith(start)), None)
        if option in insecure:
            continue
        remedy = f"--insecure-options={option} runs it without, or " if option else ""
        raise Refused(
            f'app "{name}" has isolator {isolator.name}, which flavor fly cannot enforce',
            hint=remedy + _OTHER_FLAVOR,
        )
