"""`podctl image gc`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from podctl.cli.output import say
from podctl.errors import PodctlError, Refused

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    help="""Remove images, layers and rendered trees that nothing uses.

    What a pod needs stays until the pod itself is removed."""
)
@click.option(
    "--grace-period",
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="How long an image must have been unused.",
)
@click.pass_obj
def command(options: Globals, grace_period: str) -> None:
    """Collect; needs root, for layers and trees are root's."""
    if os.geteuid() != 0:
        raise Refused("permission denied: layers and trees are root's", hint="run it as root")
    from podctl.pods.times import parse_duration
    from podctl.store.gc import collect

    def tell(line: str) -> None:
        say(options.command, line)

    grace = parse_duration(grace_period, "--grace-period")
    stale = collect(options.store(), grace, tell)
    for line in stale:
        say(options.command, line, error=True)
    if stale:
        raise PodctlError("not everything could be collected")
