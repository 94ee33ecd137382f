"""The appc image manifest (0.8.11, aci.md): its `app` section, dependencies and the rest."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import InvalidInput, ManifestInvalid
from podctl.model import jsontext
from podctl.model.fields import Fields
from podctl.model.isolators import Isolator, isolators_value, parse_isolators
from podctl.model.labels import labels_from_pairs
from podctl.model.names import (
    AC_VERSION,
    check_absolute,
    check_date,
    check_environment_name,
    check_id,
    check_identifier,
    check_image_id,
    check_name,
    check_version,
    parse_principal,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: the default of every optional mapping; shared, so it cannot be written to.
NOTHING: Mapping[str, Any] = MappingProxyType({})

PRE_START = "pre-start"
POST_STOP = "post-stop"

_APP_KEYS = (
    "exec user group supplementaryGIDs eventHandlers workingDirectory environment isolators "
    "mountPoints ports userAnnotations userLabels"
)
PORT_KEYS = "name protocol port count socketActivated"
_IMAGE_KEYS = "acKind acVersion name labels app dependencies pathWhitelist annotations"


class MountPoint(NamedTuple):
    """Where an app expects a volume: `path` is absolute, resolved inside the app's root."""

    name: str
    path: str
    read_only: bool = False


class Port(NamedTuple):
    """A port an app listens on, or `count` consecutive ones beginning with `port`."""

    name: str
    protocol: str
    port: int
    count: int = 1  # type: ignore[assignment]  # hides tuple.count(), which ports have no use for
    socket_activated: bool = False


class App(NamedTuple):
    """The `app` section: how to execute an image.

    Args:
        exec: argv; may be empty, then the user must supply one.
        user: number, name or absolute path, as written (see names.parse_principal).
        group: likewise; in a pod it may be empty, for the user's own groups (plan.Account).
        supplementary_gids: further numeric groups.
        event_handlers: `pre-start` and `post-stop` -> argv.
        working_directory: absolute, `/` by default.
        environment: name -> value, in order.
    """

    exec: tuple[str, ...] = ()
    user: str = "0"
    group: str = "0"
    supplementary_gids: tuple[int, ...] = ()
    event_handlers: Mapping[str, tuple[str, ...]] = NOTHING
    working_directory: str = "/"
    environment: Mapping[str, str] = NOTHING
    isolators: tuple[Isolator, ...] = ()
    mount_points: tuple[MountPoint, ...] = ()
    ports: tuple[Port, ...] = ()
    user_annotations: Mapping[str, str] = NOTHING
    user_labels: Mapping[str, str] = NOTHING


class Dependency(NamedTuple):
    """An image whose files come before those of the image that names it."""

    image_name: str
    image_id: str | None = None
    labels: Mapping[str, str] = NOTHING
    size: int | None = None


class ImageManifest(NamedTuple):
    """An appc image manifest and the bytes it was read from."""

    name: str
    labels: Mapping[str, str]
    app: App | None
    dependencies: tuple[Dependency, ...]
    path_whitelist: tuple[str, ...]
    annotations: Mapping[str, str]
    ac_version: str
    data: bytes


def parse_image_manifest(data: bytes, *, what: str = "image manifest") -> ImageManifest:
    """Read an image manifest.

    Keys appc does not have are left alone, as later 0.8 writers may add some.

    Raises:
        ManifestInvalid: it breaks JSON's or the schema's rules.
    """
    fields = Fields(jsontext.loads(data, what=what), what, _IMAGE_KEYS)
    check_kind(fields, "ImageManifest")
    version = fields.need("acVersion", str)
    # types.md: compatible within one major series; we are of series 0.
    if fields.call(check_version, version)[0] != 0:
        raise fields.error(f"acVersion {version} is not of the {AC_VERSION} series")
    return ImageManifest(
        name=fields.checked("name", check_identifier),
        labels=fields.call(labels_from_pairs, fields.pairs("labels")),
        app=parse_app_of(fields),
        dependencies=tuple(
            _parse_dependency(item)
            for item in fields.items("dependencies", "imageName imageID labels size")
        ),
        path_whitelist=tuple(
            fields.call(check_absolute, path, "pathWhitelist", parents=False)
            for path in fields.strings("pathWhitelist")
        ),
        annotations=parse_annotations(fields),
        ac_version=version,
        data=data,
    )


def check_kind(fields: Fields, kind: str) -> None:
    """Check `acKind`.

    Raises:
        ManifestInvalid: it is absent or another kind.
    """
    if fields.need("acKind", str) != kind:
        raise fields.error(f"acKind must be {kind}")


def parse_app_of(parent: Fields, *, in_pod: bool = False) -> App | None:
    """Read the optional `app` section of an image manifest or of a pod manifest's app.

    Args:
        in_pod: the group may be an empty string; appc has no word for what other images leave out.

    Raises:
        ManifestInvalid: it breaks the schema.
    """
    fields = parent.child("app", _APP_KEYS)
    return None if fields is None else _parse_app(fields, in_pod=in_pod)


def _parse_app(fields: Fields, *, in_pod: bool) -> App:
    if not fields.has("exec"):
        raise fields.error("exec is required")
    directory = fields.get("workingDirectory", str) or "/"
    return App(
        exec=parse_argv(fields, "exec"),
        user=_principal(fields, "user"),
        group="" if in_pod and fields.get("group", str) == "" else _principal(fields, "group"),
        supplementary_gids=tuple(
            fields.call(check_id, number, "supplementaryGIDs")
            for number in fields.integers("supplementaryGIDs")
        ),
        event_handlers=_parse_handlers(fields),
        working_directory=fields.call(check_absolute, directory, "workingDirectory"),
        environment=fields.call(environment_from_pairs, fields.pairs("environment")),
        isolators=parse_isolators(fields),
        mount_points=_parse_mount_points(fields),
        ports=_parse_ports(fields),
        user_annotations=fields.string_map("userAnnotations"),
        user_labels=fields.string_map("userLabels"),
    )


def parse_argv(fields: Fields, key: str) -> tuple[str, ...]:
    """Read a program and its arguments; may be absent or empty.

    Raises:
        ManifestInvalid: the program is an empty string, or a word holds NUL.
    """
    words = fields.strings(key)
    if words and not words[0]:
        raise fields.error(f"{key}[0] must not be empty")
    if any("\0" in word for word in words):
        raise fields.error(f"{key} holds NUL")
    return words


def _principal(fields: Fields, key: str) -> str:
    text = fields.get(key, str) or ""
    fields.call(parse_principal, text, key)
    return text


def _parse_handlers(fields: Fields) -> dict[str, tuple[str, ...]]:
    handlers: dict[str, tuple[str, ...]] = {}
    for item in fields.items("eventHandlers", "name exec"):
        name = item.need("name", str)
        if name not in (PRE_START, POST_STOP):
            raise item.error(f"name {name!r} must be {PRE_START} or {POST_STOP}")
        if name in handlers:
            raise item.error(f"only one event handler {name} is allowed")
        handlers[name] = parse_argv(item, "exec")
        if not handlers[name]:
            raise item.error("exec is required")
    return handlers


def environment_from_pairs(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Collect variables in order.

    Raises:
        InvalidInput: a name is malformed or appears twice, or a value holds NUL.
    """
    environment: dict[str, str] = {}
    for name, value in pairs:
        check_environment_name(name)
        if name in environment:
            raise InvalidInput(f"environment variable {name} appears twice")
        if "\0" in value:
            raise InvalidInput(f"environment variable {name} holds NUL")
        environment[name] = value
    return environment


def _parse_mount_points(fields: Fields) -> tuple[MountPoint, ...]:
    points: dict[str, MountPoint] = {}
    for item in fields.items("mountPoints", "name path readOnly"):
        name = item.checked("name", check_name)
        if name in points:
            raise item.error(f"mount point {name} appears twice")
        path = item.checked("path", check_absolute)
        points[name] = MountPoint(name, path, item.get("readOnly", bool) or False)
    return tuple(points.values())


def _parse_ports(fields: Fields) -> tuple[Port, ...]:
    ports: dict[str, Port] = {}
    for item in fields.items("ports", PORT_KEYS):
        port = parse_port(item)
        if port.name in ports:
            raise item.error(f"port {port.name} appears twice")
        ports[port.name] = port
    return tuple(ports.values())


def parse_port(item: Fields) -> Port:
    """Read one port of an app.

    Raises:
        ManifestInvalid: the port or the end of its range is not in 1..65535.
    """
    number, count = item.need("port", int), item.get("count", int)
    protocol = item.need("protocol", str)
    if not protocol or not protocol.isprintable():
        raise item.error(f"protocol {protocol!r} is no protocol name")
    if not 1 <= number <= 65535:
        raise item.error("port must be in 1-65535 range")
    if count is not None and count < 0:
        raise item.error("count must be at least 1")
    # Writers built on older schema packages spell an unset count as 0.
    count = count or 1
    if number + count - 1 > 65535:
        raise item.error("end of port range must be in 1-65535 range")
    activated = item.get("socketActivated", bool) or False
    return Port(item.checked("name", check_name), protocol, number, count, activated)


def _parse_dependency(item: Fields) -> Dependency:
    image_id, size = item.get("imageID", str), item.get("size", int)
    if image_id is not None:
        item.call(check_image_id, image_id)
    if size is not None and size < 0:
        raise item.error("size must not be negative")
    return Dependency(
        image_name=item.checked("imageName", check_identifier),
        image_id=image_id,
        labels=item.call(labels_from_pairs, item.pairs("labels")),
        size=size,
    )


def parse_annotations(fields: Fields, key: str = "annotations") -> dict[str, str]:
    """Read optional annotations.

    Raises:
        ManifestInvalid: see annotations_from_pairs.
    """
    return fields.call(annotations_from_pairs, fields.pairs(key))


def annotations_from_pairs(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Collect annotations in order, checking the values of those appc defines.

    Raises:
        InvalidInput: a name is no AC Identifier or appears twice, or a known value is malformed.
    """
    annotations: dict[str, str] = {}
    for name, value in pairs:
        check_identifier(name, "annotation name")
        if name in annotations:
            raise InvalidInput(f'duplicate annotations of name "{name}"')
        annotations[name] = value
    if "created" in annotations:
        check_date(annotations["created"], "annotation created")
    for name in ("homepage", "documentation"):
        if not annotations.get(name, "https://").startswith(("http://", "https://")):
            raise InvalidInput(f"annotation {name} must be an http or https URL")
    if annotations.get("appc.io/executor/supports-systemd-notify", "true") not in ("true", "false"):
        raise InvalidInput("annotation appc.io/executor/supports-systemd-notify: true or false")
    return annotations


def pairs_value(pairs: Mapping[str, str]) -> list[dict[str, str]]:
    """The JSON form of labels, annotations and environments."""
    return [{"name": name, "value": value} for name, value in pairs.items()]


def app_value(app: App) -> dict[str, Any]:
    """The JSON form of an app section; what is empty is left out, except required keys."""
    value: dict[str, Any] = {"exec": list(app.exec), "user": app.user, "group": app.group}
    optional: dict[str, Any] = {
        "supplementaryGIDs": list(app.supplementary_gids),
        "eventHandlers": [
            {"name": name, "exec": list(argv)} for name, argv in app.event_handlers.items()
        ],
        "workingDirectory": app.working_directory,
        "environment": pairs_value(app.environment),
        "isolators": isolators_value(app.isolators),
        "mountPoints": [
            {"name": point.name, "path": point.path, "readOnly": point.read_only}
            for point in app.mount_points
        ],
        "ports": [port_value(port) for port in app.ports],
        "userAnnotations": dict(app.user_annotations),
        "userLabels": dict(app.user_labels),
    }
    value.update((key, item) for key, item in optional.items() if item)
    return value


def port_value(port: Port) -> dict[str, Any]:
    """The JSON form of a port."""
    return {
        "name": port.name,
        "protocol": port.protocol,
        "port": port.port,
        "count": port.count,
        "socketActivated": port.socket_activated,
    }


def app_from_value(value: object, *, what: str = "app") -> App:
    """Read an app section that stands alone; the reverse of app_value.

    Raises:
        ManifestInvalid: it breaks the schema.
    """
    app = parse_app_of(Fields({"app": value}, what, "app"), in_pod=True)
    if app is None:
        raise ManifestInvalid(f"{what} must be an object")
    return app
