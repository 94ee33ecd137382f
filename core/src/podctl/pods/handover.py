"""What a pod's own launcher needs to start an app, resolved by core and left where it looks.

The launcher (podctl.sys.applauncher) runs inside the pod, imports nothing but podctl.sys and
decides nothing: user, directory, program and confinement are found here, from the host, before
anything of the pod runs.
"""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from podctl.errors import PodctlError, Refused
from podctl.model.plan import UserRange
from podctl.pods.lookup import explain, find_program
from podctl.pods.program import check_strings, prepare_program
from podctl.sys import constants as c
from podctl.sys.inroot import make_file, open_in_root
from podctl.sys.mounts import mount, mount_setattr, move_mount, open_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podctl.model.confinement import Confinement
    from podctl.model.plan import AppLaunch, EnterPlan
    from podctl.pods.program import Program
    from podctl.sys.idmap import MappedUsers

#: where the launcher finds its documents, below the pod's root
DOCUMENTS = "podctl/apps"
#: where it finds the app's control groups
GROUPS = "podctl/groups"
#: what execve(2) may fail with although the program is there
_EXPLAINED = (errno.ENOENT, errno.ENOEXEC, errno.EACCES, errno.ELIBBAD)


def hand_over(
    app: AppLaunch,
    app_fd: int,
    root_fd: int,
    users: MappedUsers | None = None,
    *,
    groups: Sequence[str] = (),
) -> int:
    """Leave the document of an app in the pod's root; returns the host's number of its user.

    Args:
        app_fd: the app's root.
        root_fd: the pod's root, below which the app's lies.
        users: whom both belong to.
        groups: `cgroup.procs` of each control group that the app's first process is to enter.

    Raises:
        AppNotFound, AppNotExecutable: a program is missing or no program.
        Refused: one of the image's system directories is none.
        PodctlError: account or working directory cannot be had.
    """
    import marshal

    check_strings(app.argv, app.environment)
    for tree in app.trees:
        _check_directory(app_fd, tree)
    ids = None if users is None else UserRange(users.base, users.size)
    program = prepare_program(app_fd, app, no_new_privileges=False, users=ids)
    document = _document(program, app.working_directory, app.confinement)
    document["masked"] = list(app.confinement.masked_paths)
    document["read_only_paths"] = list(app.confinement.read_only_paths)
    document["root"] = os.path.join("/", os.path.relpath(app.root, _path_of(root_fd)))
    document["trees"] = list(app.trees)
    document["sockets"] = app.takes_sockets
    if app.connections is not None:
        document["streams"] = tuple(app.connections.streams)
        document["holder"] = app.connections.inside
    document["handlers"] = {
        name: (find_program(app_fd, argv[0], app.environment, "/"), list(argv))
        for name, argv in app.handlers.items()
    }
    _close(program)
    if users is not None:
        for file in groups:
            # Who moves itself is asked for write access alone (cgroups(7)).
            os.chown(file, users.base, -1)
    with nullcontext() if users is None else users.owning():
        document["groups_files"] = _show_groups(root_fd, app.name, groups)
        _leave(marshal.dumps(document), app.name, root_fd)
    return (0 if users is None else users.base) + program.identity.uid


def _leave(document: bytes, name: str, root_fd: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(f"{DOCUMENTS}/{name}", flags, 0o600, dir_fd=root_fd), "wb") as file:
        file.write(document)


def entering_document(plan: EnterPlan, app_fd: int) -> bytes:
    """The document of a process that enters an app, whose root is `app_fd`."""
    import marshal

    program = prepare_program(app_fd, plan, no_new_privileges=False, users=plan.users)
    document = _document(program, plan.working_directory, plan.confinement)
    document["terminal"] = plan.terminal
    _close(program)
    return marshal.dumps(document)


def cover(directories: Iterable[str]) -> None:
    """Hide host directories from the pod's first process, which is a program of the host."""
    for directory in directories:
        try:
            os.makedirs(directory, exist_ok=True)
            mount("tmpfs", directory, "tmpfs", c.MS_NOSUID | c.MS_NODEV, "mode=0755")
        except OSError as error:
            raise PodctlError(f"cannot mount a tmpfs on {directory}: {error.strerror}") from error


def _document(program: Program, directory: str, confinement: Confinement) -> dict[str, Any]:
    return {
        "directory": directory,
        "path": program.path,
        "argv": list(program.argv),
        "environment": dict(program.environment),
        "uid": program.identity.uid,
        "gid": program.identity.gid,
        "groups": list(program.identity.groups),
        "held": confinement.to_numbers(),
        "explanations": {
            number: explain(OSError(number, ""), program.root_fd, program.path, program.file_fd)
            for number in _EXPLAINED
        },
    }


def _show_groups(root_fd: int, app: str, groups: Sequence[str]) -> list[str]:
    """Bind the files by which the app's process gets into its control groups where the launcher
    finds them, and no app: a process is best moved by itself, and all else of these groups stays
    out of the pod.

    Args:
        groups: `cgroup.procs` files of the host.

    Returns:
        Where they are inside the pod.
    """
    shown = []
    for number, source in enumerate(groups):
        place = f"{GROUPS}/{app}/{number}"
        target = make_file(root_fd, place)
        tree = open_tree(c.AT_FDCWD, source, c.OPEN_TREE_CLONE)
        try:
            mount_setattr(tree, propagation=c.MS_PRIVATE)
            move_mount(tree, target)
        finally:
            os.close(tree)
            os.close(target)
        shown.append(f"/{place}")
    return shown


def _close(program: Program) -> None:
    for fd in (program.directory_fd, program.file_fd):
        if fd >= 0:
            os.close(fd)


def _check_directory(app_fd: int, tree: str) -> None:
    """A link of the image's would have the pod's /proc mounted wherever it leads
    (CVE-2019-16884, CVE-2025-52881)."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        os.close(open_in_root(app_fd, tree, flags, resolve=c.RESOLVE_NO_SYMLINKS))
    except OSError as error:
        reason = "is a link or no directory"
        raise Refused(f"{tree} {reason} in the image", hint="make it a directory") from error


def _path_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")
