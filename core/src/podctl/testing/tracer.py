"""Run a function in a traced child and kill one of its processes at an exact system call.

strace's own `inject=...:when=N` counts each process by itself, so a point inside one particular
child cannot be named. Here a point is a process in order of creation (0 is the first), a thread of
it in order of creation (0 is the first), and the ordinal of that thread's mutating call. These are
the same in every run of a command whose processes and threads each do the same in every run,
whatever order they come to do it in.

A system call filter of the command's own (seccomp, SECCOMP_RET_TRACE) stops it at mutating calls
alone: to stop at all of them takes several times as long as the command itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

PTRACE_TRACEME, PTRACE_CONT, PTRACE_SETOPTIONS = 0, 7, 0x4200
PTRACE_GETEVENTMSG, PTRACE_GET_SYSCALL_INFO = 0x4201, 0x420E
O_TRACEFORK, O_TRACEVFORK, O_TRACECLONE, O_TRACEEXEC, O_TRACESECCOMP, O_EXITKILL = (
    2, 4, 8, 16, 1 << 7, 1 << 20,
)  # fmt: skip
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_SECCOMP = 1, 2, 3, 7
SYSCALL_INFO_SECCOMP = 3
WALL = 0x40000000
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_TRACE = 0x7FFF0000, 0x7FF00000
# linux/bpf_common.h, and where struct seccomp_data has the number and the third argument
_LOAD, _JUMP_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _THIRD = 0, 32

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
_OPENAT = 257
_CREATING = os.O_CREAT | os.O_TRUNC
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info, what its entry and seccomp forms have in common."""

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
    """One mutating call.

    Args:
        process, thread: in order of creation, the thread within its process.
        ordinal: of the call among the thread's own, the first is 1.
        call: its name.
    """

    process: int
    thread: int
    ordinal: int
    call: str = ""

    def same(self, other: Point | None) -> bool:
        """Whether both are one place, whatever the call is named."""
        return other is not None and self[:3] == other[:3]


class Traced(NamedTuple):
    """What a traced run did: its mutating calls in order, and how the first process ended.

    Args:
        killed: whether the run came to the point it was to be killed at.
    """

    points: list[Point]
    status: int
    killed: bool


def run_traced(function: Callable[[], int], kill_at: Point | None = None) -> Traced:
    """Run `function` in a forked child under trace; its return value is the exit code.

    Args:
        kill_at: that process gets SIGKILL, with all its threads, before the call happens. Its
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
            _stop_at_mutating_calls()
            code = function()
        finally:
            os._exit(code)
    os.waitpid(child, 0)
    options = O_TRACEFORK | O_TRACEVFORK | O_TRACECLONE | O_TRACEEXEC | O_TRACESECCOMP | O_EXITKILL
    _ptrace(PTRACE_SETOPTIONS, child, 0, options)
    _resume(child, 0)
    return _Loop(child, kill_at).run()


class _Loop:
    def __init__(self, first: int, kill_at: Point | None) -> None:
        self.first = first
        self.kill_at = kill_at
        self.killed = False
        #: thread id -> (process, thread) in order of creation
        self.places = {first: (0, 0)}
        self.counts = {first: 0}
        #: process -> how many threads it has had
        self.threads = [1]
        self.points: list[Point] = []
        self.status = -1
        #: thread ids whose first stop came before the event that announces them
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
        return Traced(self.points, self.status, self.killed)

    def _stopped(self, pid: int, status: int) -> set[int]:
        number = os.WSTOPSIG(status)
        event = status >> 16
        if event == EVENT_SECCOMP:
            if not self._entry(pid):
                _resume(pid, 0)
            return set()
        if event in (EVENT_FORK, EVENT_VFORK, EVENT_CLONE):
            new = _event_message(pid)
            self._meet(new, pid)
            _resume(pid, 0)
            if new in self.early:
                self.early.discard(new)
                _resume(new, 0)
            return {new}
        if event:
            _resume(pid, 0)
        elif number == signal.SIGSTOP and self.counts.get(pid, 0) == 0 and pid != self.first:
            if pid in self.places:
                _resume(pid, 0)
            else:
                self.early.add(pid)
        else:
            _resume(pid, number)
        return set()

    def _meet(self, new: int, parent: int) -> None:
        """Number a new process, or a new thread of its maker's process."""
        process = self.places[parent][0]
        if _is_thread(new):
            self.places[new] = (process, self.threads[process])
            self.threads[process] += 1
        else:
            self.places[new] = (len(self.threads), 0)
            self.threads.append(1)
        self.counts[new] = 0

    def _entry(self, pid: int) -> bool:
        """Note a mutating call; True when it was the chosen point and the process is killed."""
        info = _Info()
        size = ctypes.sizeof(info)
        if _libc.ptrace(PTRACE_GET_SYSCALL_INFO, pid, size, ctypes.byref(info)) < 0:
            return False
        if info.op != SYSCALL_INFO_SECCOMP or not _mutates(pid, info):
            return False
        self.counts[pid] += 1
        point = Point(*self.places[pid], self.counts[pid], CALLS[info.nr])
        self.points.append(point)
        if point.same(self.kill_at):
            os.kill(pid, signal.SIGKILL)
            self.killed = True
            return True
        return False


def _stop_at_mutating_calls() -> None:
    """Have the tracer told of the calls in CALLS; takes CAP_SYS_ADMIN."""
    program = _filter()
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the count, padding, and a pointer to the instructions.
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    mode, zero = ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.c_ulong(0)
    if _libc.prctl(PR_SET_SECCOMP, mode, ctypes.c_char_p(header), zero, zero) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def _filter() -> bytes:
    """The filter as classic BPF; openat counts only where its flags, the third argument, say so."""
    numbers = sorted(CALLS.keys() - {_OPENAT})
    trace = len(numbers) + 5
    steps = [
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_EQUAL, 0, 2, _OPENAT),
        (_LOAD, 0, 0, _THIRD),
        (_JUMP_ANY_BIT, trace - 4, trace - 5, _CREATING),
        *((_JUMP_EQUAL, trace - at - 1, 0, number) for at, number in enumerate(numbers, start=4)),
        (_RETURN, 0, 0, SECCOMP_RET_ALLOW),
        (_RETURN, 0, 0, SECCOMP_RET_TRACE),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


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


def _is_thread(tid: int) -> bool:
    """Whether it is a further thread of a process; of one that has ended it does not matter."""
    try:
        with open(f"/proc/{tid}/status") as file:
            return any(line.startswith("Tgid:") and int(line[5:]) != tid for line in file)
    except OSError:
        return False


def _event_message(pid: int) -> int:
    message = ctypes.c_ulong()
    _libc.ptrace(PTRACE_GETEVENTMSG, pid, None, ctypes.byref(message))
    return message.value


def _resume(pid: int, deliver: int) -> None:
    # A process that was killed meanwhile answers ESRCH; its end is reported by wait.
    _libc.ptrace(PTRACE_CONT, pid, None, deliver)


def _ptrace(request: int, pid: int, address: int, data: int) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request}: {os.strerror(number)}")
