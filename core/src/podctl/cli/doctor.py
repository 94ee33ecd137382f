"""`podctl doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.output import emit_json, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.cli.context import Globals
    from podctl.cli.hostchecks import Check

HELP = """Say what this host lacks and what that disables.

Exit status 0 says that at least one stage1 flavor is installed and that this host lacks nothing
any installed flavor needs, else 254."""


@click.command(help=HELP)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "json-pretty"]),
    help="Form of the output.",
)
@click.pass_obj
def command(options: Globals, form: str | None) -> int:
    """Print host checks, then plugins; the exit code is about the installed flavors."""
    from podctl.cli.hostchecks import MISSING, host_checks

    checks = [*host_checks(options.data_dir), *_plugin_checks()]
    if form in (None, "table"):
        table([tuple(check) for check in checks], ("CHECK", "STATE", "FOUND", "DISABLES"))
    else:
        emit_json([check._asdict() for check in checks], pretty=form == "json-pretty")
    flavors = [check for check in checks if check.name.startswith("flavor ")]
    return 254 if not flavors or any(check.state == MISSING for check in flavors) else 0


def _plugin_checks() -> Iterator[Check]:
    from podctl.cli.hostchecks import MISSING, OK, Check
    from podctl.plugins import snapshot
    from podctl.plugins.families import BY_GROUP, STAGE1
    from podctl.plugins.probe import probe

    for state in probe(snapshot()):
        found = state.provider
        kind = "flavor" if found.group == STAGE1.group else BY_GROUP[found.group].noun
        name = f"{kind} {found.name}"
        if state.state != "ok":
            yield Check(name, MISSING, state.reason, f"{kind} {found.name}")
        elif state.lacks:
            yield Check(name, MISSING, "; ".join(state.lacks), f"{kind} {found.name}")
        else:
            yield Check(name, OK, found.label)
    if not any(state.group == STAGE1.group for state in snapshot().providers):
        yield Check("flavor", MISSING, "none is installed", "run (install podctl-stage1-fly)")
