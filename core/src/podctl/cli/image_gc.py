"""`podctl image gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.output import say
from podctl.errors import PodctlError

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
    options.require_root()
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
