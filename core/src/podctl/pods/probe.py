"""Whether a pod lives, asked for a thousand pods at a time and without waking anything.

Root asks with a shared, non-blocking flock(2). Others may not open lock files (whoever may open
one could hold it, and a pod would look alive for ever); for them /proc/locks is read once.
"""

from __future__ import annotations

import os
from json import JSONDecoder

from podctl.sys.locks import lock

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_RECORD = 4096
_DECODER = JSONDecoder()


#: a pod's first process (the fields of podctl.sys.procs.Instance), and when that was written down
#: in seconds since the epoch. A plain tuple: there may be a thousand.
Record = tuple[int, int, str, int, float]


class LockProbe:
    """Answers for the pods below one directory.

    Args:
        root: directory of all pods.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._kernel_locks: set[tuple[str, int]] | None = None
        self._device = ""
        self._boot_id: str | None = None

    def look(self, path: str) -> tuple[bool, float] | None:
        """Return (whether a process holds the exclusive lock, mtime) of a lock file.

        None when it is missing. Whoever may not open it is answered from /proc/locks.
        """
        try:
            fd = os.open(path, _FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            return self._from_kernel_table(path)
        try:
            return not lock(fd, exclusive=False, blocking=False), os.fstat(fd).st_mtime
        finally:
            os.close(fd)

    def lives(self, directory: str, record: Record, survivors: Survivors) -> bool:
        """Whether a process of a pod lives although the pod's lock is free.

        Some daemons close every descriptor they inherit, the lock's among them. A process number
        alone is never believed.

        Args:
            survivors: looked up after the lock was seen free, so nobody can appear in between.
        """
        pid, start_time, boot_id, namespace, _ = record
        if boot_id != self._boot():
            return False
        survivors.look()
        from podctl.sys import procs

        if pid in survivors.processes and procs.start_time(pid) == start_time:
            return True
        uuid = os.path.basename(directory)
        candidates = survivors.namespaces.get(namespace, ())
        if not any(procs.names_pod(pid, uuid, survivors.mount_tables) for pid in candidates):
            return False
        instance = procs.Instance(pid, start_time, boot_id, namespace)
        return bool(procs.pod_processes(directory, instance, survivors.namespaces))

    def _boot(self) -> str:
        if self._boot_id is None:
            with open("/proc/sys/kernel/random/boot_id") as file:
                self._boot_id = file.read().strip()
        return self._boot_id

    def _from_kernel_table(self, path: str) -> tuple[bool, float] | None:
        if self._kernel_locks is None:
            self._kernel_locks = _exclusive_locks()
            self._device = _device_of(self._root)
        try:
            status = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return (self._device, status.st_ino) in self._kernel_locks, status.st_mtime


class Survivors:
    """The processes of this host, looked up when first asked for.

    Attributes:
        processes: their numbers.
        namespaces: mount namespace -> process numbers, of those we may look at.
        mount_tables: process number -> its mountinfo, of those that were read.
    """

    __slots__ = ("_looked", "mount_tables", "namespaces", "processes")

    def __init__(self) -> None:
        self.processes: frozenset[int] = frozenset()
        self.namespaces: dict[int, list[int]] = {}
        self.mount_tables: dict[int, bytes] = {}
        self._looked = False

    def look(self) -> None:
        """Go through /proc, once."""
        if not self._looked:
            from podctl.sys.procs import scan_mount_namespaces

            self.processes = frozenset(int(name) for name in os.listdir("/proc") if name.isdigit())
            self.namespaces = scan_mount_namespaces()
            self._looked = True


def read_record(path: str) -> Record | None:
    """A pod's instance record; None when it is missing or damaged."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        text = os.read(fd, _MAX_RECORD).decode("ascii")
        written = os.fstat(fd).st_mtime
        value = _DECODER.raw_decode(text)[0]
        pid, start, boot = value["pid"], value["start_time"], value["boot_id"]
        namespace = value["mount_namespace"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    finally:
        os.close(fd)
    if type(pid) is int and type(start) is int and type(namespace) is int:
        return pid, start, boot, namespace, written
    return None


def _exclusive_locks() -> set[tuple[str, int]]:
    """(device, inode) of every exclusively flocked file, from /proc/locks (proc(5)).

    A line reads `7: FLOCK  ADVISORY  WRITE 4711 fe:01:131090 0 EOF`; blocked ones have `->`.
    """
    found = set()
    with open("/proc/locks") as file:
        for line in file:
            fields = line.split()
            if fields[1:2] == ["FLOCK"] and fields[3:4] == ["WRITE"]:
                major, minor, inode = fields[5].split(":")
                found.add((f"{int(major, 16)}:{int(minor, 16)}", int(inode)))
    return found


def _device_of(path: str) -> str:
    """`major:minor` as the kernel prints it for the filesystem `path` lies on.

    stat(2) would answer differently on filesystems with subvolumes (btrfs); mountinfo does not.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            number = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split(" ", 3)
            if fields[0] == number:
                return fields[2]
    return ""
