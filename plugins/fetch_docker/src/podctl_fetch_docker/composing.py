"""Hook `format_compose`: an OCI manifest and configuration for an image of another format.

The reverse of podctl_fetch_docker.convert, as far as a configuration has a place for things.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podctl.errors import ManifestInvalid, Refused
from podctl.model import jsontext
from podctl.model.conversion import ANNOTATION
from podctl.model.image import check_runnable
from podctl.model.imagedocument import ImageDocument, digest_of
from podctl_fetch_docker.archivefiles import LOCAL, full_reference
from podctl_fetch_docker.convert import command
from podctl_fetch_docker.mediatypes import LAYERS, OCI_CONFIG, OCI_MANIFEST
from podctl_fetch_docker.platforms import platform_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.model.image import Image, Layer
    from podctl.model.manifest import App, Port

_MAX_TAG = 128


def compose(image: Image, layer: Layer) -> bytes:
    """See podctl.api.hookspecs.FormatSpec.format_compose.

    Raises:
        Refused: the image does not say for which platform it is, or runs as the owner of a file.
    """
    config = jsontext.dumps(_config(image, layer))
    media_type = next(
        kind for kind, packed in LAYERS.items() if packed == layer.compression and ".oci." in kind
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": media_type, "digest": layer.blob, "size": layer.size}],
    }
    return ImageDocument(reference_of(image), None, jsontext.dumps(manifest), config).dump()


def reference_of(image: Image) -> str:
    """A full reference for an image of another format: its name, and its version as the tag."""
    tag = "".join(
        char if char.isascii() and (char.isalnum() or char in "_.-") else "-"
        for char in image.labels.get("version", "latest")
    ).lstrip(".-")[:_MAX_TAG]
    name = image.name.replace("~", "-")
    for text in (f"{name}:{tag or 'latest'}", f"{LOCAL}/{name}:{tag or 'latest'}"):
        # An abbreviated one would be Docker Hub's.
        if full_reference(text) == text:
            return text
    raise Refused(f'"{image.name}" can be no name of a repository')


def _config(image: Image, layer: Layer) -> dict[str, Any]:
    check_runnable(image)
    platform = platform_of(image.labels)
    annotations = image.annotations
    value = {
        "created": annotations.get("created"),
        "author": annotations.get("author", annotations.get("authors")),
        "comment": annotations.get("docker-comment"),
        "architecture": platform.architecture,
        "os": platform.os,
        "variant": platform.variant,
        "config": {} if image.app is None else _settings(image.app, annotations),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id.replace("-", ":", 1)]},
    }
    return {key: item for key, item in value.items() if item is not None and item != ""}


def _settings(app: App, annotations: Mapping[str, str]) -> dict[str, Any]:
    entrypoint, cmd = _argv(app, annotations)
    timeout = annotations.get(f"{ANNOTATION}stoptimeout", "")
    value = {
        "User": _user(app),
        "ExposedPorts": {_port(port): {} for port in app.ports},
        "Env": [f"{name}={text}" for name, text in app.environment.items()],
        "Entrypoint": entrypoint,
        "Cmd": cmd,
        "Volumes": {point.path: {} for point in app.mount_points},
        "WorkingDir": "" if app.working_directory == "/" else app.working_directory,
        "Labels": dict(app.user_labels),
        "StopSignal": annotations.get(f"{ANNOTATION}stopsignal", ""),
        "StopTimeout": int(timeout) if timeout.isascii() and timeout.isdigit() else None,
        "Healthcheck": _kept(annotations, "healthcheck", dict),
        "Shell": _kept(annotations, "shell", list),
    }
    return {key: item for key, item in value.items() if item}


def _argv(app: App, annotations: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Entrypoint and Cmd: as they were once, if the image says so and they still are the argv."""
    entrypoint = _kept(annotations, "entrypoint", list) or []
    cmd = _kept(annotations, "cmd", list) or []
    words = [*entrypoint, *cmd]
    if all(isinstance(word, str) for word in words) and command(entrypoint, cmd) == app.exec:
        return entrypoint, cmd
    return list(app.exec), []


def _kept(annotations: Mapping[str, str], name: str, kind: type) -> Any:
    """A value that an annotation has as JSON; None where there is none of that kind."""
    text = annotations.get(ANNOTATION + name)
    try:
        value = None if text is None else jsontext.loads(text.encode(), what=name)
    except ManifestInvalid:
        return None
    return value if isinstance(value, kind) else None


def _user(app: App) -> str:
    for name, kind in ((app.user, "user"), (app.group, "group")):
        if name.startswith("/"):
            raise Refused(
                f"image runs as the {kind} that owns {name}, which an OCI image cannot say",
                hint="set a number or a name in its manifest",
            )
    if app.group:
        return f"{app.user}:{app.group}"
    return "" if app.user == "0" else app.user


def _port(port: Port) -> str:
    last = f"-{port.port + port.count - 1}" if port.count > 1 else ""
    return f"{port.port}{last}/{port.protocol}"
