"""A system call filter for children: what reading an archive or a web page never needs.

It stands behind the dropped ids and capabilities: a flaw in a decoder written in C must not get
at the kernel's less trodden paths, nor start a program.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import NamedTuple

from podctl.sys.calls import install_filter

_RET_ALLOW, _RET_ERRNO = 0x7FFF0000, 0x00050000
#: bit of the x32 ABI's call numbers, a second way to every call on x86-64
_X32 = 0x40000000
# linux/bpf_common.h: load a word, jump if equal, jump if not below, return
_LOAD, _JUMP_EQUAL, _JUMP_NOT_BELOW, _RETURN = 0x20, 0x15, 0x35, 0x06
# struct seccomp_data
_OFFSET_NUMBER, _OFFSET_ARCH = 0, 4

#: denied to every child: (x86-64, the generic table of arm64 and later architectures)
_DENIED = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "quotactl": (179, 60),
    "syslog": (103, 116),
}
#: denied to a child that only writes files
_NETWORK = {"socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203)}


class _Abi(NamedTuple):
    """AUDIT_ARCH value (linux/audit.h) and column of the tables above."""

    arch: int
    column: int


_ABIS = {"x86_64": _Abi(0xC000003E, 0), "aarch64": _Abi(0xC00000B7, 1)}


def restrict(*, network: bool) -> None:
    """Deny (EPERM) the calls above to this thread and its children, for good.

    No-new-privileges must be set. On other architectures, and on kernels built without filters,
    nothing is done: what protects the host are the ids and capabilities.

    Raises:
        OSError: the kernel refuses the filter.
    """
    abi = _ABIS.get(os.uname().machine)
    if abi is None:
        return
    calls = _DENIED if network else {**_DENIED, **_NETWORK}
    program = _program(abi, sorted(numbers[abi.column] for numbers in calls.values()))
    try:
        install_filter(program)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise


def _program(abi: _Abi, numbers: list[int]) -> bytes:
    """The filter as classic BPF; every jump is forward, to the last instruction."""
    deny = len(numbers) + 5
    steps = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_JUMP_EQUAL, 0, deny - 2, abi.arch),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_NOT_BELOW, deny - 4, 0, _X32),
        *((_JUMP_EQUAL, deny - at, 0, number) for at, number in enumerate(numbers, start=5)),
        (_RETURN, 0, 0, _RET_ALLOW),
        (_RETURN, 0, 0, _RET_ERRNO | errno.EPERM),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
