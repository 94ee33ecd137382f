"""`podctl list`."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, TypeVar

import click

from podctl.cli.options import flag
from podctl.cli.output import emit_json, say, table
from podctl.errors import PodctlError
from podctl.pods.times import absolute, ago

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.cli.context import Globals
    from podctl.pods.directories import Pod

T = TypeVar("T")

_SHORT = ("UUID", "APP", "IMAGE NAME", "STATE", "CREATED", "STARTED", "NETWORKS")
_FULL = ("UUID", "APP", "IMAGE NAME", "IMAGE ID", "STATE", "CREATED", "STARTED", "NETWORKS", "NAME")
#: `sha512-` and twelve digits
_IMAGE_ID = 19
_NO_APP = ("-", "-", "-")


@click.command(help="List pods, one line for each app.")
@flag("--full", help="Whole UUIDs, image ids and exact times.")
@flag("--no-legend", help="Leave out the header line.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "json-pretty"]),
    help="Form of the output.",
)
@click.pass_obj
def command(options: Globals, full: bool, no_legend: bool, form: str | None) -> None:
    """Print every pod that can be named; damaged ones are reported at the end."""
    # Every object made here lives to the end: looking for garbage among them takes a tenth.
    gc.disable()
    from podctl.pods.directories import PodDirectories

    pods = PodDirectories(options.data_dir).walk()
    problems: list[str] = []
    if form in (None, "table"):
        rows = _rows(pods, full, problems)
        table(rows, None if no_legend else (_FULL if full else _SHORT))
    else:
        from podctl.pods.summary import bare, summarise

        objects = [_tolerate(summarise, pod, problems) or bare(pod) for pod in pods]
        emit_json(objects, pretty=form == "json-pretty")
    if problems:
        say(options.command, "errors encountered when listing pods", error=True)
        for problem in problems:
            say(options.command, problem)


def _tolerate(look: Callable[[Pod], T], pod: Pod, problems: list[str]) -> T | None:
    """What `look` says of a pod; a damaged pod is noted, and says nothing."""
    try:
        return look(pod)
    except PodctlError as error:
        problems.append(str(error))
        return None


def _rows(pods: list[Pod], full: bool, problems: list[str]) -> list[tuple[str, ...]]:
    """One row for each app; what belongs to the pod stands in the first."""
    from podctl.pods.podnames import name_of
    from podctl.pods.summary import brief

    now = time.time()
    rows = []
    for pod in pods:
        uuid = pod.uuid if full else pod.uuid[:8]
        created, started = _time(pod.created, full, now), _time(pod.started(), full, now)
        rest: tuple[str, ...] = (pod.state, created, started, "")
        if full:
            rest = (*rest, name_of(pod.directory) or "")
        for name, image, key in _tolerate(brief, pod, problems) or [_NO_APP]:
            cells = (name, image, key[:_IMAGE_ID]) if full else (name, image)
            rows.append((uuid, *cells, *rest))
            uuid, rest = "", ("",) * len(rest)
    return rows


def _time(moment: float | None, full: bool, now: float) -> str:
    if moment is None:
        return ""
    return absolute(moment) if full else ago(moment, now)
