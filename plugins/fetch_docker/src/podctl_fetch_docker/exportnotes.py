"""What podctl notes in a layout it exports, so that the image comes back as it was.

Other tools read no layout whose index leads to manifests of other platforms that are not there, and
many none of Docker's media types. So an exported layout lists one OCI manifest. Where that is not
what the image's name led to, annotations of its entry name the documents that did; they lie in the
layout as blobs. Whoever clears them away keeps an image that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podctl.errors import InvalidInput, ManifestInvalid
from podctl.model import jsontext
from podctl.model.imagedocument import digest_of
from podctl_fetch_docker.archivefiles import blob_path, read_document
from podctl_fetch_docker.descriptors import Descriptor, check_digest, has_digest
from podctl_fetch_docker.manifests import check_image, compression_of, parse_index, parse_manifest
from podctl_fetch_docker.mediatypes import (
    DOCKER_MANIFEST,
    FOREIGN_LAYERS,
    LAYERS,
    OCI_CONFIG,
    OCI_MANIFEST,
)

if TYPE_CHECKING:
    from podctl.model.imagedocument import ImageDocument
    from podctl.model.layoutfiles import LayoutFiles

#: annotation: digest of the index that lists the manifest.
INDEX = "io.podctl.image.index"
#: annotation: digest of the manifest of Docker's schema 2 that was put into OCI's terms.
MANIFEST = "io.podctl.image.manifest"
NOTES = (INDEX, MANIFEST)


def oci_form(manifest: bytes) -> bytes:
    """A manifest in OCI's media types: what it names stays the same to the byte.

    Raises:
        ManifestInvalid, Refused: it is none of an image.
    """
    parsed = parse_manifest(manifest)
    if parsed.media_type != DOCKER_MANIFEST:
        return manifest
    value: dict[str, Any] = jsontext.loads(manifest, what="manifest")
    value["mediaType"] = OCI_MANIFEST
    value["config"]["mediaType"] = OCI_CONFIG
    for item, layer in zip(value["layers"], parsed.layers, strict=True):
        item["mediaType"] = _layer_type(layer)
    return jsontext.dumps(value)


def restored(files: LayoutFiles, entry: Descriptor, document: ImageDocument) -> ImageDocument:
    """The documents that a layout's entry was made of; `document` where nothing is noted.

    Raises:
        ManifestInvalid: what is noted is another document, or did not lead to the manifest.
    """
    manifest = _noted(files, entry, MANIFEST)
    if manifest is not None:
        check_image(parse_manifest(manifest))
        if oci_form(manifest) != document.manifest:
            raise ManifestInvalid(f"{entry.digest} was not made of {digest_of(manifest)}")
        document = document._replace(manifest=manifest)
    index = _noted(files, entry, INDEX)
    if index is not None:
        listed = [one.digest for one in parse_index(index).manifests]
        if not any(has_digest(document.manifest, digest) for digest in listed):
            raise ManifestInvalid(f"index {digest_of(index)} does not list the manifest")
        document = document._replace(image_index=index)
    return document


def _noted(files: LayoutFiles, entry: Descriptor, note: str) -> bytes | None:
    """A document that an annotation names; None where none does, or it was cleared away."""
    digest = entry.annotations.get(note)
    if digest is None:
        return None
    try:
        name = blob_path(check_digest(digest, note))
    except InvalidInput as error:
        raise ManifestInvalid(f"index.json: {error.message}") from None
    if files.find(name) is None:
        return None
    data = read_document(files, name, note)
    if not has_digest(data, digest):
        raise ManifestInvalid(f"{note}: its digest is not {digest}")
    return data


def _layer_type(layer: Descriptor) -> str:
    compression = compression_of(layer)
    family = FOREIGN_LAYERS if layer.media_type in FOREIGN_LAYERS else LAYERS
    return next(kind for kind, one in family.items() if one == compression and ".oci." in kind)
