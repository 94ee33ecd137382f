"""Where everything of the store lies below the data directory, and with which mode.

The directories below `cas` may be written by members of the group; `cas` itself, `layers`,
`verified` and `trees` by root alone. So a member can put anything *into* a shared directory, but
cannot replace one by a link: what root does below them stays there as long as it names single
entries and never follows a link at the end.
"""

from __future__ import annotations

import os

#: Directories the group shares (setgid: what is made inside belongs to the group as well).
SHARED_MODE = 0o2770
#: Files of the shared part.
SHARED_FILE = 0o660
PRIVATE_MODE = 0o700

_SHARED = ("cas/blobs", "cas/images", "cas/remotes", "cas/tmp", "cas/locks")
_PRIVATE = ("layers", "verified", "trees")


class Layout:
    """Paths below one data directory. Nothing is touched but by `create`."""

    def __init__(self, data_dir: str) -> None:
        self.top = os.path.realpath(data_dir)
        self.images = f"{self.top}/cas/images"
        self.temporary = f"{self.top}/cas/tmp"
        self.layers = f"{self.top}/layers"
        self.trees = f"{self.top}/trees"

    def blob(self, digest: str) -> str:
        """Path of a blob; `digest` is `sha256:` and 64 digits, checked by the record's parser."""
        return f"{self.top}/cas/blobs/{digest.removeprefix('sha256:')}"

    def image(self, key: str) -> str:
        """Directory of an image's record."""
        return f"{self.images}/{key}"

    def remote(self, url: str) -> str:
        """Record of what was last fetched from a URL."""
        return f"{self.top}/cas/remotes/{name_of(url)}.json"

    def layer(self, diff_id: str) -> str:
        """Directory of an unpacked layer."""
        return f"{self.layers}/{diff_id}"

    def verification(self, key: str) -> str:
        """Root's note of why an image may be used."""
        return f"{self.top}/verified/{key}.json"

    def lock(self, name: str) -> str:
        """A lock file of the shared part."""
        return f"{self.top}/cas/locks/{name}"

    def create(self, *, privileged: bool) -> None:
        """Make the directories that are missing; existing ones keep owner and mode.

        Raises:
            OSError: one cannot be made.
        """
        if not os.path.isdir(self.top):
            os.makedirs(os.path.dirname(self.top), exist_ok=True)
            make_directory(self.top, 0o750)
        make_directory(f"{self.top}/cas", 0o2750)
        for name in _SHARED:
            make_directory(f"{self.top}/{name}", SHARED_MODE)
        if privileged:
            for name in _PRIVATE:
                make_directory(f"{self.top}/{name}", PRIVATE_MODE)


def make_directory(path: str, mode: int) -> None:
    """mkdir with exactly this mode whatever the umask; one that exists is left alone."""
    try:
        os.mkdir(path, PRIVATE_MODE)
    except FileExistsError:
        return
    os.chmod(path, mode)


def name_of(url: str) -> str:
    """A file name for a URL."""
    import hashlib

    return hashlib.sha256(url.encode()).hexdigest()
