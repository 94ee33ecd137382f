"""Carries out the mounts and files of a launch plan in a mount namespace of this process's own.

What a step names inside the root is resolved by the in-root walk to a descriptor, checked there,
and mounted through it (move_mount), so a link in the image, or one swapped meanwhile, can lead
neither a mount nor a file out of the root (CVE-2021-30465 and its kin).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from podctl.errors import HostLacks, PodctlError, Refused
from podctl.model.plan import (
    Bind,
    Directory,
    Filesystem,
    Identity,
    Overlay,
    Scratch,
    Symlink,
    UserRange,
    WriteFile,
)
from podctl.pods.users import check_identity
from podctl.sys import constants as c
from podctl.sys.calls import filesystem_magic
from podctl.sys.files import write_all
from podctl.sys.inroot import make_directories, make_file, open_in_root
from podctl.sys.mounts import mount, mount_id, mount_setattr, move_mount, open_tree

if TYPE_CHECKING:
    from podctl.model.plan import AppLaunch, LaunchPlan, Step
    from podctl.sys.idmap import MappedUsers

_PROPAGATION = {"slave": c.MS_SLAVE, "private": c.MS_PRIVATE}
_FLAGS = {
    "nosuid": c.MS_NOSUID,
    "nodev": c.MS_NODEV,
    "noexec": c.MS_NOEXEC,
    "ro": c.MS_RDONLY,
    "noatime": c.MS_NOATIME,
    "relatime": c.MS_RELATIME,
}
#: where device nodes of a pod's own are made, in a tmpfs that only its mount namespace has
_NODES = "/run/podctl/nodes"
#: trees of the running system: nothing is ever created in them
_SYSTEM = ("/dev", "/proc", "/sys")


def build_root(plan: LaunchPlan | AppLaunch, name: str, users: MappedUsers | None = None) -> int:
    """Carry out a plan's steps; returns an O_PATH descriptor of what becomes `/`.

    The caller has its own mount namespace, without shared mounts, and a umask of 022.

    Args:
        plan: of the pod, or of one app.
        name: what overlays are called in mountinfo; holds the pod's UUID.
        users: whom everything in the root belongs to, instead of the users of the same number.

    Raises:
        PodctlError: a step failed or was refused; nothing is left but the namespace.
    """
    builder = _Builder(plan, name, users)
    if users is None:
        return builder.build()
    with users.owning():
        return builder.build()


def mount_scratches(plan: LaunchPlan, users: MappedUsers | None = None) -> None:
    """Mount the empty tmpfs of every bind that has one, before any root is built.

    A tmpfs could be mapped from Linux 6.3 on; until the pod ends it can as well be of its users.

    Raises:
        PodctlError: one cannot be mounted.
        Refused: it is to belong to nobody of the pod.
    """
    steps = [*plan.steps, *(step for app in plan.apps for step in app.steps)]
    found = {step.source: step for step in steps if isinstance(step, Bind) and step.scratch}
    for step in found.values():
        scratch = step.scratch or Scratch()
        if users is not None:
            check_identity(Identity(scratch.uid, scratch.gid), UserRange(users.base, users.size))
        base = 0 if users is None else users.base
        options = f"mode={scratch.mode:o},uid={base + scratch.uid},gid={base + scratch.gid}"
        if scratch.size is not None:
            options += f",size={scratch.size}"
        try:
            mount("tmpfs", step.source, "tmpfs", c.MS_NOSUID | c.MS_NODEV, options)
        except OSError as error:
            raise _failed(step, error) from error


class _Builder:
    def __init__(self, plan: LaunchPlan | AppLaunch, name: str, users: MappedUsers | None) -> None:
        self.plan = plan
        self.name = name
        self.users = users
        #: how many device nodes were made
        self.nodes = 0
        self.root_fd = -1
        #: mounts in which missing targets may be created
        self.writable: set[int] = set()

    def build(self) -> int:
        plan = self.plan
        if plan.root is None:
            self._take_root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        elif not any(isinstance(step, Overlay) and step.target == plan.root for step in plan.steps):
            self._bind_root(getattr(plan, "source", None) or plan.root, plan.root)
        for step in plan.steps:
            try:
                self._carry_out(step)
            except OSError as error:
                raise _failed(step, error) from error
        if self.root_fd < 0:
            raise PodctlError("the flavor's plan has no step that mounts its root")
        if plan.read_only_root:
            mount_setattr(self.root_fd, attr_set=c.MOUNT_ATTR_RDONLY)
        return self.root_fd

    def _carry_out(self, step: Step) -> None:
        if isinstance(step, Overlay):
            self._overlay(step)
        elif self.root_fd < 0:
            raise PodctlError("the flavor's plan has a step before the root's overlay")
        elif isinstance(step, Bind):
            self._bind(step)
        elif isinstance(step, Filesystem):
            self._filesystem(step)
        elif isinstance(step, WriteFile):
            self._write(step)
        elif isinstance(step, Symlink):
            self._symlink(step)
        else:
            self._directory(step)

    def _take_root(self, fd: int) -> None:
        self.root_fd = fd
        self.writable.add(mount_id(fd))

    def _bind_root(self, source: str, root: str) -> None:
        """pivot_root(2) wants a mount point: mount the directory (on itself), without submounts."""
        try:
            tree = open_tree(c.AT_FDCWD, source, c.OPEN_TREE_CLONE | c.AT_SYMLINK_NOFOLLOW)
            target = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            mount_setattr(tree, propagation=c.MS_PRIVATE)
            if self.users is not None:
                self.users.apply(tree)
            move_mount(tree, target)
        except OSError as error:
            raise PodctlError(f"cannot mount the root {root}: {error.strerror}") from error
        os.close(target)
        self._take_root(tree)

    def _overlay(self, step: Overlay) -> None:
        """Layers are named by descriptor, seen from /proc/self/fd: paths would need escaping
        (`:`, `,`) and a hundred of them do not fit the one page of options mount(2) takes."""
        fds = self._layers(step)
        try:
            os.chdir("/proc/self/fd")
            upper, work, *lowers = fds[: len(step.lowers) + 2]
            options = f"lowerdir={':'.join(map(str, lowers))},upperdir={upper},workdir={work}"
            mount(self.name, step.target, "overlay", _flags(step.flags, step.target), options)
        finally:
            os.chdir("/")
            for fd in fds:
                os.close(fd)
        if step.target == self.plan.root:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._take_root(os.open(step.target, flags))

    def _layers(self, step: Overlay) -> list[int]:
        """Descriptors of the upper and the work directory, the lower ones, and what else has to
        stay open until the overlay is mounted.

        An overlay cannot be mapped itself, but lies over mapped clones of its layers. Upper and
        work directory have to be in one mount: their parent is cloned for both.
        """
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        if self.users is None:
            return [os.open(path, flags) for path in (step.upper, step.work, *step.lowers)]
        parent, name = os.path.split(step.upper)
        if os.path.dirname(step.work) != parent:
            raise PodctlError(f"{step.upper} and {step.work} are not in one directory")
        writable = self.users.clone(parent)
        entries = (name, os.path.basename(step.work))
        fds = [os.open(entry, flags | os.O_NOFOLLOW, dir_fd=writable) for entry in entries]
        return [*fds, *(self.users.clone(directory) for directory in step.lowers), writable]

    def _bind(self, step: Bind) -> None:
        propagation = _PROPAGATION.get(step.propagation)
        if propagation is None:
            raise PodctlError(
                f"mount {step.target}: propagation {step.propagation} is not slave or private"
            )
        clone = c.OPEN_TREE_CLONE | (c.AT_RECURSIVE if step.recursive else 0)
        tree = open_tree(c.AT_FDCWD, self._source(step), clone)
        try:
            attributes = c.MOUNT_ATTR_RDONLY if step.read_only else 0
            attributes |= c.MOUNT_ATTR_NODEV if step.no_devices else 0
            mount_setattr(tree, attr_set=attributes, propagation=propagation, recursive=True)
            self._map_owners(tree, step)
            is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
            target = self._target(step.target, is_directory=is_directory)
            try:
                move_mount(tree, target)
            finally:
                os.close(target)
            if not _below_system(step.source):
                self.writable.add(mount_id(tree))
        finally:
            os.close(tree)

    def _source(self, step: Bind) -> str:
        """The host path to mount. devtmpfs cannot be mapped: a pod with users of its own gets
        another node of the same device, whose owner is the mapped one."""
        if self.users is None or not _below_system(step.source):
            return step.source
        found = os.stat(step.source)
        if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            return step.source
        if not self.nodes:
            os.makedirs(_NODES, 0o700, exist_ok=True)
            mount("tmpfs", _NODES, "tmpfs", c.MS_NOSUID | c.MS_NOEXEC, "mode=0700")
        path = f"{_NODES}/{self.nodes}"
        self.nodes += 1
        os.mknod(path, found.st_mode, found.st_rdev)
        if max(found.st_uid, found.st_gid) < self.users.size:
            os.chown(path, self.users.base + found.st_uid, self.users.base + found.st_gid)
        os.chmod(path, stat.S_IMODE(found.st_mode))
        return path

    def _map_owners(self, tree: int, step: Bind) -> None:
        if self.users is None or step.owners == "host" or _below_system(step.source):
            return
        if step.scratch is not None:
            return  # made for these users
        try:
            self.users.apply(tree, recursive=step.recursive)
        except OSError as error:
            if step.owners == "either":
                return
            below = " or one mounted below it" if step.recursive else ""
            raise Refused(
                f"{step.source}: the owners of its files cannot be mapped to the pod's users: "
                f"its filesystem{below} cannot do that ({os.strerror(error.errno or 0)})",
                hint="use --private-users=no" + (" or recursive=false" if below else ""),
            ) from error

    def _filesystem(self, step: Filesystem) -> None:
        flags = _flags(step.flags, step.target)
        target = self._target(step.target, is_directory=True)
        try:
            mount(step.fstype, f"/proc/self/fd/{target}", step.fstype, flags, step.options)
        finally:
            os.close(target)
        if step.fstype == "tmpfs":
            top = open_in_root(self.root_fd, step.target, os.O_PATH | os.O_DIRECTORY)
            self.writable.add(mount_id(top))
            os.close(top)

    def _target(self, path: str, *, is_directory: bool) -> int:
        """Resolve (or make) a mount target and check what was found."""
        make = make_directories if is_directory else make_file
        fd = make(self.root_fd, path, before=self._may_create)
        try:
            self._check_target(fd, path, is_directory=is_directory)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check_target(self, fd: int, path: str, *, is_directory: bool) -> None:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode) != is_directory:
            kind = "no directory" if is_directory else "a directory"
            raise Refused(f"mount target {path} is {kind} in the image, its source is the opposite")
        if os.path.samestat(found, os.fstat(self.root_fd)):
            raise Refused(f"mount target {path} is the root of the image", hint="mount below it")
        if filesystem_magic(fd) == c.PROC_SUPER_MAGIC:
            # CVE-2019-16884: who controls /proc controls what the runtime believes it wrote.
            raise Refused(f"mount target {path} lies in /proc", hint="mount somewhere else")

    def _may_create(self, parent: int) -> None:
        """Only in the pod's own root, its tmpfs and its volumes: /dev and /sys are the host's."""
        if mount_id(parent) not in self.writable:
            raise PermissionError(errno.EPERM, "nothing is created in the host's own filesystems")

    def _parent(self, path: str) -> tuple[int, str]:
        """Descriptor of the directory a file is to be in, and the file's name there."""
        directory, name = os.path.split(path.rstrip("/"))
        if name in ("", ".", ".."):
            raise PodctlError(f"{path!r} names no file in the root")
        parent = make_directories(self.root_fd, directory, before=self._may_create)
        return parent, name

    def _write(self, step: WriteFile) -> None:
        """A new file takes the place of whatever the image has there (a link that leads astray,
        a FIFO, a hard link): nothing of the image's is ever opened for writing."""
        parent, name = self._parent(step.target)
        try:
            try:
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                pass
            else:
                if step.missing_only:
                    return
                if stat.S_ISDIR(found.st_mode):
                    raise Refused(f"{step.target} is a directory in the image")
                self._may_create(parent)
                os.unlink(name, dir_fd=parent)
            self._may_create(parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, step.mode, dir_fd=parent)
            try:
                write_all(fd, step.content.encode(errors="surrogateescape"))
                os.fchmod(fd, step.mode)
            finally:
                os.close(fd)
        finally:
            os.close(parent)

    def _symlink(self, step: Symlink) -> None:
        parent, name = self._parent(step.target)
        try:
            if not _stands(parent, name):
                self._may_create(parent)
                os.symlink(step.to, name, dir_fd=parent)
        finally:
            os.close(parent)

    def _directory(self, step: Directory) -> None:
        if not self._new_directory(step):
            # What stands there is a directory, a link to one, or to where one is to be made.
            os.close(make_directories(self.root_fd, step.target, before=self._may_create))

    def _new_directory(self, step: Directory) -> bool:
        if os.path.basename(step.target.rstrip("/")) in ("", ".", ".."):
            return False
        parent, name = self._parent(step.target)
        try:
            if _stands(parent, name):
                return False
            self._may_create(parent)
            os.mkdir(name, step.mode, dir_fd=parent)
            fd = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            # mkdir(2) left out the sticky bit's company: what the umask denies.
            os.fchmod(fd, step.mode)
            os.close(fd)
        finally:
            os.close(parent)
        return True


def _flags(names: tuple[str, ...], target: str) -> int:
    unknown = [name for name in names if name not in _FLAGS]
    if unknown:
        raise PodctlError(f"mount {target}: unknown flag {unknown[0]}")
    return sum(_FLAGS[name] for name in set(names))


def _stands(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _below_system(source: str) -> bool:
    path = os.path.realpath(source)
    return any(path == tree or path.startswith(tree + "/") for tree in _SYSTEM)


def _failed(step: Step, error: OSError) -> PodctlError:
    """The error for a step the kernel did not carry out."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSYS, errno.EPERM, errno.ENODEV):
        reason = error.args[-1] if len(error.args) == 2 else error.strerror or reason
    if isinstance(step, Overlay):
        if error.errno == errno.ENODEV:
            return HostLacks(
                "this kernel has no overlay filesystem", hint="use --no-overlay or modprobe overlay"
            )
        return PodctlError(f"cannot mount the image's layers: {reason}")
    if isinstance(step, Bind):
        return PodctlError(f"cannot mount {step.source} on {step.target} in the pod: {reason}")
    if isinstance(step, Filesystem):
        return PodctlError(f"cannot mount {step.fstype} on {step.target} in the pod: {reason}")
    return PodctlError(f"cannot make {step.target} in the pod: {reason}")
