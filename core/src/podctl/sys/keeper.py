"""Keeps a pod as its parent, where somebody must: a program of its own that ends with the pod.

It writes the output of a detached pod to files, records the exit status of a first process that is
the app itself, passes signals on in the foreground, and has the pod removed under --rm. Whoever
started the pod executes it; it loads little, since it stays.

Arguments are words NAME=VALUE (see `Orders`). It exits with the pod's code.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

if __name__ == "__main__":
    # Started by its path, isolated: the package lies three levels up.
    sys.path.insert(0, os.path.abspath(__file__).rsplit("/", 3)[0])

from podctl.sys.logfiles import Drain  # noqa: E402
from podctl.sys.resident import stay_alive  # noqa: E402

#: what the starter says of the pod (`verdict`)
STARTED, FAILED, ABANDONED = b"s", b"f", b"a"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_STOPPED_BY = (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)
_UNKNOWN = 254


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
    code: int | None
    if orders.forward:
        code = _attend(orders.child)
    else:
        stay_alive()
        verdict = os.read(orders.verdict, 1)
        if verdict == ABANDONED:
            return _exit_code(os.waitpid(orders.child, 0)[1])
        code = _keep(orders, pod_fd, failed=verdict == FAILED)
    if code is not None:
        for app in orders.record:
            _record(pod_fd, app, code)
    os.close(pod_fd)
    # Up to here the pod counts as running: whoever waits for its end finds everything in place.
    os.close(orders.lock)
    if orders.remove:
        _remove(orders.remove, os.path.basename(orders.directory))
    return _UNKNOWN if code is None else code


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


def _keep(orders: Orders, pod_fd: int, *, failed: bool) -> int | None:
    """Drain what the pod writes until nobody writes any more, and reap its first process; None if
    nobody knows how it ended."""
    if not (orders.streams or orders.alone or orders.remove or failed):
        # Nothing is left to do for such a pod: it gets along without a parent.
        return 0
    if not failed:
        os.close(orders.tell)
    pidfd = os.pidfd_open(orders.child)
    second = _Second(orders.child, pod_fd) if orders.streams and not failed else None
    Drain(pod_fd, orders.streams, orders.tell if failed else -1).run(pidfd, second)
    if second is not None:
        second.dismiss()
        if second.took_over:
            # Not our child: its new parent has asked how it ended.
            from podctl.sys.pidinfo import exit_code

            return exit_code(pidfd)
    return _exit_code(os.waitpid(orders.child, 0)[1])


class _Second:
    """A process like this one that waits for this one's death, and then does its work: whoever
    kills a pod's keeper must not kill the pod (SIGPIPE), nor stop it at a full pipe.

    Attributes:
        took_over: whether this process is one that has taken over.
    """

    def __init__(self, child: int, pod_fd: int) -> None:
        self._child = child
        self._pod_fd = pod_fd
        self._pid = 0
        self.took_over = False
        self.fd = -1
        self.replace()

    def replace(self) -> None:
        """Make one, where there was none or it was killed. Returns in it when it takes over."""
        while True:
            if self.fd >= 0:
                os.close(self.fd)
                os.waitpid(self._pid, 0)
            own = os.getpid()
            try:
                self._pid = os.fork()
            except OSError:
                # Too many processes: then there is none, which is no reason to end.
                self.fd, self._pid = -1, 0
                return
            if self._pid:
                self.fd = os.pidfd_open(self._pid)
                _write_keepers(self._pod_fd, (own, self._pid))
                return
            self.fd = -1
            _wait_for_end(own)
            self.took_over = True

    def dismiss(self) -> None:
        """End it: nothing is left to do."""
        if self._pid:
            os.kill(self._pid, _signal.SIGKILL)
            os.waitpid(self._pid, 0)


def _wait_for_end(pid: int) -> None:
    """Sleep until our parent has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    if os.getppid() == pid:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll()
    os.close(pidfd)


def _write_keepers(pod_fd: int, pids: Sequence[int]) -> None:
    """Number and start time of each: whoever ends the pod spares them."""
    lines = []
    for pid in pids:
        with open(f"/proc/{pid}/stat", "rb") as file:
            started = file.read().rpartition(b")")[2].split()[19]
        lines.append(b"%d %b\n" % (pid, started))
    try:
        _replace(pod_fd, ".", "keeper", b"".join(lines))
    except OSError:
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
        _replace(pod_fd, "status", app, b"%d\n" % code)
    except OSError as error:
        _say(f"the exit code {code} of {app} could not be recorded: {error.strerror}")


def _replace(dir_fd: int, directory: str, name: str, data: bytes) -> None:
    """Write a file of the pod; readers see the old one or the new."""
    new, old = f"{directory}/.{name}.new", f"{directory}/{name}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(new, flags, 0o640, dir_fd=dir_fd)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.rename(new, old, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


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
