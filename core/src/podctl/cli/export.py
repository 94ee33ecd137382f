"""`podctl export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(help="Write an exited pod's app, as it left its files, to OUTPUT.aci.")
@click.option("--app", metavar="NAME", help="The app, if the pod has several.")
@flag("--overwrite", help="Replace an existing file.")
@click.argument("uuid")
@click.argument("output", metavar="OUTPUT.aci")
@click.pass_obj
def command(options: Globals, app: str | None, overwrite: bool, uuid: str, output: str) -> None:
    """Find the pod and write the file."""
    options.require_root()
    from podctl.pods.directories import PodDirectories
    from podctl.pods.export import export
    from podctl.pods.find import find

    export(find(PodDirectories(options.data_dir), uuid), app, output, overwrite=overwrite)
