"""Manifests and indexes: OCI image-spec 1.1 manifest.md, image-index.md; Docker schema 2.

A document has one meaning or none: what it says it is, what the server said it was and what is
in it must agree, and nothing is both a manifest and an index (CVE-2021-41190).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import ManifestInvalid, Refused
from podctl.model import jsontext
from podctl.model.fields import Fields
from podctl.model.imagedocument import MAX_PART
from podctl.model.manifest import NOTHING
from podctl_fetch_docker.descriptors import (
    DESCRIPTOR_KEYS,
    Descriptor,
    parse_descriptor,
    verify,
)
from podctl_fetch_docker.mediatypes import (
    CONFIGS,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    ENCRYPTED,
    FOREIGN_LAYERS,
    GENERIC,
    INDEXES,
    LAYERS,
    MANIFESTS,
    MISLABELLED_CONFIGS,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1,
    bare,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ENTRIES = 1000
#: entries of a manifest; one layer may stand in it several times.
MAX_LAYER_ENTRIES = 1000
#: different layers of one image; an overlay takes 500, and no builder makes more than 127.
MAX_LAYERS = 256

_KEYS = "schemaVersion mediaType artifactType config layers manifests subject annotations"
#: members that only the one or only the other has.
_OF_MANIFEST = ("config", "layers")
_OF_INDEX = ("manifests",)
_OF_SCHEMA1 = ("fsLayers",)


class Manifest(NamedTuple):
    """A manifest: a configuration and blobs. Whether it is one of an image, see check_image.

    Args:
        media_type: what it is, also where only the server or the shape said so.
        config: the configuration, or an artifact's.
        layers: lowest first.
        artifact_type: of what is no image; else empty.
        subject: the manifest that this one is about (a signature's image).
        data: the bytes it was read from.
    """

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = NOTHING
    artifact_type: str = ""
    subject: Descriptor | None = None
    data: bytes = b""


class Index(NamedTuple):
    """An index (manifest list): manifests for several platforms, or of an OCI layout.

    Args:
        media_type: as in Manifest.
        manifests: its entries, in order.
        data: the bytes it was read from.
    """

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = NOTHING
    artifact_type: str = ""
    subject: Descriptor | None = None
    data: bytes = b""


def parse_top(
    data: bytes, content_type: str | None = None, *, what: str = "manifest"
) -> Index | Manifest:
    """Read what a tag leads to.

    Args:
        content_type: of the response; None where there is none, or no server.
        what: names the document in messages.

    Raises:
        ManifestInvalid: it breaks the schema, or is not what it or the server says.
        Refused: it is of schema 1.
    """
    value = jsontext.loads(data, what=what, max_bytes=MAX_PART)
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{what} must be an object")
    stated = None if content_type is None else bare(content_type)
    _refuse_schema1(value, stated, what)
    fields = Fields(value, what, _KEYS)
    media_type = _media_type(fields, stated)
    if fields.need("schemaVersion", int) != 2:
        raise fields.error("schemaVersion must be 2")
    foreign = _OF_MANIFEST if media_type in INDEXES else _OF_INDEX
    # A document that two readers could take for two things (CVE-2021-41190).
    for key in foreign:
        if fields.has(key):
            raise fields.error(f"{key} does not belong in a {media_type}")
    if media_type in INDEXES:
        return _index(fields, media_type, data)
    return _manifest(fields, media_type, data)


def parse_manifest(
    data: bytes, content_type: str | None = None, *, what: str = "manifest"
) -> Manifest:
    """Read what can only be a manifest.

    Raises:
        ManifestInvalid, Refused: see parse_top; or it is an index.
    """
    parsed = parse_top(data, content_type, what=what)
    if isinstance(parsed, Index):
        raise ManifestInvalid(f"{what} is an index, where a manifest must be")
    return parsed


def parse_index(data: bytes, content_type: str | None = None, *, what: str = "index") -> Index:
    """Read what can only be an index.

    Raises:
        ManifestInvalid, Refused: see parse_top; or it is a manifest.
    """
    parsed = parse_top(data, content_type, what=what)
    if isinstance(parsed, Manifest):
        raise ManifestInvalid(f"{what} is a manifest, where an index must be")
    return parsed


def parse_named(
    data: bytes,
    descriptor: Descriptor,
    content_type: str | None = None,
    *,
    what: str = "manifest",
) -> Manifest:
    """Read the manifest that a descriptor names.

    Raises:
        ManifestInvalid, Refused: see parse_manifest; or size, digest or media type are not the
            descriptor's.
    """
    manifest = parse_manifest(verify(data, descriptor, what), content_type, what=what)
    if manifest.media_type != descriptor.media_type:
        raise ManifestInvalid(
            f"{what} is a {manifest.media_type}, its descriptor says {descriptor.media_type}"
        )
    return manifest


def check_image(manifest: Manifest, *, what: str = "manifest") -> None:
    """Check that a manifest is one of an image whose layers can be unpacked.

    Raises:
        Refused: it is an artifact, a layer is encrypted or of an unknown type, or there are too
            many, or none.
    """
    _check_config(manifest, what)
    if not manifest.layers:
        raise Refused(f"{what}: the image has no layers", hint="there is nothing to run in it")
    if len({layer.digest for layer in manifest.layers}) > MAX_LAYERS:
        raise Refused(f"{what}: the image has more than {MAX_LAYERS} layers")
    for number, layer in enumerate(manifest.layers):
        compression_of(layer, f"{what}: layers[{number}]")


def compression_of(layer: Descriptor, what: str = "layer") -> str:
    """`gzip`, `zstd` or `none`, by the layer's media type.

    Raises:
        Refused: the type is none of a layer that can be unpacked.
    """
    kind = layer.media_type
    found = LAYERS.get(kind) or FOREIGN_LAYERS.get(kind)
    if found is None:
        if kind.endswith(ENCRYPTED):
            raise Refused(f"{what} is encrypted ({kind})", hint="podctl has no keys for layers")
        raise Refused(f"{what} is of the unknown type {kind}", hint="layers are tar, gzip or zstd")
    if not layer.digest.startswith("sha256:"):
        raise Refused(f"{what} is named by {layer.digest[:16]}..., layers need sha256")
    return found


def foreign_layers(manifest: Manifest) -> tuple[Descriptor, ...]:
    """Layers a registry need not have, because their licence forbids to distribute them.

    What the registry has is taken from it; other places are never asked (CVE-2020-15157).
    """
    return tuple(
        layer for layer in manifest.layers if layer.media_type in FOREIGN_LAYERS or layer.urls
    )


def _refuse_schema1(value: dict[str, object], stated: str | None, what: str) -> None:
    version = value.get("schemaVersion")
    one = version == 1 and not isinstance(version, bool)
    if one or stated in SCHEMA1 or any(key in value for key in _OF_SCHEMA1):
        raise Refused(
            f"{what} is of Docker's schema 1, whose layers cannot be verified",
            hint="push the image again with a current docker, skopeo or buildah",
        )


def _media_type(fields: Fields, stated: str | None) -> str:
    """What the document is, by all that says something about it.

    Raises:
        ManifestInvalid: nothing is said that podctl knows, or two say different things.
    """
    own = fields.get("mediaType", str)
    known = INDEXES | MANIFESTS
    if own is not None and own not in known:
        raise fields.error(f"mediaType {own[:80]!r} is no image manifest or index")
    if stated is not None and stated not in known | GENERIC:
        raise fields.error(f"the server says it is {stated[:80]!r}, no image manifest or index")
    said = stated if stated in known else None
    if own is not None and said is not None and own != said:
        raise fields.error(f"its mediaType is {own}, the server says {said}")
    if own is None and said in (DOCKER_MANIFEST, DOCKER_LIST):
        # Docker's own types name themselves; OCI leaves it to the writer.
        raise fields.error(f"mediaType is missing, the server says {said}")
    return own or said or _by_shape(fields)


def _by_shape(fields: Fields) -> str:
    if fields.has("manifests"):
        return OCI_INDEX
    if fields.has("config") and fields.has("layers"):
        return OCI_MANIFEST
    raise fields.error("is neither an image manifest nor an index")


def _manifest(fields: Fields, media_type: str, data: bytes) -> Manifest:
    config = fields.child("config", DESCRIPTOR_KEYS)
    if config is None:
        raise fields.error("config is required")
    layers = fields.need("layers", list)
    if len(layers) > MAX_LAYER_ENTRIES:
        raise fields.error(f"layers has more than {MAX_LAYER_ENTRIES} entries")
    manifest = Manifest(
        media_type=media_type,
        config=parse_descriptor(config),
        layers=tuple(map(parse_descriptor, fields.items("layers", DESCRIPTOR_KEYS))),
        annotations=fields.string_map("annotations"),
        artifact_type=fields.get("artifactType", str) or "",
        subject=_subject(fields),
        data=data,
    )
    if manifest.config.size > MAX_PART:
        raise fields.error(f"config is over {MAX_PART} bytes")
    return manifest


def _index(fields: Fields, media_type: str, data: bytes) -> Index:
    entries = fields.need("manifests", list)
    if len(entries) > MAX_ENTRIES:
        raise fields.error(f"manifests has more than {MAX_ENTRIES} entries")
    return Index(
        media_type=media_type,
        manifests=tuple(map(parse_descriptor, fields.items("manifests", DESCRIPTOR_KEYS))),
        annotations=fields.string_map("annotations"),
        artifact_type=fields.get("artifactType", str) or "",
        subject=_subject(fields),
        data=data,
    )


def _subject(fields: Fields) -> Descriptor | None:
    subject = fields.child("subject", DESCRIPTOR_KEYS)
    return None if subject is None else parse_descriptor(subject)


def _check_config(manifest: Manifest, what: str) -> None:
    kind = manifest.config.media_type
    if kind in CONFIGS:
        return
    # Early registries lost this type; what follows is checked as a configuration all the same.
    if manifest.media_type == DOCKER_MANIFEST and kind in MISLABELLED_CONFIGS:
        return
    raise Refused(
        f"{what} is of no container image but of {manifest.artifact_type or kind}",
        hint="podctl runs container images",
    )
