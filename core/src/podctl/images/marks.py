"""Marks on an unpacked layer's directories, for overlayfs and for merging.

An opaque directory hides what lower layers have there. One that no entry of the archive describes
(it was only on the way to something) takes its owner, mode and times from the layer below: an
overlay cannot express that, so images with such layers are merged (podctl.images.render).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.errors import HostLacks
from podctl.store.copying import IMPLIED, OPAQUE
from podctl.sys.calls import openat2
from podctl.sys.constants import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS

if TYPE_CHECKING:
    from collections.abc import Iterable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


def mark(root: str, opaque: Iterable[str], implied: Iterable[str]) -> None:
    """Mark directories below an unpacked layer's root; `.` is the root itself.

    It takes CAP_SYS_ADMIN, which no process that reads an archive has.

    Raises:
        HostLacks: the file system takes no such attribute, or a directory is not there.
    """
    try:
        root_fd = os.open(root, _DIRECTORY)
        try:
            for name, paths in ((OPAQUE, opaque), (IMPLIED, implied)):
                for path in paths:
                    _mark(root_fd, path, name)
        finally:
            os.close(root_fd)
    except OSError as error:
        raise HostLacks(
            f"cannot mark a directory of a layer: {error.strerror}",
            hint="the data directory's file system must take trusted extended attributes",
        ) from error


def _mark(root_fd: int, path: str, name: str) -> None:
    fd = openat2(root_fd, os.fsencode(path), _DIRECTORY, 0, _RESOLVE)
    try:
        os.setxattr(fd, name, b"y")
    finally:
        os.close(fd)
