"""`podctl app start`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(help="""Start an app of a running pod; once more, if it has ended.""")
@click.option("--app", metavar="NAME", required=True, help="The app.")
@click.argument("pod")
@click.pass_obj
def command(options: Globals, app: str, pod: str) -> None:
    """Ask the pod's first process to."""
    options.require_root()
    from podctl.cli.output import say
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find
    from podctl.pods.mutable import start

    pods = PodDirectories(options.data_dir)
    uuid = find(pods, pod).uuid
    start(pods, uuid, app, lambda line: say(options.command, line))
