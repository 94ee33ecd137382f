"""Becoming a process inside a running pod.

A pod in the host's process and user namespaces is entered by this process itself. Any other is
entered through its own launcher, so that the host's programs are seen through the pod's read-only
mounts alone (CVE-2019-5736) and one piece of code confines every process of an app.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NoReturn, cast

from podctl.errors import HostLacks, PodctlError, PodStateError
from podctl.model.confinement import UNCONFINED
from podctl.pods.become import become
from podctl.pods.program import check_standard_descriptors, check_strings, prepare_program
from podctl.sys import caps, procs
from podctl.sys import constants as c
from podctl.sys.calls import prctl
from podctl.sys.cgroups import join_cgroups_of
from podctl.sys.files import flush_streams, write_all
from podctl.sys.namespaces import KINDS, pidfd_open, setns

if TYPE_CHECKING:
    from podctl.model.plan import EnterPlan, Through, UserRange
    from podctl.sys.confine import Held

#: what one process can enter: USER would need mappings first, PID a second process
_NAMESPACES = frozenset({"NS", "UTS", "IPC", "NET", "CGROUP"})
#: what is passed on to the one inside
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1,
            signal.SIGUSR2, signal.SIGWINCH)  # fmt: skip


def enter(plan: EnterPlan) -> NoReturn:
    """Become a process inside a running pod, confined no less than the one it joins.

    Raises:
        PodStateError: that process is gone.
        PodctlError: the plan cannot be carried out; nothing has run inside the pod.
    """
    if os.geteuid() != 0:
        raise HostLacks("only root can enter a pod", hint="run podctl as root")
    check_strings(plan.argv, plan.environment)
    unknown = [name for name in plan.namespaces if name not in _NAMESPACES]
    if unknown and plan.through is None:
        raise PodctlError(f"entering a {unknown[0]} namespace is not possible in one process")
    check_standard_descriptors()
    os.umask(0o022)
    # Until it is confined itself, this process is no object for the pod's debuggers
    # (CVE-2016-9962); execve makes it one again.
    prctl(c.PR_SET_DUMPABLE, 0)
    pidfd = _open_process(plan.pid, plan.start_time)
    try:
        if plan.through is not None:
            _enter_through(plan, plan.through)
        _enter_directly(plan)
    except OSError as error:
        raise PodctlError(f"cannot enter process {plan.pid}: {error}") from error
    finally:
        os.close(pidfd)


def _enter_directly(plan: EnterPlan) -> NoReturn:
    root_fd = os.open(f"/proc/{plan.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    joined = [_open_namespace(plan.pid, name) for name in KINDS if name in plan.namespaces]
    bounding, confined = _confinement(plan.pid)
    program = prepare_program(root_fd, plan, no_new_privileges=plan.no_new_privileges or confined)
    join_cgroups_of(plan.pid)
    # What was read above belongs to that process and to no later one of its number.
    _check_alive(plan.pid, plan.start_time)
    # From here on /proc may be the pod's own make; nothing of it is read any more. (Dropping
    # from the bounding set takes effect at execve only.)
    if bounding != _confinement(os.getpid())[0]:
        caps.drop_bounding(n for n in range(64) if bounding >> n & 1)
    held = _held(plan)
    for fd, flag in joined:
        setns(fd, flag)
    become(program, move=True, pivot=False, held=held)


def _held(plan: EnterPlan) -> Held | None:
    """What the process is held to, as far as it is done by ourselves; /proc is still the host's."""
    if plan.confinement == UNCONFINED:
        return None
    from podctl.sys import confine

    held = cast("Held", plan.confinement.to_numbers())
    confine.prepare(held)
    return held


def _enter_through(plan: EnterPlan, through: Through) -> NoReturn:
    from podctl.pods.handover import entering_document

    app_root = os.open(f"/proc/{plan.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    document = os.memfd_create("document", os.MFD_CLOEXEC)
    write_all(document, entering_document(plan, app_root))
    os.lseek(document, 0, os.SEEK_SET)
    mounts = os.open(f"/proc/{plan.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    pidfd = _open_process(through.pid, through.start_time)
    root_fd = os.open(f"/proc/{through.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # One that is ours too cannot be joined from within a user namespace of the pod's.
    joined = [_open_namespace(through.pid, name) for name in KINDS if _differs(through.pid, name)]
    # The app's control groups are roots of its own, not the pod's; this one is joined at last, for
    # it belongs to the pod's users.
    joined = [one for one in joined if one[1] != c.CLONE_NEWCGROUP]
    joined.append(_open_namespace(plan.pid, "CGROUP"))
    os.close(pidfd)
    join_cgroups_of(plan.pid)
    _check_alive(plan.pid, plan.start_time)
    flush_streams()
    # A new process namespace is for children alone (setns(2)).
    for fd, flag in joined:
        setns(fd, flag)
    child = os.fork()
    if child == 0:
        _become_launcher(through, root_fd, (document, mounts), plan.users)
    _wait_for(child)


def _differs(pid: int, name: str) -> bool:
    file = KINDS[name][1]
    return os.stat(f"/proc/{pid}/ns/{file}").st_ino != os.stat(f"/proc/self/ns/{file}").st_ino


def _become_launcher(
    through: Through, root_fd: int, handed: tuple[int, int], users: UserRange | None
) -> NoReturn:
    try:
        os.fchdir(root_fd)
        os.chroot(".")
        if users is not None:
            # Still the host's root, which is nobody here.
            os.setgroups(())
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        for fd in handed:
            os.set_inheritable(fd, True)
        argv = [*through.argv, *map(str, handed)]
        os.execve(argv[0], argv, {})
    except BaseException as error:
        os.write(2, f"podctl: cannot enter the pod: {error}\n".encode(errors="replace"))
    os._exit(254)


def _wait_for(child: int) -> NoReturn:
    """Pass on signals and the exit code."""
    for number in _SIGNALS:
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    status = os.waitpid(child, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _open_process(pid: int, start_time: int) -> int:
    """A pidfd of exactly this process. Raises PodStateError when it is gone."""
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        raise PodStateError("the pod is not running any more") from None
    if procs.start_time(pid) == start_time:
        return pidfd
    os.close(pidfd)
    raise PodStateError("the pod is not running any more")


def _check_alive(pid: int, start_time: int) -> None:
    if procs.start_time(pid) != start_time:
        raise PodStateError("the pod ended while it was entered")


def _open_namespace(pid: int, name: str) -> tuple[int, int]:
    flag, file = KINDS[name]
    return os.open(f"/proc/{pid}/ns/{file}", os.O_RDONLY | os.O_CLOEXEC), flag


def _confinement(pid: int) -> tuple[int, bool]:
    """(bounding set as a bit mask, whether no-new-privileges is set) of a process."""
    with open(f"/proc/{pid}/status", errors="replace") as file:
        fields = dict(line.rstrip("\n").split(":", 1) for line in file)
    return int(fields["CapBnd"], 16), fields["NoNewPrivs"].strip() == "1"
