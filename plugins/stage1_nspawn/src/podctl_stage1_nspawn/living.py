"""A running pod: finding its processes, stopping it, going inside."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, cast

from podctl.errors import NotFound, PodStateError
from podctl.model.plan import Account, EnterPlan, Through
from podctl.sys import procs
from podctl_stage1_nspawn.planning import confinement
from podctl_stage1_nspawn.stage1 import RUN, launcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.manifest import App
    from podctl.model.plan import PreparedPod

_MAX_NUMBER = 16


def stop(pod: PreparedPod, *, force: bool) -> None:
    """Ask systemd-nspawn, which asks the pod's first process; `force` ends them all."""
    instance = instance_of(pod)
    pidfd = procs.open_instance(instance)
    if pidfd is None:
        return
    try:
        if force:
            _kill(instance.pid, pidfd)
        else:
            _note_stop(pod)
            procs.send(pidfd, signal.SIGTERM)
    finally:
        os.close(pidfd)


def _kill(nspawn: int, pidfd: int) -> None:
    """systemd-nspawn goes before the pod's first process, whose end it would report as a failure of
    its own, with another exit code."""
    leader = leader_of(nspawn)
    started = None if leader is None else procs.start_time(leader)
    procs.send(pidfd, signal.SIGKILL)
    if leader is None or started is None:
        return
    first = procs.open_process(procs.Process(leader, started))
    if first is not None:
        # The end of the first process is the end of all in its process namespace.
        procs.send(first, signal.SIGKILL)
        os.close(first)


def _note_stop(pod: PreparedPod) -> None:
    """For a first process that is not yet able to hear signals: the kernel drops them
    (pid_namespaces(7))."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    os.close(os.open(f"{pod.directory}/{RUN}/_stop", flags, 0o600))


def enter(pod: PreparedPod, app: str, argv: Sequence[str]) -> EnterPlan:
    """Plan a process beside an app, by way of the pod's launcher.

    Raises:
        NotFound: there is no such app.
        PodStateError: the pod, or the app, does not run.
    """
    prepared = next((one for one in pod.apps if one.name == app), None)
    if prepared is None:
        raise NotFound(f'pod "{pod.uuid}" has no app "{app}"')
    section = cast("App", prepared.app)
    instance = instance_of(pod)
    leader = leader_of(instance.pid) if procs.is_running(instance) else None
    started = None if leader is None else procs.start_time(leader)
    if leader is None or started is None:
        raise PodStateError(f'pod "{pod.uuid}" isn\'t currently running')
    pid = app_process(pod, leader, app)
    app_started = None if pid is None else procs.start_time(pid)
    if pid is None or app_started is None:
        raise PodStateError(f'app "{app}" of pod "{pod.uuid}" isn\'t currently running')
    return EnterPlan(
        pid=pid,
        start_time=app_started,
        namespaces=("NS",),
        identity=Account(section.user or "0", section.group, section.supplementary_gids),
        no_new_privileges=False,
        working_directory="/",
        environment={**prepared.environment, "TERM": os.environ.get("TERM") or "vt100"},
        argv=tuple(argv),
        confinement=confinement(prepared),
        through=Through(leader, started, (*launcher(), app, "enter")),
        users=pod.users,
    )


def processes(pod: PreparedPod, app: str) -> list[procs.Process]:
    """The app's processes, those who entered it among them: all that live in its mounts."""
    instance = instance_of(pod)
    leader = leader_of(instance.pid) if procs.is_running(instance) else None
    first = None if leader is None else app_process(pod, leader, app)
    if first is None:
        return []
    own = procs.scan_mount_namespaces().get(procs.mount_namespace(first) or 0, ())
    return procs.look_at([first, *(pid for pid in sorted(own) if pid != first)])


def leader_of(nspawn: int) -> int | None:
    """The pod's first process, seen from the host: number 1 of the process namespace that a child
    of systemd-nspawn is in."""
    for child in _children(nspawn):
        for candidate in (child, *_children(child)):
            numbers = _numbers(candidate)
            if len(numbers) > 1 and numbers[-1] == 1:
                return candidate
    return None


def app_process(pod: PreparedPod, leader: int, app: str) -> int | None:
    """An app's process, seen from the host; None while there is none.

    The number the supervisor has written down is one of the pod's own making: it is looked for
    among the descendants of the pod's first process alone.
    """
    try:
        with open(f"{pod.directory}/{RUN}/{app}/pid", encoding="ascii", errors="replace") as file:
            number = file.read(_MAX_NUMBER).strip()
    except OSError:
        return None
    if not number.isdecimal():
        return None
    for shell in _children(leader):
        for candidate in _children(shell):
            numbers = _numbers(candidate)
            if numbers and numbers[-1] == int(number):
                return candidate if _has_own_root(candidate, leader) else None
    return None


def _has_own_root(pid: int, leader: int) -> bool:
    """Whether the launcher has come as far as the app's root; before, it is nobody's place."""
    try:
        return not os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat(f"/proc/{leader}/root"))
    except OSError:
        return False


def instance_of(pod: PreparedPod) -> procs.Instance:
    """The pod's systemd-nspawn. Raises PodStateError when there is none on record."""
    instance = procs.read_instance(pod.directory)
    if instance is None:
        raise PodStateError(f'pod "{pod.uuid}" has not started yet', hint="try again")
    return instance


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _numbers(pid: int) -> list[int]:
    """The process's number in each process namespace it is in, ours first (proc(5), NSpid)."""
    try:
        with open(f"/proc/{pid}/status", errors="replace") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return [int(word) for word in line.split()[1:]]
    except OSError:
        pass
    return []
