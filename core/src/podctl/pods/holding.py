"""The holder of an app's terminal or pipes (podctl.sys.holder): started, spoken to, ended.

An app that has one gets its holder before it can start. It ends with the pod, or when the app is
removed from the pod.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from podctl.errors import PodctlError
from podctl.sys import constants as c
from podctl.sys.calls import close_range
from podctl.sys.files import flush_streams, remove_tree
from podctl.sys.holder import CONTROL, END, HANDOVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from socket import socket

    from podctl.model.plan import AppLaunch

#: directory of a pod: for each app that can be attached to, one with its sockets
DIRECTORY = "attach"
#: what the names of sockets begin with that clients come to; rkt's
SOCKET = "sock-"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def place(directory: str, app: str) -> str:
    """Where an app's sockets lie, in its pod's directory."""
    return f"{directory}/{DIRECTORY}/{app}"


def hold(app: AppLaunch, directory: str, pidfd: int) -> None:
    """Start the holder of an app, if it needs one.

    Args:
        directory: the pod's.
        pidfd: of the pod's first process, with which the holder ends.

    Raises:
        PodctlError: there is none.
    """
    if app.connections is None or not app.connections.streams.targets:
        return
    own = place(directory, app.name)
    try:
        remove_tree(own)
        os.makedirs(os.path.dirname(own), 0o700, exist_ok=True)
        os.mkdir(own, 0o700)
        with suppress(FileNotFoundError):
            os.unlink(f"{app.connections.outside}/{HANDOVER}")
        sockets = _sockets(app.connections.streams.targets, own, app.connections.outside)
        try:
            fds = {name: one.fileno() for name, one in sockets.items()}
            started = _start({**fds, "pod": pidfd}, own)
        finally:
            for one in sockets.values():
                one.close()
    except OSError as error:
        raise PodctlError(f"cannot hold the streams of app {app.name}: {error}") from error
    if not started:
        raise PodctlError(f"the holder of the streams of app {app.name} cannot be started")


def end(directory: str, app: str) -> None:
    """End the holder of an app. Idempotent."""
    tell(directory, app, END)
    remove_tree(place(directory, app))


def tell(directory: str, app: str, message: bytes) -> None:
    """Send a message to the holder of an app, if there is one."""
    from socket import AF_UNIX, SOCK_DGRAM, socket

    with (
        suppress(FileNotFoundError, ConnectionRefusedError),
        reach(place(directory, app)) as path,
        socket(AF_UNIX, SOCK_DGRAM) as ours,
    ):
        ours.sendto(message, f"{path}/{CONTROL}")


@contextmanager
def reach(directory: str) -> Iterator[str]:
    """A path of the directory that is short enough for a socket's address (unix(7))."""
    fd = os.open(directory, _OPEN)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _sockets(targets: tuple[str, ...], own: str, outside: str) -> dict[str, socket]:
    from socket import SOCK_DGRAM, SOCK_STREAM

    sockets = {}
    with reach(own) as path:
        for target in targets:
            sockets[target] = _bound(SOCK_STREAM, f"{path}/{SOCKET}{target}")
            sockets[target].listen()
        sockets["control"] = _bound(SOCK_DGRAM, f"{path}/{CONTROL}")
    with reach(outside) as path:
        sockets["handover"] = _bound(SOCK_DGRAM, f"{path}/{HANDOVER}")
    return sockets


def _bound(kind: int, path: str) -> socket:
    from socket import AF_UNIX, socket

    made = socket(AF_UNIX, kind)
    made.bind(path)
    os.chmod(path, 0o600)
    return made


def _start(fds: Mapping[str, int], directory: str) -> bool:
    """Start the program as nobody's child: what becomes the pod has children of its own to wait
    for."""
    flush_streams()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.chdir("/")
            close_range(3, 0xFFFFFFFF, c.CLOSE_RANGE_CLOEXEC)
            for fd in fds.values():
                os.set_inheritable(fd, True)
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            for number in range(3):
                os.dup2(null, number)
            _spawn(fds, directory)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _spawn(fds: Mapping[str, int], directory: str) -> None:
    import podctl.sys.holder as program

    words = [f"directory={directory}", *(f"{name}={fd}" for name, fd in fds.items())]
    command = [sys.executable, "-ISE", os.path.abspath(program.__file__), *words]
    os.posix_spawn(sys.executable, command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
