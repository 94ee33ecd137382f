"""Which system calls an app may make: podctl's default, and what seccomp isolators make of it.

The default is the profile that Docker and others ship today, which follows the kernel, with what
rkt's list denied beyond it (ptrace and reading other processes' memory) and without the ways around
it (socketcall, the terminal's TIOCSTI). A call that no table has, so one that is younger than
podctl, fails with ENOSYS: a C library then takes the older one.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import HostLacks, InvalidInput
from podctl_isolators_linux.bpf import (
    ALLOW,
    KILL,
    Guard,
    Mask,
    NoneOf,
    OneOf,
    compile_filter,
    errno_answer,
)
from podctl_isolators_linux.syscalls import abis, every_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podctl.model.isolators import Seccomp
    from podctl_isolators_linux.bpf import Answer

#: denied by default; one of the capabilities before the colon, where some are, allows
_DENIED = """
CAP_DAC_READ_SEARCH: open_by_handle_at
CAP_SYS_ADMIN: fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
CAP_SYS_ADMIN: lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree
CAP_SYS_ADMIN: open_tree_attr quotactl quotactl_fd setdomainname sethostname setns umount umount2
CAP_SYS_ADMIN: unshare clone3
CAP_SYS_ADMIN CAP_BPF: bpf
CAP_SYS_ADMIN CAP_PERFMON: perf_event_open
CAP_SYS_ADMIN CAP_SYSLOG: syslog
CAP_SYS_BOOT: reboot
CAP_SYS_CHROOT: chroot
CAP_SYS_MODULE: delete_module finit_module init_module
CAP_SYS_NICE: get_mempolicy mbind set_mempolicy set_mempolicy_home_node
CAP_SYS_PACCT: acct
CAP_SYS_PTRACE: kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace
CAP_SYS_RAWIO: ioperm iopl
CAP_SYS_TIME: clock_settime clock_settime64 settimeofday stime
CAP_SYS_TTY_CONFIG: vhangup
: _sysctl add_key afs_syscall bdflush break create_module file_setattr ftime get_kernel_syms
: getpmsg gtty idle io_uring_enter io_uring_register io_uring_setup kexec_file_load kexec_load
: keyctl lock migrate_pages move_pages mpx nfsservctl nice oldfstat oldlstat oldolduname oldstat
: olduname pivot_root prof profil putpmsg query_module readdir request_key security sgetmask
: sigaction signal sigpending sigsuspend socketcall ssetmask stty swapoff swapon sysfs tuxcall
: ulimit uprobe uselib userfaultfd ustat vm86 vm86old vserver
"""
_EPERM, _ENOSYS = errno_answer(errno.EPERM), errno_answer(errno.ENOSYS)
#: CLONE_NEW flags of clone(2)
_NAMESPACES = 0x7E020000
#: personality(2): Linux, with and without ADDR_NO_RANDOMIZE, its 32-bit uname, and the question
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_ALG, _AF_VSOCK = 38, 40
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
#: calls that are allowed where an argument says so
_GUARDS = {
    "clone": Guard(Mask(0, _NAMESPACES), _EPERM),
    "personality": Guard(OneOf(0, _PERSONALITIES), _EPERM),
    # The kernel's cryptography (CVE-2026-31431) and virtual machines of the host.
    "socket": Guard(NoneOf(0, (_AF_ALG, _AF_VSOCK)), _EPERM),
    # Typing on the caller's terminal (CVE-2016-2568), and pasting into it (CVE-2023-1523).
    "ioctl": Guard(NoneOf(1, (_TIOCSTI, _TIOCLINUX)), _EPERM),
}
#: what the kernel itself or the C library calls on an app's behalf, as systemd's @default has it:
#: a retain set never takes these
_NEEDED = """
execve exit exit_group rt_sigreturn sigreturn restart_syscall getrlimit ugetrlimit clock_getres
clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
gettimeofday nanosleep pause time
"""
_ALL, _EMPTY = "@appc.io/all", "@appc.io/empty"
_WHITELISTS = frozenset({"@docker/default-whitelist", "@rkt/default-whitelist"})
_BLACKLISTS = frozenset({"@docker/default-blacklist", "@rkt/default-blacklist"})
GROUPS = frozenset({_ALL, _EMPTY, *_WHITELISTS, *_BLACKLISTS})


class Filter(NamedTuple):
    """A compiled filter, and what it does in words."""

    program: bytes | None
    summary: str


def denied_by_default(capabilities: frozenset[str]) -> frozenset[str]:
    """The calls that an app with these capabilities may not make."""
    denied: set[str] = set()
    for line in _DENIED.strip().splitlines():
        allowing, _, names = line.partition(":")
        if capabilities.isdisjoint(allowing.split()):
            denied.update(names.split())
    return frozenset(denied)


def default_filter(capabilities: frozenset[str]) -> Filter:
    """The filter of an app that names none.

    Raises:
        HostLacks: podctl has no table for this machine.
    """
    return Filter(_compile(_default_answers(capabilities)), "podctl's default filter")


def isolator_filter(
    seccomp: Seccomp, capabilities: frozenset[str], *, guarded: bool = False
) -> Filter:
    """The filter that an isolator asks for; without a program where it asks for none.

    Args:
        guarded: keep the default's conditions on what is listed by name as well.

    Raises:
        InvalidInput: it names a call or a group that does not exist.
        HostLacks: podctl has no table for this machine.
    """
    check_entries(seccomp.entries)
    shown = f"{seccomp.mode} {' '.join(seccomp.entries)}, else {seccomp.errno or 'SIGSYS'}"
    blocked = errno_answer(getattr(errno, seccomp.errno)) if seccomp.errno else KILL
    if seccomp.mode == "retain":
        if _ALL in seccomp.entries:
            return Filter(None, "no filter")
        return Filter(_compile(_retained(seccomp, capabilities, blocked, guarded)), shown)
    if _EMPTY in seccomp.entries:
        return default_filter(capabilities)
    return Filter(_compile(_removed(seccomp, capabilities, blocked)), shown)


def beyond_default(seccomp: Seccomp, capabilities: frozenset[str]) -> list[str]:
    """Entries of a retain set that allow what the default filter denies whole, sorted."""
    loose = {_ALL, *_BLACKLISTS, *denied_by_default(capabilities)} - {"clone3"}
    return sorted(loose.intersection(seccomp.entries))


def check_entries(entries: Iterable[str]) -> None:
    """Refuse names that nothing has: such an entry would do nothing.

    Raises:
        InvalidInput: names the first one.
    """
    known = every_name()
    for entry in entries:
        if entry.startswith("@"):
            if entry not in GROUPS:
                groups = ", ".join(sorted(GROUPS))
                raise InvalidInput(f"there is no group {entry} of system calls", hint=groups)
        elif entry not in known:
            raise InvalidInput(f'there is no system call "{entry}"', hint="see syscalls(2)")


def _default_answers(capabilities: frozenset[str]) -> Callable[[str], Answer]:
    denied = denied_by_default(capabilities)
    guards = dict(_GUARDS)
    if "CAP_SYS_ADMIN" in capabilities:
        del guards["clone"]

    def answer(name: str) -> Answer:
        if name in denied:
            # Its flags lie in memory, where no filter reads; C libraries then use clone.
            return _ENOSYS if name == "clone3" else _EPERM
        return guards.get(name, ALLOW)

    return answer


def _retained(
    seccomp: Seccomp, capabilities: frozenset[str], blocked: int, guarded: bool
) -> Callable[[str], Answer]:
    """Only what is listed. A call out of a group keeps the default's conditions, one that is
    listed by name has none, unless `guarded`."""
    by_name = frozenset(seccomp.entries)
    groups = not by_name.isdisjoint(_WHITELISTS)
    blacklisted = not by_name.isdisjoint(_BLACKLISTS)
    needed = frozenset(_NEEDED.split())
    default, denied = _default_answers(capabilities), denied_by_default(capabilities)

    def answer(name: str) -> Answer:
        if guarded and name in by_name and name in (*_GUARDS, "clone3"):
            return default(name)
        if name in by_name or name in needed or (blacklisted and name in denied):
            return ALLOW
        if name == "clone3":
            return _ENOSYS
        if groups and name not in denied:
            found = default(name)
            return found if isinstance(found, int) else found._replace(otherwise=blocked)
        return blocked

    return answer


def _removed(
    seccomp: Seccomp, capabilities: frozenset[str], blocked: int
) -> Callable[[str], Answer]:
    """The default without what is listed, as appc allows: what the default denies stays denied,
    and fails with an errno where the isolator gives none."""
    by_name = frozenset(seccomp.entries)
    default, denied = _default_answers(capabilities), denied_by_default(capabilities)
    whole, needed = not by_name.isdisjoint(_WHITELISTS), frozenset(_NEEDED.split())

    def answer(name: str) -> Answer:
        if name in by_name or (whole and name not in denied and name not in needed):
            return blocked
        return default(name)

    return answer


def _compile(answer: Callable[[str], Answer]) -> bytes:
    machine = os.uname().machine
    known = abis(machine)
    if not known:
        raise HostLacks(
            f"podctl has no table of the system calls of {machine}",
            hint="--insecure-options=seccomp runs without a filter",
        )
    return compile_filter(known, answer, _ENOSYS)
