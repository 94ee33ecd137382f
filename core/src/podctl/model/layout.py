"""How an image's tar archive is laid out, and the caps its reader keeps to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ArchiveLayout:
    """Which entries of a layer's tar mean what.

    Args:
        manifest: name of the one entry that is the manifest; None where the tar has none (OCI).
        rootfs: top-level directory that is the root filesystem; None: the whole tar is.
        whiteouts: whether `.wh.` names delete from lower layers (OCI, docker) or are plain names.
    """

    manifest: str | None
    rootfs: str | None
    whiteouts: bool


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Caps on what an archive may ask for; what passes one is refused.

    Args:
        max_bytes: sum of logical file sizes (sparse files count in full).
        max_entries: number of tar entries (and thus inodes).
        max_manifest: bytes of the manifest entry.
        max_headers: consecutive extension headers before one entry.
        max_extension: bytes of one extension header's payload.
        ratio: uncompressed to compressed size that is allowed beyond `ratio_floor` bytes.
        ratio_floor: uncompressed bytes up to which any ratio is allowed.
    """

    max_bytes: int = 64 << 30
    max_entries: int = 4_000_000
    max_manifest: int = 4 << 20
    max_headers: int = 16
    max_extension: int = 1 << 20
    ratio: int = 1000
    ratio_floor: int = 64 << 20
