"""`podctl logs`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, BinaryIO

import click

from podctl.cli.options import flag
from podctl.cli.output import escape, is_terminal, say

if TYPE_CHECKING:
    from podctl.cli.context import Globals
    from podctl.pods.logs import Record


@click.command(
    help="""Print what the apps of a detached pod have written, until the pod is removed.

    What an app wrote to standard error comes on standard error. On a terminal control characters
    are made visible; elsewhere every byte is as it was."""
)
@flag("-f", "--follow", help="Wait for more, until the pod ends.")
@click.option(
    "--since", metavar="TIME", help="Only what came since: 10m, 2026-01-31T12:00:00Z, Unix seconds."
)
@click.option("-n", "--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
@click.option("--app", metavar="NAME", help="Only this app's.")
@flag("-t", "--timestamps", help="Begin each line with the time it was read at.")
@click.argument("pod")
@click.pass_obj
def command(
    options: Globals,
    follow: bool,
    since: str | None,
    tail: int | None,
    app: str | None,
    timestamps: bool,
    pod: str,
) -> None:
    """Find the pod, print."""
    options.require_root()
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find
    from podctl.pods.logs import BEGINNING, Wanted, lost, parse_since, read

    wanted = Wanted(
        app, BEGINNING if since is None else parse_since(since, time.time()), tail, follow
    )
    pods = PodDirectories(options.data_dir)
    writers = {
        b"stdout": _Writer(sys.stdout.buffer, is_terminal(sys.stdout), timestamps),
        b"stderr": _Writer(sys.stderr.buffer, is_terminal(sys.stderr), timestamps),
    }
    last = writers[b"stdout"]
    for record in read(pods, find(pods, pod), wanted):
        missing = lost(record)
        if missing is not None:
            say(options.command, f"{missing} bytes of output are missing: they could not be kept")
        elif record.stream in writers:
            if writers[record.stream] is not last:
                # Both may be one terminal: what came first is to stand first.
                last.flush()
                last = writers[record.stream]
            last.write(record, at_once=follow)


class _Writer:
    """Writes records to one of our own streams."""

    def __init__(self, stream: BinaryIO, terminal: bool, timestamps: bool) -> None:
        self._stream = stream
        self._terminal = terminal
        self._timestamps = timestamps
        self._begun = False

    def write(self, record: Record, *, at_once: bool) -> None:
        text = record.text
        if self._terminal:
            # A tab moves the cursor to the right, and that is all.
            parts = text.decode("utf-8", "surrogateescape").split("\t")
            text = "\t".join(map(escape, parts)).encode()
        if self._timestamps and not self._begun:
            text = record.when + b" " + text
        self._stream.write(text + b"\n" if record.complete else text)
        self._begun = not record.complete
        if at_once:
            self._stream.flush()

    def flush(self) -> None:
        self._stream.flush()
