"""Starts one app inside a pod: a program of its own, executed by the pod's first process.

It runs in the pod's namespaces, in a root that holds the host's programs and below it the apps'
own roots, with what core has resolved beforehand as its only input. It makes the app's root the
root, gives up everything the app may not have, and becomes the app. Nothing of the image is
looked at with more rights than the app's own.

Arguments:
    APP app: become the app.
    APP HANDLER: become one of its event handlers (`pre-start`, `post-stop`).
    APP enter DOCUMENT MOUNTS: become another process of the app; numbers of two descriptors, the
        document and the app's mount namespace.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

if __name__ == "__main__":
    # Started by its path, isolated: the package lies three levels up.
    sys.path.insert(0, os.path.abspath(__file__).rsplit("/", 3)[0])

from podctl.sys import confine  # noqa: E402
from podctl.sys import constants as c  # noqa: E402
from podctl.sys.calls import close_range, filesystem_magic, join_new_session_keyring, openat2, prctl  # noqa: E402
from podctl.sys.mounts import mount, mount_setattr, move_mount, open_tree, pivot_root, umount2  # noqa: E402
from podctl.sys.namespaces import setns, unshare  # noqa: E402

#: where core leaves what an app needs; root's alone
DOCUMENTS = "/podctl/apps"
_SIGKILL, _SIGSTOP = 9, 19
#: SD_LISTEN_FDS_START
_FIRST_SOCKET = 3
_STREAMS = ("stdin", "stdout", "stderr")
#: exit codes of a program that is missing, or none
_NOT_FOUND, _NOT_EXECUTABLE, _OURS = 127, 126, 254
_ENOENT, _EINVAL = 2, 22
#: of cgroup v1: what says something of the app
_CONTROLLERS = frozenset({"blkio", "cpu", "cpuacct", "cpuset", "devices", "memory", "pids"})
_HARMLESS = c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC
#: nspawn's /sys is a tmpfs with parts of sysfs and of control groups
_SYSTEM = frozenset({c.PROC_SUPER_MAGIC, c.SYSFS_MAGIC, c.TMPFS_MAGIC})


def main(app: str, what: str, document_fd: str = "", mounts_fd: str = "") -> int:
    """Become an app, an event handler or another process of it; returns only when that failed."""
    # Until execve nobody in the pod may look into this process, which has more rights.
    prctl(c.PR_SET_DUMPABLE, 0)
    terminal = -1
    try:
        if what == "enter":
            document = _received(int(document_fd))
            confine.prepare(document["held"])
            setns(int(mounts_fd), c.CLONE_NEWNS)
        else:
            document = _left(app, what)
            terminal = _connect(document) if what == "app" and "streams" in document else -1
            _join(document["groups_files"])
            confine.prepare(document["held"])
            _enter_root(document)
        os.chdir(document["directory"])
        # Raises when the directory is not below the root (CVE-2024-21626).
        os.getcwd()
        join_new_session_keyring()
        takes_sockets = what == "app" and document["sockets"]
        _keep_descriptors(document["environment"] if takes_sockets else None)
        _reset_signals()
        if what != "app" or not _come_to_the_foreground():
            os.setsid()
        if document.get("terminal"):
            _take_terminal(0)
        elif terminal >= 0:
            _take_terminal(terminal)
        confine.apply(document["held"], document["uid"], document["gid"], document["groups"])
    except (OSError, KeyError, ValueError) as error:
        return _say(_OURS, f"cannot start {app}: {error}")
    return _execute(document)


def _execute(document: dict[str, Any]) -> int:
    path: str = document["path"]
    try:
        os.execve(path, document["argv"], document["environment"])
    except OSError as error:
        known: tuple[int, str] | None = document["explanations"].get(error.errno)
        if known is not None:
            return _say(*known)
        code = _NOT_FOUND if error.errno == _ENOENT else _NOT_EXECUTABLE
        return _say(code, f"{path}: {error.strerror}")


def _received(fd: int) -> dict[str, Any]:
    with open(fd, "rb") as file:
        document: dict[str, Any] = marshal.loads(file.read())
    return document


def _left(app: str, what: str) -> dict[str, Any]:
    """The app's document, or that of an event handler: its own program, as root, in the app's root
    and environment (appc, "App Container Executor", event handlers)."""
    with open(f"{DOCUMENTS}/{app}", "rb") as file:
        document: dict[str, Any] = marshal.loads(file.read())
    if what == "app":
        return document
    path, argv = document["handlers"][what]
    document.update(path=path, argv=argv, uid=0, gid=0, groups=[], explanations={}, directory="/")
    return document


def _enter_root(document: dict[str, Any]) -> None:
    """Make the app's root the root of a mount namespace that shows nothing else. The app's control
    groups become the roots of those that it sees."""
    unshare(c.CLONE_NEWNS | c.CLONE_NEWCGROUP)
    mount("none", "/", None, c.MS_REC | c.MS_PRIVATE)
    root: str = document["root"]
    for tree in document["trees"]:
        _bind(tree, root + tree, read_only=tree in document["read_only_paths"])
    if "/sys" in document["trees"] and os.path.isdir(f"{root}/sys/fs/cgroup"):
        _show_groups(f"{root}/sys/fs/cgroup")
    # In a user namespace of the pod's own the root is locked to what it is mounted on, unlike a
    # copy of it (mount_namespaces(7)); pivot_root(2) takes nothing that is locked.
    _bind(root, root)
    os.chdir(root)
    _protect(document)
    pivot_root(".", ".")
    # The old root now lies on top of the new one, at "."; pivot_root(2) shows this idiom.
    umount2(".", c.MNT_DETACH)
    os.chdir("/")


def _bind(source: str, target: str, *, read_only: bool = False) -> None:
    """The target is a directory core has made or checked, in a root nobody else has yet."""
    tree = open_tree(c.AT_FDCWD, source, c.OPEN_TREE_CLONE | c.AT_RECURSIVE)
    place = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        attributes = c.MOUNT_ATTR_RDONLY if read_only else 0
        mount_setattr(tree, attr_set=attributes, propagation=c.MS_PRIVATE, recursive=True)
        move_mount(tree, place)
    finally:
        os.close(tree)
        os.close(place)


def _connect(document: dict[str, Any]) -> int:
    """Make the app's own terminal or pipes, the pod's like everything it has, and hand their other
    ends to the holder (podctl.sys.holder); returns the app's end of the terminal, or -1."""
    ends: dict[int, int] = {}
    others: dict[str, int] = {}
    terminal = -1
    for number, mode in enumerate(document["streams"]):
        if mode == "tty":
            if terminal < 0:
                others["tty"], terminal = os.openpty()
                os.fchown(terminal, document["uid"], -1)
            ends[number] = terminal
        elif mode == "stream":
            reader, writer = os.pipe()
            others[_STREAMS[number]], ends[number] = (
                (reader, writer) if number else (writer, reader)
            )
            # So that it can be opened by its name, too.
            os.fchown(ends[number], document["uid"], -1)
        elif mode == "null":
            ends[number] = os.open("/dev/null", os.O_RDWR)
    if others:
        _hand_over(others, document["holder"])
    for number, fd in ends.items():
        os.dup2(fd, number)
    return terminal


def _hand_over(fds: dict[str, int], directory: str) -> None:
    from _socket import AF_UNIX, SCM_RIGHTS, SOCK_DGRAM, SOL_SOCKET, socket

    # Not by its path, which may be longer than an address can be.
    os.chdir(directory)
    connection = socket(AF_UNIX, SOCK_DGRAM)
    rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds.values())
    message = [" ".join(fds).encode()]
    connection.sendmsg(message, [(SOL_SOCKET, SCM_RIGHTS, rights)], 0, "holder")
    connection.close()
    for fd in fds.values():
        os.close(fd)
    os.chdir("/")


def _join(files: list[str]) -> None:
    for name in files:
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC)
        # The writer, whatever its number is on the host.
        os.write(fd, b"0")
        os.close(fd)


def _show_groups(target: str) -> None:
    """The app's own control groups, read-only: a program finds its limits where it looks for them,
    and no other pod's. `target` lies in nspawn's tmpfs."""
    with open("/proc/self/cgroup") as file:
        names = [line.split(":", 2)[1] for line in file]
    shown = [name for name in names if _CONTROLLERS.intersection(name.split(","))]
    try:
        # systemd-nspawn's, whose lines in mountinfo name groups of the host.
        umount2(target, c.MNT_DETACH)
    except OSError as error:
        if error.errno != _EINVAL:  # it is no mount point
            raise
    # Also below cgroup v2, which is not mounted on itself (EBUSY).
    mount("tmpfs", target, "tmpfs", _HARMLESS, "mode=755,size=64k")
    if not shown:
        mount("cgroup2", target, "cgroup2", c.MS_RDONLY | _HARMLESS)
        return
    for name in shown:
        os.mkdir(f"{target}/{name}")
        mount("cgroup", f"{target}/{name}", "cgroup", c.MS_RDONLY | _HARMLESS, name)
        if "," in name:
            for alias in name.split(","):
                os.symlink(name, f"{target}/{alias}")
    mount("none", target, None, c.MS_REMOUNT | c.MS_BIND | c.MS_RDONLY | _HARMLESS)


def _protect(document: dict[str, Any]) -> None:
    """Hide paths of the app's /proc and /sys, and make others read-only. The current directory is
    the app's root."""
    root = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    kept: list[str] = document["read_only_paths"]
    hidden: list[str] = document["masked"]
    for path in kept:
        if path in document["trees"]:
            continue
        place = _system_path(root, path, document["trees"])
        if place is not None:
            flags = c.OPEN_TREE_CLONE | c.AT_RECURSIVE | c.AT_EMPTY_PATH
            tree = open_tree(place, "", flags)
            mount_setattr(tree, attr_set=c.MOUNT_ATTR_RDONLY, recursive=True)
            move_mount(tree, place)
            os.close(tree)
            os.close(place)
    if hidden:
        # Over the documents, which have been read: nobody but this process sees it there.
        mount("tmpfs", DOCUMENTS, "tmpfs", c.MS_RDONLY | _HARMLESS, "size=0,nr_inodes=1,mode=0")
    null = open_null() if hidden else None
    for path in hidden:
        place = _system_path(root, path, document["trees"])
        if place is not None:
            _hide(place, null)
            os.close(place)
    os.close(root)


def _hide(place: int, null: int | None) -> None:
    if null is None or os.path.isdir(f"/proc/self/fd/{place}"):
        tree = open_tree(c.AT_FDCWD, DOCUMENTS, c.OPEN_TREE_CLONE)
    else:
        tree = open_tree(null, "", c.OPEN_TREE_CLONE | c.AT_EMPTY_PATH)
    mount_setattr(tree, propagation=c.MS_PRIVATE)
    move_mount(tree, place)
    os.close(tree)


def _system_path(root: int, path: str, trees: list[str]) -> int | None:
    """A descriptor of a path of the app's /proc or /sys; None where there is none, or where the app
    brings a tree of its own.

    Raises:
        OSError: a link is on the way, or what is there is neither procfs nor sysfs
            (CVE-2019-16884, CVE-2025-31133).
    """
    if "/" + path.split("/", 2)[1] not in trees:
        return None
    try:
        fd = openat2(root, path[1:], os.O_PATH, 0, c.RESOLVE_BENEATH | c.RESOLVE_NO_SYMLINKS)
    except FileNotFoundError:
        return None
    if filesystem_magic(fd) not in _SYSTEM:
        raise OSError(f"{path} is not the kernel's")
    return fd


def open_null(path: str = "/dev/null") -> int:
    """A descriptor (O_PATH) of the null device. The apps of a pod share its /dev: what one of them
    puts there while another starts is never followed, nor looked up twice (CVE-2025-31133).

    Raises:
        OSError: it is something else.
    """
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if status.st_mode & 0o170000 != 0o020000 or status.st_rdev != os.makedev(1, 3):
        os.close(fd)
        raise OSError(f"{path} is something else")
    return fd


def _keep_descriptors(environment: dict[str, str] | None) -> None:
    """0, 1, 2 and, where an environment is to name them, the sockets a supervisor passed to the
    pod; the last one passed is the pod's lock and no app's."""
    close_range(_FIRST_SOCKET, 0xFFFFFFFF, c.CLOSE_RANGE_CLOEXEC)
    sockets = int(os.environ.get("LISTEN_FDS") or "1") - 1
    if environment is None or sockets < 1:
        return
    for fd in range(_FIRST_SOCKET, _FIRST_SOCKET + sockets):
        os.set_inheritable(fd, True)
    environment["LISTEN_FDS"] = str(sockets)
    environment["LISTEN_PID"] = str(os.getpid())


def _come_to_the_foreground() -> bool:
    """Take the terminal on standard input, if it is that of the pod's first process, whose session
    it stays in: what is typed there, Ctrl-C say, is for the app and its jobs alone."""
    import _signal  # type: ignore[import-not-found]

    try:
        os.tcgetpgrp(0)
    except OSError:
        return False
    stopping = (_signal.SIGTTOU,)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, stopping)
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, stopping)
    return True


def _take_terminal(fd: int) -> None:
    """Make a terminal the session's own, for job control."""
    # Loaded already: the host's files are out of reach.
    from podctl.sys.calls import libc

    libc.ioctl(fd, 0x540E, 0)  # TIOCSCTTY


def _reset_signals() -> None:
    """The shell ignores some for what runs in the background (POSIX, 2.11)."""
    # Not through `signal`, which imports enum: the built-in module below it is all it takes.
    import _signal

    for number in _signal.valid_signals() - {_SIGKILL, _SIGSTOP}:
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _say(code: int, text: str) -> int:
    shown = "".join(x if x.isprintable() else f"\\x{ord(x):02x}" for x in text)
    os.write(2, f"podctl: {shown}\n".encode(errors="replace"))
    return code


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]))
