"""`podctl app status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podctl.cli.output import emit_json, out

if TYPE_CHECKING:
    from podctl.cli.context import Globals


@click.command(help="Show the state of an app of a pod.")
@click.option("--app", metavar="NAME", required=True, help="The app.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "json-pretty"]),
    help="Form of the output.",
)
@click.argument("pod")
@click.pass_obj
def command(options: Globals, app: str, form: str | None, pod: str) -> None:
    """Print what its files say."""
    from podctl.errors import NotFound
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find
    from podctl.pods.summary import summarise

    found = find(PodDirectories(options.data_dir), pod)
    apps = {one["name"]: one for one in summarise(found).get("apps", [])}
    if app not in apps:
        known = ", ".join(apps)
        raise NotFound(
            f'pod "{found.uuid}" has no app "{app}"', hint=f"it has {known}" if known else None
        )
    if form in (None, "text"):
        _print(apps[app])
    else:
        emit_json(apps[app], pretty=form == "json-pretty")


def _print(app: dict[str, Any]) -> None:
    """rkt's lines; what is not known is left out."""
    from podctl.pods.times import absolute

    for key in ("name", "state", "image_id"):
        out(f"{key}={app[key]}")
    for key in ("created_at", "started_at", "finished_at"):
        if key in app:
            out(f"{key}={absolute(app[key] / 1_000_000_000)}")
    if "exit_code" in app:
        out(f"exit_code={app['exit_code']}")
    if "mounts" in app:
        shown = (f"{one['host_path']}:{one['container_path']}" for one in app["mounts"])
        out(f"mounts={','.join(shown)}")
    for key in ("user_annotations", "user_labels"):
        if key in app:
            out(f"{key}={','.join(f'{name}:{value}' for name, value in app[key].items())}")
