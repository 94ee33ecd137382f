"""`podctl attach`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(
    help="""Attach to an app that was started with --stdin, --stdout or --stderr=tty or stream.

    MODE is auto (all there is, the default), list (print what there is), or a comma list of tty,
    tty-in, tty-out, stdin, stdout, stderr. On a terminal, ctrl-p ctrl-q detaches from a tty; the
    app goes on."""
)
@click.option("--app", metavar="NAME", help="The app, if the pod has several.")
@click.option("--mode", metavar="MODE", default="auto", help="What to attach to.")
@click.argument("pod")
@click.pass_obj
def command(options: Globals, app: str | None, mode: str, pod: str) -> None:
    """Relay until the app has ended, or we detach."""
    options.require_root()
    from podctl.cli.output import emit_json, say
    from podctl.pods.attach import Attachment
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find

    attachment = Attachment(find(PodDirectories(options.data_dir), pod), app)
    if mode == "list":
        emit_json(attachment.targets(), pretty=True)
    elif attachment.attach(mode):
        say(options.command, f'detached from app "{attachment.app}", which goes on')
