"""What a pidfd tells of a process that has ended (linux/pidfd.h)."""

from __future__ import annotations

import fcntl
import select
import struct

#: _IOWR(0xFF, 11, struct pidfd_info) with the 64 bytes of its first version
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_SIZE, _EXIT_CODE = 64, 60
#: no status is negative
_NOT_YET = -1
#: milliseconds a parent may take to ask how its child has ended
_PATIENCE = 5000


def exit_code(pidfd: int) -> int | None:
    """Exit code of a process that has ended, 128 and more for a signal; waits until its parent has
    asked for it. None where the kernel does not tell it (before Linux 6.15)."""
    status = _status(pidfd)
    if status == _NOT_YET:
        # POLLHUP says when the parent has asked.
        poll = select.poll()
        poll.register(pidfd, 0)
        poll.poll(_PATIENCE)
        status = _status(pidfd)
    if status is None or status == _NOT_YET:
        return None
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


def _status(pidfd: int) -> int | None:
    """Status as of wait(2), _NOT_YET, or None where the kernel has no such call."""
    request = bytearray(struct.pack("=Q", _PIDFD_INFO_EXIT).ljust(_SIZE, b"\0"))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, request)
    except OSError:
        return None
    (mask,) = struct.unpack_from("=Q", request)
    (status,) = struct.unpack_from("=i", request, _EXIT_CODE)
    return int(status) if mask & _PIDFD_INFO_EXIT else _NOT_YET
