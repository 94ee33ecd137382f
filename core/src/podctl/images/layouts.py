"""An image that lies on this host with all its documents: an OCI layout, or from `docker save`.

Its documents are found and read by a child without privileges; then it is judged, and its layers
are brought in, as those of an image from a registry are.
"""

from __future__ import annotations

import os
import stat
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from podctl.errors import FetchFailed, InvalidInput, ManifestInvalid, NotFound, Refused
from podctl.images.layered import take_in
from podctl.images.layoutarchive import LayoutArchive
from podctl.images.layoutdirectory import LayoutDirectory
from podctl.images.pull import LayerSource
from podctl.model.labels import host_labels
from podctl.model.layoutfiles import LayoutRequest, Unfolded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.images.session import FetchSession
    from podctl.model.image import Image
    from podctl.model.reference import Reference
    from podctl.plugins import FormatHandle
    from podctl.store import ImageRecord

#: The format whose provider reads layouts.
FORMAT = "oci"


def fetch_layout(session: FetchSession, reference: Reference, fd: int | None = None) -> ImageRecord:
    """Take an image from a layout or an archive into the store.

    Args:
        reference: of kind `layout`, or `file`.
        fd: the archive where it is open already; closed here.

    Raises:
        FetchFailed: it cannot be opened.
        NotFound, Refused, InvalidInput: it holds no such image, or none that may be used.
        TrustRefused: no trusted signature stands for the image.
    """
    from podctl.plugins import image_format

    path = reference.path_or_url
    session.say(f"using image from {path}")
    source_name = os.path.abspath(path)
    with _about(path):
        source = _open(session, reference, fd)
    with closing(source):
        form = image_format(FORMAT)
        form.preload()
        request = LayoutRequest(
            kind=_kind(reference, source),
            selector=reference.version,
            place=source_name,
            labels=host_labels(),
            want_signature=session.verifies,
        )
        with _about(path):
            found, image = _find(source, form, request)
        record = take_in(
            session,
            form,
            image,
            LayerSource(open=source.open_layer),
            signature=found.signature,
            source_name=source_name,
        )
    version = record.labels.get("version", "")
    session.say(f'image of {path} is "{record.name}", version "{version}"')
    return record


def _find(
    source: LayoutDirectory | LayoutArchive, form: FormatHandle, request: LayoutRequest
) -> tuple[Unfolded, Image]:
    found = source.unfold(form, request)
    image: Image = form.image(found.document)
    if not image.layers or not {layer.blob for layer in image.layers} <= set(found.blobs):
        raise ManifestInvalid("it has not all layers of the image")
    return found, image


def unfolded_to_json(found: Unfolded) -> dict[str, Any]:
    """What crosses the child's pipe."""
    return {
        "document": found.document,
        "blobs": dict(found.blobs),
        "signature": found.signature,
    }


def unfolded_from_json(value: Any) -> Unfolded:
    """Check what a child found, field by field."""
    document, signature = value["document"], value["signature"]
    if not isinstance(document, bytes) or not isinstance(signature, bytes | None):
        raise FetchFailed("the child that reads layouts reports nonsense")
    blobs = {str(digest): str(name) for digest, name in value["blobs"].items()}
    return Unfolded(document, blobs, signature)


def _kind(reference: Reference, source: LayoutDirectory | LayoutArchive) -> str:
    if isinstance(source, LayoutDirectory):
        return "oci"
    return reference.scheme or "" if reference.kind == "layout" else ""


def _open(
    session: FetchSession, reference: Reference, fd: int | None
) -> LayoutDirectory | LayoutArchive:
    path = reference.path_or_url
    if fd is None and os.path.isdir(path):
        if reference.scheme in ("oci-archive", "docker-archive"):
            raise Refused("is a directory", hint=f"for an OCI layout write oci:{path}")
        return LayoutDirectory(path)
    fd = _open_file(path) if fd is None else fd
    return LayoutArchive(fd, session.store, session.max_bytes)


def _open_file(path: str) -> int:
    """Open an archive. Links are followed: the path is the user's own word."""
    try:
        # O_NONBLOCK: the open itself must not wait for a FIFO's writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise FetchFailed(f'image file "{path}" cannot be opened: {error.strerror}') from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FetchFailed(f'image file "{path}" is not a regular file')
    return fd


@contextmanager
def _about(path: str) -> Iterator[None]:
    """Say in which file or directory something is wrong."""
    try:
        yield
    except (InvalidInput, NotFound, Refused) as error:
        raise type(error)(f'"{path}": {error.message}', hint=error.hint) from error
