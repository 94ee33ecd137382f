"""Adding an app to a running pod: decided, made on the disk, attached inside, then named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import PodStateError, Refused
from podctl.pods.appfiles import AppFiles
from podctl.pods.appstate import MARKS
from podctl.pods.compose import compose_added
from podctl.pods.confining import confine
from podctl.pods.flavors import refuse_manifest
from podctl.pods.grouping import make_added_groups
from podctl.pods.insertion import attach
from podctl.pods.mutable import changing
from podctl.pods.prepare import check_sources
from podctl.pods.prepared import assemble

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.model.plan import AppLaunch
    from podctl.model.podmanifest import PodManifest
    from podctl.pods.compose import PodImage, PodSettings, Requested
    from podctl.pods.directories import PodDirectories
    from podctl.pods.mutable import MutablePod
    from podctl.store import Store

    Say = Callable[[str], None]
    #: finds the image; called with the store's prepare lock held
    Decide = Callable[[], tuple[Requested, PodSettings]]


def add(pods: PodDirectories, store: Store, uuid: str, decide: Decide, say: Say) -> str:
    """Add an app to a running mutable pod; it is not started. Returns its name.

    Raises:
        PodStateError: the pod is not mutable, or does not run.
        PodctlError: whatever keeps a pod of the app from starting.
    """
    with store.preparing(), changing(pods, uuid) as held:
        held.require_running()
        files = AppFiles(held)
        files.sweep()
        requested, settings = decide()
        manifest = compose_added(files.parts.manifest, requested, settings, say)
        name = manifest.apps[-1].name
        _check(manifest)
        try:
            _make(held, files, manifest, requested.found, store, say)
            files.commit(name, manifest)
        except BaseException:
            # Also out of the manifest: that it was written may be what could not be told.
            files.remove(name)
            raise
    return name


def _check(manifest: PodManifest) -> None:
    name = manifest.apps[-1].name
    if name.endswith(MARKS):
        raise Refused(
            f'app "{name}": names of apps that come and go do not end in {" or ".join(MARKS)}',
            hint="give another --name",
        )
    for mount in manifest.apps[-1].mounts:
        volume = next((one for one in manifest.volumes if one.name == mount.volume), None)
        if mount.app_volume is None and volume is not None and volume.kind == "tmpfs":
            raise Refused(
                f'volume "{volume.name}" is a tmpfs, which apps that come later could not share',
                hint="give the app one of its own: --mnt-volume",
            )


def _make(
    held: MutablePod,
    files: AppFiles,
    manifest: PodManifest,
    found: PodImage,
    store: Store,
    say: Say,
) -> None:
    from podctl.plugins import events

    description, settings = held.flavor.describe(), files.parts.settings
    app = manifest.apps[-1]
    alone = manifest._replace(apps=(app,))
    refuse_manifest(description, alone, settings.insecure)
    records = confine(description, alone, settings.insecure, say)
    check_sources(alone)
    files.make(app, manifest, found, store, records.get(app.name))
    pod = assemble(
        held.pod.uuid, held.pod.directory, alone, settings, files.parts.roots, records
    )._replace(users=held.prepared.users)
    held.flavor.prepare(pod)
    launch = held.flavor.app_launch(pod, app.name)
    events(say).app_adding(pod, launch)
    groups = make_added_groups(held.pod.directory, launch)
    attach(held.flavor.root(pod), launch, f"podctl-{held.pod.uuid}", pod.users, groups)
    if launch.connections is not None:
        _hold(held, launch)


def _hold(held: MutablePod, launch: AppLaunch) -> None:
    import os

    from podctl.pods.holding import hold
    from podctl.sys import procs

    instance = procs.read_instance(held.pod.directory)
    pidfd = None if instance is None else procs.open_instance(instance)
    if pidfd is None:
        raise PodStateError(f'pod "{held.pod.uuid}" is not running any more')
    try:
        hold(launch, held.pod.directory, pidfd)
    finally:
        os.close(pidfd)
