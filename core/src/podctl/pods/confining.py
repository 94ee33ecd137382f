"""What each app of a pod is held to: made of its isolators before anything starts."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from podctl.errors import HostLacks, PluginMissing, PodctlError, Refused
from podctl.model.confinement import UNCONFINED, Confinement, IsolatorContext
from podctl.model.isolators import CAPABILITIES_RETAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from podctl.model.isolators import Isolator
    from podctl.model.plan import Bind, FlavorDescription
    from podctl.model.podmanifest import PodManifest

    Say = Callable[[str], None]

#: value of --insecure-options -> beginning of the names of the isolators it waives
_WAIVED = {"capabilities": "os/linux/capabilities-", "seccomp": "os/linux/seccomp-"}
#: the isolator that begins every record
DEFAULT = "default"
_EVERYTHING = "a *:* rwm"


def confine(
    description: FlavorDescription, manifest: PodManifest, insecure: frozenset[str], say: Say
) -> dict[str, Confinement]:
    """The record of each app that is held to anything, by the app's name.

    Args:
        description: of the flavor that is to carry it out.
        say: told of a default that this host cannot enforce.

    Raises:
        PluginMissing: an isolator's provider is not installed; names the package.
        Refused: nobody provides an isolator, the flavor does not carry it out, or it cannot be.
        HostLacks: this host cannot enforce it.
    """
    records: dict[str, Confinement] = {}
    for app in manifest.apps:
        isolators = app.app.isolators if app.app else ()
        record = confine_app(description, app.name, isolators, insecure, say)
        if record != UNCONFINED:
            records[app.name] = record
    return records


def confine_app(
    description: FlavorDescription,
    name: str,
    isolators: Iterable[Isolator],
    insecure: frozenset[str],
    say: Say = lambda _line: None,
) -> Confinement:
    """The record of one app; arguments and exceptions as of `confine`."""
    context = IsolatorContext(
        name, description.name, tuple(isolators), insecure, description.defaults
    )
    # A flavor that carries out no record has said by name what it enforces itself.
    if not description.confines or not (description.defaults or context.isolators):
        return UNCONFINED
    return _record(description, context, say)


def _record(description: FlavorDescription, context: IsolatorContext, say: Say) -> Confinement:
    record = UNCONFINED
    if description.defaults:
        from podctl.plugins import isolator as load

        record = load(DEFAULT).contribute(DEFAULT, None, record, context)
        record = _waive(_without_missing(record, say), context.insecure)
    for isolator in context.isolators:
        option = _waiving(isolator.name)
        if option in context.insecure:
            continue
        before = record
        record = _contribution(isolator, record, context)
        if not description.confines.issuperset(record.changed_fields(before)):
            excuse = f"--insecure-options={option} runs it without, or " if option else ""
            raise Refused(
                f'app "{context.app}" has isolator {isolator.name}, which flavor '
                f"{description.name} cannot enforce",
                hint=f"{excuse}choose another flavor with --stage1",
            )
    _refuse_missing(record, context)
    return record


def _contribution(isolator: Isolator, record: Confinement, context: IsolatorContext) -> Confinement:
    from podctl.plugins import isolator as load

    try:
        handle = load(isolator.name)
    except PluginMissing as error:
        raise _unprovided(isolator.name, context.app, error) from None
    made = handle.contribute(isolator.name, isolator.value, record, context)
    lacking = handle.lacks(isolator.name, isolator.value, made, context)
    if lacking:
        raise HostLacks(
            f'app "{context.app}" has isolator {isolator.name}: {"; ".join(lacking)}',
            hint="take it out, or run the pod on another host",
        )
    return made


def _unprovided(name: str, app: str, error: PluginMissing) -> PodctlError:
    """What nobody has heard of is refused as such; of the rest the hint names the package."""
    from podctl.plugins.families import ISOLATOR

    if name.replace("/", ".") in ISOLATOR.packages:
        return error
    return Refused(
        f'app "{app}" has isolator {name}, which nothing that is installed enforces',
        hint="take it out, or install a plugin that provides it",
    )


def _waiving(name: str) -> str | None:
    return next((option for option, start in _WAIVED.items() if name.startswith(start)), None)


def _waive(record: Confinement, insecure: frozenset[str]) -> Confinement:
    """Take out what --insecure-options excuses."""
    if "capabilities" in insecure:
        record = record._replace(capabilities=None)
    if "seccomp" in insecure:
        record = record._replace(seccomp=None, seccomp_summary="")
    if "paths" in insecure:
        cgroup = record.cgroup._replace(devices=None)
        record = record._replace(masked_paths=(), read_only_paths=(), cgroup=cgroup)
    return record


def _without_missing(record: Confinement, say: Say) -> Confinement:
    """A default without which the host can be lived on: nobody asked for it."""
    from podctl.sys.cgroups import Hierarchies, needed_controllers

    missing = needed_controllers(record.cgroup._asdict()) - Hierarchies().controllers()
    if "pids" in missing:
        say("this host has no control groups of processes: the default limit is not set")
        record = record._replace(cgroup=record.cgroup._replace(pids_max=None))
    if "devices" in missing:
        say("this host has no control groups of devices: what apps open is not limited")
        record = record._replace(cgroup=record.cgroup._replace(devices=None))
    return record


def _refuse_missing(record: Confinement, context: IsolatorContext) -> None:
    """Refuse what this host, or podctl on it, cannot give."""
    from podctl.sys.cgroups import Hierarchies, needed_controllers

    needed = needed_controllers(record.cgroup._asdict())
    if needed and (missing := sorted(needed - Hierarchies().controllers())):
        raise HostLacks(
            f'app "{context.app}" has a limit of {_LIMITED[missing[0]]}, and this host has no '
            f'control groups with the controller "{missing[0]}"',
            hint="mount it, or run the pod without that limit",
        )
    if record.oom_score_adj is not None and record.oom_score_adj < 0:
        _check_held(["CAP_SYS_RESOURCE"], f'app "{context.app}" has a negative OOM score')
    if any(isolator.name == CAPABILITIES_RETAIN for isolator in context.isolators):
        _check_held(record.capabilities or (), f'app "{context.app}" is to have it')


def _check_held(names: Iterable[str], why: str) -> None:
    from podctl.model.confinement import capability_mask
    from podctl.sys.caps import get_permitted

    permitted = get_permitted()
    for name in sorted(names):
        if not capability_mask([name]) & permitted:
            raise HostLacks(f"podctl itself has no {name} here: {why}", hint="run it with all")


_LIMITED = {
    "memory": "memory",
    "cpu": "CPU time",
    "pids": "processes",
    "blkio": "block devices",
    "devices": "devices",
}


def allow_volumes(record: Confinement, binds: Iterable[Bind]) -> Confinement:
    """The record with what device volumes bring."""
    if record.cgroup.devices is None:
        return record
    rules = [rule for bind in binds for rule in _device_rules(bind.source, bind.read_only)]
    if not rules:
        return record
    devices = tuple(dict.fromkeys((*record.cgroup.devices, *rules)))
    return record._replace(cgroup=record.cgroup._replace(devices=devices))


def _device_rules(source: str, read_only: bool) -> list[str]:
    access = "r" if read_only else "rw"
    path = os.path.realpath(source)
    if path == "/dev":
        return [_EVERYTHING]
    found = [_node(path)]
    if path.startswith("/dev/"):
        found += [_node(f"{top}/{name}") for top, _, names in os.walk(path) for name in names]
    return [f"{node} {access}" for node in found if node]


def _node(path: str) -> str:
    """Type and numbers of a device node; empty for anything else."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    kind = "b" if stat.S_ISBLK(status.st_mode) else "c" if stat.S_ISCHR(status.st_mode) else ""
    return f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" if kind else ""


def records_to_bytes(records: Mapping[str, Confinement]) -> bytes:
    """Content of `confinement.json`."""
    import json

    value = {name: record.to_value() for name, record in records.items()}
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def records_from_bytes(data: bytes) -> dict[str, Confinement]:
    """Read what records_to_bytes wrote. Raises ValueError, TypeError or KeyError."""
    import json

    value: dict[str, dict[str, object]] = json.loads(data)
    return {name: Confinement.from_value(record) for name, record in value.items()}
