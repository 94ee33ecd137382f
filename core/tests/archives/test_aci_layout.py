"""What may stand at the top of an ACI (catalogue T33 and the manifest part of T34)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from archive_lab import ACI, archive, directory, gnu_long, hardlink, member, pax, symlink, unpack_to

from podctl.errors import ArchiveInvalid
from podctl.model.layout import ArchiveLimits

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = member("manifest", data=b'{"good": 1}')
ROOTFS = directory("rootfs", mode=0o750, uid=3, gid=4, mtime=99)
FILE = member("rootfs/file", data=b"content")


@pytest.mark.parametrize(
    "members",
    [
        [MANIFEST, ROOTFS, FILE],
        [ROOTFS, FILE, MANIFEST],
        [FILE, MANIFEST],
        [directory("./"), member("./manifest", data=b'{"good": 1}'), directory("./rootfs/"),
         member("./rootfs/file", data=b"content")],
        [directory("."), MANIFEST, ROOTFS, FILE],
        [member("/manifest", data=b'{"good": 1}'), member("//rootfs/./file", data=b"content")],
    ],
    ids=["usual", "manifest last", "no rootfs entry", "dotted", "dot", "absolute"],
)  # fmt: skip
def test_good_images(members: list[bytes], tmp_path: Path) -> None:
    for target in (tmp_path / "target", None):
        done = unpack_to(target, archive(*members), ACI)
        assert done.manifest == b'{"good": 1}'
        assert done.opaque == ()
        assert done.size == len(b'{"good": 1}') + len(b"content")
        assert done.entries == len(members)
    assert os.listdir(tmp_path / "target") == ["file"]
    assert (tmp_path / "target/file").read_bytes() == b"content"


def test_rootfs_entry_sets_the_roots_attributes_wherever_it_stands(tmp_path: Path) -> None:
    unpack_to(tmp_path / "target", archive(MANIFEST, FILE, ROOTFS, member("rootfs/later")), ACI)
    status = os.lstat(tmp_path / "target")
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o750, 3, 4)
    assert status.st_mtime == 99


def test_image_without_rootfs_has_an_empty_root(tmp_path: Path) -> None:
    done = unpack_to(tmp_path / "target", archive(MANIFEST), ACI)
    assert done.manifest is not None
    assert os.listdir(tmp_path / "target") == []
    assert os.lstat(tmp_path / "target").st_mode & 0o7777 == 0o755


REFUSED = {
    "no manifest": [ROOTFS, FILE],
    "nothing": [],
    "second manifest": [MANIFEST, ROOTFS, member("manifest", data=b'{"evil": 1}')],
    "second manifest, dotted": [MANIFEST, member("./manifest", data=b'{"evil": 1}')],
    "second manifest, absolute": [MANIFEST, member("/manifest", data=b'{"evil": 1}')],
    "second manifest, pax path": [MANIFEST, pax((b"path", b"manifest")), member("rootfs/x")],
    "second manifest, long name": [MANIFEST, gnu_long(b"manifest"), member("rootfs/x")],
    "manifest is a symlink": [symlink("manifest", "rootfs/file"), FILE],
    "manifest is a hard link": [FILE, hardlink("manifest", "rootfs/file")],
    "manifest is a directory": [directory("manifest")],
    "manifest is a FIFO": [member("manifest", b"6")],
    "manifest is a device": [member("manifest", b"3", device=(1, 5))],
    "manifest replaced by a symlink": [MANIFEST, symlink("manifest", "rootfs/file")],
    "below manifest": [MANIFEST, member("manifest/x")],
    "second rootfs": [MANIFEST, ROOTFS, directory("rootfs")],
    "second rootfs, dotted": [MANIFEST, ROOTFS, FILE, directory("./rootfs/.")],
    "rootfs is a file": [MANIFEST, member("rootfs")],
    "rootfs is a symlink": [MANIFEST, symlink("rootfs", "/"), FILE],
    "rootfs becomes a symlink": [MANIFEST, ROOTFS, symlink("rootfs", "/")],
    "other file": [MANIFEST, ROOTFS, member("extra")],
    "other directory": [MANIFEST, directory("etc")],
    "prefix of the name": [MANIFEST, member("rootfsx/file")],
    "other case": [MANIFEST, member("Rootfs/file")],
    "manifest in other case": [member("MANIFEST", data=b"{}")],
    "manifest with a space": [member("manifest ", data=b"{}")],
    "out of rootfs": [MANIFEST, ROOTFS, member("rootfs/../manifest", data=b"{}")],
    "hard link to manifest": [MANIFEST, hardlink("rootfs/m", "manifest")],
    "hard link beside rootfs": [MANIFEST, FILE, hardlink("rootfs/m", "file")],
    "hard link to rootfs": [MANIFEST, ROOTFS, hardlink("rootfs/m", "rootfs")],
    "top as a file": [member("."), MANIFEST],
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("scan", [False, True])
def test_t33_all_else_is_refused(name: str, scan: bool, tmp_path: Path) -> None:
    with pytest.raises(ArchiveInvalid):
        unpack_to(None if scan else tmp_path / "target", archive(*REFUSED[name]), ACI)


def test_t33_hard_link_inside_rootfs_is_written_with_its_prefix(tmp_path: Path) -> None:
    data = archive(MANIFEST, FILE, hardlink("rootfs/h", "./rootfs/file"))
    unpack_to(tmp_path / "target", data, ACI)
    assert os.path.samefile(tmp_path / "target/h", tmp_path / "target/file")


def test_t34_manifest_is_capped_before_it_is_read() -> None:
    limits = ArchiveLimits(max_manifest=100)
    big = archive(member("manifest", data=b" " * 100), ROOTFS)
    assert unpack_to(None, big, ACI, limits).manifest == b" " * 100
    with pytest.raises(ArchiveInvalid, match="over 100 bytes"):
        unpack_to(None, member("manifest", size=101), ACI, limits)
