"""From images and what the command line says of them to one pod manifest that leaves nothing open.

The manifest that is stored is complete: every app has its app section, every mount its volume,
every environment its variables. What runs later is this document, whatever becomes of the images.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import InvalidInput, UsageError
from podctl.model.conversion import kept_annotations
from podctl.model.manifest import App
from podctl.model.names import sanitise_name
from podctl.model.podmanifest import PodManifest, RuntimeApp, check_app_names, check_has_apps
from podctl.model.ports import forward_ports
from podctl.model.volumes import Mount, Volume, check_mounts, clean_path, merge_mounts
from podctl.pods.environment import EnvironmentSettings, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podctl.model.image import Image
    from podctl.model.manifest import MountPoint
    from podctl.model.ports import ExposedPort
    from podctl.model.settings import AppSettings
    from podctl.store import ImageRecord

    Say = Callable[[str], None]


class PodImage(NamedTuple):
    """An image of the store with its parsed manifest."""

    record: ImageRecord
    image: Image


class Requested(NamedTuple):
    """One image of a command line, found: what was said of it, and the image.

    `arguments` is None when no `--` followed it.
    """

    settings: AppSettings
    arguments: Sequence[str] | None
    found: PodImage


class PodSettings(NamedTuple):
    """What a command line says of the pod as a whole."""

    environment: EnvironmentSettings
    volumes: Sequence[Volume] = ()
    mounts: Sequence[Mount] = ()
    ports: Sequence[ExposedPort] = ()


def compose(requested: Sequence[Requested], pod: PodSettings, say: Say) -> PodManifest:
    """Build the manifest of a pod given by images and flags.

    Raises:
        UsageError: flags and images do not fit together.
        Refused: an image is not made for this system.
    """
    apps = tuple(_runtime_app(one, pod) for one in requested)
    check_has_apps(PodManifest(apps=apps))
    check_app_names(app.name for app in apps)
    manifest = PodManifest(apps=apps, volumes=tuple(pod.volumes), ports=tuple(pod.ports))
    return _complete(manifest, say)


def compose_added(
    manifest: PodManifest, requested: Requested, pod: PodSettings, say: Say
) -> PodManifest:
    """Build the manifest of a pod that has one app more: it is the last one.

    Args:
        pod: environment, volumes and mounts said with the app; volumes are the pod's from now on.

    Raises:
        UsageError: the app does not fit the pod or its flags, or a volume is one already.
        Refused: the image is not made for this system.
    """
    app = _runtime_app(requested, pod)
    check_app_names([*(one.name for one in manifest.apps), app.name])
    known = {volume.name for volume in manifest.volumes}
    for volume in pod.volumes:
        if volume.name in known:
            raise UsageError(f'the pod has a volume "{volume.name}" already')
    volumes = (*manifest.volumes, *pod.volumes)
    return _complete(manifest._replace(apps=(*manifest.apps, app), volumes=volumes), say)


def complete_given(manifest: PodManifest, images: Sequence[PodImage], say: Say) -> PodManifest:
    """Fill in what a manifest of the user (--pod-manifest) leaves to its images.

    Args:
        images: the image of each app, in order.

    Raises:
        UsageError: there is no app, or one has nothing to execute.
        Refused: an image is not made for this system.
    """
    check_has_apps(manifest)
    if manifest.mutable:
        raise UsageError(
            "the manifest is one of a pod whose apps come and go", hint="use podctl app sandbox"
        )
    apps = []
    for app, found in zip(manifest.apps, images, strict=True):
        _check_runnable(found.image)
        section = app.app or found.image.app
        if section is None or not section.exec:
            raise _nothing_to_execute(found.image)
        completed = app._replace(
            app=section,
            image_id=found.record.key,
            image_name=found.image.name,
            image_labels=dict(found.image.labels),
            annotations=kept_annotations(found.image.annotations, app.annotations),
        )
        apps.append(completed)
    return _complete(manifest._replace(apps=tuple(apps)), say)


def _runtime_app(one: Requested, pod: PodSettings) -> RuntimeApp:
    image, settings = one.found.image, one.settings
    _check_runnable(image)
    streams = {} if settings.streams is None else settings.streams.annotations()
    return RuntimeApp(
        name=settings.name or _default_name(image),
        image_id=one.found.record.key,
        image_name=image.name,
        image_labels=dict(image.labels),
        app=_section(image, settings, one.arguments, pod.environment),
        read_only_root_fs=settings.read_only_root_fs,
        mounts=merge_mounts(pod.mounts, settings.mounts),
        annotations=kept_annotations(image.annotations, {**settings.annotations, **streams}),
    )


def _check_runnable(image: Image) -> None:
    from podctl.model.image import check_runnable

    check_runnable(image)


def _default_name(image: Image) -> str:
    try:
        return sanitise_name(posixpath.basename(image.name))
    except InvalidInput as error:
        raise UsageError(f'image "{image.name}": {error}', hint="give a --name") from None


def _section(
    image: Image,
    settings: AppSettings,
    arguments: Sequence[str] | None,
    environment: EnvironmentSettings,
) -> App:
    """The image's app section with everything the user said put in its place."""
    if image.app is None and settings.exec is None:
        raise UsageError(
            f'image "{image.name}" has no app section', hint="name a program with --exec=BINARY"
        )
    app = image.app or App()
    program = app.exec if settings.exec is None else (settings.exec,)
    argv = (*program, *(arguments or ()))
    if not program:
        raise _nothing_to_execute(image)
    gids = settings.supplementary_gids
    return app._replace(
        exec=argv,
        user=settings.user or app.user,
        group=settings.group or app.group,
        supplementary_gids=app.supplementary_gids if gids is None else gids,
        working_directory=settings.working_directory or app.working_directory,
        environment=merge(environment, app.environment, settings.environment),
        isolators=settings.apply_isolators(app.isolators),
        user_annotations={**app.user_annotations, **settings.user_annotations},
        user_labels={**app.user_labels, **settings.user_labels},
    )


def _nothing_to_execute(image: Image) -> UsageError:
    return UsageError(f'image "{image.name}" has an empty "exec" (try --exec=BINARY)')


def _complete(manifest: PodManifest, say: Say) -> PodManifest:
    """Give every mount point of every app a volume, and check what concerns all apps together."""
    volumes = {volume.name: volume for volume in manifest.volumes}
    apps = tuple(_with_mounts(app, volumes, say) for app in manifest.apps)
    check_mounts([mount for app in apps for mount in app.mounts], volumes.values())
    forward_ports(manifest.ports, {app.name: app.app or App() for app in apps})
    return manifest._replace(apps=apps, volumes=tuple(volumes.values()))


def _with_mounts(app: RuntimeApp, volumes: dict[str, Volume], say: Say) -> RuntimeApp:
    """Mounts the user gave come first; a mount point without one takes the pod's volume of its
    name, or a new empty one."""
    mounts = list(merge_mounts((), app.mounts))
    taken = {clean_path(mount.path) for mount in mounts}
    for point in (app.app or App()).mount_points:
        if clean_path(point.path) in taken:
            continue
        name = point.name
        if name not in volumes:
            implicit = implicit_volume(app.name, point)
            name = implicit.name
            if name not in volumes:
                say(
                    f'no volume specified for mount point "{point.name}" of app "{app.name}", '
                    f'implicitly creating an "empty" volume'
                )
                volumes[name] = implicit
        mounts.append(Mount(name, point.path))
    return app._replace(mounts=merge_mounts((), mounts))


def implicit_volume(app_name: str, point: MountPoint) -> Volume:
    """The volume of a mount point that nobody says anything of (rkt's name for it)."""
    return Volume(f"{app_name}-{point.name}", "empty")
