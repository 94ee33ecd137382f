"""Docker and OCI images as values: the documents and blobs a registry or a layout would hold.

    made = image(layer(file("hello", "world")), config={"Cmd": ["/hello"]})
    both = index(made, image(..., platform="linux/arm64"))
    registry.put("library/app", made, "1.0")

Nothing is checked here: `amended` makes documents no builder would.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.testing.ocilayers import Layer, digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_OCI, _DOCKER = "application/vnd.oci.image.", "application/vnd.docker."


@dataclass(frozen=True, slots=True)
class Kind:
    """The media types of one family of image formats."""

    index: str
    manifest: str
    config: str
    layers: Mapping[str, str]


OCI = Kind(
    index=f"{_OCI}index.v1+json",
    manifest=f"{_OCI}manifest.v1+json",
    config=f"{_OCI}config.v1+json",
    layers={
        "none": f"{_OCI}layer.v1.tar",
        "gzip": f"{_OCI}layer.v1.tar+gzip",
        "zstd": f"{_OCI}layer.v1.tar+zstd",
    },
)
DOCKER = Kind(
    index=f"{_DOCKER}distribution.manifest.list.v2+json",
    manifest=f"{_DOCKER}distribution.manifest.v2+json",
    config=f"{_DOCKER}container.image.v1+json",
    layers={
        "none": f"{_DOCKER}image.rootfs.diff.tar",
        "gzip": f"{_DOCKER}image.rootfs.diff.tar.gzip",
        "zstd": f"{_DOCKER}image.rootfs.diff.tar.zstd",
    },
)


class Document(NamedTuple):
    """Bytes with a media type: a manifest, an index, a configuration."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        """`sha256:` and 64 digits."""
        return digest_of(self.data)

    @property
    def value(self) -> Any:
        """The JSON it holds."""
        return json.loads(self.data)

    def descriptor(self, **fields: Any) -> dict[str, Any]:
        """How another document names this one; `fields` are added or replaced."""
        named = {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}
        return {**named, **fields}

    def amended(self, **fields: Any) -> Document:
        """The document with top-level members replaced; None takes one away."""
        value = {**self.value, **fields}
        return document(self.media_type, {k: v for k, v in value.items() if v is not None})


class Image(NamedTuple):
    """An image for one platform.

    Args:
        platform: `os/architecture` or `os/architecture/variant`, for an index.
    """

    manifest: Document
    config: Document
    layers: tuple[Layer, ...]
    platform: str = "linux/amd64"

    @property
    def digest(self) -> str:
        """The manifest's."""
        return self.manifest.digest

    @property
    def blobs(self) -> dict[str, bytes]:
        """Digest -> bytes of the configuration and the layers."""
        found = {self.config.digest: self.config.data}
        return found | {layer.digest: layer.blob for layer in self.layers}

    def amended(self, **fields: Any) -> Image:
        """The image with members of its manifest replaced; None takes one away."""
        return self._replace(manifest=self.manifest.amended(**fields))

    def reconfigured(self, **fields: Any) -> Image:
        """The image with top-level members of its configuration replaced, and named anew."""
        config = self.config.amended(**fields)
        return self._replace(config=config).amended(config=config.descriptor())


class Index(NamedTuple):
    """An index (manifest list) and what it leads to."""

    document: Document
    images: tuple[Image, ...]

    @property
    def digest(self) -> str:
        """The index's own."""
        return self.document.digest


def document(media_type: str, value: Mapping[str, Any] | bytes) -> Document:
    """Make a document of a JSON value, or of bytes as they are."""
    data = value if isinstance(value, bytes) else json.dumps(value, indent=1).encode()
    return Document(media_type, data)


def image(
    *layers: Layer,
    kind: Kind = OCI,
    config: Mapping[str, Any] | None = None,
    platform: str = "linux/amd64",
    annotations: Mapping[str, str] | None = None,
    **fields: Any,
) -> Image:
    """Make an image of layers, lowest first.

    Args:
        config: the `config` member of the image's configuration: Cmd, Env, ...
        fields: further members of the configuration.
    """
    names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    value = {**names, "config": dict(config or {}), "rootfs": rootfs, **fields}
    configured = document(kind.config, value)
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": kind.manifest,
        "config": configured.descriptor(),
        "layers": [layer_descriptor(layer, kind) for layer in layers],
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    return Image(document(kind.manifest, manifest), configured, layers, platform)


def layer_descriptor(layer: Layer, kind: Kind = OCI, **fields: Any) -> dict[str, Any]:
    """How a manifest names a layer."""
    media = kind.layers[layer.compression]
    return Document(media, layer.blob).descriptor(**fields)


def index(*images: Image, kind: Kind = OCI, **fields: Any) -> Index:
    """Make an index of images, each under its platform; `fields` are further members."""
    entries = [index_entry(one) for one in images]
    value = {"schemaVersion": 2, "mediaType": kind.index, "manifests": entries, **fields}
    return Index(document(kind.index, value), images)


def index_entry(one: Image, **fields: Any) -> dict[str, Any]:
    """How an index names an image."""
    names = dict(zip(("os", "architecture", "variant"), one.platform.split("/"), strict=False))
    return one.manifest.descriptor(platform=names, **fields)


def write_layout(directory: Path, images: Mapping[str, Image | Index]) -> Path:
    """Write an OCI image layout that holds images by tag; return its directory."""
    place = directory / "blobs" / "sha256"
    place.mkdir(parents=True)

    def keep(data: bytes) -> None:
        (place / digest_of(data).removeprefix("sha256:")).write_bytes(data)

    entries = []
    for tag, one in images.items():
        for part in documents_of(one):
            keep(part.data)
        for blob in blobs_of(one).values():
            keep(blob)
        named = {"org.opencontainers.image.ref.name": tag}
        entries.append(top_of(one).descriptor(annotations=named))
    top = {"schemaVersion": 2, "manifests": entries}
    (directory / "index.json").write_text(json.dumps(top))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return directory


def top_of(one: Image | Index) -> Document:
    """The document a tag leads to."""
    return one.document if isinstance(one, Index) else one.manifest


def documents_of(one: Image | Index) -> Sequence[Document]:
    """The documents a registry keeps as manifests."""
    if isinstance(one, Index):
        return [one.document, *(each.manifest for each in one.images)]
    return [one.manifest]


def blobs_of(one: Image | Index) -> dict[str, bytes]:
    """Digest -> bytes of everything that is no manifest."""
    images = one.images if isinstance(one, Index) else (one,)
    return {digest: data for each in images for digest, data in each.blobs.items()}


def chained(made: Image, depth: int, kind: Kind = OCI) -> list[Document]:
    """Indexes of which each leads to the next and the last to an image; the outermost first."""
    entry, found = index_entry(made), []
    for _ in range(depth):
        outer = document(
            kind.index, {"schemaVersion": 2, "mediaType": kind.index, "manifests": [entry]}
        )
        entry = outer.descriptor()
        found.append(outer)
    return found[::-1]
