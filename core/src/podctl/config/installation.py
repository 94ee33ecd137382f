"""The directories and groups of an installation: who owns what, and making it so.

Members of group `podctl` fetch, verify and list; they write below `cas` only. Members of
`podctl-admin` change configuration and trusted keys. Running pods stays with root. Everything is
done by descriptor and no symbolic link is followed: below `cas` a member could have planted one.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import HostLacks, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GROUP = "podctl"
ADMIN_GROUP = "podctl-admin"

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(NamedTuple):
    """One directory: path below the top, mode, whether it belongs to the group or to root alone.

    `shared`: members of the group may have made it before, so its owner is no sign of malice.
    """

    path: str
    mode: int
    grouped: bool = True
    shared: bool = False


_PLACES = ("embryo", "prepare", "prepared", "run", "exited-garbage", "garbage")

DATA_PLACES = (
    Place("", 0o2750),
    Place("cas", 0o2770),
    *(
        Place(f"cas/{name}", 0o2770, shared=True)
        for name in ("blobs", "blobs/sha256", "images", "remotes", "tmp", "locks")
    ),
    *(Place(name, 0o700, grouped=False) for name in ("layers", "verified", "trees")),
    Place("locks", 0o2750),
    Place("pods", 0o2750),
    *(Place(f"pods/{name}", 0o2750) for name in _PLACES),
)

CONFIG_PLACES = (
    Place("", 0o2775),
    *(
        Place(name, 0o2775, shared=True)
        for name in (
            *("auth.d", "paths.d", "stage1.d", "net.d"),
            *("trustedkeys", "trustedkeys/root.d", "trustedkeys/prefix.d"),
        )
    ),
)


def ensure_group(name: str, say: Callable[[str], None]) -> int:
    """The id of a group, which is created as a system group where it is missing.

    Raises:
        HostLacks: it cannot be created.
    """
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        pass
    import subprocess

    try:
        done = subprocess.run(
            ["groupadd", "--system", name],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise HostLacks(
            f'group "{name}" cannot be created: groupadd is missing',
            hint="install the package passwd, or create the group by other means",
        ) from None
    try:
        found = grp.getgrnam(name).gr_gid
    except KeyError:
        reason = " ".join(done.stderr.split()) or f"groupadd ended with status {done.returncode}"
        raise HostLacks(f'group "{name}" cannot be created: {reason}') from None
    say(f'created group "{name}"')
    return found


def set_up(top: str, places: Iterable[Place], group: int, say: Callable[[str], None]) -> None:
    """Make directories, owners and modes what they should be. Changes are told, repeats silent.

    Args:
        top: absolute path; links in it are resolved, links below it are refused.

    Raises:
        Refused: a place is a link, no directory, or belongs to somebody it should not.
        OSError: the file system does not allow it.
    """
    top = os.path.realpath(top)
    os.makedirs(os.path.dirname(top), mode=0o755, exist_ok=True)
    for place in places:
        fd, made = _open(top, place)
        try:
            shown = f"{top}/{place.path}".rstrip("/")
            if _adjust(fd, place, group if place.grouped else 0, shown) or made:
                owner = "group" if place.grouped else "root alone"
                say(f"{'created' if made else 'corrected'} {shown} ({place.mode:04o}, {owner})")
        finally:
            os.close(fd)


def _open(top: str, place: Place) -> tuple[int, bool]:
    """Open a place, whose parent exists, component by component; tell whether it was made."""
    made = _make(None, top) if not place.path else False
    fd = _enter(None, top)
    shown = top
    for name in filter(None, place.path.split("/")):
        shown = f"{shown}/{name}"
        try:
            made = _make(fd, name)
            inner = _enter(fd, name, shown)
        finally:
            os.close(fd)
        fd = inner
    return fd, made


def _make(parent: int | None, name: str) -> bool:
    try:
        # Nobody gets in before owner and mode are right.
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def _enter(parent: int | None, name: str, shown: str | None = None) -> int:
    try:
        return os.open(name, _FLAGS, dir_fd=parent)
    except NotADirectoryError:
        raise Refused(
            f"{shown or name} is a symbolic link or no directory", hint="remove it"
        ) from None


def _adjust(fd: int, place: Place, group: int, shown: str) -> bool:
    """Set owner and mode of an open directory; tell whether anything changed."""
    state = os.fstat(fd)
    if state.st_uid != 0 and not place.shared:
        raise Refused(
            f"{shown} belongs to user {state.st_uid} instead of root",
            hint="look at what it holds, then remove it or give it to root",
        )
    if (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (0, group, place.mode):
        return False
    # The change of owner first: it clears the set-group-id bit.
    os.fchown(fd, 0, group)
    os.fchmod(fd, place.mode)
    return True


def share(top: str, group: int) -> int:
    """Give the group what root fetched into `cas` before the group existed; count the changes.

    Files with more than one name are left alone: one of them could be elsewhere.
    """
    changed = 0
    root = os.open(os.path.realpath(top), _FLAGS)
    try:
        for _, directories, files, fd in os.fwalk("cas", dir_fd=root, follow_symlinks=False):
            for name in (*directories, *files):
                changed += _share_one(fd, name, group)
    finally:
        os.close(root)
    return changed


def _share_one(parent: int, name: str, group: int) -> int:
    try:
        fd = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent
        )
    except OSError:
        # A link, a socket, or removed meanwhile.
        return 0
    try:
        state = os.fstat(fd)
        if state.st_uid != 0:
            return 0
        if stat.S_ISDIR(state.st_mode):
            wanted = 0o2770
        elif stat.S_ISREG(state.st_mode) and state.st_nlink == 1:
            wanted = stat.S_IMODE(state.st_mode) | stat.S_IRGRP
        else:
            return 0
        if (state.st_gid, stat.S_IMODE(state.st_mode)) == (group, wanted):
            return 0
        os.fchown(fd, 0, group)
        os.fchmod(fd, wanted)
        return 1
    finally:
        os.close(fd)
