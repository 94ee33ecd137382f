"""A file that answers discovery without importlib.metadata, which costs most of a start-up.

The index belongs to the user who runs podctl: root's lies in a directory of root, everybody
else's in their own cache. What another user could have written is not read; what does not match
the installed distributions any more is built anew.
"""

from __future__ import annotations

import os
import stat
import sys

from podctl.plugins import installed
from podctl.plugins.provider import Provider

_ROOT_DIRECTORY = "/var/cache/podctl"
_MAX_BYTES = 4 << 20


def providers(fingerprint: str | None = None) -> tuple[list[Provider], bool]:
    """All installed providers, and whether a fresh index knew them.

    Args:
        fingerprint: of what is installed now, where that is known.
    """
    if fingerprint is None:
        fingerprint = installed.fingerprint()
    where = directory()
    known = read(where, fingerprint) if where else None
    if known is not None:
        return known, True
    found = installed.scan()
    if where:
        write(where, fingerprint, found)
    return found, False


def directory() -> str | None:
    """Where this user's index is; None for a user without a home."""
    if os.geteuid() == 0:
        # Never from the environment: with `sudo -E` it is the caller's.
        return _ROOT_DIRECTORY
    cache = os.environ.get("XDG_CACHE_HOME", "")
    home = os.environ.get("HOME", "")
    if not cache.startswith("/"):
        cache = f"{home}/.cache" if home.startswith("/") else ""
    return f"{cache}/podctl" if cache else None


def file_name() -> str:
    """The index's name: one for each interpreter version and search path, so that several
    installations do not overwrite each other's."""
    from binascii import crc32

    place = "\n".join((sys.prefix, *sys.path))
    return f"plugins-{sys.implementation.cache_tag}-{crc32(os.fsencode(place)):08x}.json"


def read(where: str, fingerprint: str) -> list[Provider] | None:
    """The providers of the index in `where`; None unless it is ours, valid and fresh."""
    import json

    try:
        data = _read_owned(where)
        content = json.loads(data)
        if content["fingerprint"] != fingerprint:
            return None
        return [Provider.parse(fields) for fields in content["providers"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def write(where: str, fingerprint: str, found: list[Provider]) -> None:
    """Replace the index; where that is impossible, discovery stays slow and right."""
    import json

    from podctl.sys.files import write_atomic

    data = json.dumps({"fingerprint": fingerprint, "providers": found}).encode()
    try:
        os.makedirs(where, mode=0o755 if os.geteuid() == 0 else 0o700, exist_ok=True)
        fd = _open_owned(where, os.O_DIRECTORY)
        try:
            write_atomic(file_name(), data, mode=0o644, dir_fd=fd)
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return


def _read_owned(where: str) -> bytes:
    directory_fd = _open_owned(where, os.O_DIRECTORY)
    try:
        fd = _open_owned(file_name(), os.O_NONBLOCK, dir_fd=directory_fd)
    finally:
        os.close(directory_fd)
    try:
        size = os.fstat(fd).st_size
        if size > _MAX_BYTES:
            raise ValueError("index too large")
        return os.read(fd, size)
    finally:
        os.close(fd)


def _open_owned(path: str, flags: int, *, dir_fd: int | None = None) -> int:
    """Open for reading what is ours and nobody else can write.

    Raises:
        OSError: it is missing or a symbolic link.
        ValueError: it belongs to somebody else, or others may write it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=dir_fd)
    state = os.fstat(fd)
    wanted = stat.S_ISDIR if flags & os.O_DIRECTORY else stat.S_ISREG
    if (
        not wanted(state.st_mode)
        or state.st_uid != os.geteuid()
        or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        os.close(fd)
        raise ValueError(
            f"{path}: not a private {'directory' if flags & os.O_DIRECTORY else 'file'}"
        )
    return fd
