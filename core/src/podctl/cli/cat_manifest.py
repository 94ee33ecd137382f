"""`podctl cat-manifest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import emit_json

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(help="Print the manifests of pods, as they are run.")
@flag("--pretty-print", default=True, help="Indent the JSON (default true).")
@click.option("--uuid-file", metavar="FILE", help="Read the UUID from this file.")
@click.argument("uuids", metavar="[UUID]...", nargs=-1)
@click.pass_obj
def command(
    options: Globals, pretty_print: bool, uuid_file: str | None, uuids: tuple[str, ...]
) -> None:
    """Print one document after the other."""
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find, named
    from podctl.pods.summary import manifest_of

    pods = PodDirectories(options.data_dir)
    for uuid in named(uuids, uuid_file):
        emit_json(manifest_of(find(pods, uuid)), pretty=pretty_print)
