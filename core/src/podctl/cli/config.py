"""`podctl config`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import emit_json

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(help="Print the effective configuration as JSON, credentials included.")
@flag("--pretty-print", default=True, help="Indent the JSON (default true).")
@click.pass_obj
def command(options: Globals, pretty_print: bool) -> None:
    """Print every effective item in the form of the configuration files."""
    emit_json({"stage0": options.config().entries()}, pretty=pretty_print)
