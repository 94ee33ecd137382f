"""Trusted public keys on disk: which key may sign images of which name.

Layout (the same below the system and the local configuration directory):

    trustedkeys/root.d/<fingerprint>              trusted for every image
    trustedkeys/prefix.d/<a/b/c>/<fingerprint>    trusted for `a/b/c` and names below it

An empty file in the local directory masks the key of the same fingerprint in the same place. A
directory that somebody other than its rightful owner could write is refused as a whole: whoever
can add a key decides what runs.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import Refused, TrustRefused
from podctl.model.names import check_identifier
from podctl.sys.files import read_small, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A public key with many certifications stays far below this.
MAX_KEY_BYTES = 1 << 20
#: Members of this group may edit trust and configuration, as `setup-data-dir` sets it up.
ADMIN_GROUP = "podctl-admin"

_HEX = frozenset("0123456789abcdef")


class TrustedKey(NamedTuple):
    """One key file that is in force.

    Args:
        path: where it was read from.
        fingerprint: its file name; the scheme must confirm that the key has it.
        prefix: image name prefix it is trusted for; None for every name.
        data: the file's bytes.
    """

    path: str
    fingerprint: str
    prefix: str | None
    data: bytes

    def covers(self, name: str) -> bool:
        """Whether `name` is the prefix itself or lies below it, component by component."""
        return self.prefix is None or name == self.prefix or name.startswith(self.prefix + "/")


class KeyStore:
    """The keys of a system and a local configuration directory.

    Args:
        system: e.g. /usr/lib/podctl.
        local: e.g. /etc/podctl; new keys are written here, and its empty files mask.
    """

    def __init__(self, system: str, local: str) -> None:
        self._system = os.path.join(system, "trustedkeys")
        self._local = os.path.join(local, "trustedkeys")

    def keys_for(self, name: str) -> list[TrustedKey]:
        """Return the keys that may sign `name`, root keys first.

        Raises:
            Refused: a directory on the way has an owner or mode that makes it unsafe.
        """
        found = self._place(None)
        for prefix in prefixes(name):
            found += self._place(prefix)
        return found

    def every_key(self) -> list[TrustedKey]:
        """Return all keys in force, for an image whose name is only known once it was read."""
        found = self._place(None)
        prefixes_seen = {p for base in (self._system, self._local) for p in _all_prefixes(base)}
        for prefix in sorted(prefixes_seen):
            found += self._place(prefix)
        return found

    def find(self, name: str, fingerprint: str) -> TrustedKey | None:
        """Return the key of that fingerprint if it may sign `name`."""
        for prefix in (None, *prefixes(name)):
            key = self._lookup(prefix, fingerprint)
            if key is not None:
                return key
        return None

    def add(self, prefix: str | None, fingerprint: str, data: bytes) -> str:
        """Write a key for `prefix` (None: for every name); return its path.

        Raises:
            Refused: the directory is unsafe.
            OSError: it cannot be written.
        """
        place = os.path.join(self._local, _place_name(prefix))
        _make_directories(place)
        _check_chain(self._local, place)
        path = os.path.join(place, fingerprint)
        write_atomic(path, data, mode=0o644)
        return path

    def _place(self, prefix: str | None) -> list[TrustedKey]:
        local = _read_place(self._local, prefix)
        system = _read_place(self._system, prefix)
        merged = {key.fingerprint: key for key in [*system, *local]}
        return [key for _, key in sorted(merged.items()) if key.data]

    def _lookup(self, prefix: str | None, fingerprint: str) -> TrustedKey | None:
        for base in (self._local, self._system):
            place = os.path.join(base, _place_name(prefix))
            if not _check_chain(base, place):
                continue
            key = _read_key(place, fingerprint, prefix)
            if key is not None:
                return key if key.data else None
        return None


def prefixes(name: str) -> Iterator[str]:
    """Yield every prefix of an image name, shortest first, the name itself last."""
    check_identifier(name)
    parts = name.split("/")
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


def _place_name(prefix: str | None) -> str:
    if prefix is None:
        return "root.d"
    return os.path.join("prefix.d", check_identifier(prefix))


def _read_place(base: str, prefix: str | None) -> list[TrustedKey]:
    place = os.path.join(base, _place_name(prefix))
    if not _check_chain(base, place):
        return []
    keys = (_read_key(place, entry, prefix) for entry in sorted(os.listdir(place)))
    return [key for key in keys if key is not None]


def _read_key(place: str, entry: str, prefix: str | None) -> TrustedKey | None:
    if not _is_fingerprint(entry):
        return None
    path = os.path.join(place, entry)
    try:
        data = read_small(path, MAX_KEY_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TrustRefused(
            f'key file "{path}" cannot be used: {error}',
            hint="a trusted key is a small regular file; remove or replace it",
        ) from error
    _check_owner(path, os.lstat(path))
    return TrustedKey(path, entry, prefix, data)


def _is_fingerprint(entry: str) -> bool:
    return len(entry) in (40, 64) and _HEX.issuperset(entry)


def _all_prefixes(base: str) -> Iterator[str]:
    top = os.path.join(base, "prefix.d")
    if not _check_chain(base, top):
        return
    waiting = [""]
    while waiting:
        relative = waiting.pop()
        with os.scandir(os.path.join(top, relative)) as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        for name in names:
            child = f"{relative}/{name}" if relative else name
            waiting.append(child)
            yield child


def _check_chain(base: str, place: str) -> bool:
    """Check base and every directory down to `place`; False where one does not exist."""
    path = os.path.dirname(base)
    for part in ("", os.path.basename(base), *os.path.relpath(place, base).split("/")):
        path = os.path.join(path, part) if part else path
        try:
            status = os.lstat(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise
        if path != os.path.dirname(base) and not stat.S_ISDIR(status.st_mode):
            raise Refused(
                f'trust directory "{path}" is not a directory',
                hint="remove it; symbolic links are not followed here",
            )
        if stat.S_ISDIR(status.st_mode):
            _check_owner(path, status)
    return True


def _check_owner(path: str, status: os.stat_result) -> None:
    """Refuse what somebody else than root, the caller or the admin group could change.

    What a member of that group has made is the group's and counts while the maker is a member.
    """
    admins = _is_admin_group(status.st_gid)
    if status.st_uid not in (0, os.geteuid()) and not (admins and _is_admin(status)):
        raise Refused(f'trust: "{path}" belongs to uid {status.st_uid}', hint=f"chown root {path}")
    loose = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not admins)
    if loose:
        raise Refused(
            f'trust: "{path}" is writable by others than its owner', hint=f"chmod go-w {path}"
        )


def _is_admin_group(gid: int) -> bool:
    import grp

    try:
        return grp.getgrgid(gid).gr_name == ADMIN_GROUP
    except KeyError:
        return False


def _is_admin(status: os.stat_result) -> bool:
    """Whether the owner is a member of the group, which is the admin group."""
    import grp
    import pwd

    try:
        owner = pwd.getpwuid(status.st_uid)
    except KeyError:
        return False
    return status.st_gid == owner.pw_gid or owner.pw_name in grp.getgrgid(status.st_gid).gr_mem


def _make_directories(path: str) -> None:
    """mkdir -p, readable by all whatever the umask: group members must be able to read keys.

    In a directory that the admin group shares, what is made is shared as well.
    """
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        above = os.stat(os.path.dirname(directory)).st_mode
        shared = above & stat.S_ISGID and above & stat.S_IWGRP
        os.mkdir(directory)
        os.chmod(directory, 0o2775 if shared else 0o755)
