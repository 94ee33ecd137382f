"""Images without a registry: the files of a directory or an archive, and names for what is in them.

Nothing here opens a file. Whoever holds the directory or the archive says what is in it; names come
from documents of the image and are only ever looked up among those.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import InvalidInput, ManifestInvalid
from podctl.model.imagedocument import MAX_PART
from podctl.model.reference import parse
from podctl_fetch_docker.descriptors import verify

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.model.imagedocument import ImageDocument, RegistrySignature
    from podctl.model.layoutfiles import LayoutFiles
    from podctl_fetch_docker.descriptors import Descriptor

#: annotation of a layout's entry: its tag, or a whole reference (podman).
REF_NAME = "org.opencontainers.image.ref.name"
#: annotation of an entry: its whole reference (containerd, docker 25).
IMAGE_NAME = "io.containerd.image.name"
#: registry of images that say no name of their own.
LOCAL = "localhost"

_MAX_LINKS = 8
_MAX_COMPONENT = 128
_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".tgz", ".tar", ".oci", ".docker")


class Found(NamedTuple):
    """An image in a directory or an archive.

    Args:
        document: its documents.
        blobs: digest of each layer's blob -> name of the file that holds it. The content has not
            been looked at.
        signatures: what lies beside the image.
    """

    document: ImageDocument
    blobs: Mapping[str, str]
    signatures: list[RegistrySignature]


def locate(files: LayoutFiles, name: str, what: str) -> str:
    """The regular file that a name leads to, through links inside the archive.

    `docker save` writes a layer that two images share once, and a link.

    Raises:
        ManifestInvalid: there is none, or a link leads out, or too far.
    """
    for _ in range(_MAX_LINKS):
        if name != posixpath.normpath(name) or name.startswith(("/", "../")) or name in (".", ".."):
            raise ManifestInvalid(f"{what}: {name[:128]!r} is no name inside the archive")
        member = files.find(name)
        if member is None:
            raise ManifestInvalid(f"{what}: the file {name[:128]!r} is missing")
        if member.link is None:
            return name
        base = "" if member.hard else posixpath.dirname(name)
        # An absolute target replaces the base, and is refused above.
        name = posixpath.normpath(posixpath.join(base, member.link))
    raise ManifestInvalid(f"{what}: more than {_MAX_LINKS} links lead on from one another")


def read_document(files: LayoutFiles, name: str, what: str, limit: int = MAX_PART) -> bytes:
    """All of a small file.

    Raises:
        ManifestInvalid: there is none, or it is too large.
    """
    place = locate(files, name, what)
    data = files.read(place, limit + 1)
    if len(data) > limit:
        raise ManifestInvalid(f"{what}: {name[:128]!r} is over {limit} bytes")
    return data


def blob_path(digest: str) -> str:
    """Where a layout keeps a blob (image-layout.md)."""
    return "blobs/" + digest.replace(":", "/", 1)


def blob_of(files: LayoutFiles, descriptor: Descriptor, what: str) -> bytes:
    """A document of a layout, by its descriptor.

    Raises:
        ManifestInvalid: it is missing, or not what the descriptor names.
    """
    if descriptor.data is not None:
        return descriptor.data
    return verify(read_document(files, blob_path(descriptor.digest), what), descriptor, what)


def full_reference(text: str) -> str | None:
    """`registry/repository:tag` for a reference as docker abbreviates it; None if it is none."""
    try:
        return parse(f"docker://{text}").path_or_url
    except InvalidInput:
        return None


def local_repository(path: str) -> str:
    """The repository that an image without a name gets, by the file or directory it is in."""
    name = posixpath.basename(path.rstrip("/")).lower()
    while name.endswith(_SUFFIXES):
        name = name[: name.rindex(".")]
    words = "".join(char if char.isascii() and char.isalnum() else " " for char in name).split()
    return f"{LOCAL}/{'-'.join(words)[:_MAX_COMPONENT].strip('-') or 'image'}"


def reference_for(repository: str, name: str | None, digest: str) -> str:
    """The full reference of an image whose entry says none.

    Args:
        repository: see local_repository.
        name: what the entry says: a tag, or repository and tag; else the digest is taken.
        digest: of its index or manifest.
    """
    # A digest that somebody wrote there counts for nothing: it may be another document's.
    if name and "@" not in name:
        for text in (f"{repository}:{name}", f"{LOCAL}/{name}"):
            if ":" in text and full_reference(text) == text:
                return text
    return f"{repository}@{digest}"
