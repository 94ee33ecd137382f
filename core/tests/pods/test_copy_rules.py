"""Where a copy lands, and what a stream may write."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from podctl.errors import ArchiveInvalid, Refused, UsageError
from podctl.pods.copying import DIRECTORY, MISSING, OTHER, Source, Target, aim
from podctl.pods.podroot import IdMap
from podctl.pods.receiving import receive

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("source", "path", "kind", "expected"),
    [
        (Source("/a/b", OTHER), "/x/y", MISSING, Target("/x", "y")),
        (Source("/a/b", OTHER), "/x/y", OTHER, Target("/x", "y")),
        (Source("/a/b", OTHER), "/x/y", DIRECTORY, Target("/x/y", "b")),
        (Source("/a/b", DIRECTORY), "/x/y", MISSING, Target("/x", "y")),
        (Source("/a/b/", DIRECTORY), "/x/y/", DIRECTORY, Target("/x/y/", "b")),
        (Source("/a/b/.", DIRECTORY), "/x/y", DIRECTORY, Target("/x/y", "")),
        (Source("/", DIRECTORY), "/x/y", DIRECTORY, Target("/x/y", "")),
        (Source("b", OTHER), "y", MISSING, Target(".", "y")),
    ],
)
def test_names_follow_cp(source: Source, path: str, kind: str, expected: Target) -> None:
    assert aim(source, path, kind) == expected


@pytest.mark.parametrize(
    ("source", "path", "kind"),
    [
        (Source("/a", DIRECTORY), "/x", OTHER),
        (Source("/a", OTHER), "/x/", MISSING),
        (Source("/a", OTHER), "/x/", OTHER),
    ],
)
def test_what_cannot_be(source: Source, path: str, kind: str) -> None:
    with pytest.raises(UsageError):
        aim(source, path, kind)


def test_ids_of_a_pod_and_of_the_host() -> None:
    ids = IdMap([(0, 524288, 65536)])
    assert (ids.inside(524288), ids.inside(525289), ids.inside(0)) == (0, 1001, 65534)
    assert (ids.outside(0), ids.outside(1001)) == (524288, 525289)
    with pytest.raises(UsageError, match="no user or group 65536"):
        ids.outside(65536)
    assert (IdMap().inside(7), IdMap().outside(7)) == (7, 7)


class TestReceive:
    def into(self, target: Path, *members: tarfile.TarInfo) -> tuple[str, ...]:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for member in members:
                archive.addfile(member, io.BytesIO(b"x" * member.size))
        stream.seek(0)
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return receive(stream, fd, lambda _uid, _gid: (os.geteuid(), os.getegid()))
        finally:
            os.close(fd)

    def member(self, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        entry.size = 1 if kind == tarfile.REGTYPE else 0
        entry.mode = 0o750
        return entry

    def test_tree(self, tmp_path: Path) -> None:
        skipped = self.into(
            tmp_path,
            self.member("d", tarfile.DIRTYPE),
            self.member("d/f"),
            self.member("d/hard", tarfile.LNKTYPE, "d/f"),
            self.member("d/soft", tarfile.SYMTYPE, "/etc"),
            self.member("deep/er/file"),
            self.member("null", tarfile.CHRTYPE),
        )
        assert skipped == ("'null': device left out",)
        assert (tmp_path / "d/hard").stat().st_ino == (tmp_path / "d/f").stat().st_ino
        assert os.readlink(tmp_path / "d/soft") == "/etc"
        assert (tmp_path / "d").stat().st_mode & 0o777 == 0o750
        assert (tmp_path / "deep/er/file").read_bytes() == b"x"

    @pytest.mark.parametrize("name", ["../x", "/../x", "d/../../x", ".."])
    def test_nothing_leads_out(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ArchiveInvalid, match="leads out"):
            self.into(tmp_path, self.member(name))

    def test_a_link_is_not_walked_through(self, tmp_path: Path) -> None:
        (tmp_path / "to").mkdir()
        (tmp_path / "out").mkdir()
        link = self.member("link", tarfile.SYMTYPE, str(tmp_path / "out"))
        with pytest.raises(OSError, match="(?i)symbolic"):
            self.into(tmp_path / "to", link, self.member("link/file"))
        assert os.listdir(tmp_path / "out") == []

    def test_a_link_at_the_end_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "to").mkdir()
        (tmp_path / "precious").write_text("mine")
        (tmp_path / "to/file").symlink_to(tmp_path / "precious")
        self.into(tmp_path / "to", self.member("file"))
        assert (tmp_path / "precious").read_text() == "mine"
        assert (tmp_path / "to/file").read_bytes() == b"x"

    def test_directories_and_others_do_not_replace_one_another(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "f").touch()
        with pytest.raises(Refused, match="is a directory"):
            self.into(tmp_path, self.member("d"))
        with pytest.raises(Refused, match="is no directory"):
            self.into(tmp_path, self.member("f", tarfile.DIRTYPE))
