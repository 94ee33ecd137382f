"""`podctl top`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.output import emit_json, table

if TYPE_CHECKING:
    from podctl.cli.context import Globals

_HEADER = ("APP", "PID", "INSIDE", "USER", "STATE", "MEMORY", "TIME", "COMMAND")


@click.command(
    help="""List the processes of a running pod.

    PID is a process's number on the host, INSIDE the one in the pod, USER its user id there."""
)
@click.option("--app", metavar="NAME", help="Only this app's.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "json-pretty"]),
    help="Form of the output.",
)
@click.argument("pod")
@click.pass_obj
def command(options: Globals, app: str | None, form: str | None, pod: str) -> None:
    """Look once, print."""
    options.require_root()
    from podctl.cli.image_list import human_size
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find
    from podctl.pods.processes import processes
    from podctl.pods.signalling import RunningPod

    found = processes(RunningPod(find(PodDirectories(options.data_dir), pod)), app)
    if form not in (None, "table"):
        emit_json([one._asdict() for one in found], pretty=form == "json-pretty")
        return
    rows = [
        (one.app, str(one.pid), str(one.inside), str(one.uid), one.state,
         human_size(one.memory), _clock(one.seconds), one.command)
        for one in found
    ]  # fmt: skip
    table(rows, _HEADER)


def _clock(seconds: float) -> str:
    """Processor time: `0:03`, `12:34`, `1:02:03`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
