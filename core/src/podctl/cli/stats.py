"""`podctl stats`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from podctl.cli.options import flag
from podctl.cli.output import emit_json, is_terminal, table
from podctl.errors import PodctlError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.cli.context import Globals
    from podctl.pods.directories import Pod, PodDirectories
    from podctl.pods.usage import Usage

_HEADER = ("POD", "NAME", "CPU %", "MEMORY", "LIMIT", "PIDS", "READ", "WRITTEN")
#: seconds between two samples, and before the first one is shown
_INTERVAL, _FIRST = 1.0, 0.25
_HOME = "\x1b[H\x1b[J"


@click.command(
    help="""Show what running pods use, every second until interrupted.

    100 % of CPU is one processor. Memory is what control groups count, less file caches that can be
    given up; for a pod without control groups it is the sum of its processes' own shares."""
)
@flag("--no-stream", help="Look once.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "json-pretty"]),
    help="Form of the output.",
)
@click.argument("pods", metavar="[POD]...", nargs=-1)
@click.pass_obj
def command(options: Globals, no_stream: bool, form: str | None, pods: tuple[str, ...]) -> None:
    """Two looks make a sample: processor time is what lies between."""
    options.require_root()
    from podctl.pods.directories import PodDirectories

    directories = PodDirectories(options.data_dir)
    shown = form in (None, "table")
    earlier = _measure(directories, pods)
    time.sleep(_FIRST)
    while True:
        now = _measure(directories, pods)
        samples = [_sample(pod, now[pod.uuid], earlier.get(pod.uuid)) for pod in _pods(now)]
        if shown:
            if not no_stream and is_terminal(sys.stdout):
                sys.stdout.write(_HOME)
            table([_row(sample) for sample in samples], _HEADER)
        else:
            emit_json(samples, pretty=form == "json-pretty")
        if no_stream or (pods and not now):
            return
        sys.stdout.flush()
        earlier = now
        time.sleep(_INTERVAL)


#: UUID -> the pod, when it was measured, and what it used
Measured = dict[str, "tuple[Pod, float, Usage]"]


def _measure(directories: PodDirectories, names: Sequence[str]) -> Measured:
    """Measure the pods named, or all that run. One that ends meanwhile is left out."""
    from podctl.pods.directories import RUN
    from podctl.pods.find import find
    from podctl.pods.signalling import RunningPod
    from podctl.pods.usage import usage

    pods = [find(directories, name) for name in names] or directories.walk([RUN])
    found: Measured = {}
    for pod in pods:
        if pod.state == "running":
            try:
                found[pod.uuid] = (pod, time.monotonic(), usage(RunningPod(pod)))
            except PodctlError:
                if names:
                    raise
    return found


def _pods(measured: Measured) -> list[Pod]:
    return [pod for pod, _, _ in measured.values()]


def _sample(
    pod: Pod, now: tuple[Pod, float, Usage], earlier: tuple[Pod, float, Usage] | None
) -> dict[str, Any]:
    from podctl.pods.podnames import name_of

    _, moment, used = now
    percent = 0.0
    if earlier is not None and moment > earlier[1]:
        spent = used.cpu_seconds - earlier[2].cpu_seconds
        percent = max(0.0, 100 * spent / (moment - earlier[1]))
    sample = {
        "name": pod.uuid,
        "pod_name": name_of(pod.directory),
        "cpu_percent": round(percent, 2),
        "cpu_seconds": used.cpu_seconds,
        "memory_bytes": used.memory,
        "memory_limit_bytes": used.memory_limit,
        "pids": used.pids,
        "read_bytes": used.read,
        "written_bytes": used.written,
        "source": "cgroup" if used.grouped else "processes",
    }
    return {key: value for key, value in sample.items() if value is not None}


def _row(sample: dict[str, Any]) -> tuple[str, ...]:
    from podctl.cli.image_list import human_size

    limit = sample.get("memory_limit_bytes")
    return (
        sample["name"][:8],
        sample.get("pod_name", ""),
        f"{sample['cpu_percent']:.1f}",
        human_size(sample["memory_bytes"]),
        "" if limit is None else human_size(limit),
        str(sample["pids"]),
        human_size(sample["read_bytes"]),
        human_size(sample["written_bytes"]),
    )
