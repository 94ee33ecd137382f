"""Volumes and mounts, as values, in a pod manifest and as the command line spells them.

Rules: appc 0.8.11 pods.md and rkt's command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import InvalidInput, UsageError
from podctl.model.names import check_absolute, check_id, check_name
from podctl.model.quantity import parse_quantity
from podctl.model.words import optional_boolean, optional_integer, split_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from podctl.model.fields import Fields

_VOLUME_KEYS = "name kind source readOnly recursive mode uid gid size"
_SETTINGS = ("kind", *_VOLUME_KEYS.split()[2:])
#: kind -> which of the keys that not all kinds have it may have
_KINDS = {
    "host": frozenset({"source", "recursive"}),
    "empty": frozenset({"mode", "uid", "gid"}),
    "tmpfs": frozenset({"mode", "uid", "gid", "size"}),
}
_MIN_SIZE = 4096


class Volume(NamedTuple):
    """A volume of a pod.

    Args:
        kind: `host` (a host path), `empty` (a directory that lives as long as the pod) or podctl's
            own `tmpfs` (the same in memory, gone when the pod ends).
        source: absolute host path without `..`; of kind host only.
        read_only: None when not said; the mount point decides then.
        recursive: whether file systems mounted below the source come along; None: the flavor's
            default. Of kind host only.
        mode: permission bits of an empty volume or tmpfs.
        uid: owner of one.
        gid: group of one.
        size: bytes a tmpfs may hold; None for the kernel's default, half of the memory.
    """

    name: str
    kind: str
    source: str | None = None
    read_only: bool | None = None
    recursive: bool | None = None
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int | None = None


class Mount(NamedTuple):
    """A volume's place in an app: `path` is absolute, resolved inside the app's root.

    `app_volume`: a volume of this app alone; None stands for the pod's volume of that name.
    """

    volume: str
    path: str
    app_volume: Volume | None = None


def parse_volume(item: Fields) -> Volume:
    """Read a volume of a pod manifest.

    Raises:
        ManifestInvalid: it breaks the schema.
    """
    mode = item.get("mode", str)
    given = {
        "source": item.get("source", str),
        "recursive": item.get("recursive", bool),
        "mode": None if mode is None else item.call(_parse_mode, mode),
        "uid": item.get("uid", int),
        "gid": item.get("gid", int),
        "size": item.get("size", str),
    }
    name = item.checked("name", check_name)
    volume: Volume = item.call(
        _make_volume, name, item.need("kind", str), item.get("readOnly", bool), given
    )
    return volume


def volumes_of(parent: Fields) -> tuple[Volume, ...]:
    """Read the volumes of a pod manifest.

    Raises:
        ManifestInvalid: one breaks the schema, or two have one name.
    """
    volumes: dict[str, Volume] = {}
    for item in parent.items("volumes", _VOLUME_KEYS):
        volume = parse_volume(item)
        if volume.name in volumes:
            raise item.error(f'duplicate volume name "{volume.name}"')
        volumes[volume.name] = volume
    return tuple(volumes.values())


def _make_volume(name: str, kind: str, read_only: bool | None, given: Mapping[str, Any]) -> Volume:
    """Build a volume from what was given of the keys that only one kind has."""
    if kind not in _KINDS:
        raise InvalidInput(
            f'volume {name}: unrecognized volume kind: should be one of "empty", "host", "tmpfs"'
        )
    for key, value in given.items():
        # Go writes an unset string as an empty one.
        if key not in _KINDS[kind] and value is not None and value != "":
            raise InvalidInput(f"volume {name}: {key} for {kind} volume cannot be set")
    if kind == "host":
        source = given["source"]
        if not source:
            raise InvalidInput(f"volume {name}: source for host volume cannot be empty")
        check_absolute(source, f"volume {name}: source", parents=False)
        return Volume(name, kind, source, read_only, given["recursive"])
    return Volume(
        name,
        kind,
        read_only=read_only,
        mode=0o755 if given["mode"] is None else given["mode"],
        uid=check_id(given["uid"] or 0, f"volume {name}: uid"),
        gid=check_id(given["gid"] or 0, f"volume {name}: gid"),
        size=_parse_size(given["size"], name) if given["size"] else None,
    )


def _parse_mode(text: str) -> int:
    if not text or len(text) > 5 or not set(text) <= set("01234567") or int(text, 8) > 0o7777:
        raise InvalidInput(f"mode {text!r} must be octal permission bits like 0755")
    return int(text, 8)


def _parse_size(text: str, name: str) -> int:
    # What is less than a page would be none at all, and no limit to the kernel.
    size = parse_quantity(text, f"volume {name}: size").units
    if size < _MIN_SIZE:
        raise InvalidInput(f"volume {name}: size {text!r} is less than {_MIN_SIZE} bytes")
    return size


def volume_value(volume: Volume) -> dict[str, Any]:
    """The JSON form of a volume."""
    value: dict[str, Any] = {"name": volume.name, "kind": volume.kind}
    if volume.kind == "host":
        value["source"] = volume.source
    if volume.read_only is not None:
        value["readOnly"] = volume.read_only
    if volume.recursive is not None:
        value["recursive"] = volume.recursive
    if volume.kind != "host":
        value.update(mode=f"{volume.mode:04o}", uid=volume.uid, gid=volume.gid)
    if volume.size is not None:
        value["size"] = str(volume.size)
    return value


def parse_mount(item: Fields) -> Mount:
    """Read a mount of a pod manifest's app.

    Raises:
        ManifestInvalid: it breaks the schema.
    """
    own = item.child("appVolume", _VOLUME_KEYS)
    return Mount(
        item.checked("volume", check_name),
        item.checked("path", check_absolute),
        None if own is None else parse_volume(own),
    )


def mount_value(mount: Mount) -> dict[str, Any]:
    """The JSON form of a mount."""
    value: dict[str, Any] = {"volume": mount.volume, "path": mount.path}
    if mount.app_volume is not None:
        value["appVolume"] = volume_value(mount.app_volume)
    return value


def check_mounts(mounts: Iterable[Mount], volumes: Iterable[Volume]) -> None:
    """Check that every mount has its volume.

    Raises:
        UsageError: one has not.
    """
    names = {volume.name for volume in volumes}
    for mount in mounts:
        if mount.app_volume is None and mount.volume not in names:
            raise UsageError(
                f'dangling mount point "{mount.path}": volume "{mount.volume}" not found'
            )


def merge_mounts(pod: Iterable[Mount], app: Iterable[Mount]) -> tuple[Mount, ...]:
    """All mounts of one app: its own replace the pod's, later ones earlier ones, by clean path."""
    merged: dict[str, Mount] = {}
    for mount in (*pod, *app):
        path = clean_path(mount.path)
        merged.pop(path, None)
        merged[path] = mount
    return tuple(merged.values())


def clean_path(path: str) -> str:
    """An absolute path without empty and `.` components; `..` is left to who knows the links."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def volume_from_text(text: str) -> Volume:
    """Read `NAME,kind=host,source=PATH[,readOnly=B][,recursive=B]` or
    `NAME,kind=empty[,readOnly=B][,mode=M][,uid=N][,gid=N]` or
    `NAME,kind=tmpfs[,readOnly=B][,mode=M][,uid=N][,gid=N][,size=BYTES]`.

    Raises:
        UsageError: it is malformed.
    """
    name, settings = split_settings("--volume", text, _SETTINGS)
    return _volume_of("--volume", text, name, settings)


def own_mount_from_text(text: str) -> Mount:
    """Read `name=NAME,target=PATH,kind=KIND,...`, in any order: a mount with a volume of its own.

    Raises:
        UsageError: it is malformed.
    """
    flag = "--mnt-volume"
    _, settings = split_settings(flag, f",{text}", ("name", "target", *_SETTINGS))
    for key in ("name", "target"):
        if key not in settings:
            raise UsageError(f"{flag} {text!r}: {key} is required")
    name, target = settings.pop("name"), settings.pop("target")
    volume = _volume_of(flag, text, name, settings)
    try:
        return Mount(name, check_absolute(_from_root(target), "target"), volume)
    except InvalidInput as error:
        raise UsageError(f"{flag} {text!r}: {error.message}") from None


def _volume_of(flag: str, text: str, name: str, settings: Mapping[str, str]) -> Volume:
    try:
        check_name(name, "volume name")
        numbers = {key: optional_integer(settings.get(key), key) for key in ("uid", "gid")}
        mode = settings.get("mode")
        given = {
            "source": settings.get("source"),
            "recursive": optional_boolean(settings.get("recursive"), "recursive"),
            "mode": None if mode is None else _parse_mode(mode),
            "size": settings.get("size"),
            **numbers,
        }
        read_only = optional_boolean(settings.get("readOnly"), "readOnly")
        return _make_volume(name, settings.get("kind", ""), read_only, given)
    except InvalidInput as error:
        raise UsageError(f"{flag} {text!r}: {error.message}", hint=error.hint) from None


def mount_from_text(text: str) -> Mount:
    """Read `volume=NAME,target=PATH`, in any order; a relative path begins at the app's root.

    Raises:
        UsageError: it is malformed.
    """
    _, settings = split_settings("--mount", f",{text}", ("volume", "target"))
    try:
        for key in ("volume", "target"):
            if key not in settings:
                raise InvalidInput(f"{key} is required")
        return Mount(
            check_name(settings["volume"], "volume name"),
            check_absolute(_from_root(settings["target"]), "target"),
        )
    except InvalidInput as error:
        raise UsageError(f"--mount {text!r}: {error.message}") from None


def _from_root(path: str) -> str:
    # rkt takes them on the command line, where manifests must be exact.
    return path if not path or path.startswith("/") else f"/{path}"
