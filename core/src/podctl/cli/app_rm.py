"""`podctl app rm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    help="""Remove an app from a pod: stop it if it runs, and delete its files.

    Of a pod that has ended only the files are left to be removed."""
)
@click.option("--app", metavar="NAME", required=True, help="The app.")
@click.argument("pod")
@click.pass_obj
def command(options: Globals, app: str, pod: str) -> None:
    """Stop, take out, delete."""
    options.require_root()
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find
    from podctl.pods.mutable import remove

    pods = PodDirectories(options.data_dir)
    uuid = find(pods, pod).uuid
    remove(pods, uuid, app)
