"""From a prepared pod to what systemd-nspawn is told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from podctl.errors import Refused
from podctl.model.confinement import UNCONFINED, Confinement
from podctl.model.isolators import effective_capabilities, no_new_privileges
from podctl.model.plan import (
    Account,
    AppLaunch,
    Connections,
    Directory,
    Identity,
    LaunchPlan,
    Overlay,
)
from podctl.model.rootsteps import file_steps, is_below, volume_steps
from podctl.sys.devices import brings_devices
from podctl_stage1_nspawn import machined, supervision
from podctl_stage1_nspawn.host import NSPAWN, SETPRIV, SHELL
from podctl_stage1_nspawn.refusals import NAME, refuse_unsupported
from podctl_stage1_nspawn.stage1 import ROOT, RUN, RUN_INSIDE, app_root, stage1_steps

if TYPE_CHECKING:
    from podctl.model.manifest import App
    from podctl.model.plan import PreparedApp, PreparedPod, Step

#: seconds between the stop signal and SIGKILL, where the image says nothing
STOP_TIMEOUT = 10
#: no device of an image's, nor one an app makes, is ever opened (mknod(2) is allowed by default)
_FLAGS = ("nodev",)
#: there where cgroup v2 is the only version in use
_UNIFIED = "/sys/fs/cgroup/cgroup.controllers"


def plan(pod: PreparedPod) -> LaunchPlan:
    """The plan of a pod.

    Raises:
        Refused: it asks for what the flavor cannot do.
    """
    refuse_unsupported(pod)
    supervision.refuse(pod)
    root = f"{pod.directory}/{ROOT}"
    return LaunchPlan(
        flavor=NAME,
        namespaces=("NS",),
        root=root,
        steps=stage1_steps(pod, hostname(pod)),
        identity=Identity(0, 0),
        working_directory="/",
        environment=_environment(pod),
        argv=(NSPAWN, *_options(pod, root), "--", *_supervisor(pod)),
        records={"ppid": "{pid}\n"},
        apps=tuple(_app(pod, app) for app in pod.apps),
        covered=_covered(),
        enters_root=False,
        null_input=not pod.interactive,
        passes_lock=True,
        users=pod.users,
    )


def hostname(pod: PreparedPod) -> str:
    """The pod's hostname: the one given, or podctl-UUID."""
    return pod.options.get("hostname") or f"podctl-{pod.uuid}"


def _covered() -> tuple[str, ...]:
    """nspawn keeps a directory for each machine here, and where that is on a disk it complains on
    the app's standard error that it cannot remove it. machined, where it runs, uses it too."""
    return () if os.path.isdir("/run/systemd/system") else ("/run/systemd/nspawn",)


def _environment(pod: PreparedPod) -> dict[str, str]:
    """nspawn's own; nothing else of the caller's, nor of an image's, reaches it."""
    supervisor = supervision.notify_socket()
    return {
        **({"NOTIFY_SOCKET": supervisor} if supervision.reports(pod) else {}),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SYSTEMD_NSPAWN_CONTAINER_SERVICE": "podctl",
        "SYSTEMD_LOG_LEVEL": "err",
        # Each app has a filter of its own, the same for whoever enters it.
        "SYSTEMD_SECCOMP": "0",
        # The launcher makes one for each app. From within one that nspawn has made the app's groups
        # could not be reached, where cgroup v2 is mounted with nsdelegate (cgroups(7)).
        "SYSTEMD_NSPAWN_USE_CGNS": "0" if os.path.exists(_UNIFIED) else "1",
    }


def _options(pod: PreparedPod, root: str) -> list[str]:
    options = [
        "--quiet",
        "--settings=no",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        *machined.options(),
        "--kill-signal=SIGTERM",
        f"--uuid={pod.uuid.replace('-', '')}",
        f"--machine=podctl-{pod.uuid}",
        f"--hostname={hostname(pod)}",
        f"--directory={root}",
        "--console=interactive" if pod.interactive and os.isatty(0) else "--console=pipe",
    ]
    if supervision.reports(pod):
        options.append("--notify-ready=yes")
    if "host" not in pod.networks:
        options.append("--private-network")
    if pod.users is not None:
        # Everything in the tree belongs to these users already.
        options += [f"--private-users={pod.users}", "--private-users-ownership=off"]
    # What later apps are to have is not known yet; its processes are a shell and sleep(1).
    held = [None] if pod.mutable else [confinement(app).capabilities for app in pod.apps]
    wanted = sorted(set().union(*(names or () for names in held)))
    if None in held:
        options.append("--capability=all")
    elif wanted:
        options.append(f"--capability={','.join(wanted)}")
    return options


def _supervisor(pod: PreparedPod) -> list[str]:
    timeouts = [app.stop_timeout for app in pod.apps if app.stop_timeout is not None]
    timeout = str(max(timeouts, default=STOP_TIMEOUT))
    mutable = "yes" if pod.mutable else "no"
    # systemd-nspawn does not take the pod with it when it is killed, or hung up on.
    bound = [SETPRIV, "--pdeathsig", "KILL"]
    reports = "yes" if supervision.reports(pod) else "no"
    shell = [SHELL, "/podctl/supervisor", mutable, timeout, reports]
    return [*bound, *shell, *(app.name for app in pod.apps)]


def added(pod: PreparedPod, name: str) -> AppLaunch:
    """The plan of an app that comes to a running pod. What this process' supervisor has passed to
    it is not the pod's.

    Raises:
        Refused: it asks for what the flavor cannot do.
    """
    prepared = next(app for app in pod.apps if app.name == name)
    refuse_unsupported(pod)
    if prepared.notifies:
        raise Refused(
            f'app "{name}" tells when it is ready, and nobody listens to the apps of such a pod',
            hint="run it as a pod of its own",
        )
    if any(port.socket_activated for port in cast("App", prepared.app).ports):
        raise Refused(
            f'app "{name}" has a port that is socketActivated, and no socket is passed to it',
            hint="run it as a pod of its own",
        )
    launch = _app(pod, prepared._replace(notifies=False))
    return launch._replace(environment=prepared.environment, takes_sockets=False)


def confinement(prepared: PreparedApp) -> Confinement:
    """What an app is held to: at least what appc says of every app."""
    if prepared.confinement != UNCONFINED:
        return prepared.confinement
    isolators = cast("App", prepared.app).isolators
    return Confinement(
        capabilities=effective_capabilities(isolators),
        no_new_privileges=no_new_privileges(isolators),
    )


def _app(pod: PreparedPod, prepared: PreparedApp) -> AppLaunch:
    app = cast("App", prepared.app)
    return AppLaunch(
        name=prepared.name,
        root=app_root(pod, prepared),
        source=prepared.rootfs.directory,
        steps=_app_steps(pod, prepared),
        identity=Account(app.user or "0", app.group, app.supplementary_gids),
        working_directory=app.working_directory,
        environment={**prepared.environment, **supervision.environment(pod, prepared)},
        argv=app.exec,
        handlers=dict(app.event_handlers),
        trees=system_trees([volume.target for volume in volume_steps(pod, prepared)]),
        read_only_root=prepared.read_only_rootfs,
        confinement=confinement(prepared),
        takes_sockets=supervision.takes_sockets(pod, prepared),
        streams=f"{pod.directory}/{RUN}/{prepared.name}",
        connections=_connections(pod, prepared),
    )


def _connections(pod: PreparedPod, prepared: PreparedApp) -> Connections | None:
    if prepared.streams is None:
        return None
    outside = f"{pod.directory}/{RUN}/{prepared.name}"
    return Connections(prepared.streams, outside, f"{RUN_INSIDE}/{prepared.name}")


def _app_steps(pod: PreparedPod, app: PreparedApp) -> tuple[Step, ...]:
    """Files come before volumes, so that none of them is ever written into a volume."""
    volumes = volume_steps(pod, app)
    targets = [volume.target for volume in volumes]
    steps: list[Step] = []
    if app.rootfs.directory is None:
        steps.append(Overlay(app_root(pod, app), app.rootfs.lowers, app.upper, app.work, _FLAGS))
    steps += file_steps(pod, hostname(pod))
    steps.append(Directory("/tmp", 0o1777))
    steps += [Directory(tree) for tree in system_trees(targets)]
    steps += supervision.steps(app)
    steps += [volume._replace(no_devices=not brings_devices(volume.source)) for volume in volumes]
    if app.make_working_directory:
        steps.append(Directory(cast("App", app.app).working_directory))
    return tuple(steps)


def system_trees(targets: list[str]) -> tuple[str, ...]:
    """Those of the pod's /dev, /proc and /sys that an app gets."""
    trees = ["/dev", "/proc"] if "/dev" not in targets else ["/proc"]
    # An app that brings anything of /sys gets none of the pod's.
    if not any(is_below(target, "/sys") for target in targets):
        trees.append("/sys")
    return tuple(trees)
