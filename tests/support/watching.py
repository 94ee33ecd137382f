"""What the processes of one command do, as the kernel sees it (strace)."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_CALL = re.compile(r"^(?P<pid>\d+) +(?P<call>\w+)\((?P<arguments>.*)$")
#: a process or thread was made: at once, or after its maker was interrupted in the log
_MADE = re.compile(
    r"^(?P<pid>\d+) +(?:(?:clone3?|v?fork)\(|<\.\.\. (?:clone3?|v?fork) resumed>).* = (?P<new>\d+)"
)
_WATCHED = "socket,connect,chroot,setresuid,capset,openat,openat2,execve,clone,clone3,fork,vfork"


class Call(NamedTuple):
    """One system call.

    Args:
        pid: of the process, or thread, that made it.
        dropped: whether that had become user nobody by then, or was made by one who had.
    """

    pid: str
    call: str
    arguments: str
    dropped: bool


def trace(log: Path, command: Sequence[str], prefix: Sequence[str] = ()) -> list[Call]:
    """Run a command that must succeed; what its processes and threads did, in order.

    Args:
        prefix: words before strace itself, such as nsenter's.
    """
    words = ["strace", "-f", "-qq", "-s", "256", "-e", f"trace={_WATCHED}", "-o", str(log)]
    done = subprocess.run(
        [*prefix, *words, *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(_read(log.read_text().splitlines()))


def _read(lines: Sequence[str]) -> Iterator[Call]:
    # A thread may be in the log before the call that made it has returned.
    makers = {found["new"]: found["pid"] for found in map(_MADE.match, lines) if found}
    dropped: set[str] = set()
    met: set[str] = set()
    for line in lines:
        found = _CALL.match(line)
        if found is None:
            continue
        pid, call, arguments = found["pid"], found["call"], found["arguments"]
        if pid not in met:
            met.add(pid)
            if makers.get(pid) in dropped:
                dropped.add(pid)
        if call == "setresuid" and arguments.startswith("65534, 65534, 65534"):
            dropped.add(pid)
        yield Call(pid, call, arguments, pid in dropped)


def internet_sockets(calls: Sequence[Call]) -> list[Call]:
    """The calls that open a socket to talk to servers."""
    return [
        call
        for call in calls
        if call.call == "socket" and call.arguments.startswith(("AF_INET", "AF_INET6"))
    ]


def check_confined(calls: Sequence[Call], unpacker: str) -> list[str]:
    """Assert that a process that changes its root opens single names below it alone afterwards;
    return what it opened."""
    confined = False
    opened = []
    for pid, call, arguments, _ in calls:
        if pid != unpacker:
            continue
        assert call not in ("socket", "connect", "execve"), (call, arguments)
        confined = confined or call == "chroot"
        if not confined or call not in ("openat", "openat2"):
            continue
        opened.append(arguments)
        base, path = arguments.split(", ", 2)[:2]
        if base == "AT_FDCWD":
            # Its own root directory, the one descriptor everything else starts from.
            assert path == '"/"', (call, arguments)
        elif call == "openat2":
            assert "RESOLVE_" in arguments, arguments
        else:
            assert "/" not in path, arguments
            assert "O_NOFOLLOW" in arguments or "O_PATH" in arguments, arguments
    return opened
