"""Where everything of the store lies below the data directory, and with which mode.

`cas` may be written by members of the group; `layers`, `verified` and `trees` by root alone.
docs/reference/data-directory.md describes every file.
"""

from __future__ import annotations

import os
import stat

from podctl.sys.files import make_directory

#: What a member of the group may write (setgid: what is made inside belongs to the group as well).
SHARED_MODE = 0o2770
SHARED_FILE = 0o660
#: The same where no group was set up.
OWN_MODE = 0o750
OWN_FILE = 0o640
#: What root alone may look at.
PRIVATE_MODE = 0o700
PRIVATE_FILE = 0o600

BLOBS, IMAGES, REMOTES, TEMPORARY = "cas/blobs/sha256", "cas/images", "cas/remotes", "cas/tmp"
QUARANTINE = "cas/quarantine"
LAYERS, VERIFIED, TREES = "layers", "verified", "trees"
#: what URLs delivered to root: the group's records in REMOTES could name any image
OWN_REMOTES = "verified/remotes"
SHARED = ("cas", "cas/blobs", BLOBS, IMAGES, REMOTES, TEMPORARY)
PRIVATE = (LAYERS, VERIFIED, OWN_REMOTES, TREES)
#: Ends of names in `verified`, after an image ID: why it may be used, and root's view of it.
NOTE, VIEW = ".json", ".image"

#: Beginning of the names of what is being made, or being deleted, in `layers` and `trees`.
UNFINISHED = ".tmp-"
#: Ends of names in `cas/tmp`: an image on its way in, one on its way out, a file that is to
#: replace another, a download and its validators.
STAGE, REMOVED, FRESH, PARTIAL, PARTIAL_STATE = ".stage", ".removed", ".new", ".part", ".state"


class Layout:
    """Names below one data directory, relative to it; `path` makes them absolute.

    Relative names below `cas` are for `podctl.store.area.Area`, which follows no link in them.
    """

    def __init__(self, data_dir: str) -> None:
        self.top = os.path.realpath(data_dir)

    def path(self, name: str) -> str:
        """Absolute path of a name below the data directory."""
        return f"{self.top}/{name}"

    @staticmethod
    def blob(digest: str) -> str:
        """Name of a blob; `digest` is `sha256:` and 64 digits, checked by the record's parser."""
        digits = digest.removeprefix("sha256:")
        return f"{BLOBS}/{digits[:2]}/{digits}"

    @staticmethod
    def image(key: str) -> str:
        """Directory of an image's record."""
        return f"{IMAGES}/{key}"

    @staticmethod
    def remote(url: str) -> str:
        """Record of what was last fetched from a URL."""
        return f"{REMOTES}/{name_of(url)}.json"

    @staticmethod
    def own_remote(url: str) -> str:
        """The same, of what root fetched itself."""
        return f"{OWN_REMOTES}/{name_of(url)}.json"

    def layer(self, diff_id: str) -> str:
        """Absolute path of an unpacked layer's directory."""
        return f"{self.top}/{LAYERS}/{diff_id}"

    def tree(self, tree_id: str) -> str:
        """Absolute path of a rendered tree's directory."""
        return f"{self.top}/{TREES}/{tree_id}"

    def verification(self, key: str) -> str:
        """Absolute path of root's note of why an image may be used."""
        return f"{self.top}/{VERIFIED}/{key}{NOTE}"

    def view(self, key: str) -> str:
        """Absolute path of what root made of a layered image's documents."""
        return f"{self.top}/{VERIFIED}/{key}{VIEW}"

    def shared(self) -> bool:
        """Whether a group shares `cas` (`podctl setup-data-dir` has been here)."""
        try:
            status = os.stat(f"{self.top}/cas", follow_symlinks=False)
        except FileNotFoundError:
            return False
        return bool(status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IWGRP)

    def create(self, *, privileged: bool) -> None:
        """Make the directories that are missing; existing ones keep owner and mode.

        Raises:
            OSError: one cannot be made.
        """
        if not os.path.isdir(self.top):
            os.makedirs(os.path.dirname(self.top), exist_ok=True)
            make_directory(self.top, OWN_MODE)
        mode = SHARED_MODE if self.shared() else OWN_MODE
        for name in SHARED:
            make_directory(self.path(name), mode)
        if privileged:
            for name in PRIVATE:
                make_directory(self.path(name), PRIVATE_MODE)


def name_of(url: str) -> str:
    """A file name for a URL."""
    from podctl.store.digests import sha256_hex

    return sha256_hex(url.encode(errors="surrogateescape"))
