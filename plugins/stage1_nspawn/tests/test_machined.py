"""Whether machined answers, and in which unit a pod is, where neither can be had on demand.

Real machines are in tests/systemd.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest

from podctl_stage1_nspawn import machined

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RETURN, _ERROR, _SIGNAL = 2, 3, 4


def _message(kind: int, serial: int, body: bytes = b"", order: bytes = b"l") -> bytes:
    """A message that answers call `serial`."""
    fields = b"\x05\x01u\x00" + struct.pack("<I", serial)
    head = order + struct.pack("<BBBIII", kind, 0, 1, len(body), 9, len(fields))
    return head + fields + body


class Bus:
    """A bus that says what it is told to, whatever it is asked."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.greeting = b"OK 0123456789abcdef0123456789abcdef\r\n"
        self.answers = b""
        self.heard = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        # Who is turned away hangs up.
        with connection, contextlib.suppress(BrokenPipeError):
            self.heard += connection.recv(4096)
            connection.sendall(self.greeting)
            self.heard += connection.recv(4096)
            connection.sendall(self.answers)

    def close(self) -> None:
        """Wait for the one conversation it has."""
        self._thread.join()
        self._socket.close()


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    """The bus."""
    made = Bus(str(tmp_path / "bus"))
    yield made
    made.close()


def test_where_there_is_no_bus_nobody_answers(tmp_path: Path) -> None:
    assert not machined.answers(str(tmp_path / "bus"))


def test_a_bus_that_is_down_is_none(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(tmp_path / "bus"))
    assert not machined.answers(str(tmp_path / "bus"))


def test_a_service_that_runs_or_was_started_answers(bus: Bus) -> None:
    bus.answers = (
        _message(_RETURN, 1, b"\0" * 9)
        + _message(_SIGNAL, 2)
        + _message(_RETURN, 2, struct.pack("<I", 2))
    )
    assert machined.answers(bus.path)
    assert bus.heard.startswith(b"\0AUTH EXTERNAL ")
    assert b"StartServiceByName" in bus.heard


@pytest.mark.parametrize(
    "answers",
    [
        _message(_RETURN, 1) + _message(_ERROR, 2, b"\x05\0\0\0masked\0"),
        _message(_RETURN, 1),
        b"",
        _message(_RETURN, 2, order=b"B"),
        b"l\x02\0\x01" + b"\xff" * 12,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=["error", "hangs up", "silent", "other order", "too long", "no bus at all"],
)
def test_whatever_else_is_said_is_no_answer(bus: Bus, answers: bytes) -> None:
    bus.answers = answers
    assert not machined.answers(bus.path)


def test_who_is_not_let_in_gets_no_answer(bus: Bus) -> None:
    bus.greeting = b"REJECTED EXTERNAL\r\n"
    bus.answers = b"REJECTED EXTERNAL\r\n"
    # The second receive of the bus ends with the connection.
    assert not machined.answers(bus.path)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/web.service", "web.service"),
        ("/machine.slice/machine-a.slice/web.service/payload", "web.service"),
        ("/system.slice/run-r1.scope", "run-r1.scope"),
        ("/user.slice/user-0.slice/session-3.scope", None),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", None),
        ("/", None),
        ("/../..", None),
        ("/podctl/some-uuid/app", None),
    ],
)
def test_a_unit_of_its_own_is_kept_and_a_session_s_is_not(path: str, unit: str | None) -> None:
    assert machined.unit({"": path}) == unit
    assert machined.unit({"name=systemd": path, "": "/elsewhere.service"}) == unit
