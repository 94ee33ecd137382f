"""`podctl prepare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podctl.cli.options import flag
from podctl.cli.output import out, say
from podctl.cli.podflags import (
    Decision,
    ImagesCommand,
    flavor_of_flags,
    manifest_flags,
    pod_name,
    prepare_settings,
)

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    cls=ImagesCommand,
    help="""Prepare a pod to be run later by run-prepared, and print its UUID.

    Images and their flags are given as for run.""",
)
@manifest_flags
@flag("--quiet", help="Print nothing but the UUID.")
@click.pass_obj
def command(options: Globals, /, quiet: bool, **given: Any) -> None:
    """Choose the flavor, refuse what it cannot do, put the pod together."""
    options.require_root()
    from podctl.pods.directories import PodDirectories
    from podctl.pods.start import Starter

    def tell(line: str) -> None:
        if not quiet:
            say(options.command, line)

    name = pod_name(given)
    flavor = flavor_of_flags(options, given)
    settings = prepare_settings(options, flavor.describe(), given)
    store = options.store()
    decide = Decision(options, store, flavor, settings, given)
    starter = Starter(PodDirectories(options.data_dir), store, flavor, tell, name=name)
    out(starter.prepare(decide, lambda _uuid: None))
