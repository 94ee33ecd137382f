"""Roots of apps that come to a running pod, and leave it.

A root is built as at a pod's start, in a child with a mount namespace of its own; a copy of the
finished tree is then attached inside the pod's mount namespace. A child that is killed anywhere
takes along what it has not attached.
"""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from podctl.errors import HostLacks, PodctlError, PodStateError
from podctl.model.plan import Directory, Identity, LaunchPlan
from podctl.pods.handover import GROUPS, hand_over
from podctl.pods.mounting import build_root, mount_scratches
from podctl.sys import constants as c
from podctl.sys import procs
from podctl.sys.calls import openat2
from podctl.sys.child import Privileges, spawn
from podctl.sys.idmap import MappedUsers
from podctl.sys.mounts import make_tree_slave, move_mount, open_tree, umount2
from podctl.sys.namespaces import setns, unshare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podctl.model.plan import AppLaunch, PodRoot, UserRange

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def app_place(app: str) -> str:
    """Where an app's root lies below a pod's root; rkt's place for it."""
    return f"opt/stage2/{app}/rootfs"


def attach(
    place: PodRoot, app: AppLaunch, name: str, users: UserRange | None, groups: Sequence[str]
) -> None:
    """Build an app's root and attach it inside a running pod, with the launcher's document.

    Args:
        place: of the pod.
        name: what overlays are called in mountinfo; holds the pod's UUID.
        users: the pod's own, if it has any.
        groups: `cgroup.procs` of each of the app's control groups.

    Raises:
        PodStateError: the pod has ended.
        PodctlError: as at a pod's start; what was attached already is `detach`'s business.
    """
    if os.path.relpath(app.root, place.directory) != app_place(app.name):
        raise PodctlError(f"the flavor has planned the root of app {app.name} somewhere else")
    _in_child(lambda: _attach(place, app, name, users, groups), "adding the app")


def detach(place: PodRoot, app: str) -> None:
    """Take away what `attach` has attached inside a running pod. Idempotent; a pod that has ended
    has no mounts.

    Raises:
        PodctlError: the kernel refused.
    """
    try:
        groups = os.listdir(f"{place.directory}/{GROUPS}/{app}")
    except FileNotFoundError:
        groups = []
    targets = [app_place(app), *(f"{GROUPS}/{app}/{number}" for number in groups)]
    _in_child(lambda: _detach(place, targets), "removing the app's mounts")


def _in_child(work: Callable[[], None], name: str) -> None:
    with spawn(work, privileges=Privileges.SAME, name=name) as child:
        child.wait()


class _Inside:
    """Descriptors of a pod's namespaces and root. What they belong to is checked after they were
    opened: a number can have become another process's, a start time not."""

    def __init__(self, place: PodRoot) -> None:
        directory = f"/proc/{place.pid}"
        try:
            self.mounts = os.open(f"{directory}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            self.users = os.open(f"{directory}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            self.root = os.open(f"{directory}/root", _DIRECTORY)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            raise PodStateError("the pod is not running any more") from None
        if procs.start_time(place.pid) != place.start_time:
            raise PodStateError("the pod is not running any more")

    def target(self, path: str) -> int:
        """A directory or file below the pod's root; no link is followed."""
        flags = c.RESOLVE_BENEATH | c.RESOLVE_NO_SYMLINKS
        return openat2(self.root, path, os.O_PATH, 0, flags)


def _attach(
    place: PodRoot, app: AppLaunch, name: str, users: UserRange | None, groups: Sequence[str]
) -> None:
    inside = _Inside(place)
    os.umask(0o022)
    os.chdir("/")
    unshare(c.CLONE_NEWNS)
    make_tree_slave()
    _build(place, app, name, users, groups)
    try:
        # In a copy of the namespace this stays where we are.
        os.chdir(place.directory)
        if users is not None:
            _lessen(inside)
        paths = [app_place(app.name), *(f"{GROUPS}/{app.name}/{n}" for n in range(len(groups)))]
        flags = c.OPEN_TREE_CLONE | c.AT_RECURSIVE | c.AT_SYMLINK_NOFOLLOW
        trees = [open_tree(c.AT_FDCWD, path, flags) for path in paths]
        setns(inside.mounts, c.CLONE_NEWNS)
        for tree, path in zip(trees, paths, strict=True):
            move_mount(tree, inside.target(path))
    except OSError as error:
        raise PodctlError(f"cannot attach app {app.name} to the pod: {error}") from error


def _build(
    place: PodRoot, app: AppLaunch, name: str, users: UserRange | None, groups: Sequence[str]
) -> None:
    root = LaunchPlan(
        flavor="",
        namespaces=("NS",),
        root=place.directory,
        steps=(Directory(app_place(app.name)),),
        identity=Identity(0, 0),
        working_directory="/",
        environment={},
        argv=(),
    )
    with nullcontext() if users is None else _mapped(users) as mapped:
        mount_scratches(root._replace(apps=(app,)), mapped)
        root_fd = build_root(root, name, mapped)
        hand_over(app, build_root(app, name, mapped), root_fd, mapped, groups=groups)


def _mapped(users: UserRange) -> MappedUsers:
    try:
        return MappedUsers(*users)
    except OSError as error:
        raise HostLacks(f"no user namespace for the app: {error.strerror}") from error


def _lessen(inside: _Inside) -> None:
    """Go on in the pod's user namespace, with a copy of our mounts that belongs to it: what is
    copied so has read-only and the like locked, as when a pod starts (mount_namespaces(7))."""
    setns(inside.users, c.CLONE_NEWUSER)
    unshare(c.CLONE_NEWNS)


def _detach(place: PodRoot, targets: Sequence[str]) -> None:
    try:
        inside = _Inside(place)
    except PodStateError:
        return
    setns(inside.mounts, c.CLONE_NEWNS)
    os.fchdir(inside.root)
    for target in targets:
        while True:
            try:
                umount2(target, c.MNT_DETACH | c.UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.ENOENT):
                    break
                raise PodctlError(f"cannot unmount {target} in the pod: {error}") from error
