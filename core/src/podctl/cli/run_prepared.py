"""`podctl run-prepared`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podctl.cli.podflags import keeping, print_plan, run_flags, run_settings

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(help="Run a prepared pod: this process becomes it. A pod runs once.")
@run_flags
@click.argument("uuid")
@click.pass_obj
def command(options: Globals, /, uuid: str, **given: Any) -> None:
    """Find the pod, refuse what its flavor cannot do, and become it."""
    options.require_root()
    from podctl.cli.output import out, say
    from podctl.errors import PodStateError
    from podctl.pods.directories import PREPARED, PodDirectories
    from podctl.pods.find import find
    from podctl.pods.flavors import load
    from podctl.pods.release import flavor_of
    from podctl.pods.start import PreparedStarter

    kept = keeping(options, given)
    pods = PodDirectories(options.data_dir)
    pod = find(pods, uuid)
    if pod.place != PREPARED:
        raise PodStateError(f'pod "{pod.uuid}" is not prepared')
    flavor = load(flavor_of(pod.directory))
    settings = run_settings(options, flavor.describe(), given)
    starter = PreparedStarter(pods, lambda line: say(options.command, line))
    if given["dry_run"]:
        print_plan(starter.plan(pod, flavor, settings), given["form"])
    else:
        starter.run(pod, flavor, settings, kept)
        out(pod.uuid)
