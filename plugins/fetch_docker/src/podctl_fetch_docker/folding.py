"""Hook `format_fold`: the files of an OCI layout, or of an archive that `docker load` reads.

The documents of an image are written as they came, so that it comes back as it was. What other
tools need beside them is in podctl_fetch_docker.exportnotes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import Refused
from podctl.model import jsontext
from podctl.model.imagedocument import digest_of, parse_document, parse_signatures
from podctl.model.layoutfiles import Folded, FoldedLayer
from podctl.model.reference import parse
from podctl_fetch_docker import exportnotes
from podctl_fetch_docker.archivefiles import IMAGE_NAME, REF_NAME, blob_path
from podctl_fetch_docker.endpoints import familiar
from podctl_fetch_docker.foldsignatures import entries_of
from podctl_fetch_docker.image import parse_image
from podctl_fetch_docker.mediatypes import OCI_INDEX, OCI_MANIFEST

if TYPE_CHECKING:
    from podctl.model.image import Layer
    from podctl.model.imagedocument import ImageDocument

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
#: annotation by which cosign finds an image in a layout, and its value.
COSIGN_KIND = ("kind", "dev.cosignproject.cosign/image")


def fold(document: bytes, signature: bytes | None, kind: str) -> Folded:
    """See podctl.api.hookspecs.FormatSpec.format_fold.

    Raises:
        ManifestInvalid: the documents do not fit.
        Refused: there is no such kind.
    """
    image = parse_image(document)
    layers = tuple(dict.fromkeys(image.layers))
    parts = parse_document(document)
    if kind == "oci":
        return _layout(parts, layers, signature)
    if kind == "docker":
        return _docker(parts, image.layers, layers)
    raise Refused(f"images are written as oci or docker, not as {kind}")


def _layout(document: ImageDocument, layers: tuple[Layer, ...], signature: bytes | None) -> Folded:
    manifest = exportnotes.oci_form(document.manifest)
    blobs = [document.manifest, document.config]
    names = _names(document.reference)
    if manifest != document.manifest:
        blobs.append(manifest)
        names[exportnotes.MANIFEST] = digest_of(document.manifest)
    if document.image_index is not None:
        blobs.append(document.image_index)
        names[exportnotes.INDEX] = digest_of(document.image_index)
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": digest_of(manifest),
        "size": len(manifest),
        "annotations": names,
    }
    entries = [entry]
    if signature is not None:
        names[COSIGN_KIND[0]] = COSIGN_KIND[1]
        more, found = entries_of(parse_signatures(signature), document)
        entries += more
        blobs += found
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    documents = {"oci-layout": _LAYOUT, "index.json": jsontext.dumps(index)}
    documents.update((blob_path(digest_of(blob)), blob) for blob in blobs)
    return Folded(
        documents,
        tuple(FoldedLayer(blob_path(layer.blob), layer, unpacked=False) for layer in layers),
    )


def _docker(document: ImageDocument, stack: tuple[Layer, ...], layers: tuple[Layer, ...]) -> Folded:
    """An archive as docker has written it from 1.10 to 24; it has no manifest of its own."""
    config = f"{_digits(digest_of(document.config))}.json"
    name = shown_reference(document.reference)
    saved = {
        "Config": config,
        "RepoTags": [] if "@" in name else [name],
        "Layers": [f"{_digits(layer.diff_id)}.tar" for layer in stack],
    }
    # Two blobs may unpack to one layer.
    files = {_digits(layer.diff_id): layer for layer in layers}
    return Folded(
        {config: document.config, "manifest.json": jsontext.dumps([saved])},
        tuple(FoldedLayer(f"{name}.tar", one, unpacked=True) for name, one in files.items()),
    )


def _names(reference: str) -> dict[str, str]:
    """What an entry says of its image's name: the whole reference, and the tag alone."""
    version = parse(f"docker://{reference}").version or ""
    names = {IMAGE_NAME: shown_reference(reference)}
    if ":" not in version:
        names[REF_NAME] = version
    return names


def shown_reference(reference: str) -> str:
    """A full reference with the registry as others name it."""
    registry, _, rest = reference.partition("/")
    return f"{familiar(registry)}/{rest}"


def _digits(digest: str) -> str:
    return digest[len("sha256:") :]
