"""`podctl list`."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

import click

from podctl.cli.options import flag
from podctl.cli.output import emit_json, say, table
from podctl.pods.times import absolute, ago

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.cli.context import Globals

_SHORT = ("UUID", "APP", "IMAGE NAME", "STATE", "CREATED", "STARTED", "NETWORKS")
_FULL = ("UUID", "APP", "IMAGE NAME", "IMAGE ID", "STATE", "CREATED", "STARTED", "NETWORKS")
#: `sha512-` and twelve digits
_IMAGE_ID = 19


@click.command(help="List pods, one line for each app.")
@flag("--full", help="Whole UUIDs, image ids and exact times.")
@flag("--no-legend", help="Leave out the header line.")
@click.option("--format", "form", type=click.Choice(["table", "json", "json-pretty"]))
@click.pass_obj
def command(options: Globals, full: bool, no_legend: bool, form: str | None) -> None:
    """Print every pod that can be named; damaged ones are reported at the end."""
    # Every object made here lives to the end: looking for garbage among them takes a tenth.
    gc.disable()
    pods, problems = _summaries(options.data_dir, details=form not in (None, "table"))
    if form in (None, "table"):
        now = time.time()
        rows = [row for pod in pods for row in _rows(pod, full, now)]
        table(rows, None if no_legend else (_FULL if full else _SHORT))
    else:
        emit_json(pods, pretty=form == "json-pretty")
    if problems:
        say(options.command, "errors encountered when listing pods", error=True)
        for problem in problems:
            say(options.command, problem)


def _summaries(data_dir: str, *, details: bool) -> tuple[list[dict[str, Any]], list[str]]:
    from podctl.errors import PodctlError
    from podctl.pods.directories import PodDirectories
    from podctl.pods.summary import bare, summarise

    found, problems = [], []
    for pod in PodDirectories(data_dir).walk():
        try:
            found.append(summarise(pod, details=details))
        except PodctlError as error:
            found.append(bare(pod))
            problems.append(str(error))
    return found, problems


def _rows(pod: dict[str, Any], full: bool, now: float) -> Iterator[tuple[str, ...]]:
    """One row for each app; what belongs to the pod stands in the first."""
    uuid = pod["name"] if full else pod["name"][:8]
    times = tuple(_time(pod.get(key), full, now) for key in ("created_at", "started_at"))
    rest = (pod["state"], *times, "")
    for app in pod.get("apps") or [None]:
        image = ("-",) * (3 if full else 2) if app is None else _app_cells(app, full)
        yield (uuid, *image, *rest)
        uuid, rest = "", ("",) * len(rest)


def _app_cells(app: dict[str, Any], full: bool) -> tuple[str, ...]:
    cells = (app["name"], app["image_name"])
    return (*cells, app["image_id"][:_IMAGE_ID]) if full else cells


def _time(moment: int | None, full: bool, now: float) -> str:
    if moment is None:
        return ""
    return absolute(moment) if full else ago(moment, now)
