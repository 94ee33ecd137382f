"""The appc pod manifest (0.8.11, pods.md): what a pod is to run, and what it did run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import UsageError
from podctl.model import jsontext
from podctl.model.conversion import is_converted, notifies, stop_signal, stop_timeout, streams
from podctl.model.fields import Fields
from podctl.model.isolators import Isolator, isolators_value, parse_isolators
from podctl.model.labels import labels_from_pairs
from podctl.model.manifest import (
    NOTHING,
    App,
    app_value,
    check_kind,
    pairs_value,
    parse_annotations,
    parse_app_of,
)
from podctl.model.names import (
    AC_VERSION,
    check_identifier,
    check_image_id,
    check_name,
    check_version,
)
from podctl.model.ports import ExposedPort, exposed_port_value, parse_exposed_port
from podctl.model.volumes import Mount, Volume, mount_value, parse_mount, volume_value, volumes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podctl.model.streams import Streams

_POD_KEYS = "acVersion acKind apps volumes isolators annotations ports userAnnotations userLabels"
_APP_KEYS = "name image app readOnlyRootFS mounts annotations"
#: rkt's annotation of pods whose apps come and go
MUTABLE = "coreos.com/rkt/stage1/mutable"


class RuntimeApp(NamedTuple):
    """One app of a pod.

    Args:
        name: AC Name, unique in the pod.
        image_id: Image ID; rkt's full form has 64 digits.
        image_name: AC Identifier, for people.
        image_labels: likewise.
        app: replaces the image's app section as a whole; None takes the image's.
        read_only_root_fs: the app sees `/` read-only.
        mounts: volumes and their places.
        annotations: added to the image's, and before them.
    """

    name: str
    image_id: str
    image_name: str | None = None
    image_labels: Mapping[str, str] = NOTHING
    app: App | None = None
    read_only_root_fs: bool = False
    mounts: tuple[Mount, ...] = ()
    annotations: Mapping[str, str] = NOTHING

    @property
    def converted(self) -> bool:
        """Whether the image was Docker's or OCI's (podctl.model.conversion)."""
        return is_converted(self.annotations)

    @property
    def stop_signal(self) -> int:
        """The signal that asks the app to end. Raises InvalidInput for none."""
        return stop_signal(self.annotations)

    @property
    def stop_timeout(self) -> int | None:
        """Seconds it has to end. Raises InvalidInput for no number."""
        return stop_timeout(self.annotations)

    @property
    def notifies(self) -> bool:
        """Whether it says when it is ready. Raises InvalidInput for no boolean."""
        return notifies(self.annotations)

    @property
    def streams(self) -> Streams | None:
        """What its standard streams are; None for the pod's. Raises InvalidInput for no mode."""
        return streams(self.annotations)


class PodManifest(NamedTuple):
    """A pod manifest."""

    apps: tuple[RuntimeApp, ...] = ()
    volumes: tuple[Volume, ...] = ()
    isolators: tuple[Isolator, ...] = ()
    annotations: Mapping[str, str] = NOTHING
    ports: tuple[ExposedPort, ...] = ()
    user_annotations: Mapping[str, str] = NOTHING
    user_labels: Mapping[str, str] = NOTHING
    ac_version: str = AC_VERSION

    @property
    def mutable(self) -> bool:
        """Whether the pod's apps come and go while it runs."""
        return self.annotations.get(MUTABLE) == "true"

    def app_named(self, name: str) -> RuntimeApp | None:
        """The app of that name."""
        return next((app for app in self.apps if app.name == name), None)

    def to_value(self) -> dict[str, Any]:
        """The JSON form; lists that are empty are left out, except `apps`."""
        value: dict[str, Any] = {
            "acVersion": self.ac_version,
            "acKind": "PodManifest",
            "apps": [_runtime_app_value(app) for app in self.apps],
        }
        optional: dict[str, Any] = {
            "volumes": [volume_value(volume) for volume in self.volumes],
            "isolators": isolators_value(self.isolators),
            "annotations": pairs_value(self.annotations),
            "ports": [exposed_port_value(port) for port in self.ports],
            "userAnnotations": dict(self.user_annotations),
            "userLabels": dict(self.user_labels),
        }
        value.update((key, item) for key, item in optional.items() if item)
        return value

    def to_json(self, *, pretty: bool = False) -> bytes:
        """The manifest as JSON text."""
        return jsontext.dumps(self.to_value(), pretty=pretty)


def parse_pod_manifest(data: bytes, *, what: str = "pod manifest") -> PodManifest:
    """Read a pod manifest.

    Unlike in an image, unknown keys are refused: whoever wrote one meant something by it.
    `acVersion` may be of any series, as rkt writes its own version there.

    Raises:
        ManifestInvalid: it breaks JSON's or the schema's rules, names an app, volume or port
            twice, or mounts a volume it does not have.
    """
    fields = Fields(jsontext.loads(data, what=what), what, _POD_KEYS, closed=True)
    check_kind(fields, "PodManifest")
    version = fields.need("acVersion", str)
    fields.call(check_version, version)
    volumes = volumes_of(fields)
    return PodManifest(
        apps=_parse_apps(fields, {volume.name for volume in volumes}),
        volumes=volumes,
        isolators=parse_isolators(fields),
        annotations=parse_annotations(fields),
        ports=_parse_ports(fields),
        user_annotations=fields.string_map("userAnnotations"),
        user_labels=fields.string_map("userLabels"),
        ac_version=version,
    )


def check_has_apps(manifest: PodManifest) -> None:
    """Check that there is something to run.

    Raises:
        UsageError: no app is in the manifest.
    """
    if not manifest.apps:
        raise UsageError("pod must contain at least one application")


def check_app_names(names: Iterable[str]) -> None:
    """Check that app names are unique.

    Raises:
        UsageError: one appears twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(
                f"multiple apps with name {name}", hint="give one another name with --name"
            )
        seen.add(name)


def _parse_apps(fields: Fields, volumes: set[str]) -> tuple[RuntimeApp, ...]:
    if fields.get("apps", list) is None:
        # Go writes an empty list as null; no list at all is a mistake.
        if not fields.has("apps"):
            raise fields.error("apps is required")
        return ()
    apps: dict[str, RuntimeApp] = {}
    for item in fields.items("apps", _APP_KEYS):
        app = _parse_runtime_app(item)
        if app.name in apps:
            raise item.error(f'duplicate apps of name "{app.name}"')
        for mount in app.mounts:
            if mount.app_volume is None and mount.volume not in volumes:
                raise item.error(
                    f'dangling mount point "{mount.path}": volume "{mount.volume}" not found'
                )
        apps[app.name] = app
    return tuple(apps.values())


def _parse_runtime_app(item: Fields) -> RuntimeApp:
    image = item.child("image", "name id labels")
    if image is None:
        raise item.error("image is required")
    image_name = image.get("name", str)
    return RuntimeApp(
        name=item.checked("name", check_name),
        image_id=image.call(check_image_id, image.need("id", str)),
        image_name=None if image_name is None else image.call(check_identifier, image_name, "name"),
        image_labels=image.call(labels_from_pairs, image.pairs("labels")),
        app=parse_app_of(item, in_pod=True),
        read_only_root_fs=item.get("readOnlyRootFS", bool) or False,
        mounts=tuple(parse_mount(mount) for mount in item.items("mounts", "volume path appVolume")),
        annotations=parse_annotations(item),
    )


def _parse_ports(fields: Fields) -> tuple[ExposedPort, ...]:
    ports: list[ExposedPort] = []
    for item in fields.items("ports", "name hostPort hostIP podPort"):
        port = parse_exposed_port(item)
        if any(_same_place(port, other) for other in ports):
            raise item.error(f"host port {port.host_port} is mapped to port {port.name} twice")
        ports.append(port)
    return tuple(ports)


def _same_place(one: ExposedPort, other: ExposedPort) -> bool:
    """Whether both publish one port at one place; the protocols decide the rest, later."""
    return (one.name, one.host_port, one.host_ip) == (other.name, other.host_port, other.host_ip)


def _runtime_app_value(app: RuntimeApp) -> dict[str, Any]:
    image: dict[str, Any] = {"id": app.image_id}
    if app.image_name is not None:
        image = {"name": app.image_name, "id": app.image_id}
    if app.image_labels:
        image["labels"] = pairs_value(app.image_labels)
    value: dict[str, Any] = {"name": app.name, "image": image}
    if app.app is not None:
        value["app"] = app_value(app.app)
    if app.read_only_root_fs:
        value["readOnlyRootFS"] = True
    if app.mounts:
        value["mounts"] = [mount_value(mount) for mount in app.mounts]
    if app.annotations:
        value["annotations"] = pairs_value(app.annotations)
    return value
