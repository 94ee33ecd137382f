"""`podctl kill`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.output import out, say

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    help="""Send a signal to the apps of running pods.

    SIGKILL, the default, ends the whole pod; any other signal reaches the first process of each
    app."""
)
@click.option(
    "-s", "--signal", "text", metavar="SIGNAL", default="KILL", help="Name or number (KILL)."
)
@click.option("--app", metavar="NAME", help="Only this app.")
@click.argument("pods", metavar="POD...", nargs=-1, required=True)
@click.pass_obj
def command(options: Globals, text: str, app: str | None, pods: tuple[str, ...]) -> None:
    """Signal each pod; returns at once."""
    options.require_root()
    from podctl.errors import PodctlError
    from podctl.model.signals import signal_number
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find
    from podctl.pods.signalling import kill

    number = signal_number(text)
    directories = PodDirectories(options.data_dir)
    failed = 0
    for name in pods:
        try:
            pod = find(directories, name)
            kill(pod, number, app, options.warn)
        except (PodctlError, OSError) as error:
            say(options.command, str(error), error=True)
            failed += 1
        else:
            out(f'"{pod.uuid}"')
    if failed:
        raise PodctlError(f"failed to signal {failed} pod(s)")
