"""Holds the far ends of an app's terminal or pipes while its pod lives, for whoever attaches.

A program of its own, beside the pod. The pod's launcher hands it the descriptors each time the app
is started (podctl.sys.applauncher); clients come by sockets in the pod's directory, which only root
can reach, one for each of `stdin`, `stdout`, `stderr` and `tty`. What they send and get there is
the bytes as they are.

What an app writes while nobody is attached is dropped. While somebody is, an app waits for the
slowest client of a pipe; of a terminal, a client that does not keep up is cut off.

Arguments are words NAME=VALUE: `directory` of the sockets, for people; descriptors `pod` (a pidfd
of the pod's first process), `handover` and `control` (datagram sockets for the launcher and for
podctl), and a listening socket for each target by its name.
"""

from __future__ import annotations

import os
import select
import sys
from _socket import CMSG_SPACE, SCM_RIGHTS, SOL_SOCKET, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

if __name__ == "__main__":
    # Started by its path, isolated: the package lies three levels up.
    sys.path.insert(0, os.path.abspath(__file__).rsplit("/", 3)[0])

from podctl.sys.resident import stay_alive  # noqa: E402

#: name of the socket at which podctl speaks to the holder; a message END, or a struct winsize
CONTROL, END, SIZE = "control", b"end", 8
#: name of the socket at which the launcher does
HANDOVER = "holder"
TERMINAL, INPUT = "tty", "stdin"
_CHUNK = 1 << 14
#: bytes kept for a client of a pipe before the app has to wait, for one of a terminal before it is
#: cut off, and of what is typed
_PIPE_LIMIT, _TERMINAL_LIMIT, _INPUT_LIMIT = 1 << 16, 1 << 20, 1 << 16
#: milliseconds that clients may take nothing of what is left when the pod has ended
_LAST_WAIT = 5000
_IN, _OUT, _GONE = select.POLLIN, select.POLLOUT, select.POLLHUP | select.POLLERR
_TIOCSWINSZ = 0x5414


class _Client:
    """Somebody attached to one target."""

    def __init__(self, fd: int, target: str) -> None:
        self.fd = fd
        self.target = target
        self.pending = b""
        #: whether it may still send; whether it is gone and has left something; whether it is to go
        #: once it has got everything
        self.sends, self.gone, self.last = True, False, False

    def write(self) -> bool:
        """Pass on what can be; False when nobody takes it."""
        try:
            while self.pending:
                self.pending = self.pending[os.write(self.fd, self.pending) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return not self.last


class Holder:
    """See the module.

    Args:
        words: the program's arguments.
    """

    def __init__(self, words: Sequence[str]) -> None:
        given = dict(word.split("=", 1) for word in words)
        self._pod = int(given["pod"])
        self._handover = socket(fileno=int(given["handover"]))
        self._control = socket(fileno=int(given["control"]))
        self._listeners = {
            name: socket(fileno=int(given[name]))
            for name in (INPUT, "stdout", "stderr", TERMINAL)
            if name in given
        }
        for one in (self._handover, self._control, *self._listeners.values()):
            one.setblocking(False)
        #: our ends, by target; a terminal is among both
        self._outputs: dict[str, int] = {}
        self._inputs: dict[str, int] = {}
        self._clients: list[_Client] = []
        self._typed = b""
        self._size = b""

    def run(self) -> None:
        """Return when the pod has ended, or the app was removed from it."""
        while True:
            found = _wait(self._interest())
            if self._control.fileno() in found and not self._obey():
                return
            self._serve(found)
            if self._pod in found:
                self._finish()
                return
            # Last: new descriptors may have the numbers of old ones.
            if self._handover.fileno() in found:
                self._receive()
            for target, listener in self._listeners.items():
                if listener.fileno() in found:
                    self._accept(target, listener)

    def _interest(self) -> dict[int, int]:
        fds = (self._handover.fileno(), self._control.fileno(), self._pod)
        wanted = dict.fromkeys((*fds, *(one.fileno() for one in self._listeners.values())), _IN)
        for target, fd in self._outputs.items():
            if target == TERMINAL or all(
                len(client.pending) < _PIPE_LIMIT for client in self._of(target)
            ):
                wanted[fd] = _IN
        for fd in self._inputs.values():
            wanted[fd] = wanted.get(fd, 0) | (_OUT if self._typed else 0)
        for client in self._clients:
            listens = client.sends and self._takes(client.target)
            if listens or not client.gone:
                wanted[client.fd] = (_IN if listens else 0) | (_OUT if client.pending else 0)
        return wanted

    def _takes(self, target: str) -> bool:
        """Whether what its clients send can be taken now; what comes to an output is ignored."""
        if target not in (INPUT, TERMINAL):
            return True
        return target in self._inputs and len(self._typed) < _INPUT_LIMIT

    def _of(self, target: str) -> Iterator[_Client]:
        return (client for client in self._clients if client.target == target)

    def _serve(self, found: dict[int, int]) -> None:
        for client in list(self._clients):
            events = found.get(client.fd, 0)
            if events & _IN:
                self._hear(client)
            elif events & _GONE:
                client.gone = True
            nothing_left = client.gone and not (client.sends and client.target in (INPUT, TERMINAL))
            if nothing_left or (events & _OUT and not client.write()):
                self._drop(client)
        for target, fd in list(self._outputs.items()):
            if found.get(fd, 0) & (_IN | _GONE):
                self._forward(target)
        for target, fd in list(self._inputs.items()):
            if found.get(fd, 0) & (_OUT | select.POLLERR):
                self._type(target)

    def _hear(self, client: _Client) -> None:
        try:
            data = os.read(client.fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            client.sends = False
        elif client.target in self._inputs:
            self._typed += data
            self._type(client.target)

    def _type(self, target: str) -> None:
        try:
            while self._typed:
                self._typed = self._typed[os.write(self._inputs[target], self._typed) :]
        except BlockingIOError:
            return
        except OSError:
            self._end(target)
            return
        if target == INPUT and _wait({self._inputs[target]: 0}, 0):
            # Nobody has the other end any more.
            self._end(target)

    def _forward(self, target: str) -> bool:
        """Pass on what an app has written; False when there is nothing."""
        try:
            data = os.read(self._outputs[target], _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            # Of a terminal that nobody has open any more (EIO).
            data = b""
        if not data:
            self._end(target)
            return False
        for client in list(self._of(target)):
            client.pending += data
            too_slow = target == TERMINAL and len(client.pending) > _TERMINAL_LIMIT
            if not client.write() or too_slow:
                self._drop(client)
        return True

    def _end(self, target: str) -> None:
        """The app has ended, or closed this stream: so do we, and with it go its clients."""
        fds = {self._outputs.pop(target, -1), self._inputs.pop(target, -1)} - {-1}
        for fd in fds:
            os.close(fd)
        if target in (INPUT, TERMINAL):
            self._typed = b""
        for client in list(self._of(target)):
            client.last = True
            if not client.write():
                self._drop(client)

    def _drop(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            os.close(client.fd)

    def _receive(self) -> None:
        """Take over the other ends of a started app's streams. They come from inside the pod: none
        is ever waited for."""
        try:
            text, messages, _, _ = self._handover.recvmsg(64, CMSG_SPACE(3 * 4))
        except OSError:
            return
        fds = []
        for level, kind, data in messages:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                numbers = (data[at : at + 4] for at in range(0, len(data) - 3, 4))
                fds += [int.from_bytes(number, sys.byteorder) for number in numbers]
        for target, fd in zip(text.decode("ascii", "replace").split(), fds, strict=False):
            if target in self._listeners:
                self._take_over(target, os.dup(fd))
        for fd in fds:
            os.close(fd)

    def _take_over(self, target: str, fd: int) -> None:
        for old in {self._outputs.pop(target, -1), self._inputs.pop(target, -1)} - {-1}:
            os.close(old)
        try:
            os.set_blocking(fd, False)
        except OSError:
            os.close(fd)
            return
        if target != INPUT:
            self._outputs[target] = fd
        if target in (INPUT, TERMINAL):
            self._inputs[target] = fd
            self._typed = b""
        self._resize()

    def _accept(self, target: str, listener: socket) -> None:
        try:
            # What makes an object of it is in `socket`, a large module.
            fd, _ = listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        os.set_blocking(fd, False)
        self._clients.append(_Client(fd, target))

    def _obey(self) -> bool:
        """False when the end was asked for."""
        try:
            message = self._control.recv(64)
        except OSError:
            return True
        if len(message) == SIZE:
            self._size = message
            self._resize()
        return bool(message != END)

    def _resize(self) -> None:
        from fcntl import ioctl

        if self._size and TERMINAL in self._inputs:
            try:
                ioctl(self._inputs[TERMINAL], _TIOCSWINSZ, self._size)
            except OSError:
                return

    def _finish(self) -> None:
        """The pod has ended: pass on what is left."""
        for target in list(self._outputs):
            while target in self._outputs and self._forward(target):
                continue
            self._end(target)
        while waiting := [client for client in self._clients if client.pending]:
            found = _wait({client.fd: _OUT for client in waiting}, _LAST_WAIT)
            if not found:
                # Somebody who does not read is not waited for.
                return
            for client in waiting:
                if client.fd in found and not client.write():
                    self._drop(client)


def _wait(wanted: dict[int, int], milliseconds: int | None = None) -> dict[int, int]:
    poll = select.poll()
    for fd, events in wanted.items():
        poll.register(fd, events)
    return dict(poll.poll(milliseconds))


def main(words: Sequence[str]) -> int:
    """Hold one app's streams to the end of its pod."""
    stay_alive()
    Holder(words).run()
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
