"""Becoming the app: a launch or enter plan carried out in this process, ending in execve(2).

Everything that can fail by the pod's or the image's fault is done while the host's root is still
there, and raises. From the change of root on nothing of the host can be loaded any more: what
fails then is one line on standard error and the process's end.
"""

from __future__ import annotations

import os
import signal
import stat
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from podctl.errors import HostLacks, InvalidInput, PodctlError, PodStateError, Refused
from podctl.model.plan import LOGIN_VARIABLES, Account, Identity
from podctl.pods.describe import describe, plan_to_json
from podctl.pods.lookup import explain, find_program, open_program
from podctl.pods.mounting import build_root
from podctl.pods.users import login_environment, resolve
from podctl.sys import caps, procs
from podctl.sys import constants as c
from podctl.sys.calls import close_range, join_new_session_keyring, no_new_privileges, prctl
from podctl.sys.cgroups import join_cgroups_of
from podctl.sys.files import flush_streams, write_atomic
from podctl.sys.imports import forbid_imports
from podctl.sys.inroot import open_in_root
from podctl.sys.mounts import detach_below, make_tree_slave, mount, pivot_root, umount2
from podctl.sys.namespaces import KINDS, pidfd_open, setns, unshare

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podctl.model.plan import EnterPlan, LaunchPlan, PreparedPod

__all__ = ["describe", "enter", "launch", "plan_to_json"]

#: USER would need mappings first, PID a second process
_NAMESPACES = frozenset({"NS", "UTS", "IPC", "NET", "CGROUP"})
_RECORD_MODE = 0o640


class _Program(NamedTuple):
    """What to execute, all of it resolved inside the root but nothing changed yet."""

    root_fd: int
    directory_fd: int
    file_fd: int
    path: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    identity: Identity
    no_new_privileges: bool


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
    _check_strings(plan.argv, plan.environment)
    _check_namespaces(plan.flavor, plan.namespaces)
    _check_standard_descriptors()
    if lock_fd is not None:
        _check_lock(lock_fd)
    os.umask(0o022)
    os.chdir("/")
    _new_namespaces(plan.namespaces)
    try:
        root_fd = build_root(plan, f"podctl-{pod.uuid}")
        program = _prepare(root_fd, plan, no_new_privileges=plan.no_new_privileges)
        _write_records(pod.directory, plan.records)
    except PodctlError:
        # The caller may want to remove the pod: leave it nothing that is busy.
        detach_below(pod.directory)
        raise
    kept = [int(fd) for fd in plan.inherited]
    _become(program, kept if lock_fd is None else [*kept, lock_fd], move=plan.root is not None)


def enter(plan: EnterPlan) -> NoReturn:
    """Become a process inside a running pod, confined no less than the one it joins.

    Raises:
        PodStateError: that process is gone.
        PodctlError: the plan cannot be carried out; nothing has run inside the pod.
    """
    if os.geteuid() != 0:
        raise HostLacks("only root can enter a pod", hint="run podctl as root")
    _check_strings(plan.argv, plan.environment)
    unknown = [name for name in plan.namespaces if name not in _NAMESPACES]
    if unknown:
        raise PodctlError(f"entering a {unknown[0]} namespace is not possible in one process")
    _check_standard_descriptors()
    os.umask(0o022)
    # Until it is confined itself, this process is no object for the pod's debuggers
    # (CVE-2016-9962); execve makes it one again.
    prctl(c.PR_SET_DUMPABLE, 0)
    process = f"/proc/{plan.pid}"
    pidfd = pidfd_open_or_gone(plan)
    try:
        root_fd = os.open(f"{process}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        joined = [_open_namespace(plan.pid, name) for name in KINDS if name in plan.namespaces]
        bounding, confined = _confinement(plan.pid)
        program = _prepare(root_fd, plan, no_new_privileges=plan.no_new_privileges or confined)
        join_cgroups_of(plan.pid)
        # What was read above belongs to that process and to no later one of its number.
        if procs.start_time(plan.pid) != plan.start_time:
            raise PodStateError("the pod ended while it was entered")
        # From here on /proc may be the pod's own make; nothing of it is read any more. (Dropping
        # from the bounding set takes effect at execve only.)
        if bounding != _confinement(os.getpid())[0]:
            caps.drop_bounding(n for n in range(64) if bounding >> n & 1)
        for fd, flag in joined:
            setns(fd, flag)
    except OSError as error:
        raise PodctlError(f"cannot enter process {plan.pid}: {error}") from error
    finally:
        os.close(pidfd)
    _become(program, (), move=True, pivot=False)


def _prepare(root_fd: int, plan: LaunchPlan | EnterPlan, *, no_new_privileges: bool) -> _Program:
    """Resolve account, working directory and program inside the root."""
    identity, environment = plan.identity, dict(plan.environment)
    if isinstance(identity, Account):
        if any(name not in environment for name in LOGIN_VARIABLES):
            environment = {**login_environment(root_fd, identity), **environment}
        identity = resolve(root_fd, identity)
    path = plan.working_directory
    try:
        directory_fd = open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise PodctlError(f"working directory {path} in the image: {reason}") from None
    program = find_program(root_fd, plan.argv[0], environment, path)
    return _Program(
        root_fd,
        directory_fd,
        open_program(root_fd, program),
        program,
        plan.argv,
        environment,
        identity,
        no_new_privileges,
    )


def _check_strings(argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
    """What execve(2) cannot carry is refused while there is somebody to tell."""
    if not argv:
        raise InvalidInput("there is nothing to execute", hint="try --exec=BINARY")
    for word in argv:
        if "\0" in word:
            raise InvalidInput(f"argument {word!r} holds a NUL byte")
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidInput(f"environment variable {name!r} cannot be passed to a program")


def _check_namespaces(flavor: str, names: Iterable[str]) -> None:
    unknown = sorted(set(names) - _NAMESPACES)
    if unknown:
        raise PodctlError(f"flavor {flavor}: a launch cannot make a new {unknown[0]} namespace")


def _check_standard_descriptors() -> None:
    """0, 1 and 2 go to the app: none may be missing (the next file opened would take its place)
    and none may be a directory (it would lead out of the root)."""
    for fd in range(3):
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            # The lowest free number is the one just found missing.
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
            continue
        if stat.S_ISDIR(mode):
            raise Refused(f"descriptor {fd} is a directory", hint="redirect from and to files")


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


def pidfd_open_or_gone(plan: EnterPlan) -> int:
    """A pidfd of exactly the plan's process. Raises PodStateError when it is gone."""
    try:
        pidfd = pidfd_open(plan.pid)
    except ProcessLookupError:
        raise PodStateError("the pod is not running any more") from None
    if procs.start_time(plan.pid) == plan.start_time:
        return pidfd
    os.close(pidfd)
    raise PodStateError("the pod is not running any more")


def _open_namespace(pid: int, name: str) -> tuple[int, int]:
    flag, file = KINDS[name]
    return os.open(f"/proc/{pid}/ns/{file}", os.O_RDONLY | os.O_CLOEXEC), flag


def _confinement(pid: int) -> tuple[int, bool]:
    """(bounding set as a bit mask, whether no-new-privileges is set) of a process."""
    with open(f"/proc/{pid}/status", errors="replace") as file:
        fields = dict(line.rstrip("\n").split(":", 1) for line in file)
    return int(fields["CapBnd"], 16), fields["NoNewPrivs"].strip() == "1"


def _become(program: _Program, kept: Iterable[int], *, move: bool, pivot: bool = True) -> NoReturn:
    """The point of no return."""
    flush_streams()
    forbid_imports()
    try:
        if move:
            _change_root(program.root_fd, pivot=pivot)
        os.fchdir(program.directory_fd)
        # Raises when the directory is not below the root (CVE-2024-21626).
        os.getcwd()
        join_new_session_keyring()
        _keep_descriptors(kept)
        _reset_signals()
        _take_identity(program.identity)
        if program.no_new_privileges:
            no_new_privileges()
    except BaseException as error:
        _die(254, f"cannot start {program.path}: {error}")
    try:
        os.execve(program.path, program.argv, program.environment)
    except OSError as error:
        _die(*explain(error, program.root_fd, program.path, program.file_fd))


def _change_root(root_fd: int, *, pivot: bool) -> None:
    os.fchdir(root_fd)
    if not pivot:
        os.chroot(".")
        return
    try:
        pivot_root(".", ".")
    except OSError:
        # On the initial ramfs pivot_root(2) cannot work; moving the new root over it hides it as
        # well as chroot(2) can.
        mount(".", "/", None, c.MS_MOVE)
        os.chroot(".")
    else:
        # The old root now lies on top of the new one, at "."; pivot_root(2) shows this idiom.
        umount2(".", c.MNT_DETACH)
    os.chdir("/")


def _keep_descriptors(kept: Iterable[int]) -> None:
    """All but 0, 1, 2 and `kept` close at execve (CVE-2016-9962, CVE-2024-21626)."""
    close_range(3, 0xFFFFFFFF, c.CLOSE_RANGE_CLOEXEC)
    for fd in kept:
        os.set_inheritable(fd, True)


def _reset_signals() -> None:
    """Defaults for everything; only an ignored SIGHUP stays ignored, which is nohup(1)'s wish."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _take_identity(identity: Identity) -> None:
    os.setgroups(sorted({identity.gid, *identity.groups}))
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)


def _die(code: int, text: str) -> NoReturn:
    """Say it in one line, control characters made visible, and end without any clean-up: there
    is no host left to clean up from, nor to load a codec from."""
    try:
        shown = "".join(x if x.isprintable() else f"\\x{ord(x):02x}" for x in text)
        os.write(2, f"podctl: {shown}\n".encode(errors="replace"))
    finally:
        os._exit(code)
