"""What each isolator adds to an app's record.

Names, values and meaning: appc 0.8.11, ace.md; the numbers' ranges from the kernel's documentation
of control groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import Refused
from podctl.model import isolators as names
from podctl.model.confinement import IoLimit
from podctl.model.isolators import CAPABILITIES, effective_capabilities, resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podctl.model.confinement import Confinement, IsolatorContext
    from podctl.model.isolators import Resource

    Contribute = Callable[[object, Confinement, IsolatorContext], Confinement]

#: processes and threads of an app that says nothing of them
PIDS = 4096
#: bytes; with less no program can be started
MIN_MEMORY = 512 << 10
#: those of `runc spec`, of Docker, and of rkt's stage1
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmem",
    "/proc/latency_stats",
    "/proc/mem",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/hypervisor",
    "/sys/module",
    "/sys/power",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys")
#: what the OCI runtime specification gives every container: making any node, using these
DEVICES = (
    "b *:* m",
    "c *:* m",
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 5:0 rwm",  # tty
    "c 5:1 rwm",  # console
    "c 5:2 rwm",  # ptmx
    "c 136:* rwm",  # pts
)
_CAPABILITY_SETS = (names.CAPABILITIES_RETAIN, names.CAPABILITIES_REMOVE)
_SECCOMP_SETS = (names.SECCOMP_RETAIN, names.SECCOMP_REMOVE)


def _default(_: object, record: Confinement, context: IsolatorContext) -> Confinement:
    """What every app begins with. The filter is made here only where no isolator brings one."""
    cgroup = record.cgroup._replace(pids_max=PIDS, devices=DEVICES)
    record = record._replace(
        capabilities=names.DEFAULT_CAPABILITIES,
        no_new_privileges=True,
        cgroup=cgroup,
        masked_paths=MASKED,
        read_only_paths=READ_ONLY,
    )
    filtered = any(isolator.name in _SECCOMP_SETS for isolator in context.isolators)
    if filtered or "seccomp" in context.insecure:
        return record
    from podctl_isolators_linux.policy import default_filter

    found = default_filter(_capabilities(record, context))
    return record._replace(seccomp=found.program, seccomp_summary=found.summary)


def _capability_set(_: object, record: Confinement, context: IsolatorContext) -> Confinement:
    wanted = effective_capabilities(context.isolators)
    more = sorted(wanted - names.DEFAULT_CAPABILITIES)
    if more and _of_image(names.CAPABILITIES_RETAIN, context):
        raise _chosen_by_image(
            context,
            f"for {', '.join(more)}",
            f"--caps-retain={','.join(sorted(wanted))} gives it that",
        )
    return record._replace(capabilities=wanted)


def _seccomp_set(_: object, record: Confinement, context: IsolatorContext) -> Confinement:
    from podctl_isolators_linux.policy import isolator_filter

    seccomp = names.seccomp(context.isolators)
    assert seccomp is not None
    guarded = seccomp.mode == "retain" and _of_image(names.SECCOMP_RETAIN, context)
    if guarded:
        from podctl_isolators_linux.policy import beyond_default

        more = beyond_default(seccomp, _capabilities(record, context))
        if more:
            raise _chosen_by_image(
                context,
                f"for the system calls {', '.join(more)}",
                f"--seccomp=mode=retain,{','.join(seccomp.entries)} allows them",
            )
    found = isolator_filter(seccomp, _capabilities(record, context), guarded=guarded)
    return record._replace(seccomp=found.program, seccomp_summary=found.summary)


def _of_image(name: str, context: IsolatorContext) -> bool:
    """Whether an isolator that holds to less than the defaults would be an image's own choice."""
    return context.defaults and any(
        isolator.of_image for isolator in context.isolators if isolator.name == name
    )


def _chosen_by_image(context: IsolatorContext, what: str, remedy: str) -> Refused:
    return Refused(
        f'app "{context.app}": its image asks {what}, which is yours to give, not an image\'s',
        hint=remedy,
    )


def _capabilities(record: Confinement, context: IsolatorContext) -> frozenset[str]:
    """What the app will have, on which some of the filters' answers depend."""
    if "capabilities" in context.insecure:
        return frozenset(CAPABILITIES)
    if any(isolator.name in _CAPABILITY_SETS for isolator in context.isolators):
        return effective_capabilities(context.isolators)
    return frozenset(CAPABILITIES) if record.capabilities is None else record.capabilities


def _no_new_privileges(_: object, record: Confinement, context: IsolatorContext) -> Confinement:
    """Of several, one `true` is enough. `false` is what appc has by default: where an image says so
    it has said nothing."""
    wanted = names.no_new_privileges(context.isolators)
    if not wanted and _of_image(names.NO_NEW_PRIVILEGES, context):
        return record
    return record._replace(no_new_privileges=wanted)


def _oom_score_adj(value: object, record: Confinement, context: IsolatorContext) -> Confinement:
    assert isinstance(value, int)
    if value < 0 and _of_image(names.OOM_SCORE_ADJ, context):
        raise _chosen_by_image(
            context, f"for an OOM score of {value}", f"--oom-score-adj={value} gives it that"
        )
    return record._replace(oom_score_adj=value)


def _cpu_shares(value: object, record: Confinement, _: IsolatorContext) -> Confinement:
    assert isinstance(value, int)
    return record._replace(cgroup=record.cgroup._replace(cpu_shares=value))


def _cpu(_: object, record: Confinement, context: IsolatorContext) -> Confinement:
    """The limit alone: a request is a promise among all pods of a host, which nobody keeps here."""
    milli = _resource(context, names.CPU).limit.milli
    if milli < 1:
        raise Refused(f"{names.CPU}: a limit of less than 1m of a CPU cannot be had")
    return record._replace(cgroup=record.cgroup._replace(cpu_milli=milli))


def _memory(value: object, record: Confinement, context: IsolatorContext) -> Confinement:
    found = _resource(context, names.MEMORY)
    limit, request = found.limit.units, found.request.units
    if limit < MIN_MEMORY:
        raise Refused(
            f"{names.MEMORY}: no program can be started in {limit} bytes",
            hint=f"give it {MIN_MEMORY} at least; m means thousandths, M millions",
        )
    if request > limit:
        raise Refused(f"{names.MEMORY}: the request of {request} is above the limit of {limit}")
    requested = _has(value, "request") and _has(value, "limit")
    cgroup = record.cgroup._replace(memory_max=limit, memory_low=request if requested else None)
    return record._replace(cgroup=cgroup)


def _block_bandwidth(_: object, record: Confinement, context: IsolatorContext) -> Confinement:
    rate = _rate(context, names.BLOCK_BANDWIDTH)
    limits = [limit._replace(read_bps=rate, write_bps=rate) for limit in _devices(record)]
    return record._replace(cgroup=record.cgroup._replace(io=tuple(limits)))


def _block_iops(_: object, record: Confinement, context: IsolatorContext) -> Confinement:
    rate = _rate(context, names.BLOCK_IOPS)
    limits = [limit._replace(read_iops=rate, write_iops=rate) for limit in _devices(record)]
    return record._replace(cgroup=record.cgroup._replace(io=tuple(limits)))


def _rate(context: IsolatorContext, name: str) -> int:
    rate = _resource(context, name).limit.units
    if rate < 1:
        raise Refused(f"{name}: the limit is less than 1 in a second")
    return rate


def _devices(record: Confinement) -> list[IoLimit]:
    """A limit for every block device, with what is already limited of it."""
    from podctl_isolators_linux.host import block_devices

    known = {limit.device: limit for limit in record.cgroup.io}
    return [known.get(device, IoLimit(device)) for device in block_devices()]


def _selinux_context(value: object, record: Confinement, _: IsolatorContext) -> Confinement:
    assert isinstance(value, dict)
    text = ":".join(value[part] for part in ("user", "role", "type", "level"))
    return record._replace(selinux_context=text)


def _resource(context: IsolatorContext, name: str) -> Resource:
    found = resource(context.isolators, name)
    assert found is not None
    return found


def _has(value: object, key: str) -> bool:
    return isinstance(value, dict) and value.get(key) not in (None, "")


CONTRIBUTIONS: Mapping[str, Contribute] = {
    "default": _default,
    names.CAPABILITIES_RETAIN: _capability_set,
    names.CAPABILITIES_REMOVE: _capability_set,
    names.SECCOMP_RETAIN: _seccomp_set,
    names.SECCOMP_REMOVE: _seccomp_set,
    names.NO_NEW_PRIVILEGES: _no_new_privileges,
    names.OOM_SCORE_ADJ: _oom_score_adj,
    names.CPU_SHARES: _cpu_shares,
    names.CPU: _cpu,
    names.MEMORY: _memory,
    names.BLOCK_BANDWIDTH: _block_bandwidth,
    names.BLOCK_IOPS: _block_iops,
    names.SELINUX_CONTEXT: _selinux_context,
}
