"""Holding the calling process to numbers and bytes: the last thing done before execve(2).

What is applied is a `Held`, a plain dictionary, because the launcher inside a pod gets it through
marshal and imports nothing of the model. Everything is checked after it was done: a kernel, or a
filter around us, that pretends to do it would otherwise leave an app that nobody holds.

The order is forced: limits need capabilities, the bounding set needs CAP_SETPCAP, ids need
CAP_SETUID and CAP_SETGID, and a filter may deny all of these calls, so that it comes last.
"""

from __future__ import annotations

import os

from podctl.sys import caps
from podctl.sys import constants as c
from podctl.sys.calls import filesystem_magic, install_filter, no_new_privileges, openat2, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypedDict

    class Held(TypedDict):
        """What a process is held to.

        Keys:
            capabilities: bit mask of the bounding set, and of what user 0 has; None for those that
                the process has.
            no_new_privileges: whether execve may grant nothing.
            seccomp: array of struct sock_filter, or None.
            rlimits: (number, soft, hard) of each limit; -1 for infinity.
            oom_score_adj: or None.
            selinux_context: or None.
        """

        capabilities: int | None
        no_new_privileges: bool
        seccomp: bytes | None
        rlimits: list[tuple[int, int, int]]
        oom_score_adj: int | None
        selinux_context: str | None


#: bits of a capability set
_CAPABILITIES = 64


def prepare(held: Held, *, proc: str = "/proc") -> None:
    """Do what takes /proc, which must still be the host's or the pod's own.

    Raises:
        OSError: it is no procfs (CVE-2019-16884, CVE-2025-52881), or the kernel refuses.
    """
    for name, value in (
        ("oom_score_adj", held["oom_score_adj"]),
        ("attr/exec", held["selinux_context"]),
    ):
        if value is not None:
            _write_own(proc, name, str(value))


def apply(held: Held, uid: int, gid: int, groups: Iterable[int]) -> None:
    """Take on ids and give up everything the process may not have.

    From here on the process may make no call that the filter denies; only execve should follow.

    Raises:
        OSError: the kernel refused something; the process must end.
    """
    for number, soft, hard in held["rlimits"]:
        import resource

        resource.setrlimit(number, (soft, hard))
    permitted = caps.get_permitted()
    wanted = held["capabilities"]
    kept = permitted if wanted is None else wanted & permitted
    if wanted is not None:
        _bound(kept)
    if prctl(c.PR_GET_SECUREBITS):
        # Of a caller that changed what user 0 means (capabilities(7)).
        prctl(c.PR_SET_SECUREBITS, 0)
    privileged = held["seccomp"] is not None and not held["no_new_privileges"]
    if privileged:
        prctl(c.PR_SET_KEEPCAPS, 1)
    _take_ids(uid, gid, groups)
    # Other users have none but what execve grants by the file (CVE-2022-24769: inheritable too).
    final = kept if uid == 0 else 0
    # A filter needs no-new-privileges or CAP_SYS_ADMIN. What is held here in excess of the
    # bounding set, execve takes away (capabilities(7), "Transformation of capabilities").
    caps.set_mask(final | (1 << c.CAP_SYS_ADMIN if privileged else 0))
    if held["no_new_privileges"]:
        no_new_privileges()
        if prctl(c.PR_GET_NO_NEW_PRIVS) != 1:
            raise OSError("no-new-privileges did not take effect")
    if held["seccomp"] is not None:
        install_filter(held["seccomp"])


def _bound(mask: int) -> None:
    """Drop all others from the bounding set. How many there are is asked of the kernel itself: a
    /proc that an app has made up could hide some."""
    for number in range(_CAPABILITIES):
        try:
            held = prctl(c.PR_CAPBSET_READ, number)
        except OSError:
            return
        if held and not mask >> number & 1:
            prctl(c.PR_CAPBSET_DROP, number)
            if prctl(c.PR_CAPBSET_READ, number):
                raise OSError(f"capability {number} stayed in the bounding set")


def _take_ids(uid: int, gid: int, groups: Iterable[int]) -> None:
    os.setgroups(sorted({gid, *groups}))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise OSError("the ids did not change")


def _write_own(proc: str, name: str, text: str) -> None:
    top = os.open(proc, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if filesystem_magic(top) != c.PROC_SUPER_MAGIC:
            raise OSError(f"{proc} is no procfs")
        resolve = c.RESOLVE_NO_XDEV | c.RESOLVE_NO_SYMLINKS | c.RESOLVE_BENEATH
        fd = openat2(top, f"{os.getpid()}/{name}", os.O_WRONLY, 0, resolve)
    finally:
        os.close(top)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{name} cannot be {text}: {error.strerror}") from None
    finally:
        os.close(fd)
