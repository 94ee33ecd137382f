"""Archives of `docker save`, of all versions since 1.10 (docker image specification 1.2).

`manifest.json` names a configuration and layers by file. Such an image has no manifest of its own,
so one is made: of equal images an equal one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import ManifestInvalid, NotFound, Refused
from podctl.model import jsontext
from podctl.model.fields import Fields
from podctl.model.imagedocument import ImageDocument, digest_of
from podctl_fetch_docker.archivefiles import (
    Found,
    full_reference,
    locate,
    read_document,
    reference_for,
)
from podctl_fetch_docker.config import parse_config
from podctl_fetch_docker.mediatypes import LAYERS, OCI_CONFIG, OCI_MANIFEST

if TYPE_CHECKING:
    from podctl.model.layoutfiles import LayoutFiles

MANIFEST = "manifest.json"

_MAX_IMAGES = 1000
_MAX_LISTED = 12
#: first bytes -> compression; `docker load` takes more, but OCI has no type for it.
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_FOREIGN_MAGIC = ((b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"))
_TAR_MAGIC = slice(257, 262)
_LAYER_TYPES = {compression: kind for kind, compression in LAYERS.items() if ".oci." in kind}
_HEX = frozenset("0123456789abcdef")


class _Saved(NamedTuple):
    """One image of `manifest.json`: names of files, and the tags in their full form."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def is_docker_archive(files: LayoutFiles) -> bool:
    """Whether this is such an archive, for a file that may also be something else."""
    return files.find(MANIFEST) is not None


def read_docker_archive(files: LayoutFiles, selector: str | None, repository: str) -> Found:
    """Find an image in an archive.

    Args:
        selector: one of its tags, or the digest of its configuration (docker's image ID); None
            where there is one image.
        repository: for an image without a tag; see podctl_fetch_docker.archivefiles.

    Raises:
        NotFound: there is no such image; the hint lists what there is.
        Refused: there are several, or a layer is of a kind that cannot be unpacked.
        ManifestInvalid: a document is malformed or a file is missing.
    """
    saved = _select(_parse(read_document(files, MANIFEST, MANIFEST)), selector)
    config = _config(files, saved)
    diff_ids = parse_config(config).diff_ids
    if len(diff_ids) != len(saved.layers):
        raise ManifestInvalid(
            f"image configuration has {len(diff_ids)} diff_ids, "
            f"{MANIFEST} {len(saved.layers)} layers"
        )
    layers, blobs = [], {}
    for name, diff_id in zip(saved.layers, diff_ids, strict=True):
        place = locate(files, name, f"layer {diff_id}")
        layers.append(_layer(files, place, diff_id))
        blobs[str(layers[-1]["digest"])] = place
    manifest = _manifest(config, layers)
    reference = _reference(saved, selector) or reference_for(repository, None, digest_of(manifest))
    return Found(ImageDocument(reference, None, manifest, config), blobs, [])


def _parse(data: bytes) -> list[_Saved]:
    value = jsontext.loads(data, what=MANIFEST)
    parent = Fields({"images": value}, MANIFEST, "images")
    items = list(parent.items("images", "Config RepoTags Layers"))
    if len(items) > _MAX_IMAGES:
        raise ManifestInvalid(f"{MANIFEST} has more than {_MAX_IMAGES} images")
    return [
        _Saved(
            item.need("Config", str),
            item.strings("Layers"),
            tuple(_tag(item, tag) for tag in item.strings("RepoTags") if "<none>" not in tag),
        )
        for item in items
    ]


def _tag(item: Fields, tag: str) -> str:
    full = full_reference(tag)
    if full is None:
        raise item.error(f"RepoTags: {tag[:128]!r} is no tag")
    return full


def _select(images: list[_Saved], selector: str | None) -> _Saved:
    full = None if selector is None else full_reference(selector)
    fitting = [
        image
        for image in images
        if selector is None or full in image.tags or _config_digest(image) == selector
    ]
    if len(set(fitting)) == 1:
        return fitting[0]
    names = list(dict.fromkeys(tag for image in images for tag in image.tags))
    listed = ", ".join([*names[:_MAX_LISTED], *(["..."] if len(names) > _MAX_LISTED else [])])
    if fitting:
        raise Refused("the archive has several images", hint=f"name one of: {listed}")
    raise NotFound(
        f"the archive has no image {selector or ''}".rstrip(),
        hint=f"it has: {listed}" if listed else None,
    )


def _config_digest(image: _Saved) -> str | None:
    """The digest that a configuration's file is named by; None where it is named otherwise."""
    stem = image.config.removeprefix("blobs/sha256/").removeprefix("sha256:")
    digits = stem.removesuffix(".json")
    return f"sha256:{digits}" if len(digits) == 64 and _HEX.issuperset(digits) else None


def _config(files: LayoutFiles, image: _Saved) -> bytes:
    data = read_document(files, image.config, "image configuration")
    named = _config_digest(image)
    if named is not None and digest_of(data) != named:
        raise ManifestInvalid(f"image configuration: its digest is not {named}")
    return data


def _reference(image: _Saved, selector: str | None) -> str | None:
    """The tag that was asked for, or the first."""
    full = None if selector is None else full_reference(selector)
    if full in image.tags:
        return full
    return image.tags[0] if image.tags else None


def _layer(files: LayoutFiles, name: str, diff_id: str) -> dict[str, object]:
    """The descriptor of a layer. A plain tar's digest is its diff_id; what a compressed one's is,
    a layout says by its name, and otherwise only its bytes do."""
    member = files.find(name)
    size = 0 if member is None else member.size
    compression = _compression(files.read(name, _TAR_MAGIC.stop), name)
    if compression == "none":
        digest = diff_id
    else:
        digits = name.removeprefix("blobs/sha256/")
        named = len(digits) == 64 and _HEX.issuperset(digits) and digits != name
        digest = f"sha256:{digits}" if named else files.digest(name)
    return {"mediaType": _LAYER_TYPES[compression], "digest": digest, "size": size}


def _compression(head: bytes, name: str) -> str:
    if head[_TAR_MAGIC] == b"ustar":
        # Its first bytes are a file's name, whatever they look like.
        return "none"
    for magic, foreign in _FOREIGN_MAGIC:
        if head.startswith(magic):
            raise Refused(
                f"layer {name[:128]!r} is compressed with {foreign}",
                hint="layers are tar, gzip or zstd",
            )
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "none")


def _manifest(config: bytes, layers: list[dict[str, object]]) -> bytes:
    """A manifest for an image that has none."""
    return jsontext.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": layers,
        }
    )
