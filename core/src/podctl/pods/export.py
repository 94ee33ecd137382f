"""An exited pod's app written as an image file: its root filesystem as the app left it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from podctl.errors import NotFound, PodStateError, Refused, UsageError
from podctl.sys.locks import lock

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator

    from podctl.model.plan import PreparedApp, PreparedPod
    from podctl.pods.directories import Pod

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MAX_MANIFEST = 4 << 20
_EXPORTABLE = ("exited", "exited garbage")
#: extended attributes that belong to an image; the rest is the overlay's or the host's
_XATTRS = ("user.", "security.capability")


def export(pod: Pod, app_name: str | None, path: str, *, overwrite: bool) -> None:
    """Write the app as a gzip ACI with its image's manifest; `path` is replaced as a whole.

    Raises:
        PodStateError: the pod has not exited.
        UsageError: the file exists, has the wrong name, or it must be said which app is meant.
        Refused: mounts in the way would become part of the image.
    """
    from podctl.pods.prepared import load_prepared

    if not path.endswith(".aci"):
        raise UsageError(f'output file "{path}" must end in .aci')
    if pod.state not in _EXPORTABLE:
        raise PodStateError(f'pod "{pod.uuid}" is not exited. Only exited pods can be exported')
    if not overwrite and os.path.lexists(path):
        raise UsageError("output ACI file exists (try --overwrite)")
    lock_fd = os.open(pod.path("lock"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        # Shared: the pod still counts as exited, but nobody deletes it meanwhile.
        if not lock(lock_fd, exclusive=False, blocking=False):
            raise PodStateError(f'pod "{pod.uuid}" is currently being deleted')
        prepared = load_prepared(pod.directory)
        app = _choose(prepared, app_name)
        _write_replacing(prepared, app, _image_manifest(pod, app), path, overwrite=overwrite)
    finally:
        os.close(lock_fd)


def _choose(pod: PreparedPod, name: str | None) -> PreparedApp:
    names = [app.name for app in pod.apps]
    if name is None and len(names) != 1:
        raise UsageError("pod has more than one app: choose one with --app", hint=", ".join(names))
    for app in pod.apps:
        if name in (None, app.name):
            return app
    raise NotFound(f'pod "{pod.uuid}" has no app "{name}"', hint=f"it has {', '.join(names)}")


def _image_manifest(pod: Pod, app: PreparedApp) -> bytes:
    from podctl.sys.files import read_small

    return read_small(pod.path(f"appsinfo/{app.name}/manifest"), _MAX_MANIFEST)


def _write_replacing(
    pod: PreparedPod, app: PreparedApp, manifest: bytes, path: str, *, overwrite: bool
) -> None:
    directory, name = os.path.split(os.path.abspath(path))
    temporary = f"{directory}/.{name}.{os.urandom(8).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        try:
            _write_in_child(pod, app, manifest, fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        if overwrite:
            os.rename(temporary, path)
        else:
            # Unlike rename, link does not replace what appeared meanwhile.
            os.link(temporary, path)
            os.unlink(temporary)
    except BaseException as error:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        if isinstance(error, FileExistsError):
            raise UsageError("output ACI file exists (try --overwrite)") from None
        raise


def _write_in_child(pod: PreparedPod, app: PreparedApp, manifest: bytes, fd: int) -> None:
    """Mount the app's root where only the child sees it, so that nothing can be left mounted."""
    from podctl.sys.child import Privileges, spawn

    def work() -> None:
        root = os.open(app.root, _DIRECTORY) if app.rootfs.directory else mount_app(pod, app)
        with open(fd, "wb", closefd=False) as file:
            write_aci(root, manifest, file)

    if app.rootfs.directory is not None:
        _refuse_mounts(app.root)
    with spawn(work, privileges=Privileges.SAME, keep=(fd,), name="export") as child:
        child.wait()


def _refuse_mounts(root: str) -> None:
    from podctl.sys.mounts import mount_points_below

    if mount_points_below(root):
        raise Refused(
            "pod has remaining mountpoints. Only pods using overlayfs or with no mountpoints "
            "can be exported"
        )


def mount_app(pod: PreparedPod, app: PreparedApp) -> int:
    """Mount the root of an app that does not run, seen by this process alone; its descriptor."""
    from podctl.model.plan import Identity, LaunchPlan, Overlay
    from podctl.pods.mounting import build_root
    from podctl.sys import constants as c
    from podctl.sys.mounts import make_tree_slave
    from podctl.sys.namespaces import unshare

    unshare(c.CLONE_NEWNS)
    make_tree_slave()
    overlay = Overlay(app.root, app.rootfs.lowers, app.upper, app.work)
    plan = LaunchPlan(
        flavor="export",
        namespaces=("NS",),
        root=app.root,
        steps=(overlay,),
        identity=Identity(0, 0),
        working_directory="/",
        environment={},
        argv=(),
    )
    return os.open(".", _DIRECTORY, dir_fd=build_root(plan, f"podctl-export-{pod.uuid}"))


def write_aci(root_fd: int, manifest: bytes, file: BinaryIO) -> None:
    """Write `manifest` and the tree at `root_fd` as a gzip-compressed ACI.

    Walks by descriptor and follows no link; FIFOs and devices are recorded, never opened; sockets
    are left out. Equal trees give equal files.
    """
    import gzip
    import io
    import tarfile

    with (
        gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        entry = tarfile.TarInfo("manifest")
        entry.size = len(manifest)
        entry.mode = 0o644
        archive.addfile(entry, io.BytesIO(manifest))
        seen: dict[tuple[int, int], str] = {}
        for name, directory_fd, base in _walk(root_fd):
            _add(archive, name, directory_fd, base, seen)


def _walk(root_fd: int) -> Iterator[tuple[str, int, str]]:
    """(name in the archive, descriptor of its directory, last component), parents first."""
    yield "rootfs", root_fd, "."
    for directory, directories, files, fd in os.fwalk(".", dir_fd=root_fd):
        directories.sort()
        prefix = "rootfs" if directory == "." else f"rootfs/{directory.removeprefix('./')}"
        for base in sorted([*directories, *files]):
            yield f"{prefix}/{base}", fd, base


def _add(
    archive: tarfile.TarFile, name: str, fd: int, base: str, seen: dict[tuple[int, int], str]
) -> None:
    import tarfile

    status = os.stat(base, dir_fd=fd, follow_symlinks=False)
    kind = _kind(status.st_mode)
    if kind is None:
        return
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid = status.st_uid, status.st_gid
    entry.mtime = int(status.st_mtime)
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if kind == tarfile.SYMTYPE:
        entry.linkname = os.readlink(base, dir_fd=fd)
    inode = (status.st_dev, status.st_ino)
    if kind != tarfile.DIRTYPE and status.st_nlink > 1:
        if inode in seen:
            entry.type, entry.linkname = tarfile.LNKTYPE, seen[inode]
            archive.addfile(entry)
            return
        seen[inode] = name
    if kind == tarfile.REGTYPE:
        _add_file(archive, entry, fd, base)
    else:
        if kind == tarfile.DIRTYPE:
            directory = os.open(base, _DIRECTORY, dir_fd=fd)
            entry.pax_headers = _attributes(directory)
            os.close(directory)
        archive.addfile(entry)


def _kind(mode: int) -> bytes | None:
    """tar's type of a file; None for what a tar cannot hold (sockets)."""
    import tarfile

    kinds = {
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE,
    }
    return kinds.get(stat.S_IFMT(mode))


def _add_file(archive: tarfile.TarFile, entry: tarfile.TarInfo, fd: int, base: str) -> None:
    content = os.open(base, _FILE, dir_fd=fd)
    with open(content, "rb") as file:
        entry.size = os.fstat(content).st_size
        entry.pax_headers = _attributes(content)
        archive.addfile(entry, file)


def _attributes(fd: int) -> dict[str, str]:
    """Extended attributes as pax headers (SCHILY.xattr, as GNU tar and bsdtar write them)."""
    found = {}
    for name in sorted(os.listxattr(fd)):
        if name.startswith(_XATTRS):
            value = os.getxattr(fd, name)
            found[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    return found
