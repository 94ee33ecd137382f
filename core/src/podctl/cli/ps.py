"""`podctl ps`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from podctl.cli.options import flag
from podctl.cli.output import emit_json, out, say, table
from podctl.errors import PodctlError

if TYPE_CHECKING:
    from podctl.cli.context import Globals
    from podctl.pods.directories import Pod

_HEADER = ("POD", "APP", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME")
_COMMAND = 24


@click.command(help="List running pods, or all, with the columns that docker's users expect.")
@flag("-a", "--all", "every", help="All pods, not only those that run.")
@flag("-q", "--quiet", help="Print UUIDs alone.")
@flag("--no-trunc", help="Whole UUIDs and commands.")
@flag("--no-legend", help="Leave out the header line.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "json-pretty"]),
    help="Form of the output; JSON is that of list.",
)
@click.pass_obj
def command(
    options: Globals, every: bool, quiet: bool, no_trunc: bool, no_legend: bool, form: str | None
) -> None:
    """One line for each app, the pod's own columns in its first."""
    from podctl.pods.directories import PodDirectories
    from podctl.pods.summary import bare, manifest_of, summarise

    pods = [
        pod for pod in PodDirectories(options.data_dir).walk() if every or pod.state == "running"
    ]
    pods.sort(key=lambda pod: pod.created or 0.0, reverse=True)
    if quiet:
        for pod in pods:
            out(pod.uuid if no_trunc else pod.uuid[:8])
        return
    summaries: list[tuple[Pod, dict[str, Any], dict[str, Any]]] = []
    for pod in pods:
        try:
            summaries.append((pod, summarise(pod), manifest_of(pod)))
        except PodctlError as error:
            say(options.command, str(error))
            summaries.append((pod, bare(pod), {}))
    if form in (None, "table"):
        rows = [row for entry in summaries for row in _rows(*entry, whole=no_trunc)]
        table(rows, None if no_legend else _HEADER)
    else:
        emit_json([summary for _, summary, _ in summaries], pretty=form == "json-pretty")


def _rows(
    pod: Pod, summary: dict[str, Any], manifest: dict[str, Any], *, whole: bool
) -> list[tuple[str, ...]]:
    from podctl.pods.times import ago

    now = time.time()
    created = "" if pod.created is None else ago(pod.created, now)
    uuid = pod.uuid if whole else pod.uuid[:8]
    ports, name = _ports(manifest), summary.get("pod_name", "")
    rows: list[tuple[str, ...]] = []
    apps = summary.get("apps") or [{}]
    sections = manifest.get("apps") or [{}]
    for app, section in zip(apps, sections, strict=False):
        rows.append(
            (uuid, app.get("name", "-"), app.get("image_name", "-"), _command(section, whole),
             created, _status(pod, app, now), ports, name)
        )  # fmt: skip
        uuid = created = ports = name = ""
    return rows


def _command(section: dict[str, Any], whole: bool) -> str:
    from shlex import join

    app = section.get("app")
    words = app.get("exec") if isinstance(app, dict) else None
    text = join(map(str, words)) if isinstance(words, list) else ""
    return text if whole or len(text) <= _COMMAND else text[: _COMMAND - 3] + "..."


def _status(pod: Pod, app: dict[str, Any], now: float) -> str:
    from podctl.pods.times import ago

    started = pod.started()
    if pod.state == "running":
        return "Up" if started is None else f"Up {ago(started, now).removesuffix(' ago')}"
    if "exit_code" in app:
        ended = ago(app["finished_at"] / 1e9, now)
        return f"Exited ({app['exit_code']}) {ended}"
    return pod.state.capitalize()


def _ports(manifest: dict[str, Any]) -> str:
    """`HOST->POD/PROTOCOL` of the ports the pod publishes."""
    declared = {}
    for entry in manifest.get("apps") or []:
        for port in (entry.get("app") or {}).get("ports") or []:
            declared[port.get("name")] = f"{port.get('port')}/{port.get('protocol')}"
    found = []
    for port in manifest.get("ports") or []:
        host = f"{port['hostIP']}:" if port.get("hostIP") else ""
        own = port.get("podPort") or {}
        inside = declared.get(port.get("name")) or f"{own.get('port')}/{own.get('protocol')}"
        found.append(f"{host}{port.get('hostPort')}->{inside}")
    return ", ".join(found)
