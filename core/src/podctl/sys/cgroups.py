"""Control groups: where a process is, and how to be there too."""

from __future__ import annotations

import os


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
        point, below = known
        directory = os.path.normpath(f"{point}/{os.path.relpath(path, below)}")
        with open(f"{directory}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
