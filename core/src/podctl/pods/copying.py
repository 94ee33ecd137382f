"""Copying files into and out of pods: a tar stream between two children, each confined to its side.

Neither child can name a file of the other side, whatever links the pod holds (CVE-2018-15664), and
nothing of the pod is executed or loaded (CVE-2019-14271).
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import NotFound, PodctlError, UsageError
from podctl.images.tarwrite import write_entry
from podctl.pods.receiving import receive
from podctl.sys.child import Privileges, spawn
from podctl.sys.inroot import open_in_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.pods.podroot import PodRoot
    from podctl.sys.child import Child

    Owner = Callable[[int, int], tuple[int, int]]

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_BUFFER = 1 << 20
#: what a path leads to
DIRECTORY, OTHER, MISSING = "directory", "other", "missing"


class Source(NamedTuple):
    """What is to be copied.

    Args:
        path: as given.
        kind: DIRECTORY or OTHER (a link is one).
    """

    path: str
    kind: str

    @property
    def contents(self) -> bool:
        """Whether a directory's members are meant, and not itself."""
        return self.kind == DIRECTORY and (self.path.endswith("/.") or not self.name)

    @property
    def name(self) -> str:
        """Its name in the directory it is copied into."""
        base = posixpath.basename(self.path.removesuffix("/.").rstrip("/"))
        return "" if base in (".", "..") else base


class Target(NamedTuple):
    """Where it goes: the directory that receives it, and its name there (empty for contents)."""

    directory: str
    name: str


def aim(source: Source, path: str, kind: str) -> Target:
    """Where a copy lands, by cp(1)'s rules.

    Args:
        path, kind: of the destination.

    Raises:
        UsageError: a directory is to become a file, or a file one that must be a directory.
    """
    if kind == DIRECTORY:
        return Target(path, "" if source.contents else source.name)
    if source.kind == DIRECTORY and kind == OTHER:
        raise UsageError(f"{path} is no directory, and one is to be copied there")
    if source.kind != DIRECTORY and path.endswith("/"):
        raise UsageError(f"{path} is no directory")
    stripped = path.rstrip("/")
    return Target(posixpath.dirname(stripped) or ".", posixpath.basename(stripped))


def look(root_fd: int, path: str, *, follow: bool) -> str:
    """What a path inside a root leads to. Without `follow` a link is what it is, unless the path
    ends in a slash."""
    flags = os.O_PATH if follow or path.endswith(("/", "/.")) else os.O_PATH | os.O_NOFOLLOW
    try:
        fd = open_in_root(root_fd, path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    try:
        return DIRECTORY if stat.S_ISDIR(os.fstat(fd).st_mode) else OTHER
    finally:
        os.close(fd)


def send(
    root_fd: int, source: Source, name: str, fd: int, owner: Owner, *, plain: bool
) -> list[str]:
    """Write what is to be copied as a tar stream; returns what was left out.

    Args:
        root_fd: what the source's path starts at.
        name: of the member; empty for a directory's members alone.
        plain: without set-id bits and attributes.
    """
    parent, base = _locate(root_fd, source.path)
    with open(fd, "wb", buffering=_BUFFER, closefd=False) as output:
        skipped = write_entry(
            output, parent, os.fsencode(base), os.fsencode(name), owner=owner, plain=plain
        )
    os.close(parent)
    return list(skipped)


def _locate(root_fd: int, path: str) -> tuple[int, str]:
    stripped = path.rstrip("/")
    base = posixpath.basename(stripped)
    if base in ("", ".", "..") or path.endswith("/"):
        return open_in_root(root_fd, path, os.O_RDONLY | os.O_DIRECTORY), "."
    above = posixpath.dirname(stripped) or "."
    return open_in_root(root_fd, above, os.O_RDONLY | os.O_DIRECTORY), base


class _Pipe:
    """What one child writes and another reads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        return os.read(self._fd, size)


def take(root_fd: int, directory: str, fd: int, owner: Owner) -> list[str]:
    """Read a tar stream into a directory of a root; returns what was left out."""
    target = open_in_root(root_fd, directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return list(receive(_Pipe(fd), target, owner))
    finally:
        os.close(target)


def copy_out(root: PodRoot, path: str, local: str, *, archive: bool) -> list[str]:
    """Copy from a pod; returns what was left out.

    Args:
        path: absolute in the pod.
        local: path of the host; `-` for a tar stream on standard output.
        archive: keep owners as the pod has them, set-id bits and attributes; else files are ours.

    Raises:
        NotFound: there is nothing at the path.
        UsageError, Refused: it cannot be copied there.
    """
    source = Source(path, _ask(root, path, follow=False))
    if source.kind == MISSING:
        raise NotFound(f"{path}: no such file in the pod")

    def inside(uid: int, gid: int) -> tuple[int, int]:
        return root.uids.inside(uid), root.gids.inside(gid)

    if local == "-":
        name = "" if source.contents else source.name
        return _send_from(root, source, name, 1, inside, plain=False)
    kind = _look_local(local)
    target = aim(source, local, kind)
    ours = os.geteuid(), os.getegid()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with _in_pod(root, source, target.name, writer, inside, plain=not archive) as sender:
        os.close(writer)
        directory = _open_local(target.directory)
        with _at(
            directory,
            lambda: take(_top(), ".", reader, _same if archive else lambda _u, _g: ours),
            reader,
        ) as receiver:
            os.close(reader)
            os.close(directory)
            return _finish(sender, receiver)


def copy_in(root: PodRoot, local: str, path: str, *, archive: bool) -> list[str]:
    """Copy into a pod; returns what was left out. Arguments and errors: as of copy_out.

    Args:
        local: `-` for a tar stream on standard input, with its owners.
        archive: keep numbers of owners; else files belong to the pod's root.
    """
    kind = _ask(root, path, follow=True)

    def outside(uid: int, gid: int) -> tuple[int, int]:
        return root.uids.outside(uid), root.gids.outside(gid)

    if local == "-":
        if kind != DIRECTORY:
            raise UsageError(f"{path} is no directory in the pod")
        return _take_in(root, path, 0, outside)
    source = Source(local, _look_source(local))
    target = aim(source, path, kind)
    if _ask(root, target.directory, follow=True) != DIRECTORY:
        raise NotFound(f"{target.directory}: no such directory in the pod")
    owner: Owner = _same if archive else lambda _uid, _gid: (0, 0)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    parent, base = _split_local(local)
    directory = _open_local(parent)
    with _at(
        directory,
        lambda: send(_top(), source._replace(path=base), target.name, writer, owner, plain=False),
        writer,
    ) as sender:
        os.close(writer)
        os.close(directory)
        with root.spawn(
            lambda: take(_top(), target.directory, reader, outside), (reader,), "copy"
        ) as receiver:
            os.close(reader)
            return _finish(sender, receiver)


def _same(uid: int, gid: int) -> tuple[int, int]:
    return uid, gid


def _top() -> int:
    """The root of a child that is confined to one side."""
    return os.open("/", _PATH)


def _ask(root: PodRoot, path: str, *, follow: bool) -> str:
    with root.spawn(lambda: look(_top(), path, follow=follow), (), "copy") as child:
        return str(child.wait())


def _in_pod(
    root: PodRoot, source: Source, name: str, fd: int, owner: Owner, *, plain: bool
) -> Child:
    return root.spawn(lambda: send(_top(), source, name, fd, owner, plain=plain), (fd,), "copy")


def _send_from(
    root: PodRoot, source: Source, name: str, fd: int, owner: Owner, *, plain: bool
) -> list[str]:
    with _in_pod(root, source, name, fd, owner, plain=plain) as child:
        return _lines(child.wait())


def _take_in(root: PodRoot, path: str, fd: int, owner: Owner) -> list[str]:
    # A child's standard input is /dev/null.
    own = os.dup(fd)
    with root.spawn(lambda: take(_top(), path, own, owner), (own,), "copy") as child:
        os.close(own)
        return _lines(child.wait())


def _at(directory: int, work: Callable[[], object], fd: int) -> Child:
    return spawn(work, privileges=Privileges.EXTRACT, keep=(fd,), name="copy", chroot_to=directory)


def _finish(sender: Child, receiver: Child) -> list[str]:
    """Both answers. When one side fails the other breaks off: the cause is what counts."""
    sent = received = None
    problems: list[PodctlError] = []
    for child in (receiver, sender):
        try:
            if child is sender:
                sent = child.wait()
            else:
                received = child.wait()
        except PodctlError as error:
            problems.append(error)
    if problems:
        # A receiver that met the end too early says so; a sender that lost its reader, too.
        causes = [x for x in problems if not _is_consequence(x)]
        raise (causes or problems)[0]
    return [*_lines(sent), *_lines(received)]


def _is_consequence(error: PodctlError) -> bool:
    return (
        "BrokenPipe" in error.message
        or "cut short" in error.message
        or ("archive is empty" in error.message)
    )


def _lines(value: Any) -> list[str]:
    return [str(line) for line in value]


def _look_local(path: str) -> str:
    if os.path.isdir(path):
        return DIRECTORY
    return OTHER if os.path.lexists(path) else MISSING


def _look_source(path: str) -> str:
    if path.endswith("/") or posixpath.basename(path) in (".", ".."):
        kind = _look_local(path)
    else:
        kind = MISSING
        if os.path.lexists(path):
            kind = DIRECTORY if os.path.isdir(path) and not os.path.islink(path) else OTHER
    if kind == MISSING:
        raise NotFound(f"{path}: no such file")
    return kind


def _split_local(path: str) -> tuple[str, str]:
    """The directory a child is confined to, and the path from there."""
    stripped = path.rstrip("/")
    base = posixpath.basename(stripped)
    if base in ("", ".", "..") or path.endswith("/"):
        return path, "."
    return posixpath.dirname(stripped) or ".", base


def _open_local(path: str) -> int:
    try:
        return os.open(path, _PATH)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


__all__ = ["DIRECTORY", "MISSING", "OTHER", "Source", "Target", "aim", "copy_in", "copy_out"]
