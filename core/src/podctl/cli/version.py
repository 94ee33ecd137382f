"""`podctl version`."""

from __future__ import annotations

import click

from podctl import __version__
from podctl.cli.output import emit_json, out

APPC_VERSION = "0.8.11"


@click.command(help="Print versions.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "json-pretty"]),
    help="Form of the output.",
)
def command(form: str | None) -> None:
    """Print podctl's version, the appc version it speaks, the interpreter and the platform."""
    import os
    import sys

    host = os.uname()
    interpreter = ".".join(map(str, sys.version_info[:3]))
    facts = {
        "podctl Version": __version__,
        "appc Version": APPC_VERSION,
        "Python Version": interpreter,
        "OS/Arch": f"{host.sysname.lower()}/{host.machine}",
    }
    if form in (None, "text"):
        for name, value in facts.items():
            out(f"{name}: {value}")
    else:
        emit_json(facts, pretty=form == "json-pretty")
