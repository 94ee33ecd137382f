"""OCI image layouts, in a directory or an archive (image-spec 1.1, image-layout.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import InvalidInput, ManifestInvalid, NotFound, Refused
from podctl.model import jsontext
from podctl.model.fields import Fields
from podctl.model.imagedocument import ImageDocument, digest_of
from podctl.model.reference import name_has_registry
from podctl_fetch_docker.archivefiles import (
    IMAGE_NAME,
    REF_NAME,
    Found,
    blob_of,
    blob_path,
    full_reference,
    locate,
    read_document,
    reference_for,
)
from podctl_fetch_docker.descriptors import check_digest
from podctl_fetch_docker.exportnotes import NOTES, restored
from podctl_fetch_docker.layoutsignatures import signatures_of
from podctl_fetch_docker.manifests import (
    Index,
    Manifest,
    check_image,
    foreign_layers,
    parse_index,
    parse_top,
)
from podctl_fetch_docker.mediatypes import INDEXES, MANIFESTS
from podctl_fetch_docker.platforms import choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.layoutfiles import LayoutFiles
    from podctl_fetch_docker.descriptors import Descriptor
    from podctl_fetch_docker.platforms import Platform

INDEX = "index.json"
MARKER = "oci-layout"

_VERSION = "1.0.0"
_MAX_LISTED = 12


def is_layout(files: LayoutFiles) -> bool:
    """Whether this is a layout, for a file that may also be something else."""
    return files.find(MARKER) is not None and files.find(INDEX) is not None


def read_layout(
    files: LayoutFiles,
    selector: str | None,
    wanted: Platform,
    repository: str,
    *,
    signatures: bool = True,
) -> Found:
    """Find an image in a layout.

    Args:
        selector: a tag, a reference or a digest; None where the layout holds one image.
        wanted: the platform to choose from an index.
        repository: for an image whose entry says no reference; see local_repository.
        signatures: whether to look for those.

    Raises:
        NotFound: there is no such image; the hint lists what there is.
        Refused: there are several, or it is no image that can be run here.
        ManifestInvalid: a document is malformed, missing, or not what another says.
        FetchFailed: what looks like signatures is none.
    """
    index = _open(files)
    entry = _select(files, index, selector, wanted)
    document, manifest = _documents(files, entry, wanted)
    if document.image_index is None and selector != entry.digest:
        document = restored(files, entry, document)
    top = digest_of(document.image_index or document.manifest)
    reference = _reference(entry, selector, repository, top)
    blobs = {layer.digest: _layer(files, manifest, layer) for layer in manifest.layers}
    digests = list(dict.fromkeys([top, digest_of(document.manifest)]))
    beside = signatures_of(files, index, digests) if signatures else []
    return Found(document._replace(reference=reference), blobs, beside)


def _open(files: LayoutFiles) -> Index:
    data = read_document(files, MARKER, MARKER)
    version = Fields(jsontext.loads(data, what=MARKER), MARKER, "imageLayoutVersion").need(
        "imageLayoutVersion", str
    )
    if version != _VERSION:
        raise ManifestInvalid(f"{MARKER}: version {version[:40]!r} is not {_VERSION}")
    return parse_index(read_document(files, INDEX, INDEX), what=INDEX)


def _select(files: LayoutFiles, index: Index, selector: str | None, wanted: Platform) -> Descriptor:
    """The entry that is meant."""
    entries = [entry for entry in index.manifests if _may_be_image(entry)]
    if selector is not None and _is_digest(selector):
        return _by_digest(files, entries, selector)
    fitting = [entry for entry in entries if selector is None or _is_named(entry, selector)]
    if not fitting:
        there = f"it has: {', '.join(_names(entries))}" if entries else "it has none at all"
        raise NotFound(f"the layout has no image {selector or ''}".rstrip(), hint=there)
    if len({entry.digest for entry in fitting}) == 1:
        return fitting[0]
    names = {_name(entry) for entry in fitting}
    if selector is None and len(names) > 1:
        raise Refused(
            "the layout has several images", hint=f"name one of: {', '.join(_names(entries))}"
        )
    return choose(index._replace(manifests=tuple(fitting)), wanted, INDEX)


def _may_be_image(entry: Descriptor) -> bool:
    """Whether an entry is no signature, attestation or artifact by what is said of it here."""
    return (
        entry.media_type in MANIFESTS | INDEXES
        and not entry.artifact_type
        and "vnd.docker.reference.type" not in entry.annotations
        and not entry.annotations.get(REF_NAME, "").startswith(("sha256-", "sha512-"))
    )


def _is_digest(selector: str) -> bool:
    try:
        return bool(check_digest(selector))
    except InvalidInput:
        return False


def _by_digest(files: LayoutFiles, entries: Sequence[Descriptor], digest: str) -> Descriptor:
    """The entry of that digest, here or in an index that is named here."""
    for entry in entries:
        if digest in (entry.digest, *(entry.annotations.get(note) for note in NOTES)):
            return entry
    for entry in entries:
        if entry.media_type in INDEXES:
            inner = parse_index(blob_of(files, entry, "index")).manifests
            for one in inner:
                if one.digest == digest and _may_be_image(one):
                    # What is known of its name is the index's.
                    return one._replace(annotations=entry.annotations)
    raise NotFound(f"the layout has no image {digest}")


def _is_named(entry: Descriptor, selector: str) -> bool:
    given = [entry.annotations.get(key, "") for key in (REF_NAME, IMAGE_NAME)]
    if selector in given:
        return True
    full = full_reference(selector)
    # A tag alone would pass for the name of a repository.
    whole = [full_reference(name) for name in given if name_has_registry(name)]
    return full is not None and full in whole


def _name(entry: Descriptor) -> str | None:
    return entry.annotations.get(IMAGE_NAME) or entry.annotations.get(REF_NAME)


def _names(entries: Sequence[Descriptor]) -> list[str]:
    """What can be asked for."""
    names = list(dict.fromkeys(_name(entry) or entry.digest for entry in entries))
    more = [f"{len(names) - _MAX_LISTED} more"] if len(names) > _MAX_LISTED else []
    return names[:_MAX_LISTED] + more


def _reference(entry: Descriptor, selector: str | None, repository: str, digest: str) -> str:
    """The image's full reference: by what the entry says, else by where the layout is."""
    given = [entry.annotations.get(key, "") for key in (IMAGE_NAME, REF_NAME)]
    whole = [full_reference(name) for name in given if name_has_registry(name)]
    said = next(filter(None, whole), None)
    if selector is not None and _is_digest(selector):
        return f"{_repository(said) if said else repository}@{selector}"
    if said is not None and ("@" not in said or said.endswith(f"@{digest}")):
        return said
    return reference_for(repository, entry.annotations.get(REF_NAME), digest)


def _repository(reference: str) -> str:
    name, at, _ = reference.partition("@")
    return name if at else name.rpartition(":")[0]


def _documents(
    files: LayoutFiles, entry: Descriptor, wanted: Platform
) -> tuple[ImageDocument, Manifest]:
    """The documents that an entry leads to; the reference is still open."""
    top = _parsed(files, entry)
    index = None
    if isinstance(top, Index):
        index = top.data
        top = _parsed(files, choose(top, wanted))
    if isinstance(top, Index):
        raise ManifestInvalid("manifest is an index, where a manifest must be")
    check_image(top)
    config = blob_of(files, top.config, "image configuration")
    return ImageDocument("", index, top.data, config), top


def _parsed(files: LayoutFiles, entry: Descriptor) -> Index | Manifest:
    what = "index" if entry.media_type in INDEXES else "manifest"
    parsed = parse_top(blob_of(files, entry, what), what=what)
    if parsed.media_type != entry.media_type:
        raise ManifestInvalid(
            f"{what} is a {parsed.media_type}, its descriptor says {entry.media_type}"
        )
    return parsed


def _layer(files: LayoutFiles, manifest: Manifest, layer: Descriptor) -> str:
    what = f"layer {layer.digest}"
    try:
        place = locate(files, blob_path(layer.digest), what)
    except ManifestInvalid as error:
        if layer in foreign_layers(manifest):
            error.hint = "its licence forbids to distribute it"
        raise
    member = files.find(place)
    if member is not None and member.size != layer.size:
        raise ManifestInvalid(f"{what}: {member.size} bytes, its manifest says {layer.size}")
    return place
