"""`podctl gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import say

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    help="""Remove pods that have exited and preparations that came to nothing.

    An exited pod is marked first and removed by a later gc, when its grace period is over."""
)
@click.option(
    "--grace-period",
    metavar="DURATION",
    default="30m",
    show_default=True,
    help="How long an exited pod is kept after it was marked.",
)
@click.option(
    "--expire-prepared",
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="How long a prepared pod may wait to be run.",
)
@flag("--mark-only", help="Only mark exited and aborted pods, remove nothing.")
@click.pass_obj
def command(options: Globals, grace_period: str, expire_prepared: str, mark_only: bool) -> None:
    """Collect; what cannot be collected is reported and does not keep the rest."""
    options.require_root()
    from podctl.pods.directories import PodDirectories
    from podctl.pods.release import announce_removed, release
    from podctl.pods.removal import Remover
    from podctl.pods.times import parse_duration

    def tell(line: str) -> None:
        say(options.command, line)

    grace = parse_duration(grace_period, "--grace-period")
    expire = parse_duration(expire_prepared, "--expire-prepared")
    remover = Remover(PodDirectories(options.data_dir), tell, release)
    remover.collect(grace=grace, expire=expire, mark_only=mark_only)
    announce_removed(remover.removed, tell)
