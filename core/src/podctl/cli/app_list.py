"""`podctl app list`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import emit_json, table

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(help="List the apps of a pod.")
@flag("--no-legend", help="Leave out the header line.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "json-pretty"]),
    help="Form of the output.",
)
@click.argument("pod")
@click.pass_obj
def command(options: Globals, no_legend: bool, form: str | None, pod: str) -> None:
    """Print a line for each."""
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find
    from podctl.pods.summary import summarise

    apps = summarise(find(PodDirectories(options.data_dir), pod)).get("apps", [])
    if form in (None, "table"):
        rows = [(app["name"], app["state"]) for app in apps]
        table(rows, None if no_legend else ("NAME", "STATE"))
    else:
        emit_json(apps, pretty=form == "json-pretty")
