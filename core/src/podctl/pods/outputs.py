"""Where the output of a detached pod goes: to the host's journal, or by its keeper to files.

Of one app it comes through the pod's own standard output and standard error. Several apps are told
apart by FIFOs, one for each stream, that the pod's first process connects them to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from podctl.sys.logfiles import DIRECTORY, IN_JOURNAL, POD

if TYPE_CHECKING:
    from podctl.model.plan import AppLaunch, LaunchPlan, PreparedPod

_JOURNAL = "/run/systemd/journal/stdout"
_INFO, _ERROR = 6, 3
#: an app may open /dev/stdout by that name, whoever it runs as; nobody else finds the way
_PIPE_MODE = 0o666


class Outputs(NamedTuple):
    """Descriptors of a detached pod's output.

    Args:
        out, err: what becomes the pod's standard output and standard error.
        read: (app, what its keeper reads its stdout from, its stderr); none of a journal.
    """

    out: int
    err: int
    read: tuple[tuple[str, int, int], ...] = ()

    def words(self) -> str:
        """As the keeper is told."""
        return ",".join(f"{app}:{out}:{err}" for app, out, err in self.read)

    def read_ends(self) -> list[int]:
        """What the keeper needs open."""
        return [fd for _, out, err in self.read for fd in (out, err)]

    def close(self) -> None:
        """Close all of them here."""
        for fd in (self.out, self.err, *self.read_ends()):
            os.close(fd)


def open_outputs(plan: LaunchPlan, pod: PreparedPod) -> Outputs:
    """Open everything before the pod starts.

    Raises:
        OSError: the pod's directory cannot be written to.
    """
    directory = f"{pod.directory}/{DIRECTORY}"
    os.makedirs(directory, 0o700, exist_ok=True)
    apart = [app for app in plan.apps if app.streams is not None] if len(plan.apps) > 1 else []
    if not apart and os.path.exists(_JOURNAL):
        found = _open_journal(pod)
        if found is not None:
            os.close(os.open(f"{directory}/{IN_JOURNAL}", os.O_WRONLY | os.O_CREAT, 0o600))
            return found
    out_end, out = _pipe()
    err_end, err = _pipe()
    name = POD if apart else pod.apps[0].name
    fifos = tuple(_open_fifos(app) for app in apart)
    return Outputs(out, err, ((name, out_end, err_end), *fifos))


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.fchmod(writer, _PIPE_MODE)
    return reader, writer


def _open_fifos(app: AppLaunch) -> tuple[str, int, int]:
    """Make an app's FIFOs. Opened for both, they have a reader before there is a writer, and no
    end in between."""
    fds = []
    for name in ("stdout", "stderr"):
        path = f"{app.streams}/{name}"
        os.mkfifo(path)
        os.chmod(path, _PIPE_MODE)
        fds.append(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    return app.name, fds[0], fds[1]


def _open_journal(pod: PreparedPod) -> Outputs | None:
    """Two streams to journald; None where nobody listens."""
    from podctl.pods.journal import identifier

    name = identifier(pod.uuid, pod.apps[0].name)
    out = _connect(name, _INFO)
    err = None if out is None else _connect(name, _ERROR)
    return None if out is None or err is None else Outputs(out, err)


def _connect(name: str, priority: int) -> int | None:
    """A stream as sd_journal_stream_fd(3) opens it."""
    import socket

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.connect(_JOURNAL)
        connection.shutdown(socket.SHUT_RD)
        # Identifier, unit, priority, prefixes of levels, forwarding to syslog, kmsg and console.
        connection.sendall(f"{name}\n\n{priority}\n0\n0\n0\n0\n".encode())
    except OSError:
        connection.close()
        return None
    return connection.detach()
