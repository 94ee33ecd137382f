"""`podctl app exec`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    context_settings={"allow_interspersed_args": False},
    help="""Run a command inside an app of a running pod, as enter does.

    --app may stand before the pod or after it.""",
)
@click.option("--app", metavar="NAME", help="The app, if the pod has several.")
@click.argument("pod")
@click.argument("argv", metavar="[COMMAND [ARGUMENT]...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, app: str | None, pod: str, argv: tuple[str, ...]) -> None:
    """Become the command; its exit code is ours."""
    from podctl.cli.enter import command as enter

    options: Globals = ctx.obj
    options.require_root()
    if app is None and argv[:1] == ("--app",) and len(argv) > 1:
        app, argv = argv[1], argv[2:]
    elif app is None and argv and argv[0].startswith("--app="):
        app, argv = argv[0].removeprefix("--app="), argv[1:]
    ctx.invoke(enter, app=app, uuid=pod, argv=argv)
