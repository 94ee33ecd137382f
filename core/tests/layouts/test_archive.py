"""Archives of images: what is in them and where, found from the headers alone."""

from __future__ import annotations

import io
import os
import random
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podctl.errors import ArchiveInvalid, NotFound
from podctl.images import layoutarchive
from podctl.images.layoutarchive import LayoutArchive, is_layout, look, scratch
from podctl.model.layoutfiles import Member
from podctl.store import Store

if TYPE_CHECKING:
    from pathlib import Path

SIZES = (0, 1, 511, 512, 513, (1 << 20) - 512, 1 << 20, (1 << 20) + 1, 3 << 20)


def archive(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> int:
    """Write an archive and open it."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return os.open(path, os.O_RDONLY)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_file_is_where_tarfile_finds_it(tmp_path: Path, form: int) -> None:
    random.seed(form)
    files = {
        f"{'d' * number}/{number}-{size}": random.randbytes(size)
        for number, size in enumerate(random.choices(SIZES, k=30), 1)
    }
    fd = archive(tmp_path / "x.tar", files, form)
    try:
        found = layoutarchive._scan(fd)
        with tarfile.open(tmp_path / "x.tar") as tar:
            for entry in tar:
                assert found.find(entry.name) == Member(entry.size)
                assert found.place(entry.name) == (entry.offset_data, entry.size)
                assert found.read(entry.name, 600) == files[entry.name][:600]
        assert found.find("d/none") is None
        with pytest.raises(NotFound):
            found.read("d/none", 1)
    finally:
        os.close(fd)


def test_the_data_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = archive(tmp_path / "x.tar", {"a": bytes(50 << 20), "b": b"b", "c": bytes(50 << 20)})
    read = 0
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        nonlocal read
        data = pread(descriptor, size, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    try:
        found = layoutarchive._scan(fd)
        assert found.read("b", 10) == b"b"
    finally:
        os.close(fd)
    assert read < 8 << 20


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_change_is_refused_or_stays_inside(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.tar"
    files = {"oci-layout": b"{}", "blobs/sha256/" + "a" * 64: b"x" * 700, "n" * 120: b"y"}
    fd = archive(path, files)
    try:
        content = bytearray(path.read_bytes()[: 512 * 9])
        for _ in range(data.draw(st.integers(0, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        size = path.stat().st_size
        found = layoutarchive._scan(fd)
        for name, (member, _) in found._members.items():
            assert ".." not in name.split("/") and not name.startswith("/")
            if member.link is None:
                offset, length = found.place(name)
                assert 0 <= offset <= offset + length <= size
    except ArchiveInvalid:
        pass
    finally:
        os.close(fd)


def test_a_look_says_compression_and_first_name(tmp_path: Path) -> None:
    import gzip

    fd = archive(tmp_path / "x.tar", {"././blobs/x": b"x"})
    packed = tmp_path / "x.gz"
    packed.write_bytes(gzip.compress((tmp_path / "x.tar").read_bytes()))
    other = os.open(packed, os.O_RDONLY)
    try:
        assert look(fd) == ("none", b"blobs")
        assert look(other) == ("gzip", b"blobs")
        # Nobody's position has moved: the file is read from its start by whoever comes next.
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    finally:
        os.close(fd)
        os.close(other)


@pytest.mark.parametrize(
    ("first", "layout"),
    [
        ("oci-layout", True),
        ("./blobs/sha256/x", True),
        ("manifest.json", True),
        ("manifest", False),
        ("./manifest", False),
        ("rootfs/x", False),
        ("rootfsx", True),
    ],
)
def test_the_first_name_tells_an_aci(tmp_path: Path, first: str, layout: bool) -> None:
    fd = archive(tmp_path / "x.tar", {first: b"x"})
    try:
        assert is_layout(fd) is layout
    finally:
        os.close(fd)


def test_scratch_files_have_no_name(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "data"))
    fd = scratch(store)
    try:
        assert os.fstat(fd).st_nlink == 0
        assert store.area.names("cas/tmp") == []
    finally:
        os.close(fd)


def test_a_decompressed_archive_is_bounded(tmp_path: Path) -> None:
    import gzip

    store = Store(str(tmp_path / "data"))
    archive(tmp_path / "x.tar", {"blobs/x": os.urandom(1 << 20)})
    packed = tmp_path / "x.gz"
    packed.write_bytes(gzip.compress((tmp_path / "x.tar").read_bytes()))
    opened = LayoutArchive(os.open(packed, os.O_RDONLY), store, 2 << 20)
    opened.close()
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ArchiveInvalid, match="more than 1048576 bytes, decompressed"):
        LayoutArchive(os.open(packed, os.O_RDONLY), store, 1 << 20)
    assert set(os.listdir("/proc/self/fd")) == before
