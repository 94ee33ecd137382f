"""`podctl cp`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from podctl.cli.options import flag
from podctl.cli.output import is_terminal, say
from podctl.errors import UsageError

if TYPE_CHECKING:
    from podctl.cli.context import Globals


class _Place(NamedTuple):
    """`POD:[APP:]/PATH`, or a path of the host (then `pod` is None)."""

    pod: str | None
    app: str | None
    path: str


@click.command(
    help="""Copy files out of a pod, or into it: one of both is POD:/PATH or POD:APP:/PATH.

    A directory is copied with all below it; DIRECTORY/. means what is in it. `-` is a tar stream.
    Links are copied as links, and none of the pod's is ever followed out of it. Files that come out
    are yours, without set-id bits, and files that go in belong to the pod's root; --archive keeps
    owners, as the pod numbers them. Devices and sockets are left out.""",
)
@flag("-a", "--archive", help="Keep owners, set-id bits and extended attributes.")
@click.argument("source")
@click.argument("destination")
@click.pass_obj
def command(options: Globals, archive: bool, source: str, destination: str) -> None:
    """Sort both arguments, copy, say what was left out."""
    options.require_root()
    from podctl.pods.copying import copy_in, copy_out
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find
    from podctl.pods.podroot import PodRoot

    origin, target = _parse(source), _parse(destination)
    if (origin.pod is None) == (target.pod is None):
        raise UsageError("one of both must be in a pod: POD:/PATH")
    directories = PodDirectories(options.data_dir)
    if origin.pod is not None:
        if target.path == "-" and is_terminal(sys.stdout):
            raise UsageError("a tar stream is nothing for a terminal", hint="redirect it")
        with PodRoot(find(directories, origin.pod), origin.app) as root:
            skipped = copy_out(root, origin.path, target.path, archive=archive)
    else:
        with PodRoot(find(directories, str(target.pod)), target.app) as root:
            skipped = copy_in(root, origin.path, target.path, archive=archive)
    for line in skipped:
        say(options.command, line)


def _parse(text: str) -> _Place:
    """A path of the host that has a colon can be written with a slash before it."""
    pod, colon, rest = text.partition(":")
    if not colon or "/" in pod or not pod or pod == ".":
        if not text:
            raise UsageError("a path cannot be empty")
        return _Place(None, None, text)
    app, colon, path = rest.partition(":")
    if not rest.startswith("/") and colon and path.startswith("/") and app and "/" not in app:
        return _Place(pod, app, path)
    if not rest.startswith("/"):
        raise UsageError(f"{text}: the path in a pod begins with /", hint="POD:/PATH")
    return _Place(pod, None, rest)
