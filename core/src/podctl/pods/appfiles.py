"""The files of the apps of a mutable pod: made when an app comes, removed when it is gone.

In the order of their making: `appsinfo/APP`, with what the app needs of the store; the pod's
`images.json`; root and volumes; `roots.json` and `confinement.json`, which may name more apps than
there are; what the flavor has; mounts inside the pod; the mark of its creation; the manifest.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.pods.appstate import forget_state, mark_created
from podctl.pods.confining import records_to_bytes
from podctl.pods.directories import MANIFEST, CreationMask
from podctl.pods.grouping import end_added
from podctl.pods.holding import end as end_holder
from podctl.pods.prepare import make_root, make_volumes, needs_of
from podctl.pods.prepared import (
    CONFINEMENT,
    ROOTS,
    VOLUMES,
    empty_volume,
    load_parts,
    roots_to_bytes,
)
from podctl.store.usage import FILE as NEEDS
from podctl.store.usage import dump_needs, read_needs
from podctl.sys.files import remove_tree, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podctl.model.confinement import Confinement
    from podctl.model.plan import PodRoot
    from podctl.model.podmanifest import PodManifest, RuntimeApp
    from podctl.pods.compose import PodImage
    from podctl.pods.mutable import MutablePod
    from podctl.store import Store

_FILE_MODE = 0o640
_INFO = "appsinfo"


class AppFiles:
    """Changes the files of a pod's apps; for whoever holds the pod."""

    def __init__(self, held: MutablePod) -> None:
        self._held = held
        self._directory = held.pod.directory
        self.parts = load_parts(self._directory)
        self._root: PodRoot | None = None

    def make(
        self, app: RuntimeApp, manifest: PodManifest, found: PodImage, store: Store,
        record: Confinement | None,
    ) -> None:  # fmt: skip
        """Make everything of a new app but what lies inside the pod. It counts for nothing yet.

        Args:
            manifest: with the app.
            record: what it is held to.
        """
        from podctl.images.render import resolve

        overlay = os.path.isdir(self._path("overlay"))
        with CreationMask():
            image = resolve(store, found.record.key)
            os.mkdir(self._path(f"{_INFO}/{app.name}"), 0o750)
            self._write(f"{_INFO}/{app.name}/{NEEDS}", needs_of([image], overlay=overlay))
            self._write_needs([*(one.name for one in self.parts.manifest.apps), app.name])
            self._write(f"{_INFO}/{app.name}/manifest", found.image.manifest)
            root = make_root(self._held.pod, app.name, image, store, overlay=overlay)
            roots = {**self.parts.roots, app.name: root}
            make_volumes(self._held.pod, self._alone(app, manifest), roots)
            records = dict(self.parts.confinement)
            if record is not None:
                records[app.name] = record
            self.parts = self.parts._replace(roots=roots, confinement=records)
            self._write_records()

    def commit(self, app: str, manifest: PodManifest) -> None:
        """The app is there."""
        mark_created(self._directory, app)
        self._write(MANIFEST, manifest.to_json())
        self.parts = self.parts._replace(manifest=manifest)

    def remove(self, app: str) -> None:
        """Take an app that does not run out of the manifest, and remove all of it."""
        self.parts = self.parts._replace(manifest=_without(self.parts.manifest, app))
        self._write(MANIFEST, self.parts.manifest.to_json())
        self.forget(app)

    def sweep(self) -> None:
        """Remove what is left of apps that the manifest does not name."""
        known = {app.name for app in self.parts.manifest.apps}
        left: set[str] = set()
        for name in (_INFO, "rootfs", "overlay"):
            left.update(self._entries(name))
        for app in sorted(left - known):
            self.forget(app)

    def forget(self, app: str) -> None:
        """Remove all of an app that the manifest does not name. Idempotent, and whatever it is cut
        off by, `sweep` finds the rest: `appsinfo/APP` goes last."""
        end_added(self._directory, app, remove=True)
        if self._held.running:
            from podctl.pods.insertion import detach

            detach(self._pod_root(), app)
        end_holder(self._directory, app)
        forget_state(self._directory, app)
        self._held.flavor.app_rm(self._held.prepared, app)
        for name in (f"overlay/{app}", f"rootfs/{app}"):
            remove_tree(self._path(name))
        self._remove_volumes()
        roots = {name: root for name, root in self.parts.roots.items() if name != app}
        records = {name: one for name, one in self.parts.confinement.items() if name != app}
        if (roots, records) != (self.parts.roots, self.parts.confinement):
            self.parts = self.parts._replace(roots=roots, confinement=records)
            self._write_records()
        self._write_needs(one.name for one in self.parts.manifest.apps)
        remove_tree(self._path(f"{_INFO}/{app}"))

    def _pod_root(self) -> PodRoot:
        if self._root is None:
            self._root = self._held.flavor.root(self._held.prepared)
        return self._root

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def _entries(self, name: str) -> list[str]:
        try:
            return os.listdir(self._path(name))
        except FileNotFoundError:
            return []

    def _write(self, name: str, data: bytes) -> None:
        write_atomic(self._path(name), data, mode=_FILE_MODE)

    def _write_records(self) -> None:
        top = os.path.dirname(os.path.dirname(os.path.dirname(self._directory)))
        self._write(ROOTS, roots_to_bytes(self.parts.roots, top))
        self._write(CONFINEMENT, records_to_bytes(self.parts.confinement))

    def _write_needs(self, apps: Iterable[str]) -> None:
        """What the pod needs is what its apps need."""
        needs = [read_needs(self._path(f"{_INFO}/{app}")) for app in apps]
        images, layers, trees = (
            {word for one in needs if one is not None for word in one[index]} for index in range(3)
        )
        self._write(NEEDS, dump_needs(images, layers, trees))

    def _alone(self, app: RuntimeApp, manifest: PodManifest) -> PodManifest:
        """The manifest with nothing but the app's mounts of volumes that are to be made."""
        mounts = tuple(
            mount
            for mount in app.mounts
            if not os.path.isdir(empty_volume(self._directory, app.name, mount))
        )
        return manifest._replace(apps=(app._replace(mounts=mounts),))

    def _remove_volumes(self) -> None:
        """Remove the empty volumes that are no app's and not the pod's."""
        manifest = self.parts.manifest
        kept = {volume.name for volume in manifest.volumes}
        for app in manifest.apps:
            own = (mount for mount in app.mounts if mount.app_volume is not None)
            kept.update(os.path.basename(empty_volume("", app.name, mount)) for mount in own)
        there = self._entries(VOLUMES)
        for name in there:
            if name not in kept:
                remove_tree(self._path(f"{VOLUMES}/{name}"))
        if not kept.intersection(there):
            remove_tree(self._path(VOLUMES))


def _without(manifest: PodManifest, name: str) -> PodManifest:
    """The manifest without an app, and without the volumes that nobody but its mount points has
    asked for."""
    from podctl.pods.compose import implicit_volume

    gone = manifest.app_named(name)
    apps = tuple(app for app in manifest.apps if app.name != name)
    used = {mount.volume for app in apps for mount in app.mounts if mount.app_volume is None}
    points = gone.app.mount_points if gone is not None and gone.app is not None else ()
    implicit = {implicit_volume(name, point) for point in points}
    volumes = tuple(one for one in manifest.volumes if one not in implicit or one.name in used)
    return manifest._replace(apps=apps, volumes=volumes)
