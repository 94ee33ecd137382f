"""The configuration of an image: OCI image-spec 1.1 config.md, with what Docker adds to it.

Values keep their form here; what they mean to an app is podctl_fetch_docker.convert's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import ManifestInvalid
from podctl.model import jsontext
from podctl.model.fields import Fields
from podctl.model.imagedocument import MAX_PART
from podctl.model.manifest import NOTHING
from podctl_fetch_docker.descriptors import check_digest
from podctl_fetch_docker.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl_fetch_docker.manifests import Manifest

#: what is read; whatever else a configuration holds has no effect.
_KEYS = "architecture os variant created author comment config rootfs"
_SETTINGS_KEYS = (
    "User ExposedPorts Env Entrypoint Cmd Volumes WorkingDir Labels StopSignal StopTimeout "
    "Healthcheck Shell"
)


class Settings(NamedTuple):
    """The `config` member: how a container of the image is executed.

    Args:
        exposed_ports: keys of ExposedPorts, as written.
        volumes: keys of Volumes, as written.
        healthcheck: the object as written, or None.
    """

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = NOTHING
    stop_signal: str = ""
    stop_timeout: int | None = None
    healthcheck: Mapping[str, Any] | None = None
    shell: tuple[str, ...] = ()


class ImageConfig(NamedTuple):
    """An image's configuration.

    Args:
        platform: os, architecture and variant.
        diff_ids: digests of the uncompressed layers, lowest first; `sha256:` and 64 digits each.
        created: as written; empty where nothing was said.
    """

    platform: Platform
    diff_ids: tuple[str, ...]
    settings: Settings
    created: str = ""
    author: str = ""
    comment: str = ""


def parse_config(data: bytes, *, what: str = "image configuration") -> ImageConfig:
    """Read a configuration.

    Raises:
        ManifestInvalid: it breaks the schema.
    """
    fields = Fields(jsontext.loads(data, what=what, max_bytes=MAX_PART), what, _KEYS)
    platform = Platform(
        os=fields.need("os", str),
        architecture=fields.need("architecture", str),
        variant=fields.get("variant", str) or "",
    )
    if not platform.os or not platform.architecture:
        raise fields.error("os and architecture must not be empty")
    settings = fields.child("config", _SETTINGS_KEYS)
    return ImageConfig(
        platform=platform,
        diff_ids=_diff_ids(fields),
        settings=Settings() if settings is None else _settings(settings),
        created=fields.get("created", str) or "",
        author=fields.get("author", str) or "",
        comment=fields.get("comment", str) or "",
    )


def check_layers(
    config: ImageConfig, manifest: Manifest, what: str = "image configuration"
) -> None:
    """Check that a configuration names as many layers as its manifest.

    Whether each is the layer it should be is found when it is unpacked.

    Raises:
        ManifestInvalid: it does not.
    """
    if len(config.diff_ids) != len(manifest.layers):
        raise ManifestInvalid(
            f"{what} has {len(config.diff_ids)} diff_ids, "
            f"its manifest {len(manifest.layers)} layers"
        )


def _diff_ids(fields: Fields) -> tuple[str, ...]:
    rootfs = fields.child("rootfs", "type diff_ids")
    if rootfs is None:
        raise fields.error("rootfs is required")
    kind = rootfs.need("type", str)
    if kind != "layers":
        raise rootfs.error(f"type {kind[:40]!r} must be layers")
    diff_ids = rootfs.strings("diff_ids")
    for number, digest in enumerate(diff_ids):
        rootfs.call(check_digest, digest, f"diff_ids[{number}]")
        if not digest.startswith("sha256:"):
            raise rootfs.error(f"diff_ids[{number}] must be a sha256 digest")
    return diff_ids


def _settings(fields: Fields) -> Settings:
    timeout = fields.get("StopTimeout", int)
    if timeout is not None and timeout < 0:
        raise fields.error("StopTimeout must not be negative")
    return Settings(
        user=fields.get("User", str) or "",
        exposed_ports=_keys(fields, "ExposedPorts"),
        env=fields.strings("Env"),
        entrypoint=fields.strings("Entrypoint"),
        cmd=fields.strings("Cmd"),
        volumes=_keys(fields, "Volumes"),
        working_dir=fields.get("WorkingDir", str) or "",
        labels=fields.string_map("Labels"),
        stop_signal=fields.get("StopSignal", str) or "",
        stop_timeout=timeout,
        healthcheck=fields.get("Healthcheck", dict),
        shell=fields.strings("Shell"),
    )


def _keys(fields: Fields, key: str) -> tuple[str, ...]:
    """The keys of an object that stands for a set; its values are empty objects, or null."""
    value = fields.get(key, dict) or {}
    for name, item in value.items():
        if item is not None and item != {}:
            raise fields.error(f"{key}[{name[:64]!r}] must be an empty object")
    return tuple(sorted(value))
