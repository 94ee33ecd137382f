"""Writing an ACI from a tree: what comes out is the tree, and hostile trees stay where they are."""

from __future__ import annotations

import io
import os
import signal
import socket
import stat
from typing import TYPE_CHECKING

import pytest
from archive_lab import ACI, Canary, archive, run, snapshot, unpack_to
from hypothesis import given, settings
from hypothesis import strategies as st
from test_oracle import image_like

from podctl.errors import StoreCorrupt
from podctl.images import tarwrite
from podctl.images.tarstream import TarStream
from podctl.images.tarwrite import write_aci
from podctl.model.layout import ArchiveLimits

if TYPE_CHECKING:
    from pathlib import Path


def written(root: Path, **options: object) -> tuple[bytes, tuple[str, ...]]:
    output = io.BytesIO()
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        left_out = write_aci(output, b'{"a": 1}', fd, **options)  # type: ignore[arg-type]
    finally:
        os.close(fd)
    return output.getvalue(), left_out


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    image_like(root)
    return root


def test_round_trip_keeps_everything(tree: Path, tmp_path: Path) -> None:
    data, left_out = written(tree)
    assert left_out == ()
    done = unpack_to(tmp_path / "again", data, ACI)
    assert done.manifest == b'{"a": 1}'
    assert done.warnings == ()
    assert snapshot(tmp_path / "again") == snapshot(tree)


def test_gnu_tar_reads_the_same_tree(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"]
    run(["tar", "-x", *options, "-C", tmp_path / "theirs"], input=written(tree)[0])
    assert snapshot(tmp_path / "theirs/rootfs") == snapshot(tree)
    assert (tmp_path / "theirs/manifest").read_bytes() == b'{"a": 1}'


def test_same_tree_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    data, _ = written(tree)
    unpack_to(tmp_path / "copy", data, ACI)
    assert written(tmp_path / "copy")[0] == data


def test_x25_links_fifos_and_devices_are_recorded_not_followed(
    tmp_path: Path, canary: Canary
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "out").symlink_to(canary.path)
    (root / "file").symlink_to(canary.path / "secret")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 200))
    os.mknod(root / "hidden", stat.S_IFCHR, 0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(root / "socket"))
        data, left_out = written(root)
    assert b"secret\n" not in data
    assert [line.split("'")[1] for line in left_out] == ["rootfs/hidden", "rootfs/socket"]
    stream = TarStream(io.BytesIO(data), ArchiveLimits())
    seen = {}
    while entry := stream.next_entry():
        seen[entry.name] = (entry.kind, entry.device)
    assert seen == {
        b"manifest": ("file", None),
        b"rootfs/": ("directory", None),
        b"rootfs/out": ("symbolic link", None),
        b"rootfs/file": ("symbolic link", None),
        b"rootfs/fifo": ("FIFO", None),
        b"rootfs/null": ("device", (False, 1, 3)),
        b"rootfs/disk": ("device", (True, 7, 200)),
    }
    assert canary.alive


def test_x25_swapped_file_is_noticed_and_a_fifo_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canary: Canary
) -> None:
    """Between lstat(2) and open(2) the name becomes a FIFO, a link, another file."""
    real = os.lstat
    for swap in ("fifo", "link", "file"):
        root = tmp_path / swap
        root.mkdir()
        (root / "x").write_text("good")

        def lstat(name: object, *, dir_fd: int, swap: str = swap, root: Path = root) -> object:
            status = real(name, dir_fd=dir_fd)  # type: ignore[arg-type]
            os.rename(root / "x", root.parent / f"old-{swap}")
            if swap == "fifo":
                os.mkfifo(root / "x")
            elif swap == "link":
                (root / "x").symlink_to(canary.path / "secret")
            else:
                (root / "x").write_text("evil")
            return status

        with monkeypatch.context() as patch:
            patch.setattr(os, "lstat", lstat)
            signal.alarm(10)
            with pytest.raises((StoreCorrupt, OSError)):
                written(root)
            signal.alarm(0)


def test_shrinking_file_is_an_error_not_a_broken_archive(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "f").write_bytes(b"x" * (3 << 20))

    class Truncating(io.BytesIO):
        def write(self, data: object, /) -> int:
            if len(data) > 1 << 19:  # type: ignore[arg-type]
                os.truncate(root / "f", 1 << 20)
            return super().write(data)  # type: ignore[arg-type]

    fd = os.open(root, os.O_RDONLY)
    with pytest.raises(StoreCorrupt, match="changed"):
        write_aci(Truncating(), b"{}", fd)
    os.close(fd)


def test_owners_can_be_mapped(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "f").write_text("x")
    os.chown(root / "f", 100_005, 100_006)
    data, _ = written(root, owner=lambda uid, gid: (max(uid - 100_000, 0), max(gid - 100_000, 0)))
    unpack_to(tmp_path / "again", data, ACI)
    status = os.lstat(tmp_path / "again/f")
    assert (status.st_uid, status.st_gid) == (5, 6)


def test_overlay_attributes_are_not_exported(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    os.setxattr(root / "d", "trusted.overlay.opaque", b"y")
    os.setxattr(root / "d", "user.overlay.opaque", b"y")
    os.setxattr(root / "d", "user.kept", b"1")
    data, _ = written(root)
    assert b"overlay" not in data
    assert b"SCHILY.xattr.user.kept=1" in data


def test_deep_tree_is_written_with_few_descriptors_to_spare(tmp_path: Path) -> None:
    from archive_lab import member, pax

    from podctl.images.descriptors import DescriptorLimit, remove

    path = b"/".join([b"d"] * 1500)
    data = archive(
        member("manifest", data=b'{"a": 1}'), pax((b"path", b"rootfs/" + path)), member("x")
    )
    unpack_to(tmp_path / "deep", data, ACI)
    try:
        again, _ = written(tmp_path / "deep")
        assert unpack_to(None, again, ACI).entries == 1502
    finally:
        limit = DescriptorLimit()
        parent = os.open(tmp_path, os.O_RDONLY)
        remove(parent, b"deep", limit)
        os.close(parent)
        limit.restore()


@settings(max_examples=400, deadline=None)
@given(
    path=st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name),
    size=st.integers(0, 2**62),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime=st.integers(-(2**31) * 10**9, 0x37FFFFFFF * 10**9),
    value=st.binary(max_size=300),
)
def test_every_header_reads_back(
    path: bytes, size: int, mode: int, uid: int, gid: int, mtime: int, value: bytes
) -> None:
    if path.endswith(b"/"):
        path += b"x"
    data = tarwrite.header(path, b"0", size, mode, uid, gid, mtime, b"", {b"user.x": value})
    stream = TarStream(io.BytesIO(data), ArchiveLimits())
    entry = stream.next_entry()
    assert entry is not None
    assert (entry.name, entry.size, entry.mode, entry.uid, entry.gid, entry.mtime) == (
        path,
        size,
        mode,
        uid,
        gid,
        mtime,
    )
    assert entry.xattrs == {b"user.x": value}
