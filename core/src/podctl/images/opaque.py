"""Directories of a layer that hide what lower layers have there, marked for overlayfs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.errors import HostLacks
from podctl.sys.calls import openat2
from podctl.sys.constants import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS

if TYPE_CHECKING:
    from collections.abc import Iterable

#: overlayfs's mark (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories");
#: setting it takes CAP_SYS_ADMIN, which no process that reads an archive has.
OPAQUE = "trusted.overlay.opaque"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def mark_opaque(root: str, paths: Iterable[str]) -> None:
    """Mark directories below an unpacked layer's root; `.` is the root itself.

    Raises:
        HostLacks: the file system takes no such attribute.
        OSError: a directory is not there.
    """
    root_fd = os.open(root, _DIRECTORY)
    try:
        for path in paths:
            resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
            fd = openat2(root_fd, os.fsencode(path), _DIRECTORY, 0, resolve)
            try:
                times = os.fstat(fd)
                os.setxattr(fd, OPAQUE, b"y")
                os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
            finally:
                os.close(fd)
    except OSError as error:
        raise HostLacks(
            f"cannot mark an opaque directory: {error.strerror}",
            hint="the data directory's file system must take trusted extended attributes",
        ) from error
    finally:
        os.close(root_fd)
