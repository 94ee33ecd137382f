"""Mounts that show other owners than the disk has (mount_setattr(2), MOUNT_ATTR_IDMAP).

A user namespace is only taken for its mapping here: nothing ever runs in it. Through a mount that
is mapped to the ids from `base` on, a file of user 0 is one of user `base`, and what user `base`
makes belongs to user 0 on the disk.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import TYPE_CHECKING

from podctl.sys import constants as c
from podctl.sys.calls import libc, prctl, syscall
from podctl.sys.mounts import open_tree

if TYPE_CHECKING:
    from types import TracebackType

_NR_CLONE3 = 435
_SIGCHLD = 17
_MOUNT_ATTR_IDMAP = 0x00100000
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_GET_SECUREBITS = 27


class MappedUsers:
    """The ids 0 to size - 1 seen as `base` to base + size - 1, as a context.

    Raises:
        OSError: the kernel has no user namespaces, or no more of them are allowed.
    """

    def __init__(self, base: int, size: int) -> None:
        self.base = base
        self.size = size
        self._fd, self._child = _user_namespace(base, size)

    def clone(self, path: str, flags: int = 0) -> int:
        """A detached mapped mount of `path`; a descriptor of its root.

        Raises:
            OSError: EINVAL where the filesystem cannot be mapped.
        """
        tree = open_tree(c.AT_FDCWD, path, c.OPEN_TREE_CLONE | flags)
        try:
            self.apply(tree, recursive=bool(flags & c.AT_RECURSIVE))
        except BaseException:
            os.close(tree)
            raise
        return tree

    def apply(self, tree: int, *, recursive: bool = False) -> None:
        """Map a detached mount that nobody has used yet; raises as `clone`."""
        attr = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_IDMAP, 0, 0, self._fd)
        flags = c.AT_EMPTY_PATH | (c.AT_RECURSIVE if recursive else 0)
        size = ctypes.sizeof(attr)
        syscall("mount_setattr", c.NR_mount_setattr, tree, b"", flags, ctypes.byref(attr), size)

    def owning(self) -> Owning:
        """While it is entered, what this process makes belongs to user and group `base`."""
        return Owning(self.base)

    def __enter__(self) -> MappedUsers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)
        os.waitpid(self._child, 0)


class Owning:
    """Files are made as another user and group, with all capabilities kept (setfsuid(2)).

    Through a mapped mount nobody can make a file but the ids it is mapped to; an overlay whose
    layers are mapped makes even its own files as who mounted it.
    """

    def __init__(self, owner: int) -> None:
        self._owner = owner
        self._before = 0

    def __enter__(self) -> None:
        self._before = prctl(_PR_GET_SECUREBITS)
        # Else the kernel takes CAP_DAC_OVERRIDE and its kin away (capabilities(7)).
        prctl(c.PR_SET_SECUREBITS, self._before | _SECBIT_NO_SETUID_FIXUP)
        _set_file_ids(self._owner, self._owner)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _set_file_ids(os.geteuid(), os.getegid())
        prctl(c.PR_SET_SECUREBITS, self._before)


def _set_file_ids(uid: int, gid: int) -> None:
    """setfsgid(2) and setfsuid(2), which tell of no failure but by what is so afterwards."""
    for call, number in ((libc.setfsgid, gid), (libc.setfsuid, uid)):
        call(ctypes.c_uint(number))
        if call(ctypes.c_uint(0xFFFFFFFF)) != number:
            raise PermissionError(1, f"cannot make files as {number}")


def _user_namespace(base: int, size: int) -> tuple[int, int]:
    """Descriptor of a user namespace with this mapping, and a process that is to be reaped.

    A process is needed to make one; this one only waits for its parent's end of a pipe to close.
    """
    wait, release = os.pipe2(os.O_CLOEXEC)
    # flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls
    arguments = (ctypes.c_uint64 * 8)(c.CLONE_NEWUSER, 0, 0, 0, _SIGCHLD, 0, 0, 0)
    child = -1
    try:
        child = syscall("clone3", _NR_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
        if child == 0:
            try:
                os.close(release)
                os.read(wait, 1)
            finally:
                os._exit(0)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "wb", buffering=0) as file:
                file.write(b"0 %d %d" % (base, size))
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC), child
    except BaseException:
        if child > 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise
    finally:
        os.close(release)
        os.close(wait)
