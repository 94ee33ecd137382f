"""What one app is held to, as a value: made before anything starts, carried out by a flavor.

A record begins empty, which holds the app to nothing. The providers of the family *isolators*
(podctl.api.hookspecs.IsolatorSpec) add to it, and a flavor carries out all of it or refuses.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.model.isolators import CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podctl.model.isolators import Isolator

#: setrlimit(2): name without RLIMIT_ -> number, the same on x86 and arm
RLIMITS = MappingProxyType({
    "CPU": 0, "FSIZE": 1, "DATA": 2, "STACK": 3, "CORE": 4, "RSS": 5, "NPROC": 6, "NOFILE": 7,
    "MEMLOCK": 8, "AS": 9, "LOCKS": 10, "SIGPENDING": 11, "MSGQUEUE": 12, "NICE": 13,
    "RTPRIO": 14, "RTTIME": 15,
})  # fmt: skip


class Rlimit(NamedTuple):
    """A resource limit of the process: a name of RLIMITS, and both values; None for infinity."""

    name: str
    soft: int | None
    hard: int | None


class IoLimit(NamedTuple):
    """What a control group may do with one block device (`MAJOR:MINOR`), in a second; None where
    there is no limit. Bytes (`bps`) and operations (`iops`)."""

    device: str
    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None


class CgroupLimits(NamedTuple):
    """Limits of a control group, independent of its version; None where there is no limit.

    Args:
        memory_max: bytes the group may use, swap included.
        memory_low: bytes that are taken from it last.
        cpu_milli: thousandths of one CPU's time.
        cpu_shares: weight beside other groups, 2 to 262144, 1024 where nothing is said.
        pids_max: processes and threads.
        io: limits per block device.
        devices: device nodes that may be made and used, as cgroup v1's devices.allow has them
            (`c 1:3 rwm`); every other one may not.
    """

    memory_max: int | None = None
    memory_low: int | None = None
    cpu_milli: int | None = None
    cpu_shares: int | None = None
    pids_max: int | None = None
    io: tuple[IoLimit, ...] = ()
    devices: tuple[str, ...] | None = None


class Confinement(NamedTuple):
    """What an app is held to. The names of the fields are what a flavor says it carries out.

    Args:
        capabilities: kernel names; exactly the bounding set, and the permitted and effective set
            of an app of user 0. Those of other users' apps are what the kernel leaves them (none,
            but for file capabilities). Inheritable and ambient sets are always empty. None: what
            podctl itself has.
        no_new_privileges: PR_SET_NO_NEW_PRIVS.
        seccomp: a filter as the kernel takes it (an array of struct sock_filter), installed last
            before execve; None for no filter.
        seccomp_summary: the filter in words.
        rlimits: resource limits.
        oom_score_adj: -1000 to 1000; None keeps podctl's own.
        selinux_context: `user:role:type:level`.
        cgroup: limits of the app's control group.
        masked_paths: files and directories of /proc and /sys that are hidden.
        read_only_paths: those that can only be read.
        sysctls: settings of the app's own namespaces (`net.ipv4.ip_forward`) -> value.
    """

    capabilities: frozenset[str] | None = None
    no_new_privileges: bool = False
    seccomp: bytes | None = None
    seccomp_summary: str = ""
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int | None = None
    selinux_context: str | None = None
    cgroup: CgroupLimits = CgroupLimits()
    masked_paths: tuple[str, ...] = ()
    read_only_paths: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = MappingProxyType({})

    def changed_fields(self, before: Confinement) -> list[str]:
        """Names of the fields that are not as in `before`."""
        return [name for name in self._fields if getattr(self, name) != getattr(before, name)]

    def to_value(self) -> dict[str, Any]:
        """The record as JSON values; complete, from_value reads it."""
        value = self._asdict()
        value["capabilities"] = sorted(self.capabilities) if self.capabilities is not None else None
        value["seccomp"] = (
            None if self.seccomp is None else b2a_base64(self.seccomp, newline=False).decode()
        )
        value["rlimits"] = [limit._asdict() for limit in self.rlimits]
        value["cgroup"] = self.cgroup._asdict()
        value["cgroup"]["io"] = [limit._asdict() for limit in self.cgroup.io]
        if self.cgroup.devices is not None:
            value["cgroup"]["devices"] = list(self.cgroup.devices)
        value["masked_paths"] = list(self.masked_paths)
        value["read_only_paths"] = list(self.read_only_paths)
        value["sysctls"] = dict(self.sysctls)
        return value

    @classmethod
    def from_value(cls, value: Mapping[str, Any]) -> Confinement:
        """Read what to_value made. Raises ValueError, TypeError or KeyError for anything else."""
        if value.keys() != set(cls._fields):
            raise ValueError("the record has other fields")
        names, program, cgroup = value["capabilities"], value["seccomp"], dict(value["cgroup"])
        cgroup["io"] = tuple(IoLimit(**limit) for limit in cgroup["io"])
        if cgroup["devices"] is not None:
            cgroup["devices"] = tuple(cgroup["devices"])
        record = cls(**value)
        return record._replace(
            capabilities=None if names is None else frozenset(names),
            seccomp=None if program is None else a2b_base64(program),
            rlimits=tuple(Rlimit(**limit) for limit in value["rlimits"]),
            cgroup=CgroupLimits(**cgroup),
            masked_paths=tuple(value["masked_paths"]),
            read_only_paths=tuple(value["read_only_paths"]),
            sysctls=dict(value["sysctls"]),
        )

    def to_numbers(self) -> dict[str, Any]:
        """What a process applies to itself, as podctl.sys.confine.Held; groups and paths are done
        from outside."""
        infinite = -1
        return {
            "capabilities": None
            if self.capabilities is None
            else capability_mask(self.capabilities),
            "no_new_privileges": self.no_new_privileges,
            "seccomp": self.seccomp,
            "rlimits": [
                (
                    RLIMITS[limit.name],
                    infinite if limit.soft is None else limit.soft,
                    infinite if limit.hard is None else limit.hard,
                )
                for limit in self.rlimits
            ],
            "oom_score_adj": self.oom_score_adj,
            "selinux_context": self.selinux_context,
        }

    def describe(self) -> list[str]:
        """The record as lines."""
        lines = []
        if self.capabilities is not None:
            names = sorted(name.removeprefix("CAP_") for name in self.capabilities)
            lines.append(f"capabilities: {' '.join(names) or 'none'}")
        if self.no_new_privileges:
            lines.append("no new privileges")
        if self.seccomp is not None:
            lines.append(f"system calls: {self.seccomp_summary or 'filtered'}")
        lines += [
            f"limit {limit.name.lower()}: {_number(limit.soft)}, hard {_number(limit.hard)}"
            for limit in self.rlimits
        ]
        if self.oom_score_adj is not None:
            lines.append(f"OOM score: {self.oom_score_adj:+d}")
        if self.selinux_context is not None:
            lines.append(f"SELinux context: {self.selinux_context}")
        lines += _describe_cgroup(self.cgroup)
        if self.masked_paths:
            lines.append(f"hidden: {' '.join(self.masked_paths)}")
        if self.read_only_paths:
            lines.append(f"read-only: {' '.join(self.read_only_paths)}")
        lines += [f"sysctl: {name}={text}" for name, text in self.sysctls.items()]
        return lines


#: holds an app to nothing
UNCONFINED = Confinement()
NO_LIMITS = CgroupLimits()


class IsolatorContext(NamedTuple):
    """What a provider of an isolator may know of the app beside the isolator's own value.

    Args:
        app: the app's name; empty when the pod as a whole is confined.
        flavor: name of the flavor.
        isolators: all isolators of the app that are in force, in order.
        defaults: whether the flavor holds every app to podctl's defaults: then an isolator of an
            image (`of_image`) must not ask for less.
        insecure: values of --insecure-options. Core itself takes out of the record what they
            waive.
    """

    app: str
    flavor: str
    isolators: tuple[Isolator, ...] = ()
    insecure: frozenset[str] = frozenset()
    defaults: bool = False


def capability_mask(names: Iterable[str]) -> int:
    """Capabilities as the kernel's bit mask.

    Raises:
        ValueError: a name is none of capabilities(7).
    """
    return sum(1 << CAPABILITIES.index(name) for name in set(names))


def _number(value: int | None) -> str:
    return "infinity" if value is None else str(value)


def _describe_cgroup(limits: CgroupLimits) -> list[str]:
    words = [
        ("memory", limits.memory_max, "bytes"),
        ("protected memory", limits.memory_low, "bytes"),
        ("CPU time", limits.cpu_milli, "thousandths of a CPU"),
        ("CPU shares", limits.cpu_shares, ""),
        ("processes", limits.pids_max, ""),
    ]
    lines = [f"{what}: {value} {unit}".rstrip() for what, value, unit in words if value is not None]
    for device in limits.io:
        rates = ", ".join(
            f"{name.replace('_', ' ')} {value}"
            for name, value in device._asdict().items()
            if name != "device" and value is not None
        )
        lines.append(f"block device {device.device}: {rates}")
    if limits.devices is not None:
        lines.append(f"devices: {', '.join(limits.devices)}")
    return lines
