"""`podctl stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import out, say

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    help="""Stop running pods: ask them to end, or (--force) end them.

    Returns as soon as they are told to; with --timeout when nothing of them is left, killing what
    has not ended by then."""
)
@flag("-f", "--force", help="Kill instead of asking.")
@click.option(
    "-t",
    "--timeout",
    "--time",
    metavar="DURATION",
    help="Wait for the end, and kill what has not ended after this time (10s; 10).",
)
@click.option("--uuid-file", metavar="FILE", help="Read the UUID from this file.")
@click.argument("uuids", metavar="[UUID]...", nargs=-1)
@click.pass_obj
def command(
    options: Globals,
    force: bool,
    timeout: str | None,
    uuid_file: str | None,
    uuids: tuple[str, ...],
) -> None:
    """Signal each pod; without a time to wait, returns at once."""
    options.require_root()
    from podctl.errors import PodctlError
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find, named
    from podctl.pods.stop import stop

    def tell(line: str) -> None:
        say(options.command, line)

    seconds = None if timeout is None else _seconds(timeout)
    pods = PodDirectories(options.data_dir)
    failed = 0
    for uuid in named(uuids, uuid_file):
        try:
            pod = find(pods, uuid)
            if pod.state == "exited":
                tell(f'pod "{pod.uuid}" is already stopped')
                continue
            if seconds is None:
                stop(pod, force=force, say=tell)
            else:
                from podctl.pods.ending import stop_and_wait

                stop_and_wait(pods, pod, seconds, force=force, say=tell)
        except (PodctlError, OSError) as error:
            say(options.command, str(error), error=True)
            failed += 1
        else:
            out(f'"{pod.uuid}"')
    if failed:
        raise PodctlError(f"failed to stop {failed} pod(s)")


def _seconds(text: str) -> float:
    """A duration; a number alone is one of seconds, as docker has it."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    from podctl.pods.times import parse_duration

    return parse_duration(text, "--timeout")
