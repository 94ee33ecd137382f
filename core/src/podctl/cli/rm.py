"""`podctl rm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.output import out, say

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(help="Remove pods that do not run.")
@click.option("--uuid-file", metavar="FILE", help="Read the UUID from this file.")
@click.argument("uuids", metavar="[UUID]...", nargs=-1)
@click.pass_obj
def command(options: Globals, uuid_file: str | None, uuids: tuple[str, ...]) -> None:
    """Remove one after the other; one that cannot be removed does not keep the others."""
    options.require_root()
    from podctl.errors import PodctlError
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find, named
    from podctl.pods.release import announce_removed, release
    from podctl.pods.removal import Remover

    def tell(line: str) -> None:
        say(options.command, line)

    pods = PodDirectories(options.data_dir)
    remover = Remover(pods, tell, release)
    failed = 0
    for uuid in named(uuids, uuid_file):
        try:
            pod = find(pods, uuid)
            remover.remove(pod)
        except (PodctlError, OSError) as error:
            say(options.command, str(error), error=True)
            failed += 1
        else:
            out(f'"{pod.uuid}"')
    announce_removed(remover.removed, tell)
    if failed:
        raise PodctlError("failed to remove one or more pods")
