"""Keeps a pod as its parent, where somebody must: a program of its own that ends with the pod.

It writes the output of a detached pod to files, records the exit status of a first process that is
the app itself, passes signals on in the foreground, and has the pod removed under --rm. Whoever
started the pod executes it; it loads little, since it stays.

Arguments are words NAME=VALUE (see `Orders`). It exits with the pod's code.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

if __name__ == "__main__":
    # Started by its path, isolated: the package lies three levels up.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from podctl.sys.logfiles import Drain  # noqa: E402

#: what the starter says of the pod (`verdict`)
STARTED, FAILED, ABANDONED = b"s", b"f", b"a"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_STOPPED_BY = (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)
_REMOVAL_FAILED = 254


class Orders:
    """What the keeper is told.

    Args:
        words: `child`, number of the pod's first process; `directory`, the pod's; `lock`, the
            descriptor of its lock; `record`, apps (by commas) whose status is the child's unless
            they have one; `alone`, `yes` where nobody else records one; `remove`, data directory,
            if the pod is to be removed at its end; `forward`, `yes` in the foreground; `verdict`
            and `tell`, descriptors: whether the pod was started, and where a failed one's last
            words go; `streams`, APP:STDOUT:STDERR descriptors, by commas.
    """

    def __init__(self, words: Sequence[str]) -> None:
        given = dict(word.split("=", 1) for word in words)
        self.child = int(given["child"])
        self.directory = given["directory"]
        self.lock = int(given["lock"])
        self.record = [app for app in given.get("record", "").split(",") if app]
        self.alone = given.get("alone") == "yes"
        self.remove = given.get("remove", "")
        self.forward = given.get("forward") == "yes"
        self.verdict = int(given.get("verdict", -1))
        self.tell = int(given.get("tell", -1))
        self.streams = [
            (app, int(out), int(err))
            for app, out, err in (
                entry.split(":") for entry in given.get("streams", "").split(",") if entry
            )
        ]


def main(words: Sequence[str]) -> int:
    """Keep one pod to its end; returns its exit code."""
    orders = Orders(words)
    pod_fd = os.open(orders.directory, _DIRECTORY)
    if orders.forward:
        code = _attend(orders.child)
    else:
        _stay_alive()
        verdict = os.read(orders.verdict, 1)
        if verdict == ABANDONED:
            return _exit_code(os.waitpid(orders.child, 0)[1])
        code = _keep(orders, pod_fd, failed=verdict == FAILED)
    for app in orders.record:
        _record(pod_fd, app, code)
    os.close(pod_fd)
    # Up to here the pod counts as running: whoever waits for its end finds everything in place.
    os.close(orders.lock)
    if orders.remove:
        _remove(orders.remove, os.path.basename(orders.directory))
    return code


def _attend(child: int) -> int:
    """Pass signals on until the child has ended; its exit code.

    All signals are blocked since before the child was made, so none is lost. Those of the terminal
    reach the child as they reach us, being of one process group, and are not sent twice.
    """
    everything = _signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP}
    _signal.pthread_sigmask(_signal.SIG_BLOCK, everything)
    while True:
        code = _look_after(child)
        if code is not None:
            return code
        found = _signal.sigwaitinfo(everything)
        # SI_USER and below: sent by a process (sigaction(2)).
        if found.si_signo != _signal.SIGCHLD and found.si_code <= 0:
            _send(child, found.si_signo)


def _look_after(child: int) -> int | None:
    """The exit code of a child that has ended. When it was stopped, we stop with it: our parent is
    a shell with job control."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if not os.WIFSTOPPED(status):
            return _exit_code(status)
        if os.WSTOPSIG(status) in _STOPPED_BY:
            os.kill(os.getpid(), _signal.SIGSTOP)
            _send(child, _signal.SIGCONT)


def _send(child: int, number: int) -> None:
    """The child is ours and not reaped: its number is nobody else's."""
    try:
        os.kill(child, number)
    except ProcessLookupError:
        return


def _keep(orders: Orders, pod_fd: int, *, failed: bool) -> int:
    """Drain what the pod writes until nobody writes any more, and reap its first process."""
    if not (orders.streams or orders.alone or orders.remove or failed):
        # Nothing is left to do for such a pod: it gets along without a parent.
        return 0
    if not failed:
        os.close(orders.tell)
    drain = Drain(pod_fd, orders.streams, orders.tell if failed else -1)
    pidfd = os.pidfd_open(orders.child)
    drain.run(pidfd)
    return _exit_code(os.waitpid(orders.child, 0)[1])


def _stay_alive() -> None:
    """The app's output would stop or kill it (SIGPIPE) without us: end with the pod only."""
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_IGN)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
    except OSError:
        # Without CAP_SYS_RESOURCE the value may not go down.
        return


def _exit_code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _record(pod_fd: int, app: str, code: int) -> None:
    """Write `status/APP`, whole or not at all, unless it is there: an app that was killed together
    with its supervisor has none."""
    try:
        if _exists(pod_fd, f"status/{app}"):
            return
        if not _exists(pod_fd, "status"):
            os.mkdir("status", 0o750, dir_fd=pod_fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(f"status/.{app}.new", flags, 0o640, dir_fd=pod_fd)
        try:
            os.write(fd, b"%d\n" % code)
        finally:
            os.close(fd)
        os.rename(f"status/.{app}.new", f"status/{app}", src_dir_fd=pod_fd, dst_dir_fd=pod_fd)
    except OSError as error:
        _say(f"the exit code {code} of {app} could not be recorded: {error.strerror}")


def _exists(dir_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _remove(data_dir: str, uuid: str) -> None:
    """Have the pod removed as `podctl rm` does it."""
    command = [sys.executable, "-I", "-m", "podctl", f"--dir={data_dir}", "rm", uuid]
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    pid = os.posix_spawn(
        sys.executable,
        command,
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)],
        setsigmask=(),
        setsigdef=[_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM],
    )
    os.close(null)
    if os.waitpid(pid, 0)[1] != 0:
        _say(f'pod "{uuid}" could not be removed: podctl rm {uuid}')


def _say(text: str) -> None:
    os.write(2, f"run: {text}\n".encode(errors="replace"))


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
