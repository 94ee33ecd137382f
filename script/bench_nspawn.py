"""Memory of a pod beside that of a plain container that boots systemd, for script/bench."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: seconds until something has started, far beyond what it takes
PATIENCE = 120


def memory(pid: int) -> dict[str, int]:
    """Proportional set size in KiB of a process and all it has started, by command."""
    found: dict[str, int] = {}
    for one in [pid, *descendants(pid)]:
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            name = Path(f"/proc/{one}/comm").read_text().strip()
        except OSError:
            continue
        size = re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)
        found[name] = found.get(name, 0) + (int(size.group(1)) if size else 0)
    return found


def descendants(pid: int) -> list[int]:
    """Every process below another."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    children = [int(word) for word in text.split()]
    return children + [one for child in children for one in descendants(child)]


def names(pid: int) -> set[str]:
    """What runs below a process."""
    found = set()
    for one in descendants(pid):
        try:
            found.add(Path(f"/proc/{one}/comm").read_text().strip())
        except OSError:
            continue
    return found


@contextmanager
def running(command: Sequence[str], ready: Callable[[int], bool]) -> Iterator[int]:
    """Start a container and wait until it has come up; yields the process that was started."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready(process.pid):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not come up")
            time.sleep(0.1)
        # What it does first is over.
        time.sleep(2)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def make_tree(directory: Path) -> None:
    """A Debian with systemd and nothing else, out of a mirror."""
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--include=systemd-sysv", "bookworm",
         str(directory)],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def compare(pod: Sequence[str], tree: Path) -> tuple[dict[str, int], dict[str, int]]:
    """KiB of a pod with sleep(1), and of systemd-nspawn that boots a tree."""
    with running(pod, lambda pid: "sleep" in names(pid)) as pid:
        ours = memory(pid)
    boot = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit",
            "--private-network", "--machine=podctl-bench", f"--directory={tree}"]  # fmt: skip
    with running(boot, lambda pid: "systemd-journal" in names(pid)) as pid:
        theirs = memory(pid)
    return ours, theirs
