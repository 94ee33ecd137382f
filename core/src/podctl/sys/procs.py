"""Which process is it really: identity beyond the number, and who lives in a pod's mounts.

A process id alone is never believed: it is reused. An `Instance` adds the start time and the boot
it was taken in, and the mount namespace, by which the pod's later processes are found even when
the first one is gone and its lock with it (a daemon that forked and closed every descriptor).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: SD_LISTEN_FDS_START
FIRST_SOCKET = 3
#: name of the record in a pod's directory
RECORD = "instance"
_MAX_RECORD = 4096


class Instance(NamedTuple):
    """One process, for good.

    Args:
        pid: its number.
        start_time: field 22 of /proc/PID/stat, clock ticks after boot.
        boot_id: /proc/sys/kernel/random/boot_id of the boot it ran in.
        mount_namespace: inode number of /proc/PID/ns/mnt.
    """

    pid: int
    start_time: int
    boot_id: str
    mount_namespace: int

    def to_text(self) -> str:
        """The record's text (a JSON object)."""
        import json

        return json.dumps(self._asdict()) + "\n"


class Process(NamedTuple):
    """One process of this boot: its number, and its start in clock ticks after boot."""

    pid: int
    start_time: int


def boot_id() -> str:
    """The kernel's name for this boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """When the process started, clock ticks after boot; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses and may hold anything, `)` too.
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def mount_namespace(pid: int | str = "self") -> int | None:
    """Inode number of the process's mount namespace; None when it is gone or not ours to see."""
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def current_instance() -> Instance:
    """The calling process, as it will still be after execve."""
    pid = os.getpid()
    started, namespace = start_time(pid), mount_namespace()
    if started is None or namespace is None:
        raise OSError("/proc does not show this process")
    return Instance(pid, started, boot_id(), namespace)


def read_instance(directory: str) -> Instance | None:
    """The instance recorded in a pod's directory; None when there is none.

    Raises:
        ValueError: the record is damaged.
    """
    import json

    # Not above: whoever only asks who lives (`list`) needs no ctypes.
    from podctl.sys.files import read_small

    try:
        data = read_small(os.path.join(directory, RECORD), _MAX_RECORD)
    except FileNotFoundError:
        return None
    value = json.loads(data)
    if not isinstance(value, dict) or value.keys() != set(Instance._fields):
        raise ValueError(f"{directory}/{RECORD} has not the fields of an instance")
    numbers = (value["pid"], value["start_time"], value["mount_namespace"])
    if not all(type(number) is int for number in numbers) or type(value["boot_id"]) is not str:
        raise ValueError(f"{directory}/{RECORD} has a field of the wrong type")
    return Instance(**value)


def is_running(instance: Instance, *, boot: str | None = None) -> bool:
    """Whether exactly this process still runs. `boot` is boot_id() if known already."""
    if instance.boot_id != (boot or boot_id()):
        return False
    return start_time(instance.pid) == instance.start_time


def open_instance(instance: Instance) -> int | None:
    """A pidfd of exactly this process, or None when it is gone: signals sent through it cannot
    reach a stranger that got the number later."""
    try:
        pidfd = os.pidfd_open(instance.pid)
    except ProcessLookupError:
        return None
    # The start time is read while the descriptor pins the number: no reuse in between.
    if is_running(instance):
        return pidfd
    os.close(pidfd)
    return None


def open_process(process: Process) -> int | None:
    """A pidfd of exactly this process, or None when it is gone."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if start_time(process.pid) == process.start_time:
        return pidfd
    os.close(pidfd)
    return None


def look_at(pids: Iterable[int]) -> list[Process]:
    """Those of the processes that live."""
    found = ((pid, start_time(pid)) for pid in pids)
    return [Process(pid, started) for pid, started in found if started is not None]


def scan_mount_namespaces() -> dict[int, list[int]]:
    """Mount namespace -> process ids, of every process we may look at. One pass over /proc."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (namespace := mount_namespace(name)) is not None:
            found.setdefault(namespace, []).append(int(name))
    return found


def names_pod(pid: int, uuid: str, known: dict[int, bytes] | None = None) -> bool:
    """Whether a mount of the process's namespace is named for the pod (by source or by path).

    Args:
        known: mount tables read before, added to: the kernel reuses namespace numbers soonest
            first, so a thousand dead pods can share the number of one living process.
    """
    if known is not None and pid in known:
        return uuid.encode() in known[pid]
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            table = file.read()
    except OSError:
        table = b""
    if known is not None:
        known[pid] = table
    return uuid.encode() in table


def pod_processes(
    directory: str, instance: Instance, namespaces: Mapping[int, Sequence[int]] | None = None
) -> list[int]:
    """Processes that live in the pod's mount namespace.

    A namespace number is reused like a process id, so its mounts must name the pod as well. What
    unshared its mounts once more is not found.

    Args:
        directory: the pod's directory; its last component is the UUID.
        namespaces: scan_mount_namespaces() if at hand.
    """
    if instance.boot_id != boot_id():
        return []
    if instance.mount_namespace == mount_namespace():
        # A flavor that stays in our own namespace: living in it says nothing.
        return []
    uuid = os.path.basename(directory.rstrip("/"))
    if namespaces is None:
        namespaces = scan_mount_namespaces()
    candidates = namespaces.get(instance.mount_namespace, ())
    return sorted(pid for pid in candidates if names_pod(pid, uuid) and start_time(pid) is not None)


def pod_alive(directory: str, namespaces: Mapping[int, Sequence[int]] | None = None) -> bool:
    """Whether a process of the pod lives although nobody holds its lock.

    Cheap in the usual cases (no record, another boot, the first process still there); otherwise
    every process's namespace is looked at, or the `namespaces` given.

    Raises:
        ValueError: the pod's record is damaged.
    """
    instance = read_instance(directory)
    if instance is None or instance.boot_id != boot_id():
        return False
    return is_running(instance) or bool(pod_processes(directory, instance, namespaces))


def signal_pod(directory: str, instance: Instance, signal: int) -> int:
    """Send a signal to every process in the pod's mount namespace; returns how many got it.

    Each is pinned by a pidfd and judged again before it is signalled: no stranger is reached.
    """
    uuid = os.path.basename(directory.rstrip("/"))
    count = 0
    for pid in pod_processes(directory, instance):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if mount_namespace(pid) == instance.mount_namespace and names_pod(pid, uuid):
                count += send(pidfd, signal)
        finally:
            os.close(pidfd)
    return count


def send(pidfd: int, signal: int) -> bool:
    """Signal the process a pidfd is for; False when it has ended."""
    from podctl.sys.namespaces import pidfd_send_signal

    try:
        pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        return False
    return True


def passed_sockets() -> int:
    """How many sockets a supervisor passed to this process, from descriptor FIRST_SOCKET on
    (sd_listen_fds(3)); none where they are another process's."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return 0
    return int(count)
