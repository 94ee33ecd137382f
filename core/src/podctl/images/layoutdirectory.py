"""A layout that is a directory: read by a child that may open nothing, from files it is handed.

The child says which file it wants; the parent opens it, with the caller's rights, below the
directory and through no symbolic link, and hands over the descriptor. No byte of it is looked at
here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any

from podctl.errors import FetchFailed, InvalidInput, NotFound, PodctlError
from podctl.model.layoutfiles import Member
from podctl.sys.calls import openat2
from podctl.sys.child import Privileges, spawn
from podctl.sys.constants import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS

if TYPE_CHECKING:
    import socket

    from podctl.model.image import Layer
    from podctl.model.layoutfiles import LayoutRequest, Unfolded
    from podctl.plugins import FormatHandle

#: Files a child may ask for: documents, layers and signatures of one image, several times.
MAX_REQUESTS = 10_000
#: bytes of a name; the longest is that of a blob by sha512.
_MAX_NAME = 256
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_TOP = ("oci-layout", "index.json")
_DIGITS = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")
_HERE, _MISSING = b"+", b"-"


def is_layout_name(name: str) -> bool:
    """Whether a file of that name has a place in a layout (image-spec image-layout.md)."""
    if name in _TOP:
        return True
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "blobs":
        return False
    return len(parts[2]) == _DIGITS.get(parts[1]) and _HEX.issuperset(parts[2])


class LayoutDirectory:
    """An open directory.

    Args:
        path: as the user wrote it; links on the way are followed.

    Raises:
        FetchFailed: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise FetchFailed(f'directory "{path}" cannot be opened: {error.strerror}') from None
        self._blobs: dict[str, str] = {}

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def unfold(self, form: FormatHandle, request: LayoutRequest) -> Unfolded:
        """Find an image, in a child without privileges.

        Raises:
            NotFound, Refused, ManifestInvalid: see FormatSpec.format_unfold.
            InvalidInput: a file is no regular one, or has no place in a layout.
        """
        import socket

        from podctl.images.layouts import unfolded_from_json, unfolded_to_json

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def work() -> Any:
            # Closed before the answer is written, so that the parent stops to wait for requests.
            with theirs:
                return unfolded_to_json(form.unfold(_Handed(theirs), request))

        with ours:
            with theirs:
                child = spawn(
                    work,
                    privileges=Privileges.NONE,
                    keep=(theirs.fileno(),),
                    name="reading the layout",
                )
            with child:
                self._serve(ours)
                ours.close()
                found = unfolded_from_json(child.wait())
        self._blobs = dict(found.blobs)
        return found

    def open_layer(self, layer: Layer) -> int:
        """Open a layer's blob; see podctl.images.pull.LayerSource."""
        fd = self._open(self._blobs[layer.blob])
        if fd is None:
            raise NotFound(f"layer {layer.blob} has gone")
        return fd

    def _serve(self, connection: socket.socket) -> None:
        import socket

        for _ in range(MAX_REQUESTS):
            name = connection.recv(_MAX_NAME + 1)
            if not name:
                return
            fd = self._open(name.decode("utf-8", "replace"))
            if fd is None:
                connection.send(_MISSING)
                continue
            try:
                socket.send_fds(connection, [_HERE], [fd])
            finally:
                os.close(fd)
        raise InvalidInput(f"it takes more than {MAX_REQUESTS} files to find the image")

    def _open(self, name: str) -> int | None:
        """Open a file below the directory; None where there is none."""
        if not is_layout_name(name):
            raise InvalidInput(f"{name[:128]!r} has no place in a layout")
        try:
            fd = openat2(self._fd, name, _FLAGS, 0, _RESOLVE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            link = error.errno in (errno.ELOOP, errno.EXDEV)
            reason = "is or lies behind a symbolic link" if link else error.strerror
            raise InvalidInput(f"{name}: {reason}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidInput(f"{name}: is no regular file")
        return fd


class _Handed:
    """The child's side: podctl.model.layoutfiles.LayoutFiles, out of descriptors it is handed."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def find(self, name: str) -> Member | None:
        """See podctl.model.layoutfiles.LayoutFiles."""
        fd = self._ask(name)
        if fd is None:
            return None
        try:
            return Member(os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def read(self, name: str, limit: int) -> bytes:
        """See podctl.model.layoutfiles.LayoutFiles."""
        with open(self._need(name), "rb", buffering=0) as file:
            parts: list[bytes] = []
            while limit and (part := file.read(min(limit, 1 << 20))):
                parts.append(part)
                limit -= len(part)
            return b"".join(parts)

    def digest(self, name: str) -> str:
        """See podctl.model.layoutfiles.LayoutFiles."""
        with open(self._need(name), "rb", buffering=0) as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

    def _need(self, name: str) -> int:
        fd = self._ask(name)
        if fd is None:
            raise NotFound(f"{name}: is missing")
        return fd

    def _ask(self, name: str) -> int | None:
        import socket

        try:
            self._connection.send(name.encode("utf-8", "surrogateescape")[: _MAX_NAME + 1])
            answer, fds, _, _ = socket.recv_fds(self._connection, 1, 1)
        except OSError:
            answer, fds = b"", []
        if answer == _HERE and fds:
            return fds[0]
        if answer != _MISSING:
            raise PodctlError("nobody opens files any more")
        return None
