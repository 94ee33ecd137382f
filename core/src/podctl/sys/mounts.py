"""Mount system calls, each a few lines, on paths or on descriptors."""

from __future__ import annotations

import ctypes
import os

from podctl.sys import constants as c
from podctl.sys.calls import libc, openat2, oserror, syscall


def mount(source: str, target: str, fstype: str | None, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError naming `target`."""
    kind = None if fstype is None else fstype.encode()
    options = os.fsencode(data) if data else None
    arguments = (os.fsencode(source), os.fsencode(target), kind, ctypes.c_ulong(flags), options)
    if libc.mount(*arguments) < 0:
        raise oserror("mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError naming `target`."""
    if libc.umount2(os.fsencode(target), ctypes.c_int(flags)) < 0:
        raise oserror("umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). Raises OSError naming `new_root`."""
    if libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)) < 0:
        raise oserror("pivot_root", new_root)


def open_tree(dir_fd: int, path: str, flags: int) -> int:
    """open_tree(2); the descriptor is close-on-exec. Raises OSError naming `path`."""
    flags |= c.OPEN_TREE_CLOEXEC
    return syscall("open_tree", c.NR_open_tree, dir_fd, os.fsencode(path), flags, path=path)


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach the detached mount `mount_fd` on top of what `target_fd` is open on."""
    flags = c.MOVE_MOUNT_F_EMPTY_PATH | c.MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount", c.NR_move_mount, mount_fd, b"", target_fd, b"", flags)


def mount_setattr(
    fd: int, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    """mount_setattr(2) on the mount `fd` is the root of; `recursive` reaches every submount."""
    attr = (ctypes.c_uint64 * 4)(attr_set, attr_clr, propagation, 0)
    flags = c.AT_EMPTY_PATH | (c.AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(attr)
    syscall("mount_setattr", c.NR_mount_setattr, fd, b"", flags, ctypes.byref(attr), size)


def mount_id(fd: int) -> int:
    """Number of the mount `fd` lies on, as in /proc/self/mountinfo. Needs /proc."""
    with open(f"/proc/self/fdinfo/{fd}") as info:
        for line in info:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    raise OSError(f"/proc/self/fdinfo/{fd} tells no mnt_id")


def make_tree_slave() -> None:
    """Stop this mount namespace's changes from reaching the one it was copied from."""
    mount("none", "/", None, c.MS_REC | c.MS_SLAVE)


def mount_points_below(directory: str) -> list[str]:
    """Mount points strictly below `directory` in this namespace, parents first, as mountinfo
    lists them (one mounted over another appears twice)."""
    prefix = directory.rstrip("/") + "/"
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        points = [_unescape(line.split(" ", 5)[4]) for line in file]
    return sorted(point for point in points if point.startswith(prefix))


def detach_below(directory: str) -> None:
    """Unmount everything below `directory` without the unmounts reaching any other mount.

    Each tree is made private first: taken away while still shared, a bind of the host's /sys
    would take its submounts away from the host too. Busy ones are detached lazily. Idempotent.

    Raises:
        OSError: the kernel refused; what is left is still mounted.
    """
    while points := mount_points_below(directory):
        # mountinfo's paths have no links; one that is swapped in meanwhile is not followed.
        fd = openat2(c.AT_FDCWD, points[0], os.O_PATH, 0, c.RESOLVE_NO_SYMLINKS)
        try:
            mount_setattr(fd, propagation=c.MS_PRIVATE, recursive=True)
            umount2(f"/proc/self/fd/{fd}", c.MNT_DETACH)
        finally:
            os.close(fd)


def _unescape(text: str) -> str:
    """Undo mountinfo's octal escapes of space, tab, newline and backslash."""
    if "\\" not in text:
        return text
    first, *rest = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
