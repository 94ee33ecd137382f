"""From an image document to the image it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import InvalidInput, ManifestInvalid, Refused
from podctl.model.image import Image, Layer
from podctl.model.imagedocument import digest_of, parse_document
from podctl.model.labels import labels_from_pairs
from podctl.model.names import registry_identifier
from podctl.model.reference import parse
from podctl_fetch_docker.config import check_layers, parse_config
from podctl_fetch_docker.convert import to_annotations, to_app
from podctl_fetch_docker.descriptors import has_digest, verify
from podctl_fetch_docker.manifests import (
    check_image,
    compression_of,
    parse_index,
    parse_manifest,
    parse_named,
)
from podctl_fetch_docker.platforms import appc_arch, check_same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.imagedocument import ImageDocument
    from podctl.model.reference import Reference
    from podctl_fetch_docker.config import ImageConfig
    from podctl_fetch_docker.descriptors import Descriptor
    from podctl_fetch_docker.manifests import Manifest
    from podctl_fetch_docker.platforms import Platform

FORMAT = "oci"


def parse_image(data: bytes, *, what: str = "image document") -> Image:
    """Read an image document and check that all in it belongs together.

    Raises:
        ManifestInvalid: a document is malformed, or not the one that another one names.
        Refused: the image is one podctl does not run; the message says why.
    """
    document = parse_document(data, what=what)
    reference = _reference(document, what)
    manifest, entries = _manifest(document)
    check_image(manifest)
    config = parse_config(verify(document.config, manifest.config, "image configuration"))
    check_layers(config, manifest)
    platform = _platform(config, [entry.platform for entry in entries])
    name, labels = _name_and_labels(reference, platform)
    return Image(
        format=FORMAT,
        name=name,
        labels=labels,
        app=to_app(config.settings),
        dependencies=(),
        path_whitelist=(),
        annotations=to_annotations(config, _identity(reference, document)),
        manifest=data,
        layers=layers_of(manifest, config),
    )


def layers_of(manifest: Manifest, config: ImageConfig) -> tuple[Layer, ...]:
    """The layers, lowest first.

    Raises:
        ManifestInvalid: one blob is described in two ways.
        Refused: a layer is of a type that cannot be unpacked.
    """
    layers: dict[str, Layer] = {}
    stack = []
    for described, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
        layer = Layer(
            diff_id=diff_id.replace(":", "-"),
            blob=described.digest,
            size=described.size,
            compression=compression_of(described),
        )
        if layers.setdefault(layer.blob, layer) != layer:
            raise ManifestInvalid(f"layer {layer.blob} is described in two ways")
        stack.append(layer)
    return tuple(stack)


def _reference(document: ImageDocument, what: str) -> Reference:
    """The reference, which must be in its full form, and name a document by its digest if any."""
    text = document.reference
    try:
        reference = parse(f"docker://{text}")
    except InvalidInput as error:
        raise ManifestInvalid(f"{what}: {error.message}") from None
    if reference.path_or_url != text:
        raise ManifestInvalid(f"{what}: reference {text[:80]!r} is not in its full form")
    version = reference.version or ""
    named = document.manifest if document.image_index is None else document.image_index
    if ":" in version and not has_digest(named, version):
        raise ManifestInvalid(f"{what}: its documents are not those of {version}")
    return reference


def _manifest(document: ImageDocument) -> tuple[Manifest, Sequence[Descriptor]]:
    """The manifest, and the entries of the index that name it."""
    if document.image_index is None:
        return parse_manifest(document.manifest), ()
    index = parse_index(document.image_index)
    entries = [one for one in index.manifests if has_digest(document.manifest, one.digest)]
    if not entries:
        raise ManifestInvalid("manifest: its index does not list it")
    return [parse_named(document.manifest, entry) for entry in entries][0], entries


def _platform(config: ImageConfig, listed: Sequence[Platform | None]) -> Platform:
    """The image's platform, by its configuration and by one of the index's entries for it.

    Raises:
        ManifestInvalid: the index gives it for other platforms only.
    """
    stated = config.platform
    for number, platform in enumerate(listed, 1):
        try:
            check_same(stated, platform, "image configuration")
        except ManifestInvalid:
            if number == len(listed):
                raise
        else:
            variant = "" if platform is None else platform.variant
            return stated._replace(variant=stated.variant or variant)
    return stated


def _name_and_labels(reference: Reference, platform: Platform) -> tuple[str, dict[str, str]]:
    try:
        name = registry_identifier(reference.name or "")
    except InvalidInput as error:
        raise ManifestInvalid(f"image document: {error.message}") from None
    pairs = [
        ("version", reference.version or ""),
        ("os", platform.os),
        ("arch", appc_arch(platform)),
    ]
    try:
        return name, labels_from_pairs(pairs)
    except InvalidInput as error:
        raise Refused(f"image is made for {platform}: {error.message}") from None


def _identity(reference: Reference, document: ImageDocument) -> dict[str, str]:
    registry, _, repository = (reference.name or "").partition("/")
    return {
        "originalname": document.reference,
        "registryurl": registry,
        "repository": repository,
        "imageid": digest_of(document.config),
        "manifesthash": digest_of(document.manifest),
    }
