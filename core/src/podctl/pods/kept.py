"""Starting a pod with a parent that keeps it: detached, or removed at its end.

The pod's first process is forked off and carries out the launch plan; beside it, or in this
process's place, stays the small keeper (podctl.sys.keeper) and nothing else of podctl.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from podctl.errors import PodctlError
from podctl.pods.ending import KEEPER
from podctl.pods.launch import launch
from podctl.pods.outputs import open_outputs
from podctl.sys import procs
from podctl.sys.files import flush_streams, write_atomic
from podctl.sys.keeper import ABANDONED, FAILED, STARTED
from podctl.sys.results import describe_error, read_error

if TYPE_CHECKING:
    from podctl.model.plan import LaunchPlan, PreparedPod
    from podctl.plugins import FlavorHandle
    from podctl.pods.outputs import Outputs

#: what a process is called until it has become the pod: execve(2) never leaves a slash in a name
_STARTING = "podctl/starting"
#: seconds between two looks at apps that start
_INTERVAL = 0.005


class Keeping(NamedTuple):
    """Why a pod has a parent.

    Args:
        detach: this process does not become the pod but leaves it running.
        remove: data directory, if the pod is to be removed at its end; else empty.
    """

    detach: bool = False
    remove: str = ""


class AppFailed(PodctlError):
    """The pod's first process ended before it was the app, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__("the app could not be started")
        self.exit_code = code
        #: unlike after any other failure, there is a pod that has ended
        self.has_ended = True


def launch_kept(plan: LaunchPlan, pod: PreparedPod, lock_fd: int, keeping: Keeping) -> None:
    """Carry out `plan` in a child. Returns when the pod runs, if it is detached; else this process
    becomes its keeper.

    Raises:
        PodctlError: as podctl.pods.launch.launch; nothing of the app has run.
        AppFailed: the app's program could not be executed; the pod has ended.
    """
    flush_streams()
    # A signal must neither end us between fork and execve nor be lost to the pod.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if keeping.detach:
        _detach(plan, pod, lock_fd, keeping)
    else:
        _stay(plan, pod, lock_fd, keeping)


def await_apps(flavor: FlavorHandle, pod: PreparedPod, seconds: float = 10.0) -> None:
    """Wait until every app of a pod that starts them itself was started, or has ended."""
    deadline = time.monotonic() + seconds
    waiting = [app.name for app in pod.apps]
    while waiting and time.monotonic() < deadline:
        waiting = [name for name in waiting if not _was_started(flavor, pod, name)]
        if waiting:
            time.sleep(_INTERVAL)


def _was_started(flavor: FlavorHandle, pod: PreparedPod, app: str) -> bool:
    with suppress(OSError):
        if os.stat(f"{pod.directory}/status/{app}").st_size > 0:
            return True
    with suppress(PodctlError, OSError):
        for process in flavor.processes(pod, app)[:1]:
            with open(f"/proc/{process.pid}/cmdline", "rb") as file:
                return b"applauncher.py" not in file.read()
    # Nothing can be started any more in a pod that has ended.
    instance = procs.read_instance(pod.directory)
    return instance is not None and not procs.is_running(instance)


def _stay(plan: LaunchPlan, pod: PreparedPod, lock_fd: int, keeping: Keeping) -> NoReturn:
    """Start the pod in the foreground and become its keeper."""
    failure, failure_end = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _become_pod(plan, pod, lock_fd, failure_end, None)
    os.close(failure_end)
    error = read_error(failure, "the start of the pod")
    if error is not None:
        os.waitpid(child, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        raise error
    words = [*_words(plan, pod, lock_fd, child, keeping), "forward=yes"]
    _execute_keeper(words, (lock_fd,))


def _detach(plan: LaunchPlan, pod: PreparedPod, lock_fd: int, keeping: Keeping) -> None:
    """Start the pod and its keeper in sessions of their own."""
    outputs = open_outputs(plan, pod)
    failure, failure_end = os.pipe2(os.O_CLOEXEC)
    hello, hello_end = os.pipe2(os.O_CLOEXEC)
    verdict_end, verdict = os.pipe2(os.O_CLOEXEC)
    keeper = os.fork()
    if keeper == 0:
        try:
            os.setsid()
            child = os.fork()
            if child == 0:
                _become_pod(plan, pod, lock_fd, failure_end, outputs)
            os.write(hello_end, b"%d" % child)
            words = _words(plan, pod, lock_fd, child, keeping)
            _become_keeper(words, outputs, lock_fd, verdict_end)
        finally:
            os._exit(254)
    for fd in (failure_end, hello_end, verdict_end):
        os.close(fd)
    outputs.close()
    _settle(keeper, failure, hello, verdict)


def _settle(keeper: int, failure: int, hello: int, verdict: int) -> None:
    """Find out whether the pod was started, and tell its keeper."""
    number = os.read(hello, 32)
    error = read_error(failure, "the start of the pod")
    if error is not None or not number:
        word = ABANDONED
    else:
        word = FAILED if _has_died(int(number)) else STARTED
    with suppress(BrokenPipeError):
        os.write(verdict, word)
    for fd in (failure, hello, verdict):
        os.close(fd)
    code = 0 if word == STARTED else os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1])
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if word == ABANDONED:
        raise error or PodctlError("the pod's keeper could not be started")
    if word == FAILED:
        raise AppFailed(code)


def _has_died(pid: int) -> bool:
    """Whether a process that can become the pod no more has not become it. Its keeper does not
    reap it before it was told the verdict."""
    with open(f"/proc/{pid}/comm", "rb") as file:
        return file.read().rstrip(b"\n") == _STARTING.encode()


def _become_pod(
    plan: LaunchPlan,
    pod: PreparedPod,
    lock_fd: int,
    failure_end: int,
    outputs: Outputs | None,
) -> NoReturn:
    """Carry out the plan; what goes wrong is told through `failure_end`, which execve closes."""
    try:
        if os.environ.get("LISTEN_PID") == str(os.getppid()) and outputs is None:
            os.environ["LISTEN_PID"] = str(os.getpid())
        with open("/proc/self/comm", "w") as file:
            file.write(_STARTING)
        if outputs is not None:
            os.setsid()
            _replace_streams(_open_null(), outputs.out, outputs.err)
        launch(plan, pod, lock_fd)
    except BaseException as error:
        os.write(failure_end, describe_error(error))
    finally:
        os._exit(254)


def _words(
    plan: LaunchPlan, pod: PreparedPod, lock_fd: int, child: int, keeping: Keeping
) -> list[str]:
    words = [f"child={child}", f"directory={pod.directory}", f"lock={lock_fd}"]
    words.append(f"record={','.join(app.name for app in pod.apps)}")
    if not plan.apps:
        # The first process is the app itself: nobody else could record how it ended.
        words.append("alone=yes")
    if keeping.remove:
        words.append(f"remove={keeping.remove}")
    return words


def _become_keeper(words: list[str], outputs: Outputs, lock_fd: int, verdict_end: int) -> NoReturn:
    tell = os.dup(2)
    kept = [lock_fd, verdict_end, tell]
    words += [f"verdict={verdict_end}", f"tell={tell}"]
    kept += outputs.read_ends()
    words.append(f"streams={outputs.words()}")
    _replace_streams(_open_null(), _open_null(), _open_null())
    os.chdir("/")
    _execute_keeper(words, kept)


def _execute_keeper(words: list[str], kept: tuple[int, ...] | list[int]) -> NoReturn:
    import podctl.sys.keeper as program

    _write_record(words)
    for fd in kept:
        os.set_inheritable(fd, True)
    path = os.path.abspath(program.__file__)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    os.execve(sys.executable, [sys.executable, "-ISE", path, *words], environment)


def _write_record(words: list[str]) -> None:
    """So that whoever kills what holds the pod's lock spares its keeper."""
    directory = next(word for word in words if word.startswith("directory=")).partition("=")[2]
    own = f"{os.getpid()} {procs.start_time(os.getpid())}\n"
    write_atomic(f"{directory}/{KEEPER}", own.encode(), mode=0o640, durable=False)


def _open_null() -> int:
    return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)


def _replace_streams(*fds: int) -> None:
    for number, fd in enumerate(fds):
        os.dup2(fd, number, inheritable=True)
