"""`podctl wait`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag
from podctl.cli.output import out, say

if TYPE_CHECKING:
    from podctl.cli.context import Globals

#: stands for a code nobody knows, as podman has it
_UNKNOWN = -1


@click.command(
    help="""Wait until pods have ended and print their exit codes, one on a line.

    A pod's exit code is 0 when all its apps succeeded, else that of the first that failed, and -1
    when nobody recorded it."""
)
@flag("--exit-code", help="Exit with the first code that is not 0.")
@click.argument("pods", metavar="POD...", nargs=-1, required=True)
@click.pass_obj
def command(options: Globals, exit_code: bool, pods: tuple[str, ...]) -> int:
    """Find all first: a name that is wrong is not to be noticed after an hour."""
    from podctl.pods.directories import PodDirectories
    from podctl.pods.exitcode import wait_for_code
    from podctl.pods.find import find

    directories = PodDirectories(options.data_dir)
    codes = []
    for pod in [find(directories, text) for text in pods]:
        code = wait_for_code(directories, pod)
        if code is None:
            say(options.command, f'the exit code of pod "{pod.uuid}" was not recorded', error=True)
        codes.append(_UNKNOWN if code is None else code)
        out(str(codes[-1]))
    if not exit_code:
        return 0
    failed = next((code for code in codes if code != 0), 0)
    return 1 if failed == _UNKNOWN else failed
