"""The way into the kernel: libc through ctypes, and one function that turns errno into OSError."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from podctl.sys import constants as c

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def oserror(call: str, path: str | bytes | None = None, number: int | None = None) -> OSError:
    """Return the OSError for the call that just failed.

    Args:
        call: name of the system call, shown in the text.
        path: what it was about, if anything.
        number: the errno value; the calling thread's current one when None.
    """
    number = ctypes.get_errno() if number is None else number
    text = f"{call}: {os.strerror(number)}"
    if number == errno.ENOSYS:
        text = (
            f"{call}: the kernel lacks this call, or a seccomp filter hides it (Linux 5.12 has it)"
        )
    return OSError(number, text) if path is None else OSError(number, text, path)


def syscall(name: str, number: int, *arguments: object, path: str | bytes | None = None) -> int:
    """Call `number`; integers are passed as longs. Returns the result, raises OSError below 0."""
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = libc.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        raise oserror(name, path)
    return result


def prctl(option: int, argument: int = 0, argument3: int = 0) -> int:
    """prctl(2); returns the result, raises OSError."""
    longs = (ctypes.c_ulong(value) for value in (argument, argument3, 0, 0))
    result: int = libc.prctl(ctypes.c_int(option), *longs)
    if result < 0:
        raise oserror(f"prctl({option})")
    return result


def no_new_privileges() -> None:
    """PR_SET_NO_NEW_PRIVS: from now on execve grants nothing (setuid, file capabilities)."""
    prctl(c.PR_SET_NO_NEW_PRIVS, 1)


def install_filter(program: bytes) -> None:
    """Install a seccomp filter, an array of struct sock_filter, for this thread and its children.

    CAP_SYS_ADMIN or no-new-privileges is needed.

    Raises:
        OSError: the kernel has no filters (EINVAL) or refuses this one.
    """
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the count, padding, and a pointer to the instructions of 8 bytes.
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    mode, zero = ctypes.c_ulong(c.SECCOMP_MODE_FILTER), ctypes.c_ulong(0)
    option = ctypes.c_int(c.PR_SET_SECCOMP)
    if libc.prctl(option, mode, ctypes.c_char_p(header), zero, zero) < 0:
        raise oserror("seccomp")


def keep_freed_memory() -> None:
    """Let glibc's allocator keep what is freed, for a process that lives for one stream only.

    By default a buffer of a mebibyte is mapped, faulted in page by page and unmapped again each
    time (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD): a third of the system time of a pull.
    """
    mallopt = getattr(libc, "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(c.M_MMAP_THRESHOLD, 32 << 20)
        mallopt(c.M_TRIM_THRESHOLD, 1 << 30)


def set_filesystem_ids(uid: int, gid: int) -> None:
    """setfsuid(2) and setfsgid(2): whose new files are. From 0 to another, capabilities on files
    leave the effective set; capset(2) brings them back. Raises OSError."""
    for call, number in ((libc.setfsgid, gid), (libc.setfsuid, uid)):
        call(ctypes.c_uint(number))
        # They return the value before, and say nothing of failure.
        if call(ctypes.c_uint(0xFFFFFFFF)) != number:
            raise oserror("setfsuid", number=errno.EPERM)


def openat2(dir_fd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); the descriptor is close-on-exec. Raises OSError naming `path`."""
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path)
    if b"\0" in name:
        raise oserror("openat2", path, errno.EINVAL)
    size = ctypes.sizeof(how)
    return syscall("openat2", c.NR_openat2, dir_fd, name, ctypes.byref(how), size, path=path)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2) over `first`..`last`, both included; CLOSE_RANGE_CLOEXEC only marks."""
    syscall("close_range", c.NR_close_range, first, last, flags)


def filesystem_magic(fd: int) -> int:
    """f_type of fstatfs(2): which kind of filesystem `fd` lies on (linux/magic.h)."""
    buffer = (ctypes.c_long * 32)()
    if libc.fstatfs(ctypes.c_int(fd), ctypes.byref(buffer)) < 0:
        raise oserror("fstatfs")
    return buffer[0]


def join_new_session_keyring() -> None:
    """Leave the caller's session keyring for an empty one, so that its keys cannot be read.

    A kernel without keyrings (ENOSYS), and a filter that denies keyctl to us and so to what we
    execute (EPERM), leave nothing to protect.
    """
    number = {"x86_64": 250, "i686": 288, "armv7l": 311, "s390x": 280, "ppc64le": 271}
    call = number.get(os.uname().machine, 219)
    try:
        syscall("keyctl", call, c.KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
