"""Work on bytes from outside in a child process that has given root's power away.

The child is forked, not executed: it has the parent's modules and the descriptors it is allowed
to keep, and nothing else. What it returns comes back as JSON over a pipe and is decoded as input
from a stranger. It dies with its parent, however that ends.
"""

from __future__ import annotations

import os
from enum import Enum
from typing import TYPE_CHECKING, NoReturn

from podctl.errors import PodctlError
from podctl.sys import caps, seccomp
from podctl.sys import constants as c
from podctl.sys.calls import close_range, keep_freed_memory, no_new_privileges, prctl
from podctl.sys.files import flush_streams
from podctl.sys.imports import forbid_imports
from podctl.sys.mounts import make_tree_slave
from podctl.sys.namespaces import unshare
from podctl.sys.results import LIMIT, Failure, decode, describe_error, encode, rebuild_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

#: nobody and nogroup: the ids no file should belong to
NOBODY = 65534
#: what unpacking an archive as root takes: owners, modes, file capabilities, and entering
#: directories that deny their owner
EXTRACT_CAPS = (c.CAP_CHOWN, c.CAP_DAC_OVERRIDE, c.CAP_FOWNER, c.CAP_FSETID, c.CAP_SETFCAP)


class Privileges(Enum):
    """What the child keeps. Without root there is nothing to drop but the way back up.

    NONE and EXTRACT cannot execute a program, nor make the calls podctl.sys.seccomp denies.
    """

    #: user nobody, no group, no capability, no way to gain any
    NONE = "none"
    #: uid 0 with EXTRACT_CAPS alone, in its own mount namespace, without sockets
    EXTRACT = "extract"
    #: the parent's
    SAME = "same"


class Child:
    """A forked child; as a context manager it is killed and reaped on exit."""

    def __init__(self, pid: int, result_fd: int, name: str) -> None:
        self.pid = pid
        self.name = name
        self._result_fd = result_fd
        self._reaped = False

    def fileno(self) -> int:
        """The result pipe, readable once the child has an answer or died (for poll)."""
        return self._result_fd

    def wait(self) -> object:
        """Return what the child's function returned; the child is gone afterwards.

        Raises:
            PodctlError: the child raised it (same class, message and hint), raised something
                else, was killed, or answered what cannot be decoded; `debug` has its traceback.
        """
        data = self._read()
        status = self._reap()
        return self._interpret(data, status)

    def kill(self) -> None:
        """SIGKILL, and reap. Does nothing when the child is already reaped."""
        if not self._reaped:
            os.kill(self.pid, 9)
            self._reap()
        self._close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def _read(self) -> bytes | None:
        """Everything up to end of file; None (and the child is killed) when it is too much."""
        parts: list[bytes] = []
        size = 0
        while part := os.read(self._result_fd, 1 << 16):
            size += len(part)
            if size > LIMIT:
                self.kill()
                return None
            parts.append(part)
        self._close()
        return b"".join(parts)

    def _reap(self) -> int:
        if self._reaped:
            return 0
        status = os.waitpid(self.pid, 0)[1]
        self._reaped = True
        return status

    def _close(self) -> None:
        if self._result_fd != -1:
            os.close(self._result_fd)
            self._result_fd = -1

    def _interpret(self, data: bytes | None, status: int) -> object:
        if data is None:
            raise PodctlError(f"{self.name} failed: its answer is longer than {LIMIT} bytes")
        if os.WIFSIGNALED(status):
            raise PodctlError(f"{self.name} was killed by signal {os.WTERMSIG(status)}")
        try:
            answer = decode(data)
        except ValueError as error:
            raise PodctlError(f"{self.name} failed: its answer is malformed ({error})") from None
        if isinstance(answer, Failure):
            raise rebuild_error(answer, self.name)
        return answer


def spawn(
    function: Callable[[], object],
    *,
    privileges: Privileges,
    keep: Sequence[int] = (),
    name: str,
    chroot_to: str | int | None = None,
) -> Child:
    """Fork a child that runs `function` with `privileges` and sends back what it returns.

    The calling thread must outlive the child (PR_SET_PDEATHSIG goes by thread).

    Args:
        function: its result may be None, bool, int, float, str, bytes, and lists, tuples (they
            come back as lists) and string-keyed dicts of those.
        keep: descriptors beyond 0, 1, 2 that stay open. Standard input becomes /dev/null.
        name: who failed, in messages (`unpack`, `download`).
        chroot_to: directory (path or descriptor) the child is confined to, EXTRACT as root only;
            what the function needs must be imported beforehand, it cannot import any more.

    Raises:
        OSError: no process or pipe to be had.
    """
    import signal

    flush_streams()
    receive, send = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    # Python drops an exception from the handlers it runs around fork(2), KeyboardInterrupt too.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        pid = os.fork()
        if pid == 0:
            _run(function, privileges, (*keep, send), send, parent, chroot_to)
    except BaseException:
        os.close(receive)
        os.close(send)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(send)
    return Child(pid, receive, name)


def _run(
    function: Callable[[], object],
    privileges: Privileges,
    keep: Sequence[int],
    send: int,
    parent: int,
    chroot_to: str | int | None,
) -> NoReturn:
    """The child's life. It never returns into the caller's code."""
    code = 1
    try:
        try:
            directory = _open_chroot(chroot_to)
            _isolate(keep if directory is None else (*keep, directory))
            _drop(privileges, directory)
            _die_with(parent)
            keep_freed_memory()
            answer = encode(function())
        except BaseException as error:
            answer = describe_error(error)
        view = memoryview(answer)
        while view:
            view = view[os.write(send, view) :]
        code = 0
    finally:
        os._exit(code)


def _open_chroot(chroot_to: str | int | None) -> int | None:
    if chroot_to is None:
        return None
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    if isinstance(chroot_to, int):
        return os.open(".", flags, dir_fd=chroot_to)
    return os.open(chroot_to, flags)


def _isolate(keep: Sequence[int]) -> None:
    """Close every descriptor but `keep` and the standard ones, and leave the terminal alone."""
    import signal

    signal.set_wakeup_fd(-1)
    # An interrupt is for the parent to act upon: it kills us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    first = 3
    for fd in sorted({fd for fd in keep if fd > 2}):
        os.closerange(first, fd)
        first = fd + 1
    close_range(first, 0xFFFFFFFF)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    if null != 0:
        os.close(null)


def _drop(privileges: Privileges, directory: int | None) -> None:
    if privileges is Privileges.SAME:
        return
    _set_limits()
    if os.geteuid() != 0:
        no_new_privileges()
        seccomp.restrict(network=privileges is Privileges.NONE)
        return
    if privileges is Privileges.NONE:
        _become_nobody()
    else:
        _keep_extract(directory)


def _set_limits() -> None:
    """No core dump: it would hold what the child was given (credentials, keys)."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _become_nobody() -> None:
    os.setgroups([])
    caps.drop_bounding()
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    caps.set_capabilities(())
    no_new_privileges()
    seccomp.restrict(network=True)
    # Other processes of user nobody must not trace this one.
    prctl(c.PR_SET_DUMPABLE, 0)


def _keep_extract(directory: int | None) -> None:
    os.setgroups([])
    unshare(c.CLONE_NEWNS)
    make_tree_slave()
    last = caps.last_cap()
    if directory is not None:
        _confine(directory)
    caps.drop_bounding(EXTRACT_CAPS, last)
    caps.set_capabilities(EXTRACT_CAPS)
    no_new_privileges()
    seccomp.restrict(network=False)


def _confine(directory: int) -> None:
    forbid_imports()
    os.fchdir(directory)
    os.chroot(".")
    os.close(directory)


def _die_with(parent: int) -> None:
    """Ask for SIGKILL when the parent dies; a change of uid would have cleared the request."""
    prctl(c.PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)
