"""Images that lie on this host as a directory or an archive: what core and a format say of them.

Core opens, reads and writes; the format knows which file is what. Names are relative to the
directory or the archive, without `.`, `..` or empty components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.model.image import Layer


class Member(NamedTuple):
    """One file.

    Args:
        size: number of bytes.
        link: for a link in an archive its target as written: of a symbolic link relative to the
            directory it is in, of a hard link (`hard`) from the top.
    """

    size: int
    link: str | None = None
    hard: bool = False


class LayoutFiles(Protocol):
    """What is in a directory or an archive."""

    def find(self, name: str) -> Member | None:
        """The regular file or link of that name; None where there is none."""

    def read(self, name: str, limit: int) -> bytes:
        """The first `limit` bytes of a regular file."""

    def digest(self, name: str) -> str:
        """`sha256:` and 64 digits, of a regular file; reads all of it."""


class LayoutRequest(NamedTuple):
    """Which image is asked for.

    Args:
        kind: `oci`, `oci-archive` or `docker-archive`, as the user has written it; empty where the
            files are to tell.
        selector: name or digest of the image; None where there is one image.
        place: path of the directory or archive, to name an image by that says no name.
        labels: `os` and `arch` that are wanted, as appc spells them.
        want_signature: whether to look for signatures.
    """

    kind: str
    selector: str | None
    place: str
    labels: Mapping[str, str]
    want_signature: bool


class Unfolded(NamedTuple):
    """An image found in a directory or an archive.

    Args:
        document: its image document (podctl.model.imagedocument).
        blobs: digest of each layer's blob -> name of the file that holds it.
        signature: the set of signatures that lie beside it; None where there are none.
    """

    document: bytes
    blobs: Mapping[str, str]
    signature: bytes | None = None


class FoldedLayer(NamedTuple):
    """A layer to be written.

    Args:
        name: of its file.
        unpacked: whether its bytes are written decompressed; else they are as published.
    """

    name: str
    layer: Layer
    unpacked: bool


class Folded(NamedTuple):
    """An image as files.

    Args:
        documents: name -> content of the small files.
        layers: the large ones.
    """

    documents: Mapping[str, bytes]
    layers: tuple[FoldedLayer, ...]
