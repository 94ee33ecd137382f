"""Putting a pod together on disk, in a directory that is locked and not yet anything."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import InvalidInput, NotFound
from podctl.pods.directories import MANIFEST, CreationMask
from podctl.pods.prepared import (
    CONFINEMENT,
    ROOTS,
    SETTINGS,
    VOLUMES,
    assemble,
    empty_volume,
    roots_to_bytes,
)
from podctl.pods.release import FLAVOR
from podctl.store.usage import FILE as NEEDS
from podctl.store.usage import dump_needs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podctl.images.render import Resolved
    from podctl.model.confinement import Confinement
    from podctl.model.plan import PreparedPod, RootFilesystem
    from podctl.model.podmanifest import PodManifest
    from podctl.model.volumes import Mount, Volume
    from podctl.pods.compose import PodImage
    from podctl.pods.directories import LockedPod, Pod
    from podctl.pods.prepared import RunSettings
    from podctl.store import Store

_FILE_MODE = 0o640
_PRIVATE = 0o700
#: magic numbers (statfs(2)) of filesystems that cannot hold an overlay's upper directory
_NO_OVERLAY = {0x61756673: "aufs", 0x2FC12FC1: "zfs", 0x794C7630: "overlay"}


class Contents(NamedTuple):
    """Everything that decides what a pod is; nothing of it is on disk yet.

    Args:
        flavor: its name.
        manifest: complete.
        images: the image of each app, in order.
        settings: what it is run with.
        overlay: whether roots are overlays of the store's layers, or copies.
        confinement: app name -> what it is held to, of those that are.
    """

    flavor: str
    manifest: PodManifest
    images: Sequence[PodImage]
    settings: RunSettings
    overlay: bool
    confinement: Mapping[str, Confinement] = MappingProxyType({})


def populate(pod: LockedPod, contents: Contents, store: Store) -> dict[str, RootFilesystem]:
    """Write everything into the pod's directory; returns each app's root.

    The caller holds the store's prepare lock, so that no layer vanishes before the pod says that
    it needs it.

    Raises:
        NotFound, Refused: an image cannot be rendered.
        InvalidInput: the manifest holds text that is none.
    """
    try:
        manifest = contents.manifest.to_json()
    except ValueError as error:
        raise InvalidInput(f"pod manifest: {error}") from None
    with CreationMask():
        _write(pod.path(FLAVOR), contents.flavor.encode() + b"\n")
        _write(pod.path(SETTINGS), contents.settings.to_bytes())
        roots = _make_roots(pod, contents, store)
        _write(pod.path(ROOTS), roots_to_bytes(roots, store.layout.top))
        make_volumes(pod, contents.manifest, roots)
        os.mkdir(pod.path("appsinfo"), 0o750)
        for app, found in zip(contents.manifest.apps, contents.images, strict=True):
            os.mkdir(pod.path(f"appsinfo/{app.name}"), 0o750)
            _write(pod.path(f"appsinfo/{app.name}/manifest"), found.image.manifest)
        if contents.confinement:
            from podctl.pods.confining import records_to_bytes

            _write(pod.path(CONFINEMENT), records_to_bytes(contents.confinement))
        _write(pod.path(MANIFEST), manifest)
    return roots


def imagine(uuid: str, directory: str, contents: Contents, store: Store) -> PreparedPod:
    """The pod that would be prepared, without writing anything.

    Raises:
        NotFound: an image is not unpacked, or a tree it needs not rendered.
    """
    from podctl.images.render import resolve, rootfs
    from podctl.model.plan import RootFilesystem
    from podctl.store.trees import finished

    roots = {}
    for app, found in zip(contents.manifest.apps, contents.images, strict=True):
        resolved = resolve(store, found.record.key)
        if resolved.tree is not None and finished(store, resolved.tree) is None:
            raise NotFound(
                f'image "{found.image.name}" is not rendered yet',
                hint="--dry-run writes nothing: prepare it once",
            )
        roots[app.name] = rootfs(store, resolved) if contents.overlay else RootFilesystem(())
    return assemble(
        uuid, directory, contents.manifest, contents.settings, roots, contents.confinement
    )


def check_sources(manifest: PodManifest) -> None:
    """Check that the host has what host volumes name, before anything is started.

    Raises:
        NotFound: a source is missing.
    """
    own = [mount.app_volume for app in manifest.apps for mount in app.mounts]
    for volume in (*manifest.volumes, *own):
        if volume is None or volume.source is None:
            continue
        try:
            os.stat(volume.source)
        except OSError as error:
            raise NotFound(
                f'volume "{volume.name}": source {volume.source}: {error.strerror}'
            ) from None


def overlay_problem(data_dir: str) -> str | None:
    """Why overlays cannot be used below the data directory; None when they can."""
    if not _kernel_has_overlay():
        return "the kernel has no overlay filesystem"
    from podctl.sys.calls import filesystem_magic

    fd = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = _NO_OVERLAY.get(filesystem_magic(fd))
    finally:
        os.close(fd)
    return None if name is None else f"unsupported filesystem: {name}"


def _kernel_has_overlay() -> bool:
    if _overlay_is_known():
        return True
    try:
        pid = os.posix_spawnp(
            "modprobe", ["modprobe", "-q", "overlay"], {"PATH": "/usr/sbin:/sbin"}
        )
    except OSError:
        return False
    os.waitpid(pid, 0)
    return _overlay_is_known()


def _overlay_is_known() -> bool:
    with open("/proc/filesystems") as file:
        return "\toverlay\n" in file.read()


def _make_roots(pod: LockedPod, contents: Contents, store: Store) -> dict[str, RootFilesystem]:
    from podctl.images.render import resolve

    apps = zip(contents.manifest.apps, contents.images, strict=True)
    resolved = {app.name: resolve(store, found.record.key) for app, found in apps}
    # Before anything is rendered for it: from here on the pod keeps what it names.
    _write(pod.path(NEEDS), needs_of(resolved.values(), overlay=contents.overlay))
    for name in ("rootfs", *(("overlay",) if contents.overlay else ())):
        _private_directory(pod.path(name))
    return {
        name: make_root(pod, name, image, store, overlay=contents.overlay)
        for name, image in resolved.items()
    }


def make_root(
    pod: LockedPod | Pod, app: str, image: Resolved, store: Store, *, overlay: bool
) -> RootFilesystem:
    """Make an app's root in the pod's directory: what an overlay takes, or a copy."""
    from podctl.images.render import copy_into, rootfs
    from podctl.model.plan import RootFilesystem

    target = pod.path(f"rootfs/{app}")
    os.mkdir(target, 0o755)
    if not overlay:
        copy_into(store, image, target)
        return RootFilesystem(())
    root = rootfs(store, image)
    _make_overlay(pod.path(f"overlay/{app}"), root.lowers)
    return root


def needs_of(images: Iterable[Resolved], *, overlay: bool) -> bytes:
    """What of the store the pod needs; a copied root needs nothing but its image's record."""
    images = tuple(images)
    return dump_needs(
        images={key for image in images for key in image.keys},
        layers={layer for image in images for layer in image.layers} if overlay else (),
        trees={image.tree for image in images if image.tree is not None} if overlay else (),
    )


def _make_overlay(directory: str, lowers: Sequence[str]) -> None:
    """Upper and work directory; `/` of the merged tree takes its attributes from the upper.

    They are those of the highest layer that describes its root.
    """
    from podctl.store.copying import IMPLIED, marked

    described = (lower for lower in lowers if not marked(lower, IMPLIED))
    os.mkdir(directory, _PRIVATE)
    os.mkdir(f"{directory}/work", _PRIVATE)
    os.mkdir(f"{directory}/upper", _PRIVATE)
    status = os.stat(next(described, lowers[-1]))
    os.chown(f"{directory}/upper", status.st_uid, status.st_gid)
    # Also clears the set-group-id bit that directories inherit from the data directory.
    os.chmod(f"{directory}/upper", status.st_mode & 0o7777)


def make_volumes(
    pod: LockedPod | Pod, manifest: PodManifest, roots: Mapping[str, RootFilesystem]
) -> None:
    """Make the directories behind the empty volumes of a manifest's apps, and fill those that
    begin with what the image has."""
    volumes = {volume.name: volume for volume in manifest.volumes}
    wanted: dict[str, Volume] = {}
    for app in manifest.apps:
        for mount in app.mounts:
            volume = _empty(mount, volumes)
            if volume is not None:
                wanted[empty_volume(pod.directory, app.name, mount)] = volume
    if wanted and not os.path.isdir(pod.path(VOLUMES)):
        _private_directory(pod.path(VOLUMES))
    for path, volume in wanted.items():
        os.mkdir(path, _PRIVATE)
        os.chown(path, volume.uid, volume.gid)
        os.chmod(path, volume.mode)
    # What may be filled is among the empty volumes.
    if wanted and any(app.converted for app in manifest.apps):
        from podctl.pods.filling import fill_volumes

        fill_volumes(pod.directory, manifest, roots)


def _empty(mount: Mount, volumes: Mapping[str, Volume]) -> Volume | None:
    volume = mount.app_volume or volumes[mount.volume]
    return None if volume.kind == "host" else volume


def _private_directory(path: str) -> None:
    """What lies below is an app's, with whatever modes and set-user-id programs it brings: nobody
    but root may walk in (CVE-2021-41091)."""
    os.mkdir(path, _PRIVATE)
    os.chmod(path, _PRIVATE)


def _write(path: str, data: bytes) -> None:
    """Write a new file. Not synced: a pod counts only when it was renamed, and that syncs."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
