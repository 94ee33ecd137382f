"""A pod on disk as a value: what a flavor sees, put together from the pod's directory."""

from __future__ import annotations

import json
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import InvalidInput, StoreCorrupt
from podctl.model.manifest import App
from podctl.model.plan import Bind, PreparedApp, PreparedPod, RootFilesystem, Scratch
from podctl.model.podmanifest import parse_pod_manifest
from podctl.model.volumes import clean_path
from podctl.pods.directories import MANIFEST
from podctl.pods.environment import effective

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.model.confinement import Confinement
    from podctl.model.podmanifest import PodManifest, RuntimeApp
    from podctl.model.volumes import Mount, Volume

SETTINGS = "settings.json"
CONFINEMENT = "confinement.json"
ROOTS = "roots.json"
VOLUMES = "sharedVolumes"
_MAX_FILE = 4 << 20
#: TERM of a terminal that whoever attaches brings; docker's choice
_ANY_TERMINAL = "xterm"


class RunSettings(NamedTuple):
    """What the pod is run with beside its manifest; kept in the pod as `settings.json`.

    Args:
        networks: `("default",)` when nothing was said.
        options: pod options that were given, name -> value.
        resolv_conf, hosts: texts of the files; None leaves the image's.
        insecure: values of --insecure-options.
        interactive: whether a terminal was asked for.
        terminal: TERM of the caller, if interactive.
    """

    networks: tuple[str, ...] = ("default",)
    options: Mapping[str, str] = {}
    resolv_conf: str | None = None
    hosts: str | None = None
    insecure: frozenset[str] = frozenset()
    interactive: bool = False
    terminal: str | None = None

    def to_bytes(self) -> bytes:
        """The file's content."""
        value = self._asdict()
        value.update(insecure=sorted(self.insecure), options=dict(self.options))
        return json.dumps(value, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> RunSettings:
        """Read what to_bytes wrote. Raises ValueError, TypeError or KeyError for anything else."""
        value = json.loads(data)
        return cls(
            networks=tuple(map(str, value["networks"])),
            options={str(name): str(text) for name, text in value["options"].items()},
            resolv_conf=value["resolv_conf"],
            hosts=value["hosts"],
            insecure=frozenset(map(str, value["insecure"])),
            interactive=value["interactive"] is True,
            terminal=value["terminal"],
        )


class Parts(NamedTuple):
    """What a pod's directory holds of the pod's value."""

    manifest: PodManifest
    settings: RunSettings
    roots: Mapping[str, RootFilesystem]
    confinement: Mapping[str, Confinement] = MappingProxyType({})


def load_prepared(directory: str) -> PreparedPod:
    """Rebuild the value of a pod from its directory; needs neither store nor flavor.

    Raises:
        StoreCorrupt: a file of the pod is missing or damaged.
    """
    from podctl.pods.userns import recorded

    parts = load_parts(directory)
    prepared = assemble(os.path.basename(directory), directory, *parts)
    try:
        return prepared._replace(users=recorded(directory))
    except (InvalidInput, OSError) as error:
        raise StoreCorrupt(
            f'pod "{prepared.uuid}" is damaged: {error}', hint="podctl rm it"
        ) from error


def load_parts(directory: str) -> Parts:
    """Read a pod's manifest, settings and roots; raises as load_prepared."""
    data_dir = os.path.dirname(os.path.dirname(os.path.dirname(directory)))
    try:
        manifest = parse_pod_manifest(_read(directory, MANIFEST))
        settings = RunSettings.from_bytes(_read(directory, SETTINGS))
        roots = roots_from_bytes(_read(directory, ROOTS), data_dir)
        confinement = _confinement(directory)
        missing = {app.name for app in manifest.apps} - roots.keys()
        if missing:
            raise ValueError(f"{ROOTS} says nothing of app {missing.pop()}")
    except (InvalidInput, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        name = os.path.basename(directory)
        raise StoreCorrupt(f'pod "{name}" is damaged: {error}', hint="podctl rm it") from error
    return Parts(manifest, settings, roots, confinement)


def _confinement(directory: str) -> Mapping[str, Confinement]:
    """What the pod's apps are held to; a pod without the file holds none to anything."""
    try:
        data = _read(directory, CONFINEMENT)
    except FileNotFoundError:
        return {}
    from podctl.pods.confining import records_from_bytes

    return records_from_bytes(data)


def assemble(
    uuid: str,
    directory: str,
    manifest: PodManifest,
    settings: RunSettings,
    roots: Mapping[str, RootFilesystem],
    confinement: Mapping[str, Confinement] = MappingProxyType({}),
) -> PreparedPod:
    """Put a pod together from its parts.

    Args:
        directory: where it is, or will be when it runs.
        roots: app name -> its root filesystem; one without layers was copied into the pod.
        confinement: app name -> what it is held to.
    """
    volumes = {volume.name: volume for volume in manifest.volumes}
    return PreparedPod(
        uuid=uuid,
        directory=directory,
        apps=tuple(
            _held(
                _app(directory, app, volumes, roots[app.name], settings.terminal),
                confinement.get(app.name),
            )
            for app in manifest.apps
        ),
        networks=settings.networks,
        options=dict(settings.options),
        resolv_conf=settings.resolv_conf,
        hosts=settings.hosts,
        insecure=settings.insecure,
        interactive=settings.interactive,
        mutable=manifest.mutable,
    )


def _app(
    directory: str,
    app: RuntimeApp,
    volumes: Mapping[str, Volume],
    root: RootFilesystem,
    terminal: str | None,
) -> PreparedApp:
    section = app.app or App()
    path = f"{directory}/rootfs/{app.name}"
    overlay = f"{directory}/overlay/{app.name}"
    copied = not root.lowers
    return PreparedApp(
        name=app.name,
        image_id=app.image_id,
        app=section,
        rootfs=RootFilesystem((), path) if copied else root,
        upper="" if copied else f"{overlay}/upper",
        work="" if copied else f"{overlay}/work",
        root=path,
        mounts=_binds(directory, app, volumes),
        read_only_rootfs=app.read_only_root_fs,
        environment=effective(
            app.name,
            section.environment,
            terminal=terminal or _own_terminal(app),
            login=app.converted,
        ),
        make_working_directory=app.converted,
        stop_signal=app.stop_signal,
        stop_timeout=app.stop_timeout,
        notifies=app.notifies,
        streams=app.streams,
    )


def _own_terminal(app: RuntimeApp) -> str | None:
    return _ANY_TERMINAL if app.streams is not None and "tty" in app.streams else None


def _held(app: PreparedApp, record: Confinement | None) -> PreparedApp:
    if record is None:
        return app
    if app.mounts:
        from podctl.pods.confining import allow_volumes

        record = allow_volumes(record, app.mounts)
    return app._replace(confinement=record)


def _binds(directory: str, app: RuntimeApp, volumes: Mapping[str, Volume]) -> tuple[Bind, ...]:
    """The app's mounts, parents before children."""
    points = (app.app or App()).mount_points
    read_only_points = {clean_path(point.path) for point in points if point.read_only}
    binds = []
    for mount in app.mounts:
        volume = mount.app_volume or volumes[mount.volume]
        target = clean_path(mount.path)
        read_only = volume.read_only
        if read_only is None:
            read_only = target in read_only_points
        recursive = volume.recursive is not False
        source = volume.source or empty_volume(directory, app.name, mount)
        binds.append(
            Bind(source, target, recursive=recursive, read_only=read_only, scratch=_scratch(volume))
        )
    return tuple(sorted(binds, key=lambda bind: bind.target))


def _scratch(volume: Volume) -> Scratch | None:
    if volume.kind != "tmpfs":
        return None
    return Scratch(volume.mode, volume.uid, volume.gid, volume.size)


def empty_volume(directory: str, app_name: str, mount: Mount) -> str:
    """Host path of the directory behind an empty volume."""
    if mount.app_volume is None:
        return f"{directory}/{VOLUMES}/{mount.volume}"
    # A dot is in no volume's name, so this is nobody else's.
    return f"{directory}/{VOLUMES}/{app_name}.{mount.volume}"


def roots_to_bytes(roots: Mapping[str, RootFilesystem], data_dir: str) -> bytes:
    """Content of `roots.json`: app -> overlay layers, relative to the data directory."""
    value = {
        name: [os.path.relpath(lower, data_dir) for lower in root.lowers]
        for name, root in roots.items()
    }
    return json.dumps(value).encode() + b"\n"


def roots_from_bytes(data: bytes, data_dir: str) -> dict[str, RootFilesystem]:
    """Read what roots_to_bytes wrote."""
    value: dict[str, list[Any]] = json.loads(data)
    return {
        name: RootFilesystem(tuple(f"{data_dir}/{lower}" for lower in lowers))
        for name, lowers in value.items()
    }


def _read(directory: str, name: str) -> bytes:
    from podctl.sys.files import read_small

    return read_small(f"{directory}/{name}", _MAX_FILE)
