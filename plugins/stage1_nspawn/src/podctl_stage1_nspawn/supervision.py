"""What a pod takes from whoever supervises it, by systemd's protocols: the socket it reports to
(sd_notify(3)) and the sockets it was activated by (sd_listen_fds(3))."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from podctl.errors import Refused
from podctl.model.plan import Bind
from podctl.sys.procs import passed_sockets

if TYPE_CHECKING:
    from podctl.model.manifest import App
    from podctl.model.plan import PreparedApp, PreparedPod

#: where an app finds the socket; rkt's place for it
NOTIFY = "/run/systemd/notify"
#: The pod's shell can name descriptors up to 9, and needs two beside the sockets and the lock.
MOST_SOCKETS = 4


def refuse(pod: PreparedPod) -> None:
    """Raise Refused where supervisor and pod do not fit together."""
    count = passed_sockets()
    if count > MOST_SOCKETS:
        raise Refused(
            f"{count} sockets were passed to the pod, and {MOST_SOCKETS} are the most it can take",
            hint="let its unit have fewer, or run the app with --stage1=fly",
        )
    if count and not any(takes_sockets(pod, app) for app in pod.apps):
        raise Refused(
            "sockets were passed to a pod of several apps, and none has a port that is "
            "socketActivated",
            hint="run the app that listens in a pod of its own",
        )
    speakers = [app.name for app in pod.apps if app.notifies]
    if notify_socket() and len(speakers) > 1:
        raise Refused(
            f'apps "{speakers[0]}" and "{speakers[1]}" both tell when they are ready, and a unit '
            "listens to one",
            hint="use Type=simple",
        )
    if speakers and notify_socket()[:1] not in ("", "/"):
        raise Refused(
            f'app "{speakers[0]}" cannot reach the abstract socket {notify_socket()}',
            hint="unset NOTIFY_SOCKET",
        )


def notify_socket() -> str:
    """The supervisor's socket; empty where it does not listen."""
    return os.environ.get("NOTIFY_SOCKET", "")


def reports(pod: PreparedPod) -> bool:
    """Whether the pod itself says that it is ready, once its apps were started: systemd-nspawn
    does, as the unit's main process, when it hears it from the pod's first process."""
    return bool(notify_socket()) and not any(app.notifies for app in pod.apps)


def speaks(app: PreparedApp) -> bool:
    """Whether an app is given the supervisor's socket. What it may say there is the supervisor's to
    decide: systemd listens to other processes than the main one where the unit has
    NotifyAccess=all."""
    return app.notifies and bool(notify_socket())


def takes_sockets(pod: PreparedPod, app: PreparedApp) -> bool:
    """Whether an app gets the sockets: the only one does, of several those that have a port for
    it."""
    ports = cast("App", app.app).ports
    return len(pod.apps) == 1 or any(port.socket_activated for port in ports)


def steps(app: PreparedApp) -> list[Bind]:
    """What an app's root needs."""
    return [Bind(notify_socket(), NOTIFY, owners="host")] if speaks(app) else []


def environment(pod: PreparedPod, app: PreparedApp) -> dict[str, str]:
    """Variables of an app; the launcher adds those that have a number of its own in them."""
    found = {"NOTIFY_SOCKET": NOTIFY} if speaks(app) else {}
    names = os.environ.get("LISTEN_FDNAMES")
    if names and passed_sockets() and takes_sockets(pod, app):
        found["LISTEN_FDNAMES"] = names
    return found
