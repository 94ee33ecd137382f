"""Layouts and archives made to measure."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

from podctl.testing.ocilayers import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from podctl.testing.ociimages import Image

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"


def saved(made: Image, *tags: str, suffix: str = ".tar") -> dict[str, bytes]:
    """The files of `docker save` for an image: its layers as plain tars, or as published."""
    layers = {}
    for one in made.layers:
        data = one.tar if suffix == ".tar" else one.blob
        layers[f"{one.diff_id[7:]}{suffix}"] = data
    config = f"{made.config.digest[7:]}.json"
    value = {
        "Config": config,
        "RepoTags": list(tags),
        "Layers": [f"{one.diff_id[7:]}{suffix}" for one in made.layers],
    }
    files = {config: made.config.data, **layers}
    return {**files, "manifest.json": json.dumps([value]).encode()}


def tar_of(path: Path, files: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    """Write an archive of files in order; a TarInfo is an entry without data."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            entry = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.name = name
            if isinstance(data, bytes):
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
            else:
                archive.addfile(entry)
    return path


def entry(kind: bytes, target: str = "") -> tarfile.TarInfo:
    """An entry that is no file."""
    made = tarfile.TarInfo()
    made.type, made.linkname = kind, target
    return made


def files_of(directory: Path) -> dict[str, bytes]:
    """The files of a directory, by name."""
    found = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def rename(directory: Path, **annotations: str) -> Path:
    """Say something else of the one image that a layout has."""
    place = directory / "index.json"
    value: Any = json.loads(place.read_text())
    value["manifests"][0]["annotations"] = annotations
    place.write_text(json.dumps(value))
    return directory


def blob(directory: Path, digest: str) -> Path:
    """Where a layout keeps a blob."""
    return directory / "blobs" / digest.replace(":", "/")


def keep(directory: Path, data: bytes) -> str:
    """Put a blob; return its digest."""
    digest = digest_of(data)
    blob(directory, digest).write_bytes(data)
    return digest
