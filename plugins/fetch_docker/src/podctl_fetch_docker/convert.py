"""What a configuration means to a pod: the `app` section, and the annotations that keep the rest.

The rules are docker2aci's where it had any and Docker's where it had none; docs/reference has the
whole table. What an image says can name programs, users and places inside its own root alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from podctl.errors import InvalidInput, ManifestInvalid, Refused
from podctl.model import jsontext
from podctl.model.conversion import ANNOTATION, STOP_SIGNAL, STOP_TIMEOUT
from podctl.model.manifest import App, MountPoint, Port, annotations_from_pairs
from podctl.model.names import (
    check_absolute,
    check_environment_name,
    parse_principal,
    sanitise_name,
)
from podctl.model.signals import signal_name
from podctl.model.volumes import clean_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from podctl_fetch_docker.config import ImageConfig, Settings

T = TypeVar("T")

#: labels of these prefixes could be taken for ours, or for rkt's; an image has no say there.
RESERVED_LABELS = ("io.podctl.", "io.podctl/", "podctl.io/", "coreos.com/rkt", "appc.io/")
#: directories that are the kernel's, or podctl's to make; no volume goes there (CVE-2019-16884).
KERNEL_DIRECTORIES = frozenset({"proc", "dev", "sys"})

MAX_VOLUMES = 256
MAX_PATH = 4095
MAX_COMPONENT = 255
#: a pod's volume is named after the app and the mount point together, 255 characters at most.
_MAX_MOUNT_POINT = 120
_PROTOCOLS = ("tcp", "udp", "sctp")


def to_app(settings: Settings, *, what: str = "image configuration") -> App:
    """The `app` section: how a pod executes the image.

    Args:
        what: names the configuration in messages.

    Raises:
        ManifestInvalid: a value is malformed or out of range.
        Refused: a volume lies where none may.
    """
    place = f"{what}.config"
    user, group = _at(f"{place}.User", user_and_group, settings.user)
    return App(
        exec=command(settings.entrypoint, settings.cmd),
        user=user,
        group=group,
        working_directory=_at(f"{place}.WorkingDir", _working_directory, settings.working_dir),
        environment=_at(f"{place}.Env", environment, settings.env),
        mount_points=_at(f"{place}.Volumes", mount_points, settings.volumes),
        ports=_at(f"{place}.ExposedPorts", ports, settings.exposed_ports),
        user_labels=user_labels(settings.labels),
    )


def to_annotations(
    config: ImageConfig, identity: Mapping[str, str], *, what: str = "image configuration"
) -> dict[str, str]:
    """Everything that has no place in an app section.

    Args:
        identity: names below `appc.io/docker/` that say where the image comes from.

    Raises:
        ManifestInvalid: a date or a signal is malformed.
    """
    settings = config.settings
    timeout = settings.stop_timeout
    kept = {
        "author": config.author,
        "created": config.created,
        "docker-comment": config.comment,
        **{f"{ANNOTATION}{name}": value for name, value in identity.items()},
        f"{ANNOTATION}entrypoint": _json(settings.entrypoint),
        f"{ANNOTATION}cmd": _json(settings.cmd),
        f"{ANNOTATION}shell": _json(settings.shell),
        f"{ANNOTATION}healthcheck": _json(settings.healthcheck),
        STOP_SIGNAL: _at(f"{what}.config.StopSignal", _signal, settings.stop_signal),
        STOP_TIMEOUT: "" if timeout is None else str(timeout),
    }
    pairs = [(name, value) for name, value in kept.items() if value]
    return _at(what, annotations_from_pairs, pairs)


def command(entrypoint: Sequence[str], cmd: Sequence[str]) -> tuple[str, ...]:
    """Entrypoint and Cmd as one argv.

    An entrypoint of one empty word is none, as Docker has it; an argv whose program is an empty
    word is empty, so that the user is asked for one.
    """
    words = (*(() if tuple(entrypoint) == ("",) else entrypoint), *cmd)
    return words if words and words[0] else ()


def user_and_group(text: str) -> tuple[str, str]:
    """User and group as an app section has them; an empty group stands for the user's own.

    Numbers stay numbers, whatever names the image's /etc/passwd has (CVE-2016-3697), and must fit
    (CVE-2024-40635).

    Raises:
        InvalidInput: it is none of `user`, `user:group`, `:group`.
    """
    user, _, group = text.partition(":")
    # Nobody is root, in `:group` too; `user:` is the user alone.
    user = user or "0"
    for name, kind in ((user, "user"), (group, "group")):
        if name.startswith("/"):
            # In appc a path stands for its owner; in Docker it is a name nobody has.
            raise InvalidInput(f"{kind} {name[:64]!r} is no name or number")
        if name:
            parse_principal(name, kind)
    return user, group


def environment(entries: Iterable[str]) -> dict[str, str]:
    """Variables by name; of several with one name the last counts.

    Raises:
        InvalidInput: an entry is not NAME=VALUE, or no app may have a variable of that name.
    """
    variables: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals:
            raise InvalidInput(f"{entry[:64]!r} is not of the form NAME=VALUE")
        if "\0" in value:
            raise InvalidInput(f"variable {name[:64]!r} holds NUL")
        variables[check_environment_name(name)] = value
    return variables


def mount_points(paths: Iterable[str]) -> tuple[MountPoint, ...]:
    """One mount point for each volume, named `volume-` and its path, by path.

    Raises:
        InvalidInput: a path is empty, too long or holds `..`.
        Refused: it is the root, or lies in a directory of the kernel's; or there are too many.
    """
    places = sorted({_volume_path(path) for path in paths})
    if len(places) > MAX_VOLUMES:
        raise Refused(f"more than {MAX_VOLUMES} volumes")
    points: dict[str, MountPoint] = {}
    for path in places:
        base = sanitise_name(f"volume{path}")[:_MAX_MOUNT_POINT].rstrip("-")
        name, number = base, 0
        while name in points:
            number += 1
            name = f"{base}-{number}"
        points[name] = MountPoint(name, path)
    return tuple(points.values())


def _volume_path(text: str) -> str:
    # Docker takes a relative path from the root.
    path = clean_path(f"/{text}")
    parts = path[1:].split("/")
    if not text or len(path.encode()) > MAX_PATH or "\0" in text:
        raise InvalidInput(f"{text[:64]!r} is no path")
    if any(len(part.encode()) > MAX_COMPONENT for part in parts):
        raise InvalidInput(f"{text[:64]!r} holds a name of more than {MAX_COMPONENT} bytes")
    if ".." in parts:
        raise InvalidInput(f"{text[:64]!r} must not hold ..")
    if path == "/" or parts[0] in KERNEL_DIRECTORIES:
        raise Refused(
            f"a volume at {path[:64]} is not allowed",
            hint="/, /proc, /dev and /sys are the pod's own; the image must be built without it",
        )
    return path


def ports(keys: Iterable[str]) -> tuple[Port, ...]:
    """Ports by number, named as `80-tcp` or `8000-8010-udp`.

    Raises:
        InvalidInput: a key is not PORT[-PORT][/tcp|udp|sctp].
    """
    found = {port.name: port for port in map(_port, keys)}
    return tuple(sorted(found.values(), key=lambda port: (port.port, port.count, port.protocol)))


def _port(key: str) -> Port:
    span, slash, protocol = key.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    first, dash, last = span.partition("-")
    good = protocol in _PROTOCOLS and _is_port(first) and (not dash or _is_port(last))
    if not good or (dash and int(last) < int(first)):
        raise InvalidInput(f"{key[:64]!r} is not PORT, PORT/tcp or PORT-PORT/udp")
    number, count = int(first), int(last) - int(first) + 1 if dash else 1
    shown = f"{number}" if count == 1 else f"{number}-{number + count - 1}"
    return Port(f"{shown}-{protocol}", protocol, number, count)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535


def user_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels an image may have: all but those in reserved namespaces."""
    return {
        name: value
        for name, value in labels.items()
        if not name.lower().startswith(RESERVED_LABELS)
    }


def _working_directory(text: str) -> str:
    if len(text.encode()) > MAX_PATH:
        raise InvalidInput(f"{text[:64]!r} is longer than {MAX_PATH} bytes")
    return check_absolute(text, "path") if text else "/"


def _signal(text: str) -> str:
    return signal_name(text) if text else ""


def _json(value: object) -> str:
    """A value as JSON text; empty where it is."""
    if isinstance(value, tuple):
        value = list(value)
    return jsontext.dumps(value).decode() if value else ""


def _at(place: str, convert: Callable[..., T], value: object) -> T:
    """Run a conversion and put the value's place before what it raises."""
    try:
        return convert(value)
    except InvalidInput as error:
        raise ManifestInvalid(f"{place}: {error.message}", hint=error.hint) from None
    except Refused as error:
        raise Refused(f"{place}: {error.message}", hint=error.hint) from None
