"""Unpack an archive of unknown honesty into a directory descriptor, or only scan it.

Rules for names: leading slashes, empty components and `.` are dropped, `..` is refused. What would
lead through a symbolic link is refused, never followed. Duplicates: the last one wins. Device
nodes are left out with a warning, for no pod's devices come from an image.

Meant for a child that may hold CAP_CHOWN, FOWNER, DAC_OVERRIDE, FSETID and SETFCAP and nothing
else, chrooted or not: everything is imported here, every path is relative to the descriptor.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podctl.errors import ArchiveInvalid, HostLacks, PodctlError
from podctl.images import tarstream
from podctl.images.tarstream import MAX_PATH, TarStream, display
from podctl.images.tree import Budget, ParentIsNoDirectory, Tree, Warnings, bad_link, kept_xattrs
from podctl.images.treescan import TreeScan
from podctl.images.treewriter import TreeWriter

if TYPE_CHECKING:
    from podctl.images.compression import Source
    from podctl.images.tarstream import Entry
    from podctl.model.layout import ArchiveLayout, ArchiveLimits

MAX_NAME = 255

_WHITEOUT = b".wh."
_WHITEOUT_META = b".wh..wh."
_WHITEOUT_OPAQUE = b".wh..wh..opq"
#: what the kernel says when a name or a link count cannot be: the archive's fault.
_OF_THE_ARCHIVE = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EMLINK,
    errno.EINVAL,
    errno.EILSEQ,
    errno.E2BIG,
    errno.ERANGE,
)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What an archive held.

    Args:
        manifest: content of the manifest entry; None where the layout has none.
        entries: number of tar entries.
        size: sum of the files' sizes, in bytes.
        opaque: directories that hide the lower layers' content (OCI), `.` being the root; paths
            with undecodable bytes as surrogates. Who may set `trusted.*` attributes marks them.
        implied: directories that no entry describes, in the same form; empty where nothing was
            written.
        warnings: what was left out.
    """

    manifest: bytes | None
    entries: int
    size: int
    opaque: tuple[str, ...]
    implied: tuple[str, ...]
    warnings: tuple[str, ...]


def unpack(
    stream: Source, target_fd: int | None, layout: ArchiveLayout, limits: ArchiveLimits
) -> Unpacked:
    """Read a tar to its end and write its tree below `target_fd`; None: check it only.

    An ACI without `rootfs` gives an empty root. The tree is not synced; what was written before
    a refusal stays for the caller to remove.

    Raises:
        ArchiveInvalid: the archive breaks a rule or passes a cap.
        HostLacks: no space, or another error of the host's file system.
    """
    return _Unpacker(stream, target_fd, layout, limits).run()


class _Unpacker:
    def __init__(
        self, stream: Source, target_fd: int | None, layout: ArchiveLayout, limits: ArchiveLimits
    ) -> None:
        self._archive = TarStream(stream, limits)
        self._layout = layout
        self._limits = limits
        self._budget = Budget(limits.max_entries)
        self._warnings = Warnings()
        self._tree: Tree = (
            TreeScan(layout.whiteouts, self._budget)
            if target_fd is None
            else TreeWriter(target_fd, layout.whiteouts, self._budget, self._warnings)
        )
        self._privileged = os.geteuid() == 0
        self._manifest: bytes | None = None
        self._root_seen = False
        self._entries = 0
        self._size = 0

    def run(self) -> Unpacked:
        # FIFOs get their mode when they are made; chmod(2) has no form that follows nothing.
        umask = os.umask(0)
        try:
            self._all()
            if self._layout.manifest is not None and self._manifest is None:
                raise ArchiveInvalid(f"archive: has no '{self._layout.manifest}' entry")
            settled = self._tree.finish()
        except OSError as error:
            raise _host_error(error, "archive") from error
        finally:
            self._tree.close()
            os.umask(umask)
        return Unpacked(
            self._manifest,
            self._entries,
            self._size,
            _shown(settled.opaque),
            _shown(settled.implied),
            self._warnings.all(),
        )

    def _all(self) -> None:
        while (entry := self._archive.next_entry()) is not None:
            self._entries += 1
            self._budget.take()
            self._size += entry.size
            if self._size > self._limits.max_bytes:
                raise ArchiveInvalid(f"{entry}: over {self._limits.max_bytes} bytes in all")
            path = self._locate(entry)
            if path is None:
                continue
            try:
                self._place(path, entry)
            except OSError as error:
                raise _host_error(error, str(entry)) from error

    def _locate(self, entry: Entry) -> bytes | None:
        """Return where in the root an entry goes (`b""`: the root); None: nowhere."""
        path = _normalise(entry.name, entry, whiteouts=self._layout.whiteouts)
        if self._layout.rootfs is None:
            return path
        top, _, rest = path.partition(b"/")
        if top == self._layout.rootfs.encode():
            return rest
        if not path and entry.kind is tarstream.DIRECTORY:
            return None
        if self._layout.manifest is not None and path == self._layout.manifest.encode():
            self._take_manifest(entry)
            return None
        raise ArchiveInvalid(
            f"{entry}: only '{self._layout.manifest}' and '{self._layout.rootfs}/' may stand"
            " at the top"
        )

    def _take_manifest(self, entry: Entry) -> None:
        """Capture the manifest: what is verified and what is used must be one, so there is one."""
        if entry.kind is not tarstream.FILE:
            raise ArchiveInvalid(f"{entry}: is a {entry.kind}, not a regular file")
        if self._manifest is not None:
            raise ArchiveInvalid(f"{entry}: appears twice")
        if entry.size > self._limits.max_manifest:
            raise ArchiveInvalid(f"{entry}: over {self._limits.max_manifest} bytes")
        self._manifest = self._archive.read(self._limits.max_manifest)

    def _place(self, path: bytes, entry: Entry) -> None:
        if not path:
            self._place_root(entry)
            return
        if self._layout.whiteouts and _WHITEOUT in path:
            names = path.split(b"/")
            if any(name.startswith(_WHITEOUT) for name in names):
                self._place_whiteout(names, entry)
                return
        kind = entry.kind
        if kind is tarstream.FILE:
            self._tree.file(path, entry, self._xattrs(entry), self._archive)
        elif kind is tarstream.DIRECTORY:
            self._tree.directory(path, entry, self._xattrs(entry))
        elif kind is tarstream.SYMLINK:
            if not 0 < len(entry.linkname) <= MAX_PATH:
                raise ArchiveInvalid(f"{entry}: link target is empty or over {MAX_PATH} bytes")
            self._tree.symlink(path, entry)
        elif kind is tarstream.HARDLINK:
            self._tree.hardlink(path, self._link_target(path, entry))
        elif kind is tarstream.FIFO:
            self._tree.fifo(path, entry)
        else:
            self._skip_device(path, entry)

    def _place_root(self, entry: Entry) -> None:
        if entry.kind is not tarstream.DIRECTORY:
            raise ArchiveInvalid(f"{entry}: the root is a {entry.kind}, not a directory")
        if self._root_seen and self._layout.rootfs is not None:
            raise ArchiveInvalid(f"{entry}: appears twice")
        self._root_seen = True
        self._tree.root(entry, self._xattrs(entry))

    def _xattrs(self, entry: Entry) -> dict[bytes, bytes]:
        if not entry.xattrs:
            return entry.xattrs
        return kept_xattrs(entry, self._warnings, self._privileged)

    def _link_target(self, path: bytes, entry: Entry) -> bytes:
        """Return the in-root path a hard link names: it is written as the entries' names are."""
        name = entry.linkname
        if name.startswith(b"/"):
            raise bad_link(path, name, "is absolute")
        target = _normalise(name, entry)
        if self._layout.rootfs is not None:
            top, _, target = target.partition(b"/")
            if top != self._layout.rootfs.encode():
                raise bad_link(path, name, f"is outside '{self._layout.rootfs}/'")
        if not target:
            raise bad_link(path, name, "is a directory")
        return target

    def _skip_device(self, path: bytes, entry: Entry) -> None:
        assert entry.device is not None
        block, major, minor = entry.device
        if not block and (major, minor) == (0, 0):
            # On disk this is overlayfs's whiteout: it would delete from a lower layer.
            raise ArchiveInvalid(f"{entry}: character device 0/0 (an overlay whiteout)")
        self._warnings.add(f"{entry}: device {major}/{minor} is left out")
        self._tree.discard(path)

    def _place_whiteout(self, names: list[bytes], entry: Entry) -> None:
        """OCI image-spec, layer.md, "Whiteouts": they act on lower layers only, in any order.

        `.wh..wh.*` (but for the opaque marker) is AUFS's own bookkeeping and means nothing here.
        """
        parents, name = names[:-1], names[-1]
        for parent in parents:
            if parent.startswith(_WHITEOUT_META):
                return
            if parent.startswith(_WHITEOUT):
                raise ArchiveInvalid(f"{entry}: below a whiteout")
        if name == _WHITEOUT_OPAQUE:
            self._check_marker(entry)
            self._tree.opaque(b"/".join(parents))
            return
        if name.startswith(_WHITEOUT_META):
            return
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise ArchiveInvalid(f"{entry}: a whiteout of no name")
        self._check_marker(entry)
        # Where this layer has put something else in the place of a directory, that is gone with all
        # it held; `umoci repack` (0.4) names each of its files all the same.
        with suppress(ParentIsNoDirectory):
            self._tree.whiteout(b"/".join([*parents, hidden]))

    def _check_marker(self, entry: Entry) -> None:
        # AUFS made whiteouts as hard links to one of its own files.
        if entry.kind not in (tarstream.FILE, tarstream.HARDLINK):
            raise ArchiveInvalid(f"{entry}: a whiteout that is a {entry.kind}")


def _shown(paths: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple((path or b".").decode("utf-8", "surrogateescape") for path in paths)


def _normalise(name: bytes, entry: Entry, *, whiteouts: bool = False) -> bytes:
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise ArchiveInvalid(f"{entry}: {display(name)} contains '..'")
    path = b"/".join(parts)
    if len(path) > MAX_PATH:
        raise ArchiveInvalid(f"archive entry: a path over {MAX_PATH} bytes")
    if len(path) > MAX_NAME and max(len(part) for part in parts) > MAX_NAME:
        if whiteouts:
            # What a whiteout hides has the name behind the prefix.
            parts[-1] = parts[-1].removeprefix(_WHITEOUT)
        if max(len(part) for part in parts) > MAX_NAME:
            raise ArchiveInvalid(f"{entry}: a name over {MAX_NAME} bytes")
    return path


def _host_error(error: OSError, what: str) -> PodctlError:
    reason = error.strerror or str(error)
    if error.errno in _OF_THE_ARCHIVE:
        return ArchiveInvalid(f"{what}: {reason}")
    hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    return HostLacks(f"{what}: cannot unpack: {reason}", hint=hint)
