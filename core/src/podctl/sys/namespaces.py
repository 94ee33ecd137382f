"""Namespaces and process descriptors."""

from __future__ import annotations

import ctypes
import os

from podctl.sys import constants as c
from podctl.sys.calls import libc, oserror, syscall

#: kernel name without CLONE_NEW -> (flag, file below /proc/PID/ns)
KINDS = {
    "USER": (c.CLONE_NEWUSER, "user"),
    "IPC": (c.CLONE_NEWIPC, "ipc"),
    "UTS": (c.CLONE_NEWUTS, "uts"),
    "NET": (c.CLONE_NEWNET, "net"),
    "PID": (c.CLONE_NEWPID, "pid"),
    "CGROUP": (c.CLONE_NEWCGROUP, "cgroup"),
    "NS": (c.CLONE_NEWNS, "mnt"),
}


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    if libc.unshare(ctypes.c_int(flags)) < 0:
        raise oserror("unshare")


def setns(fd: int, flags: int) -> None:
    """setns(2) with a /proc/PID/ns descriptor, or a pidfd and several flags. Raises OSError."""
    if libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)) < 0:
        raise oserror("setns")


def pidfd_open(pid: int) -> int:
    """pidfd_open(2); close-on-exec. Raises ProcessLookupError when there is no such process."""
    return os.pidfd_open(pid)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2): reaches exactly the process the descriptor was opened on."""
    syscall("pidfd_send_signal", c.NR_pidfd_send_signal, pidfd, signal, None, 0)
