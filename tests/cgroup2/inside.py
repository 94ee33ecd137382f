"""Runs in the guest: pods under cgroup v2, and what became of them, as one JSON object.

Argument: a directory to work in.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podctl.errors import PodctlError
from podctl.model.isolators import Isolator
from podctl.pods.enter import enter
from podctl.sys.cgroups import Hierarchies
from podctl.testing.pods import PodFactory, Process, confined, start
from podctl_stage1_fly.hooks import fly
from podctl_stage1_nspawn.hooks import nspawn

if TYPE_CHECKING:
    from collections.abc import Callable

GROW = "x=0123456789abcdef; while [ ${#x} -lt 30000000 ]; do x=$x$x; done; echo ${#x}"
SPIN = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
SEE = (
    "cat /proc/self/cgroup /sys/fs/cgroup/pids.max; echo 1 >/sys/fs/cgroup/pids.max || echo refused"
)
DEVICES = (
    "mknod /dev/mine c 1 3 && cat /dev/mine && echo null; mknod /dev/k c 1 11; head -c1 /dev/k"
)


class Runs:
    """Runs pods of one flavor and tells of them."""

    def __init__(self, provider: Any, factory: PodFactory) -> None:
        self.provider = provider
        self.factory = factory

    def run(
        self, script: str, isolators: dict[str, Any], look: Callable[[Path], object] | None = None
    ) -> dict[str, object]:
        """How a script ends; `look` is shown the app's group, once it has ended."""
        given = [Isolator(name, value) for name, value in isolators.items()]
        pod = self.factory.pod("/bin/sh", "-c", script, isolators=given)
        pod = confined(self.provider.stage1_describe(), pod)
        self.provider.stage1_prepare(pod=pod)
        group = Path(f"/sys/fs/cgroup/podctl/{pod.uuid}/app")
        with start(self.provider.stage1_plan(pod=pod), pod) as process:
            done = process.wait()
            seen = None if look is None else look(group)
        return {"code": done.code, "out": done.out, "err": done.err, "seen": seen,
                "left": group.parent.exists()}  # fmt: skip

    def entered(self) -> dict[str, object]:
        """Where a process that entered is."""
        limit = Isolator("resource/memory", {"limit": "64Mi"})
        pod = self.factory.pod("/bin/sh", "-c", "echo up; exec sleep 1000", isolators=[limit])
        pod = confined(self.provider.stage1_describe(), pod)
        self.provider.stage1_prepare(pod=pod)
        with start(self.provider.stage1_plan(pod=pod), pod) as process:
            if process.read_line() != "up\n":
                raise ValueError(f"the pod did not start: {process.wait()}")
            argv = ("/bin/sh", "-c", "echo up; exec sleep 1000")
            plan = self.provider.stage1_enter(pod=pod, app="app", argv=argv)
            group = Path(f"/sys/fs/cgroup/podctl/{pod.uuid}/app")
            with Process(lambda: enter(plan)) as inside:
                line = inside.read_line()
                count = len((group / "cgroup.procs").read_text().split())
                if line != "up\n":
                    raise ValueError(f"nobody entered: {inside.wait()}")
            self.provider.stage1_stop(pod=pod, force=True)
            process.reap()
        return {"seen": count}


def field(name: str, key: str) -> Callable[[Path], int]:
    """Reads one number of a flat keyed file."""

    def look(group: Path) -> int:
        lines = (group / name).read_text().splitlines()
        return int(dict(line.split() for line in lines)[key])

    return look


def text(*names: str) -> Callable[[Path], list[str]]:
    """Reads files."""
    return lambda group: [(group / name).read_text().strip() for name in names]


def everything(directory: str) -> dict[str, object]:
    """All observations, by name."""
    found: dict[str, object] = {"controllers": sorted(Hierarchies().controllers())}
    for provider in (nspawn, fly):
        name = provider.stage1_describe().name
        runs = Runs(provider, PodFactory(f"{directory}/{name}"))
        memory = {"resource/memory": {"limit": "16Mi"}}
        found[f"{name} memory"] = runs.run(GROW, memory, field("memory.events", "oom_kill"))
        found[f"{name} no memory limit"] = runs.run(GROW, {})
        for limit in ("50m", "64"):
            isolators = {"resource/cpu": {"limit": limit}}
            look = field("cpu.stat", "nr_throttled")
            found[f"{name} cpu {limit}"] = runs.run(SPIN, isolators, look)
        values = {
            "os/linux/cpu-shares": 77,
            "resource/memory": {"request": "32Mi", "limit": "64Mi"},
            "resource/cpu": {"limit": "500m"},
        }
        look_at = text("cpu.weight", "memory.max", "memory.low", "cpu.max", "memory.swap.max")
        found[f"{name} files"] = runs.run("true", values, look_at)
        found[f"{name} entered"] = runs.entered()
    runs = Runs(nspawn, PodFactory(f"{directory}/more"))
    found["pids"] = runs.run("true", {}, text("pids.max"))
    found["inside"] = runs.run(SEE, {})
    found["devices"] = runs.run(DEVICES, {})
    return found


def main(directory: str) -> int:
    """Write what was found to the second serial line."""
    try:
        answer = json.dumps(everything(directory))
    except (OSError, PodctlError, ValueError, AssertionError):
        answer = json.dumps({"error": traceback.format_exc()})
    with open("/dev/ttyS1", "w") as file:
        file.write(answer + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
