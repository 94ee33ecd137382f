"""`podctl exec`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import flag

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    context_settings={"allow_interspersed_args": False},
    help="""Run a command in an app of a running pod, confined like the app: enter, with the flags
    that docker's users know.

    It runs in the app's working directory, as the app's user, and reads nothing unless
    --interactive is given.""",
)
@flag("-i", "--interactive", help="Pass our standard input on.")
@flag("-t", "--tty", help="Give it a terminal.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="A further variable.")
@click.option("-w", "--workdir", metavar="PATH", help="Working directory, absolute.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Another user of the image.")
@click.option("--app", metavar="NAME", help="The app, if the pod has several.")
@click.argument("pod")
@click.argument("argv", metavar="COMMAND [ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def command(
    options: Globals,
    interactive: bool,
    tty: bool,
    env: tuple[str, ...],
    workdir: str | None,
    user: str | None,
    app: str | None,
    pod: str,
    argv: tuple[str, ...],
) -> None:
    """Become the command; its exit code is ours."""
    options.require_root()
    from podctl.errors import UsageError
    from podctl.model.words import environment_from_texts
    from podctl.pods.directories import PodDirectories
    from podctl.pods.execution import Execution, execute
    from podctl.pods.find import find

    if not argv:
        raise UsageError("a command is required")
    environment = environment_from_texts(env, "--env")
    wanted = Execution(argv, app, environment, workdir, user, interactive, tty)
    execute(find(PodDirectories(options.data_dir), pod), wanted)
