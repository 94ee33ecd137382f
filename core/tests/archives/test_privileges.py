"""Unpacking with nothing but the capabilities it is granted, in a directory that is its root."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from archive_lab import OCI, aci, archive, directory, hardlink, member, pax, run, snapshot, symlink
from test_kinds import CAPABILITY

from podctl.images.unpack import unpack
from podctl.model.layout import ArchiveLimits
from podctl.sys.child import Privileges, spawn

if TYPE_CHECKING:
    from pathlib import Path

DATA = archive(
    directory("."),
    directory("locked", mode=0o000, uid=1000),
    pax((b"SCHILY.xattr.security.capability", CAPABILITY), (b"SCHILY.xattr.user.x", b"1"))
    + member("locked/ping", data=b"x", mode=0o755, uid=1000),
    member("suid", mode=0o6755, uid=5, gid=6),
    symlink("link", "/etc/passwd", uid=7),
    hardlink("hard", "locked/ping"),
    member("fifo", b"6", uid=8),
    member(".wh.gone"),
    member("dev", b"3", device=(1, 3)),
)


def test_in_a_chroot_with_few_capabilities_as_with_all(tmp_path: Path) -> None:
    from archive_lab import unpack_to

    unpack_to(tmp_path / "free", DATA)
    jail = tmp_path / "jail"
    jail.mkdir()

    def work() -> list[str]:
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        assert os.listdir(root) == []
        return list(unpack(io.BytesIO(DATA), root, OCI, ArchiveLimits()).warnings)

    with spawn(
        work, privileges=Privileges.EXTRACT, name="unpack", chroot_to=os.fspath(jail)
    ) as child:
        assert child.wait() == ["archive entry 'dev': device 1/3 is left out"]
    assert snapshot(jail) == snapshot(tmp_path / "free")


def test_nothing_is_opened_by_a_path_from_the_root(tmp_path: Path) -> None:
    """Every path the loop hands to the kernel is one name, relative to a descriptor."""
    import re
    import sys

    (tmp_path / "in.tar").write_bytes(
        aci(member("rootfs/a/b/c", data=b"x"), symlink("rootfs/s", "/"))
    )
    (tmp_path / "target").mkdir()
    program = (
        "import io, os, sys\n"
        "from podctl.images.unpack import unpack\n"
        "from podctl.model.layout import ArchiveLayout, ArchiveLimits\n"
        "data = io.BytesIO(open(sys.argv[1], 'rb').read())\n"
        "fd = os.open(sys.argv[2], os.O_RDONLY)\n"
        "os.write(2, b'begin')\n"
        "unpack(data, fd, ArchiveLayout('manifest', 'rootfs', False), ArchiveLimits())\n"
        "os.write(2, b'end')\n"
    )
    run(["strace", "-f", "-o", tmp_path / "trace", "-e", "trace=%file,write", sys.executable, "-c",
         program, tmp_path / "in.tar", tmp_path / "target"])  # fmt: skip
    trace = (tmp_path / "trace").read_text()
    lines = trace[trace.index('"begin"') : trace.index('"end"')].splitlines()[1:]
    calls = [line for line in lines if "write(" not in line and "+++" not in line]
    assert len(calls) > 5
    for call in calls:
        assert re.search(r"\w+at\w*\(", call), call
        if ("utimensat(" in call and ", NULL" in call) or "AT_EMPTY_PATH" in call:
            continue  # futimens(3), fstat(2)
        name = re.search(r'\(("[^"]*", )?\d+, "([^"]*)"', call)
        assert name is not None, call
        assert "/" not in name[2] and name[2] not in ("", ".", ".."), call
        if "openat" in call:
            assert "O_NOFOLLOW" in call
