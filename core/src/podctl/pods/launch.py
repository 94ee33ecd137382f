"""Becoming the app: a launch or enter plan carried out in this process, ending in execve(2).

Everything that can fail by the pod's or the image's fault is done while the host's root is still
there, and raises. From the change of root on nothing of the host can be loaded any more: what
fails then is one line on standard error and the process's end.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NoReturn, cast

from podctl.errors import HostLacks, PodctlError
from podctl.model.confinement import NO_LIMITS, UNCONFINED
from podctl.pods.become import Inherited, become
from podctl.pods.describe import describe, plan_to_json
from podctl.pods.mounting import build_root, mount_scratches
from podctl.pods.program import check_standard_descriptors, check_strings, prepare_program
from podctl.pods.streams import own_pipes
from podctl.sys import constants as c
from podctl.sys import procs
from podctl.sys.files import write_atomic
from podctl.sys.mounts import detach_below, make_tree_slave
from podctl.sys.namespaces import KINDS, unshare

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podctl.model.confinement import Confinement
    from podctl.model.plan import LaunchPlan, PreparedPod
    from podctl.pods.grouping import AppGroups
    from podctl.sys.confine import Held
    from podctl.sys.idmap import MappedUsers

__all__ = ["describe", "launch", "plan_to_json"]

#: USER would need mappings first, PID a second process
_NAMESPACES = frozenset({"NS", "UTS", "IPC", "NET", "CGROUP"})
_RECORD_MODE = 0o640


def launch(plan: LaunchPlan, pod: PreparedPod, lock_fd: int | None) -> NoReturn:
    """Carry out `plan` and become the pod's first process. Never returns.

    Args:
        lock_fd: the pod's lock, inherited by what is executed; a regular file, open read-only.

    Raises:
        PodctlError: nothing of the app has run; mounts vanish with this process.
        AppNotFound, AppNotExecutable: its program is missing or no program (127, 126).
    """
    if os.geteuid() != 0:
        raise HostLacks("only root can start a pod", hint="run podctl as root")
    check_strings(plan.argv, plan.environment)
    _check_namespaces(plan.flavor, plan.namespaces)
    check_standard_descriptors()
    if lock_fd is not None:
        _check_lock(lock_fd)
    _hold_streams(plan, pod)
    os.umask(0o022)
    os.chdir("/")
    _new_namespaces(plan.namespaces)
    groups: AppGroups = {}
    try:
        if pod.mutable or any(one.cgroup != NO_LIMITS for one in _confinements(plan)):
            from podctl.pods.grouping import make_groups

            groups = make_groups(plan, pod)
        root_fd = _build_mapped(plan, f"podctl-{pod.uuid}", groups)
        program = prepare_program(root_fd, plan, no_new_privileges=plan.no_new_privileges)
        if not plan.apps:
            own_pipes(program.identity.uid)
        _write_records(pod.directory, plan.records)
        # Last: a process in the app's control groups could not remove them if the rest failed.
        held = None if plan.confinement == UNCONFINED else _begin_confinement(plan, groups)
    except PodctlError:
        # The caller may want to remove the pod: leave it nothing that is busy.
        detach_below(pod.directory)
        raise
    inherited = Inherited(tuple(map(int, plan.inherited)), lock_fd, plan.passes_lock)
    if plan.null_input:
        _close_input()
    become(program, inherited, move=plan.root is not None and plan.enters_root, held=held)


def _confinements(plan: LaunchPlan) -> list[Confinement]:
    return [plan.confinement, *(app.confinement for app in plan.apps)]


def _begin_confinement(plan: LaunchPlan, groups: AppGroups) -> Held:
    """Take this process, which becomes the app, into its control groups, and do what takes the
    host's /proc; returns what is left to do."""
    from podctl.sys import cgroups, confine

    held = cast("Held", plan.confinement.to_numbers())
    try:
        confine.prepare(held)
        cgroups.join(file for files in groups.values() for file in files)
    except OSError as error:
        raise PodctlError(f"the app cannot be confined: {error}") from error
    return held


def _build_mapped(plan: LaunchPlan, name: str, groups: AppGroups) -> int:
    if plan.users is None:
        return _build(plan, name, None, groups)
    from podctl.sys.idmap import MappedUsers

    try:
        users = MappedUsers(*plan.users)
    except OSError as error:
        raise HostLacks(
            f"no user namespace for the pod: {error.strerror}", hint="use --private-users=no"
        ) from error
    with users:
        return _build(plan, name, users, groups)


def _build(plan: LaunchPlan, name: str, users: MappedUsers | None, groups: AppGroups) -> int:
    """Build the plan's roots; returns a descriptor of what the process has as its root."""
    mount_scratches(plan, users)
    if plan.enters_root and not plan.apps:
        return build_root(plan, name, users)
    from podctl.pods.handover import cover, hand_over

    cover(plan.covered)
    root_fd = build_root(plan, name, users)
    owners = []
    for app in plan.apps:
        files = groups.get(app.name, ())
        owners.append(hand_over(app, build_root(app, name, users), root_fd, users, groups=files))
    # Of several apps none has more of a right than the others.
    own_pipes(owners[0] if len(owners) == 1 else 0 if users is None else users.base)
    if plan.enters_root:
        return root_fd
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _hold_streams(plan: LaunchPlan, pod: PreparedPod) -> None:
    """Whoever attaches to an app finds somebody there; started here, outside of the pod's mount
    namespace, and gone with this process."""
    apps = [app for app in plan.apps if app.connections is not None]
    if apps:
        from podctl.pods.holding import hold

        pidfd = os.pidfd_open(os.getpid())
        for app in apps:
            hold(app, pod.directory, pidfd)
        os.close(pidfd)


def _close_input() -> None:
    """Whoever is not interactive reads nothing, also not through a terminal it writes to."""
    os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
    for fd in (1, 2):
        if os.isatty(fd):
            flags = os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC
            os.dup2(os.open(f"/proc/self/fd/{fd}", flags), fd)


def _check_namespaces(flavor: str, names: Iterable[str]) -> None:
    unknown = sorted(set(names) - _NAMESPACES)
    if unknown:
        raise PodctlError(f"flavor {flavor}: a launch cannot make a new {unknown[0]} namespace")


def _check_lock(fd: int) -> None:
    import fcntl

    readable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    if fd < 3 or not readable or not stat.S_ISREG(os.fstat(fd).st_mode):
        raise PodctlError(f"descriptor {fd} is no read-only regular file to lock a pod by")


def _new_namespaces(names: Iterable[str]) -> None:
    flags = c.CLONE_NEWNS
    for name in names:
        flags |= KINDS[name][0]
    try:
        unshare(flags)
    except OSError as error:
        raise HostLacks(f"no new namespaces for the pod: {error.strerror}") from error
    try:
        make_tree_slave()
    except OSError as error:
        # Of a directory inside a mount the propagation cannot be changed (EINVAL).
        raise HostLacks(
            f"the root directory is no mount point: {error.strerror}",
            hint="in a chroot, mount the directory on itself before: mount --bind DIR DIR",
        ) from error


def _write_records(directory: str, records: Mapping[str, str]) -> None:
    """Who the pod's first process is. After a reboot they mean nothing, so no fsync."""
    texts = {name: text.replace("{pid}", str(os.getpid())) for name, text in records.items()}
    texts[procs.RECORD] = procs.current_instance().to_text()
    for name, text in texts.items():
        if "/" in name or name.startswith("."):
            raise PodctlError(f"{name!r} is no name for a record")
        try:
            data = text.encode(errors="surrogateescape")
            write_atomic(f"{directory}/{name}", data, mode=_RECORD_MODE, durable=False)
        except OSError as error:
            raise PodctlError(f"{directory}/{name}: {error.strerror}") from error
