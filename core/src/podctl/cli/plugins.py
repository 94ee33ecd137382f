"""`podctl plugins`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import emit_json, table

if TYPE_CHECKING:
    from podctl.plugins.probe import State

HEADER = ("FAMILY", "NAME", "DISTRIBUTION", "VERSION", "STATE")


@click.command(help="List installed plugins and whether they can be loaded.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "json-pretty"]),
    help="Form of the output.",
)
@flag("--no-legend", help="Leave out the header line.")
def command(form: str | None, no_legend: bool) -> None:
    """Load every provider in a child and print what came of it."""
    from podctl.plugins import snapshot
    from podctl.plugins.probe import probe

    states = probe(snapshot())
    if form in (None, "table"):
        table(map(_row, states), None if no_legend else HEADER)
    else:
        emit_json([_record(state) for state in states], pretty=form == "json-pretty")


def _family(state: State) -> str:
    return state.provider.group.removeprefix("podctl.")


def _row(state: State) -> tuple[str, ...]:
    found = state.provider
    text = f"{state.state}: {state.reason}" if state.reason else state.state
    return _family(state), found.name, found.distribution, found.version, text


def _record(state: State) -> dict[str, object]:
    found = state.provider
    return {
        "family": _family(state),
        "name": found.name,
        "distribution": found.distribution,
        "version": found.version,
        "entry_point": found.target,
        "state": state.state,
        **({"reason": state.reason} if state.reason else {}),
    }
