"""What the volumes of Docker's and OCI's images hold at first: what the image has in their place.

Docker's rule for volumes nobody said anything of, and rkt's (for images that were converted): a new
volume takes content, owner, mode and attributes of the image's directory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.errors import PodctlError, Refused
from podctl.model.volumes import clean_path
from podctl.pods.compose import implicit_volume
from podctl.pods.prepared import empty_volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from podctl.model.plan import RootFilesystem
    from podctl.model.podmanifest import PodManifest, RuntimeApp
    from podctl.model.volumes import Mount, Volume
    from podctl.store.union import Place

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def fill_volumes(
    directory: str, manifest: PodManifest, roots: Mapping[str, RootFilesystem]
) -> None:
    """Fill the volumes of a pod that is being prepared; they are there, and empty.

    Args:
        directory: the pod's.
        roots: of each app; one without layers was copied into the pod.

    Raises:
        Refused: what the image has at a volume's place is no directory, or its root.
        PodctlError: it cannot be copied.
    """
    volumes = {volume.name: volume for volume in manifest.volumes}
    for app in manifest.apps:
        mounts = list(_implicit_mounts(app, volumes)) if app.converted else []
        if not mounts:
            continue
        lowers = roots[app.name].lowers or (f"{directory}/rootfs/{app.name}",)
        fds: list[int] = []
        try:
            # One by one: what was opened is closed when the next cannot be.
            for lower in lowers:
                fds.append(os.open(lower, _DIRECTORY))
            for mount in mounts:
                _fill(fds, mount.path, empty_volume(directory, app.name, mount), app.name)
        finally:
            for fd in fds:
                os.close(fd)


def _implicit_mounts(app: RuntimeApp, volumes: Mapping[str, Volume]) -> Iterator[Mount]:
    """The mounts of volumes that are what podctl makes of a mount point on its own.

    By what they are, not by who wrote it down: a pod's manifest that is run again gives an equal
    pod.
    """
    points = {clean_path(point.path): point for point in (app.app.mount_points if app.app else ())}
    for mount in app.mounts:
        point = points.get(clean_path(mount.path))
        if point is None or mount.app_volume is not None:
            continue
        if volumes[mount.volume] == implicit_volume(app.name, point):
            yield mount


def _fill(roots: Sequence[int], path: str, volume: str, app_name: str) -> None:
    from podctl.store.union import find_directory

    what = f'volume at {path} of app "{app_name}"'
    hint = "mount something of your own there: --volume and --mount"
    try:
        place = find_directory(roots, path)
        if place is None:
            return
        if not place.path:
            raise Refused(f"{what}: that is the root of the image", hint=hint)
        _copy(roots, place, volume)
    except NotADirectoryError:
        raise Refused(f"{what}: there is no directory in the image", hint=hint) from None
    except OSError as error:
        raise PodctlError(f"{what}: cannot copy what the image has: {error.strerror}") from error


def _copy(roots: Sequence[int], place: Place, volume: str) -> None:
    from podctl.store.copying import Source, merge, open_below

    fds = [os.open(volume, _DIRECTORY)]
    try:
        for index in place.layers:
            fds.append(open_below(roots[index], place.path))
        merge([Source(fd) for fd in fds[1:]], fds[0])
    finally:
        for fd in fds:
            os.close(fd)
