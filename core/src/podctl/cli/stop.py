"""`podctl stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import out, say

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(help="Stop running pods: ask them to end, or (--force) end them.")
@flag("--force", help="Kill instead of asking.")
@click.option("--uuid-file", metavar="FILE", help="Read the UUID from this file.")
@click.argument("uuids", metavar="[UUID]...", nargs=-1)
@click.pass_obj
def command(options: Globals, force: bool, uuid_file: str | None, uuids: tuple[str, ...]) -> None:
    """Signal each pod; returns without waiting for its end."""
    options.require_root()
    from podctl.errors import PodctlError
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find, named
    from podctl.pods.stop import stop

    def tell(line: str) -> None:
        say(options.command, line)

    pods = PodDirectories(options.data_dir)
    failed = 0
    for uuid in named(uuids, uuid_file):
        try:
            pod = find(pods, uuid)
            if pod.state == "exited":
                tell(f'pod "{pod.uuid}" is already stopped')
                continue
            stop(pod, force=force, say=tell)
        except (PodctlError, OSError) as error:
            say(options.command, str(error), error=True)
            failed += 1
        else:
            out(f'"{pod.uuid}"')
    if failed:
        raise PodctlError(f"failed to stop {failed} pod(s)")
