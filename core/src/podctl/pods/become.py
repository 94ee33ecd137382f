"""The point of no return: this process takes on a root and an identity, and executes.

From the change of root on nothing of the host can be loaded any more: what fails then is one line
on standard error and the process's end.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from podctl.pods.lookup import explain
from podctl.sys import constants as c
from podctl.sys.calls import close_range, join_new_session_keyring, no_new_privileges
from podctl.sys.files import flush_streams
from podctl.sys.imports import forbid_imports
from podctl.sys.mounts import mount, pivot_root, umount2
from podctl.sys.procs import FIRST_SOCKET, passed_sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.model.plan import Identity
    from podctl.pods.program import Program
    from podctl.sys.confine import Held


class Inherited(NamedTuple):
    """Descriptors that survive execve, beside 0, 1 and 2.

    Args:
        fds: by number.
        lock_fd: the pod's lock.
        announced: whether the program is told of the lock as of a socket passed to it
            (sd_listen_fds(3)), behind those that were passed to us.
    """

    fds: tuple[int, ...] = ()
    lock_fd: int | None = None
    announced: bool = False


#: nothing but 0, 1 and 2
ALONE = Inherited()


def become(
    program: Program,
    inherited: Inherited = ALONE,
    *,
    move: bool,
    pivot: bool = True,
    held: Held | None = None,
) -> NoReturn:
    """Take on the program's root and identity, and execute it, held to `held`."""
    flush_streams()
    take_on = _take_identity if held is None else _confine(held)
    forbid_imports()
    environment = dict(program.environment)
    try:
        if move:
            _change_root(program.root_fd, pivot=pivot)
        os.fchdir(program.directory_fd)
        # Raises when the directory is not below the root (CVE-2024-21626).
        os.getcwd()
        join_new_session_keyring()
        _keep_descriptors(inherited, environment)
        _reset_signals()
        take_on(program.identity)
        if program.no_new_privileges:
            no_new_privileges()
    except BaseException as error:
        _die(254, f"cannot start {program.path}: {error}")
    try:
        os.execve(program.path, program.argv, environment)
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


def _keep_descriptors(inherited: Inherited, environment: dict[str, str]) -> None:
    """All others close at execve (CVE-2016-9962, CVE-2024-21626)."""
    close_range(3, 0xFFFFFFFF, c.CLOSE_RANGE_CLOEXEC)
    for fd in inherited.fds:
        os.set_inheritable(fd, True)
    lock_fd = inherited.lock_fd
    if lock_fd is None:
        return
    if not inherited.announced:
        os.set_inheritable(lock_fd, True)
        return
    sockets = passed_sockets()
    for fd in range(FIRST_SOCKET, FIRST_SOCKET + sockets):
        os.set_inheritable(fd, True)
    # Nothing that stands at this number is needed from here on.
    if lock_fd != FIRST_SOCKET + sockets:
        os.dup2(lock_fd, FIRST_SOCKET + sockets)
    os.set_inheritable(FIRST_SOCKET + sockets, True)
    environment["LISTEN_FDS"] = str(sockets + 1)
    environment["LISTEN_PID"] = str(os.getpid())


def _reset_signals() -> None:
    """Defaults for everything; only an ignored SIGHUP stays ignored, which is nohup(1)'s wish."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _confine(held: Held) -> Callable[[Identity], None]:
    """How the identity is taken on by a process that is held; imports while that is possible."""
    from podctl.sys import confine

    if held["rlimits"]:
        import resource  # noqa: F401

    def take_on(identity: Identity) -> None:
        confine.apply(held, identity.uid, identity.gid, identity.groups)

    return take_on


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
