"""Control groups: where a process is, how to be there too, and groups of podctl's own.

Versions 1 and 2 of the kernel's interface (cgroups(7)), and hosts that have both. A pod has one
group and below it one for each app, in every hierarchy that limits something: below `podctl` in the
hierarchy's root, or, on a host with systemd, inside the group podctl was started in; of version 2
only where the unit has Delegate=yes, since a group with processes cannot hand on controllers.
"""

from __future__ import annotations

import os

from podctl.sys import constants as c
from podctl.sys.calls import filesystem_magic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: directory of podctl's groups where there is no systemd
TOP = "podctl"
#: what a pod has groups in: controllers of v1, of v2
_V1 = ("blkio", "cpu", "cpuacct", "devices", "memory", "pids")
_V2 = ("cpu", "io", "memory", "pids")
#: of a v2 pod: what is not an app
_OTHERS = "_supervisor"
_PROCS = "cgroup.procs"
#: rounds of removing: a process that was killed leaves its group a moment later
_ROUNDS = 2000
#: seconds after which an empty group is nobody's
_ORPHANED = 3600.0
_MAGICS = frozenset({c.CGROUP_SUPER_MAGIC, c.CGROUP2_SUPER_MAGIC})


def memberships(pid: int | str) -> dict[str, str]:
    """Hierarchy -> path below its root, from /proc/PID/cgroup.

    A v1 hierarchy is named by its controllers or `name=...`, the v2 one by the empty string.
    """
    with open(f"/proc/{pid}/cgroup") as file:
        fields = [line.rstrip("\n").split(":", 2) for line in file]
    return {controllers: path for _, controllers, path in fields}


def hierarchies() -> dict[str, tuple[str, str]]:
    """Hierarchy -> (mount point, path inside the hierarchy that is mounted there)."""
    found: dict[str, tuple[str, str]] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if not after.startswith("cgroup"):
                continue
            fields, (kind, _, options) = before.split(), after.split(" ", 2)
            if kind == "cgroup2":
                found.setdefault("", (fields[4], fields[3]))
            elif kind == "cgroup":
                for option in options.strip().split(","):
                    found.setdefault(option, (fields[4], fields[3]))
    return found


def join_cgroups_of(pid: int) -> None:
    """Move the calling process into every control group `pid` is in.

    Raises:
        OSError: one of them cannot be reached or joined.
    """
    own, mounted = memberships("self"), hierarchies()
    for hierarchy, path in memberships(pid).items():
        if own.get(hierarchy) == path:
            continue
        known = mounted.get(hierarchy.split(",")[0])
        if known is None:
            raise OSError(f"the control group hierarchy {hierarchy or 'v2'} is not mounted")
        join([f"{_below(known, path)}/{_PROCS}"])


def join(files: Iterable[str]) -> None:
    """Move the calling process into groups, given by their `cgroup.procs`. Raises OSError."""
    for name in files:
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            # The writer, whatever its number is in the reader's process namespace.
            os.write(fd, b"0")
        finally:
            os.close(fd)


class Hierarchies:
    """The hierarchies of this host that limit something.

    Attributes:
        bases: mount point or directory -> (its controllers, whether it is of version 2): where a
            pod's group is made.
    """

    def __init__(self) -> None:
        self.bases: dict[str, tuple[set[str], bool]] = {}
        self._nested: set[str] = set()
        own = memberships("self") if os.path.isdir("/run/systemd/system") else None
        for hierarchy, known in hierarchies().items():
            if hierarchy and hierarchy not in _V1:
                continue
            base = known[0]
            if own is not None:
                unit = _below(known, _membership(own, hierarchy))
                if hierarchy or _is_delegated(unit):
                    base = unit
                    self._nested.add(base)
            if hierarchy:
                self.bases.setdefault(base, (set(), False))[0].add(hierarchy)
            elif offered := set(_read(f"{base}/cgroup.controllers").split()) & set(_V2):
                # Devices are no controller of version 2 but programs (bpf(2)).
                self.bases[base] = (offered | {"devices"}, True)

    def controllers(self) -> set[str]:
        """Names of version 1."""
        found = set().union(*(names for names, _ in self.bases.values()))
        return {"blkio" if name == "io" else name for name in found}

    def group(self, base: str, uuid: str) -> str:
        """Directory of a pod's group."""
        return f"{base}/{TOP}-{uuid}" if base in self._nested else f"{base}/{TOP}/{uuid}"

    def groups(self, uuid: str) -> list[str]:
        """The pod's group in each hierarchy."""
        return [self.group(base, uuid) for base in self.bases]


def needed_controllers(limits: Mapping[str, object]) -> set[str]:
    """Controllers, by their names of version 1, that limits take.

    Args:
        limits: the fields of podctl.model.confinement.CgroupLimits.
    """
    wanted = {
        "memory_max": "memory",
        "memory_low": "memory",
        "cpu_milli": "cpu",
        "cpu_shares": "cpu",
        "pids_max": "pids",
        "devices": "devices",
        "io": "blkio",
    }
    return {name for field, name in wanted.items() if limits[field] not in (None, ())}


class PodGroups:
    """The control groups of one pod.

    Args:
        uuid: the pod's.
        directories: of a pod that runs, what `directories` were when it was started.
    """

    def __init__(self, uuid: str, directories: Iterable[str] | None = None) -> None:
        #: the pod's group in each hierarchy -> (its base, its controllers, whether it is v2)
        self._places: dict[str, tuple[str, set[str], bool]] = {}
        if directories is not None:
            self._places = {one: ("", *_kind_of(one)) for one in directories}
            return
        host = Hierarchies()
        for base, (controllers, unified) in host.bases.items():
            self._places[host.group(base, uuid)] = (base, controllers, unified)

    @property
    def directories(self) -> list[str]:
        """The pod's group in each hierarchy; made by make_app."""
        return list(self._places)

    def make_pod(self) -> None:
        """Make the pod's groups for apps that come later. Raises OSError as make_app."""
        for pod, (base, controllers, unified) in self._places.items():
            os.makedirs(pod, 0o755, exist_ok=True)
            if unified:
                self._delegate(base, pod, controllers - {"devices"})

    def make_app(self, app: str, limits: Mapping[str, object]) -> list[str]:
        """Make an app's groups and set their limits.

        Args:
            limits: the fields of podctl.model.confinement.CgroupLimits.

        Returns:
            The `cgroup.procs` files that the app's first process is to be written to.

        Raises:
            OSError: the kernel refuses a group or a limit, or a limit did not take effect.
        """
        joined = []
        for pod, (base, controllers, unified) in self._places.items():
            if unified and base:
                self._delegate(base, pod, controllers - {"devices"})
            group = f"{pod}/{app}"
            os.makedirs(group, 0o755, exist_ok=True)
            _check_kind(group)
            settings = _v2(limits, controllers) if unified else _v1(limits, controllers)
            for name, value in settings:
                _set(f"{group}/{name}", value)
            devices = limits["devices"]
            if unified and isinstance(devices, tuple | list):
                from podctl.sys.devicefilter import attach

                attach(group, devices)
            joined.append(f"{group}/{_PROCS}")
        return joined

    def _delegate(self, base: str, pod: str, controllers: set[str]) -> None:
        """Give the pod's group the controllers. A group of version 2 that hands some on has no
        process: ours go to one beside the apps'."""
        os.makedirs(f"{pod}/{_OTHERS}", 0o755, exist_ok=True)
        join([f"{pod}/{_OTHERS}/{_PROCS}"])
        words = " ".join(f"+{name}" for name in sorted(controllers))
        for group in dict.fromkeys((base, os.path.dirname(pod), pod)):
            _write(f"{group}/cgroup.subtree_control", words)


def remove(directories: Iterable[str], uuid: str) -> None:
    """Remove a pod's groups with all below, ending what still lives there. Idempotent.

    Args:
        directories: as PodGroups.directories had them.
        uuid: the pod's; a directory that is not named for it is left alone.

    Raises:
        OSError: a group stays busy.
    """
    for directory in directories:
        if uuid not in os.path.basename(directory) or not os.path.isdir(directory):
            continue
        _check_kind(directory)
        _remove(directory)


def remove_app(directories: Iterable[str], uuid: str, app: str) -> None:
    """Remove the groups of one app, ending what still lives there; as `remove`."""
    for directory in directories:
        if uuid in os.path.basename(directory) and os.path.isdir(f"{directory}/{app}"):
            _check_kind(directory)
            _remove(f"{directory}/{app}")


def sweep_empty(age: float = _ORPHANED) -> None:
    """Remove groups of pods that other hands deleted, with all of a data directory perhaps: those
    that nobody lives in and that are older than `age` seconds. A pod makes its own anew when it
    starts, so that a living data directory loses nothing."""
    import time

    for base in Hierarchies().bases:
        top = f"{base}/{TOP}"
        for name in os.listdir(top) if os.path.isdir(top) else ():
            group = f"{top}/{name}"
            if not os.path.isdir(group) or time.time() - os.stat(group).st_mtime < age:
                continue
            if not any(_read(f"{below}/{_PROCS}").strip() for below, _, _ in os.walk(group)):
                _remove_empty(group)


def _remove_empty(directory: str) -> None:
    try:
        for group, _, _ in os.walk(directory, topdown=False):
            os.rmdir(group)
    except OSError:
        # Somebody moved in; then it is no orphan.
        return


def kill(directories: Iterable[str]) -> int:
    """Send SIGKILL to every process of groups and of those below; returns how many there were."""
    count = 0
    for directory in directories:
        for group, _, _ in os.walk(directory):
            for pid in _read(f"{group}/{_PROCS}").split():
                # A number is at worst reused between two lines here, as for every killer without
                # cgroup.kill; the group is asked again right after.
                if pid != "0" and int(pid) != os.getpid():
                    count += 1
                    _signal(int(pid))
    return count


def _remove(directory: str) -> None:
    import time

    for attempt in range(_ROUNDS):
        try:
            for group, _, _ in os.walk(directory, topdown=False):
                os.rmdir(group)
            return
        except FileNotFoundError:
            continue
        except OSError:
            if attempt == _ROUNDS - 1:
                raise
            kill([directory])
            time.sleep(0.005)


def _signal(pid: int) -> None:
    # Not contextlib: the launcher inside a pod imports next to nothing.
    try:  # noqa: SIM105
        os.kill(pid, 9)
    except ProcessLookupError:
        pass


def _kind_of(directory: str) -> tuple[set[str], bool]:
    """Controllers of a group that is there, and whether it is of version 2."""
    names = {
        name
        for name, (point, _) in hierarchies().items()
        if directory.startswith(point + "/") and (not name or name in _V1)
    }
    if names - {""}:
        return names - {""}, False
    offered = set(_read(f"{directory}/cgroup.controllers").split()) & set(_V2)
    return offered | {"devices"}, True


def _is_delegated(group: str) -> bool:
    """Whether systemd has given the group away (systemd.resource-control(5), Delegate=)."""
    for name in ("trusted.delegate", "user.delegate"):
        try:
            return os.getxattr(group, name) == b"1"
        except OSError:
            continue
    return False


def _membership(own: Mapping[str, str], hierarchy: str) -> str:
    """Path of our group in a hierarchy, which is named by all its controllers."""
    for names, path in own.items():
        if hierarchy in names.split(","):
            return path
    return "/"


def _below(known: tuple[str, str], path: str) -> str:
    point, below = known
    return os.path.normpath(f"{point}/{os.path.relpath(path, below)}")


def _v1(limits: Mapping[str, object], controllers: set[str]) -> list[tuple[str, str]]:
    """(file, value) of each limit in a hierarchy of version 1, in the order to write them."""
    made: list[tuple[str, str]] = []
    if "memory" in controllers and limits["memory_max"] is not None:
        made.append(("memory.limit_in_bytes", str(limits["memory_max"])))
        # Only there where the kernel counts swap too.
        made.append(("?memory.memsw.limit_in_bytes", str(limits["memory_max"])))
    if "memory" in controllers and limits["memory_low"] is not None:
        made.append(("memory.soft_limit_in_bytes", str(limits["memory_low"])))
    if "cpu" in controllers and limits["cpu_milli"] is not None:
        quota, period = _quota(int(str(limits["cpu_milli"])))
        made += [("cpu.cfs_period_us", str(period)), ("cpu.cfs_quota_us", str(quota))]
    if "cpu" in controllers and limits["cpu_shares"] is not None:
        made.append(("cpu.shares", str(limits["cpu_shares"])))
    if "pids" in controllers and limits["pids_max"] is not None:
        made.append(("pids.max", str(limits["pids_max"])))
    if "blkio" in controllers:
        for device, *rates in _io(limits):
            files = ("read_bps", "write_bps", "read_iops", "write_iops")
            made += [
                (f"blkio.throttle.{file}_device", f"{device} {rate}")
                for file, rate in zip(files, rates, strict=True)
                if rate is not None
            ]
    devices = limits["devices"]
    if "devices" in controllers and isinstance(devices, tuple | list):
        made.append((">devices.deny", "a"))
        made += [(">devices.allow", rule) for rule in devices]
    return made


def _v2(limits: Mapping[str, object], controllers: set[str]) -> list[tuple[str, str]]:
    """(file, value) of each limit in the hierarchy of version 2."""
    made: list[tuple[str, str]] = []
    if "memory" in controllers and limits["memory_max"] is not None:
        made.append(("memory.max", str(limits["memory_max"])))
        made.append(("?memory.swap.max", "0"))
    if "memory" in controllers and limits["memory_low"] is not None:
        made.append(("memory.low", str(limits["memory_low"])))
    if "cpu" in controllers and limits["cpu_milli"] is not None:
        made.append(("cpu.max", "{} {}".format(*_quota(int(str(limits["cpu_milli"]))))))
    if "cpu" in controllers and limits["cpu_shares"] is not None:
        # The OCI runtimes' mapping of 2..262144 to 1..10000.
        weight = 1 + (int(str(limits["cpu_shares"])) - 2) * 9999 // 262142
        made.append(("cpu.weight", str(weight)))
    if "pids" in controllers and limits["pids_max"] is not None:
        made.append(("pids.max", str(limits["pids_max"])))
    if "io" in controllers:
        for device, *rates in _io(limits):
            keys = ("rbps", "wbps", "riops", "wiops")
            words = [
                f"{key}={rate}" for key, rate in zip(keys, rates, strict=True) if rate is not None
            ]
            made.append((">io.max", " ".join((str(device), *words))))
    return made


def _io(limits: Mapping[str, object]) -> Sequence[Sequence[object]]:
    found = limits["io"]
    return found if isinstance(found, tuple | list) else ()


def _quota(milli: int) -> tuple[int, int]:
    """(microseconds, period) of CPU time; the kernel takes no quota below a millisecond."""
    return (milli * 100, 100_000) if milli >= 10 else (milli * 1000, 1_000_000)


def _set(path: str, value: str) -> None:
    """Write a limit and see that it is there. `?` before the name: a file that may be missing; `>`:
    one that is not read back as it was written."""
    directory, name = os.path.split(path)
    path = f"{directory}/{name.lstrip('?>')}"
    if name[0] == "?" and not os.path.exists(path):
        return
    _write(path, value)
    if name[0] == ">":
        return
    found = _read(path).strip()
    # Bytes are rounded down to pages, rates of devices stand in lines of their own.
    if found == value or value in found.splitlines() or _same_pages(found, value):
        return
    raise OSError(f"{path} says {found} after {value} was written")


def _same_pages(found: str, value: str) -> bool:
    if not (found.isdecimal() and value.isdecimal()):
        return False
    page = os.sysconf("SC_PAGE_SIZE")
    return int(found) // page == int(value) // page


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be {text!r}: {error.strerror}") from None
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _check_kind(directory: str) -> None:
    """There are no links on a cgroupfs; whatever else a path might lead to is left alone."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if filesystem_magic(fd) not in _MAGICS:
            raise OSError(f"{directory} is on no cgroupfs")
    finally:
        os.close(fd)
