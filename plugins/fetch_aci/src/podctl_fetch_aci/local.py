"""Images that are files on this host, opened with the caller's privileges and not parsed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from podctl.errors import FetchFailed
from podctl.model.fetching import LocalImage, Resolution
from podctl_fetch_aci.limits import SIGNATURE

if TYPE_CHECKING:
    from podctl.model.fetching import FetchRequest
    from podctl.model.reference import Reference


def open_local(reference: Reference, request: FetchRequest) -> LocalImage:
    """Open an image file and read the signature beside it.

    Symbolic links are followed: the path is the user's own word. What it leads to must be a
    regular file (a FIFO or a device would keep us waiting, or worse).

    Raises:
        FetchFailed: the image is missing, unreadable or no regular file; or a signature is there
            and cannot be read.
    """
    path = reference.path_or_url
    signature_path = f"{path}.asc"
    fd = _open_regular(path, "image file")
    try:
        signature = _read_signature(signature_path) if request.want_signature else None
    except BaseException:
        os.close(fd)
        raise
    return LocalImage(fd=fd, path=path, signature=signature, signature_path=signature_path)


def resolve_local(reference: Reference) -> Resolution:
    """Say where a local image is; its bytes and signature come by `open_local`."""
    path = os.path.abspath(reference.path_or_url)
    return Resolution(
        format="aci", location=f"file://{path}", signature_location=f"file://{path}.asc"
    )


def _open_regular(path: str, what: str) -> int:
    try:
        # O_NONBLOCK: the open itself must not wait for a FIFO's writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FetchFailed(f'{what} "{path}" cannot be opened: {reason}') from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FetchFailed(f'{what} "{path}" is not a regular file')
    return fd


def _read_signature(path: str) -> bytes | None:
    if not os.path.lexists(path):
        return None
    fd = _open_regular(path, "signature file")
    with open(fd, "rb") as file:
        data = file.read(SIGNATURE + 1)
    if len(data) > SIGNATURE:
        raise FetchFailed(f'signature file "{path}" is larger than {SIGNATURE} bytes')
    return data
