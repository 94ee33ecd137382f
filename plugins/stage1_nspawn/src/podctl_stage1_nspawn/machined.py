"""Registration with systemd-machined, where it answers.

systemd-nspawn does not start a machine it was told to register and could not. So machined is asked
before whether it is there, by the one call that also starts it where D-Bus may
(org.freedesktop.DBus.StartServiceByName). That takes too little of D-Bus to need a library.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from podctl.sys.cgroups import memberships

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BUS = "/run/dbus/system_bus_socket"
_NAME = "org.freedesktop.machine1"
#: seconds; D-Bus gives up a service that does not start after 25
_PATIENCE = 30
_METHOD_CALL, _METHOD_RETURN, _ERROR = 1, 2, 3
#: codes of header fields (D-Bus specification, "Header Fields")
_PATH, _INTERFACE, _MEMBER, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 5, 6, 8
_MAX_MESSAGE = 1 << 16


def options() -> list[str]:
    """What systemd-nspawn is told of registration and of its unit.

    In a unit of its own the pod stays in it. Started from a login session, or outside of all
    units, it gets a scope from machined, as every machine that is started there: a session is no
    unit to stop for a pod's sake, and systemd-nspawn refuses to register it.
    """
    if not answers():
        return ["--register=no", "--keep-unit"]
    kept = ["--keep-unit"] if unit(memberships("self")) else []
    return ["--register=yes", *kept]


def unit(groups: Mapping[str, str]) -> str | None:
    """The unit a process is the main process of, or may be; None for login sessions and what is
    in no unit.

    Args:
        groups: podctl.sys.cgroups.memberships of the process.
    """
    path = groups.get("name=systemd") or groups.get("", "/")
    for part in path.split("/"):
        if part.endswith(".slice"):
            if part.startswith("user-"):
                return None
        elif part.endswith((".service", ".scope")):
            return part
    return None


def answers(bus: str = BUS) -> bool:
    """Whether machined runs, or D-Bus could start it.

    Args:
        bus: path of the system bus' socket.
    """
    if not os.path.exists(bus):
        return False
    # Not through `socket`, whose enumerations cost more than the rest of this.
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect(bus)
        uid = str(os.geteuid()).encode().hex()
        connection.sendall(f"\0AUTH EXTERNAL {uid}\r\n".encode())
        if not connection.recv(_MAX_MESSAGE).startswith(b"OK "):
            return False
        start = _call(2, "StartServiceByName", "su", _padded(_string(_NAME), 4) + bytes(4))
        connection.sendall(b"BEGIN\r\n" + _call(1, "Hello", "", b"") + start)
        return _kind_of_reply(connection.recv, 2) == _METHOD_RETURN
    except (OSError, ValueError, struct.error):
        return False
    finally:
        connection.close()


def _call(serial: int, member: str, signature: str, body: bytes) -> bytes:
    """A call of a method of the bus itself (D-Bus specification, "Message Format")."""
    fields = b""
    for code, kind, text in (
        (_PATH, b"o", "/org/freedesktop/DBus"),
        (_DESTINATION, b"s", "org.freedesktop.DBus"),
        (_INTERFACE, b"s", "org.freedesktop.DBus"),
        (_MEMBER, b"s", member),
    ):
        fields = _padded(fields, 8) + bytes((code, 1)) + kind + b"\0" + _string(text)
    if signature:
        short = bytes((len(signature),)) + signature.encode() + b"\0"
        fields = _padded(fields, 8) + bytes((_SIGNATURE, 1)) + b"g\0" + short
    head = struct.pack("<cBBBIII", b"l", _METHOD_CALL, 0, 1, len(body), serial, len(fields))
    return _padded(head + fields, 8) + body


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _padded(data: bytes, boundary: int) -> bytes:
    return data + bytes(-len(data) % boundary)


def _kind_of_reply(receive: Callable[[int], bytes], serial: int) -> int:
    """Kind of the message that answers call `serial`; what else comes is passed over.

    Raises:
        ValueError: the other side hangs up or speaks no D-Bus.
    """
    answer = bytes((_REPLY_SERIAL, 1)) + b"u\0" + struct.pack("<I", serial)
    while True:
        head = _exactly(receive, 16)
        # The bus answers in the byte order it was asked in.
        order, kind, _, version, body, _, fields = struct.unpack("<cBBBIII", head)
        if order != b"l" or version != 1 or fields + body > _MAX_MESSAGE:
            raise ValueError("no D-Bus message")
        rest = _exactly(receive, fields + -fields % 8 + body)
        if kind in (_METHOD_RETURN, _ERROR) and answer in rest[:fields]:
            return int(kind)


def _exactly(receive: Callable[[int], bytes], count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = receive(count - len(data))
        if not more:
            raise ValueError("the bus hung up")
        data += more
    return data
