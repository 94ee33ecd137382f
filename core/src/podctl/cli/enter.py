"""`podctl enter`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podctl.cli.context import Globals

_SHELL = "/bin/bash"


@click.command(
    context_settings={"allow_interspersed_args": False},
    help="""Run a command inside a running pod, confined like the app it enters.

    Without a command, /bin/bash.""",
)
@click.option("--app", metavar="NAME", help="The app to enter, if the pod has several.")
@click.argument("uuid")
@click.argument("argv", metavar="[COMMAND [ARGUMENT]...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def command(options: Globals, app: str | None, uuid: str, argv: tuple[str, ...]) -> None:
    """Become the command; its exit code is ours."""
    options.require_root()
    from podctl.cli.output import say
    from podctl.errors import PodStateError
    from podctl.pods.directories import PodDirectories
    from podctl.pods.enter import enter
    from podctl.pods.find import find
    from podctl.pods.flavors import load
    from podctl.pods.prepared import load_prepared
    from podctl.pods.release import flavor_of

    pod = find(PodDirectories(options.data_dir), uuid)
    if pod.state != "running":
        raise PodStateError(f'pod "{pod.uuid}" isn\'t currently running')
    if not argv:
        say(options.command, f"no command specified, assuming {_SHELL}")
        argv = (_SHELL,)
    prepared = load_prepared(pod.directory)
    name = _app_name(app, [one.name for one in prepared.apps])
    enter(load(flavor_of(pod.directory)).enter(prepared, name, argv))


def _app_name(wanted: str | None, names: list[str]) -> str:
    from podctl.errors import NotFound, UsageError

    if wanted is None:
        if len(names) != 1:
            raise UsageError(
                f"pod contains multiple apps: {', '.join(names)}", hint="choose one with --app"
            )
        return names[0]
    if wanted not in names:
        raise NotFound(f'the pod has no app "{wanted}"', hint=f"it has {', '.join(names)}")
    return wanted
