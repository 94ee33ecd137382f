"""Attaching to an app: what is typed here goes to it, what it writes comes here.

Both ends are sockets of the app's holder (podctl.sys.holder). Detaching is nothing but closing
them.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import PodStateError, UsageError
from podctl.model.streams import TERMINAL, Streams
from podctl.pods.appstate import app_state
from podctl.pods.holding import SOCKET, place, reach, tell
from podctl.pods.signalling import RunningPod
from podctl.pods.terminal import raw_terminal, terminal_size
from podctl.sys import procs
from podctl.sys.files import write_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socket import socket

    from podctl.pods.directories import Pod

INPUT = "stdin"
_CHUNK = 1 << 14
#: descriptors of ours that a target's output goes to
_OURS = {TERMINAL: 1, "stdout": 1, "stderr": 2}
#: seconds within which an app is started; milliseconds of silence after it has ended
_PATIENCE, _PAUSE, _SILENCE = 30.0, 0.005, 500
#: bytes of input that wait for the app
_INPUT_LIMIT = 1 << 16
#: ctrl-p ctrl-q, as docker and podman have them
_FIRST_KEY, _SECOND_KEY = 0x10, 0x11


class Wanted(NamedTuple):
    """What to attach to.

    Args:
        typing: the target our standard input goes to; None for none.
        shown: targets whose output is shown.
    """

    typing: str | None
    shown: tuple[str, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        """All to connect to, each once."""
        return tuple(dict.fromkeys((*((self.typing,) if self.typing else ()), *self.shown)))


class Attachment:
    """An app of a running pod, and what of it can be attached to.

    Args:
        app: None for the pod's only one.

    Raises:
        PodStateError: the pod does not run.
        NotFound: it has no such app.
        UsageError: it must be said which app is meant.
    """

    def __init__(self, pod: Pod, app: str | None) -> None:
        self._running = RunningPod(pod)
        names = self._running.apps(app)
        if len(names) != 1:
            raise UsageError(
                f"pod contains multiple apps: {', '.join(names)}", hint="choose one with --app"
            )
        self.app = names[0]
        self._directory = pod.directory
        prepared = next(one for one in self._running.prepared.apps if one.name == self.app)
        self.streams = prepared.streams or Streams()

    def targets(self) -> dict[str, object]:
        """rkt's list of endpoints, as a JSON value."""
        own = place(self._directory, self.app)
        return {
            "version": 1,
            "targets": [
                {"name": name, "domain": "unix", "address": f"{own}/{SOCKET}{name}"}
                for name in self.streams.targets
            ],
        }

    def attach(self, mode: str) -> bool:
        """Relay until the app has ended, has closed what is shown of it, or we detach (True).

        Args:
            mode: `auto`, or a comma list of `tty`, `tty-in`, `tty-out`, `stdin`, `stdout`,
                `stderr`.

        Raises:
            UsageError: the app has no such target.
            PodStateError: the app does not run, or its holder is gone.
        """
        wanted = wanted_of(mode, self.app, self.streams)
        pidfd = self._first_process()
        connections = {name: self._connect(name) for name in wanted.targets}
        with _sizes(self._directory, self.app, wanted):
            keys = wanted.typing is not None and os.isatty(0)
            with _ending_by_signal(), raw_terminal(keys and wanted.typing == TERMINAL):
                return _Relay(wanted, connections, pidfd, keys=keys).run()

    def _first_process(self) -> int:
        """A pidfd of the app's first process, which may be just starting."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            state = app_state(self._running.pod, self.app).state
            if state == "exited" or (self._running.prepared.mutable and state != "running"):
                break
            for process in self._running.flavor.processes(self._running.prepared, self.app)[:1]:
                pidfd = procs.open_process(process)
                if pidfd is not None:
                    return pidfd
            time.sleep(_PAUSE)
        uuid = self._running.pod.uuid
        raise PodStateError(f'app "{self.app}" of pod "{uuid}" isn\'t currently running')

    def _connect(self, target: str) -> socket:
        from socket import AF_UNIX, SOCK_STREAM, socket

        connection = socket(AF_UNIX, SOCK_STREAM)
        try:
            with reach(place(self._directory, self.app)) as path:
                connection.connect(f"{path}/{SOCKET}{target}")
        except (FileNotFoundError, ConnectionRefusedError):
            raise PodStateError(
                f'nobody holds the {target} of app "{self.app}" any more: its holder was killed',
                hint="start the pod anew",
            ) from None
        connection.setblocking(False)
        return connection


def wanted_of(mode: str, app: str, streams: Streams) -> Wanted:
    """What a mode means for an app with these streams. Raises UsageError when it has not that."""
    targets = streams.targets
    if not targets:
        raise UsageError(
            f'app "{app}" has nothing to attach to',
            hint="start it with --stdin, --stdout or --stderr=tty or stream",
        )
    words = list(targets) if mode == "auto" else mode.split(",")
    for word in words:
        if word not in (TERMINAL, "tty-in", "tty-out", INPUT, "stdout", "stderr"):
            raise UsageError(
                f"--mode {word!r} is none of: list, auto, tty, tty-in, tty-out, stdin, stdout, "
                "stderr"
            )
        if word.partition("-")[0] not in targets:
            raise UsageError(
                f'app "{app}" has no {word} to attach to', hint=f"it has {', '.join(targets)}"
            )
    typed = [TERMINAL for word in words if word in (TERMINAL, "tty-in")]
    typed += [INPUT for word in words if word == INPUT]
    shown = [TERMINAL if word == "tty-out" else word for word in words]
    shown = [word for word in shown if word in _OURS]
    return Wanted(typed[0] if typed else None, tuple(dict.fromkeys(shown)))


class _Keys:
    """Finds ctrl-p ctrl-q in what is typed. A ctrl-p is held back until the next key is known."""

    def __init__(self) -> None:
        self._held = False

    def pass_on(self, data: bytes) -> tuple[bytes, bool]:
        """What is for the app, and whether to detach."""
        passed = bytearray()
        for key in data:
            if self._held:
                if key == _SECOND_KEY:
                    return bytes(passed), True
                passed.append(_FIRST_KEY)
            self._held = key == _FIRST_KEY
            if not self._held:
                passed.append(key)
        return bytes(passed), False


class _Relay:
    """Passes bytes on between our standard streams and an app's."""

    def __init__(
        self, wanted: Wanted, connections: dict[str, socket], pidfd: int, *, keys: bool
    ) -> None:
        self._wanted = wanted
        self._connections = connections
        self._pidfd = pidfd
        self._terminal = keys
        self._keys = _Keys()
        self._typed = b""
        #: whether there may be more to type, and whether the app still runs
        self._types, self._runs = wanted.typing is not None, True

    def run(self) -> bool:
        """True when it was ended by keys."""
        while self._goes_on():
            found = self._wait()
            if not found and not self._runs:
                break
            if self._pidfd in found:
                self._runs = False
            if 0 in found and self._read_input():
                self._write_input()
                return True
            self._write_input()
            for target, connection in list(self._connections.items()):
                if found.get(connection.fileno(), 0) & ~select.POLLOUT:
                    self._read(target, connection)
        return False

    def _goes_on(self) -> bool:
        if self._wanted.shown:
            return any(target in self._connections for target in self._wanted.shown)
        return bool(self._connections) and (self._types or bool(self._typed))

    def _wait(self) -> dict[int, int]:
        poll = select.poll()
        if self._runs:
            poll.register(self._pidfd, select.POLLIN)
        # A terminal is always listened to: the keys are to have their effect.
        if self._types and (self._terminal or len(self._typed) < _INPUT_LIMIT):
            poll.register(0, select.POLLIN)
        for target, connection in self._connections.items():
            more = select.POLLOUT if self._typed and target == self._wanted.typing else 0
            poll.register(connection.fileno(), select.POLLIN | more)
        return dict(poll.poll(None if self._runs else _SILENCE))

    def _read_input(self) -> bool:
        """True when the keys to detach were typed."""
        try:
            data = os.read(0, _CHUNK)
        except OSError:
            data = b""
        detach = False
        if not data:
            self._types = False
        elif self._terminal:
            data, detach = self._keys.pass_on(data)
        if len(self._typed) < _INPUT_LIMIT:
            self._typed += data
        return detach

    def _write_input(self) -> None:
        connection = self._connections.get(self._wanted.typing or "")
        if connection is None:
            self._typed = b""
            self._types = False
            return
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._typed:
                self._typed = self._typed[connection.send(self._typed) :]

    def _read(self, target: str, connection: socket) -> None:
        try:
            data = connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            del self._connections[target]
            connection.close()
        elif target in self._wanted.shown:
            write_all(_OURS[target], data)


@contextmanager
def _sizes(directory: str, app: str, wanted: Wanted) -> Iterator[None]:
    """Give the app's terminal the size of ours, now and whenever that changes."""
    if TERMINAL not in wanted.shown or terminal_size() is None:
        yield
        return

    def pass_on(*_: object) -> None:
        size = terminal_size()
        if size is not None:
            tell(directory, app, size)

    before = signal.signal(signal.SIGWINCH, pass_on)
    pass_on()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextmanager
def _ending_by_signal() -> Iterator[None]:
    """Whoever is ended by a signal leaves the terminal as it was."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, leave) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
