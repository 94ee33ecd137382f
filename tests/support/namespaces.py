"""Making something in another process's network namespace, from a thread of this process."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Made = TypeVar("Made")
_CLONE_NEWNET = 0x40000000


def in_network_of(pid: int, make: Callable[[], Made]) -> Made:
    """Call `make` with its sockets in the network of a process; they stay there."""
    made: list[Made] = []

    def work() -> None:
        # A network namespace is a property of the thread; a socket keeps it.
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            made.append(make())
        finally:
            os.close(fd)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return made[0]
