"""`podctl status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podctl.cli.options import optional_value
from podctl.cli.output import emit_json, out
from podctl.errors import UsageError

if TYPE_CHECKING:
    from podctl.cli.context import Globals
    from podctl.pods.directories import Pod

_SHOWS_NETWORKS = ("running", "exited")


@click.command(
    help="""Show the state of a pod.

    --wait returns once it has ended, --wait-ready once its apps are started; each takes the
    longest time to wait (--wait=10s)."""
)
@optional_value("--wait", bare="true", metavar="DURATION", help="Wait until the pod has ended.")
@optional_value("--wait-ready", bare="true", metavar="DURATION", help="Wait until it is ready.")
@click.option("--uuid-file", metavar="FILE", help="Read the UUID from this file.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "json-pretty"]),
    help="Form of the output.",
)
@click.argument("uuid", required=False)
@click.pass_obj
def command(
    options: Globals,
    wait: str | None,
    wait_ready: str | None,
    uuid_file: str | None,
    form: str | None,
    uuid: str | None,
) -> int:
    """Find the pod, wait as asked, print."""
    from podctl.pods.directories import PodDirectories
    from podctl.pods.find import find, named_once

    pods = PodDirectories(options.data_dir)
    limits = _limit(wait_ready, "--wait-ready"), _limit(wait, "--wait")
    pod = find(pods, named_once(uuid, uuid_file))
    if limits[0] is not None:
        from podctl.pods.waiting import wait_until_ready

        pod = wait_until_ready(pods, pod.uuid, limits[0] or None)
    if limits[1] is not None:
        from podctl.pods.waiting import wait_until_ended

        pod = wait_until_ended(pods, pod.uuid, limits[1] or None)
    if form in (None, "text"):
        _print(pod)
    else:
        emit_json(_summary(pod), pretty=form == "json-pretty")
    return 0


def _limit(text: str | None, option: str) -> float | None:
    """None: do not wait; 0: without limit; else seconds."""
    if text is None or text.lower() in ("false", "f", "0"):
        return None
    if text.lower() in ("true", "t", "1"):
        return 0
    from podctl.pods.times import parse_duration

    seconds = parse_duration(text, option)
    if seconds == 0:
        raise UsageError(f"{option}: a time to wait must be longer than 0")
    return seconds


def _summary(pod: Pod) -> dict[str, object]:
    from podctl.pods.registration import is_registered
    from podctl.pods.summary import summarise

    summary = summarise(pod)
    if pod.state == "running":
        summary["registered"] = is_registered(pod.uuid)
    return summary


def _flavor(pod: Pod) -> str | None:
    """Name of the pod's flavor; None before it has one, or where its record is damaged."""
    from podctl.errors import PodctlError
    from podctl.pods.release import flavor_of

    try:
        return flavor_of(pod.directory)
    except (OSError, PodctlError):
        return None


def _print(pod: Pod) -> None:
    from podctl.pods.directories import AFTER_RUN
    from podctl.pods.podnames import name_of
    from podctl.pods.registration import is_registered
    from podctl.pods.summary import exit_codes, private_users, running_pid
    from podctl.pods.times import absolute

    out(f"state={pod.state}")
    name = name_of(pod.directory)
    if name is not None:
        out(f"name={name}")
    if pod.created is not None:
        out(f"created={absolute(pod.created)}")
    started = pod.started()
    if started is not None:
        out(f"started={absolute(started)}")
    if pod.state in _SHOWS_NETWORKS:
        out("networks=")
    flavor = _flavor(pod)
    if flavor is not None:
        out(f"stage1={flavor}")
    users = private_users(pod)
    if users is not None:
        out(f"private-users={users}")
    if pod.state == "running":
        pid = running_pid(pod)
        if pid is not None:
            out(f"pid={pid}")
        out(f"registered={'yes' if is_registered(pod.uuid) else 'no'}")
        out("exited=false")
    elif pod.state in AFTER_RUN:
        out("exited=true")
        for name, code in exit_codes(pod).items():
            out(f"app-{name}={code}")
