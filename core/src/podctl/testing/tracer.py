"""Run a function in a traced child and kill one of its processes at an exact system call.

strace's own `inject=...:when=N` counts each process by itself, so a point inside one particular
child cannot be named. Here a point is a pair: the process in order of creation (0 is the first)
and the ordinal of its mutating call. Both are the same in every run of a deterministic command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

PTRACE_TRACEME, PTRACE_SYSCALL, PTRACE_SETOPTIONS = 0, 24, 0x4200
PTRACE_GETEVENTMSG, PTRACE_GET_SYSCALL_INFO = 0x4201, 0x420E
O_TRACESYSGOOD, O_TRACEFORK, O_TRACEVFORK, O_TRACECLONE, O_TRACEEXEC, O_EXITKILL = (
    1, 2, 4, 8, 16, 1 << 20,
)  # fmt: skip
EVENT_FORK, EVENT_VFORK, EVENT_CLONE = 1, 2, 3
SYSCALL_ENTRY = 1
SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x40000000

#: x86-64 numbers of calls that change something others can see.
CALLS = {
    1: "write", 18: "pwrite64", 20: "writev", 59: "execve", 74: "fsync", 75: "fdatasync",
    76: "truncate", 77: "ftruncate", 82: "rename", 83: "mkdir", 84: "rmdir", 86: "link",
    87: "unlink", 88: "symlink", 90: "chmod", 91: "fchmod", 92: "chown", 93: "fchown",
    94: "lchown", 132: "utime", 133: "mknod", 155: "pivot_root", 161: "chroot", 165: "mount",
    166: "umount2", 188: "setxattr", 189: "lsetxattr", 190: "fsetxattr", 235: "utimes",
    257: "openat", 258: "mkdirat", 259: "mknodat", 260: "fchownat", 263: "unlinkat",
    264: "renameat", 265: "linkat", 266: "symlinkat", 268: "fchmodat", 272: "unshare",
    280: "utimensat", 285: "fallocate", 306: "syncfs", 316: "renameat2", 326: "copy_file_range",
    322: "execveat", 429: "move_mount", 437: "openat2", 442: "mount_setattr",
}  # fmt: skip
_CREATING = os.O_CREAT | os.O_TRUNC
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info, entry form."""

    _fields_ = [
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    ]


class Point(NamedTuple):
    """One mutating call: process by order of creation, ordinal within it, name of the call."""

    process: int
    ordinal: int
    call: str


class Traced(NamedTuple):
    """What a traced run did: its mutating calls in order and how the first process ended."""

    points: list[Point]
    status: int


def run_traced(function: Callable[[], int], kill_at: tuple[int, int] | None = None) -> Traced:
    """Run `function` in a forked child under trace; its return value is the exit code.

    Args:
        kill_at: (process, ordinal): that process gets SIGKILL before the call happens. Its
            relatives go on as they would after any kill.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            _ptrace(PTRACE_TRACEME, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            code = function()
        finally:
            os._exit(code)
    os.waitpid(child, 0)
    options = O_TRACESYSGOOD | O_TRACEFORK | O_TRACEVFORK | O_TRACECLONE | O_TRACEEXEC | O_EXITKILL
    _ptrace(PTRACE_SETOPTIONS, child, 0, options)
    _resume(child, 0)
    return _Loop(child, kill_at).run()


class _Loop:
    def __init__(self, first: int, kill_at: tuple[int, int] | None) -> None:
        self.first = first
        self.kill_at = kill_at
        self.order = {first: 0}
        self.counts = {first: 0}
        self.points: list[Point] = []
        self.status = -1
        #: pids whose first stop came before the event that announces them
        self.early: set[int] = set()

    def run(self) -> Traced:
        alive = {self.first}
        while alive:
            pid, status = os.waitpid(-1, WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                alive.discard(pid)
                if pid == self.first:
                    self.status = os.waitstatus_to_exitcode(status)
                continue
            alive.add(pid)
            alive |= self._stopped(pid, status)
        return Traced(self.points, self.status)

    def _stopped(self, pid: int, status: int) -> set[int]:
        number = os.WSTOPSIG(status)
        event = status >> 16
        if number == SYSCALL_STOP:
            if not self._entry(pid):
                _resume(pid, 0)
            return set()
        if event in (EVENT_FORK, EVENT_VFORK, EVENT_CLONE):
            new = _event_message(pid)
            self.order[new] = len(self.order)
            self.counts[new] = 0
            _resume(pid, 0)
            if new in self.early:
                self.early.discard(new)
                _resume(new, 0)
            return {new}
        if event:
            _resume(pid, 0)
        elif number == signal.SIGSTOP and self.counts.get(pid, 0) == 0 and pid != self.first:
            if pid in self.order:
                _resume(pid, 0)
            else:
                self.early.add(pid)
        else:
            _resume(pid, number)
        return set()

    def _entry(self, pid: int) -> bool:
        """Note a mutating call; True when it was the chosen point and the process is killed."""
        info = _Info()
        size = ctypes.sizeof(info)
        if _libc.ptrace(PTRACE_GET_SYSCALL_INFO, pid, size, ctypes.byref(info)) < 0:
            return False
        if info.op != SYSCALL_ENTRY or not _mutates(pid, info):
            return False
        process = self.order.get(pid, -1)
        self.counts[pid] += 1
        self.points.append(Point(process, self.counts[pid], CALLS[info.nr]))
        if self.kill_at == (process, self.counts[pid]):
            os.kill(pid, signal.SIGKILL)
            return True
        return False


def _mutates(pid: int, info: _Info) -> bool:
    call = CALLS.get(info.nr)
    if call is None:
        return False
    if call == "openat":
        return bool(info.args[2] & _CREATING)
    if call == "openat2":
        return bool(_peek_flags(pid, info.args[2]) & _CREATING)
    if call in ("write", "pwrite64", "writev"):
        return _is_file(pid, info.args[0])
    return True


def _peek_flags(pid: int, address: int) -> int:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return int.from_bytes(memory.read(8), "little")


def _is_file(pid: int, fd: int) -> bool:
    try:
        target = os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return False
    return target.startswith("/") and not target.startswith(("/dev/", "/proc/"))


def _event_message(pid: int) -> int:
    message = ctypes.c_ulong()
    _libc.ptrace(PTRACE_GETEVENTMSG, pid, None, ctypes.byref(message))
    return message.value


def _resume(pid: int, deliver: int) -> None:
    # A process that was killed meanwhile answers ESRCH; its end is reported by wait.
    _libc.ptrace(PTRACE_SYSCALL, pid, None, deliver)


def _ptrace(request: int, pid: int, address: int, data: int) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request}: {os.strerror(number)}")
