"""`podctl app stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    help="""Stop an app of a running pod: it is sent its stop signal, and SIGKILL when its time is
    over.

    Returns when nothing of it is left."""
)
@click.option("--app", metavar="NAME", required=True, help="The app.")
@click.argument("pod")
@click.pass_obj
def command(options: Globals, app: str, pod: str) -> None:
    """Ask, wait, see that it is gone."""
    options.require_root()
    from podctl.cli.output import say
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find
    from podctl.pods.mutable import stop

    pods = PodDirectories(options.data_dir)
    uuid = find(pods, pod).uuid
    stop(pods, uuid, app, lambda line: say(options.command, line))
