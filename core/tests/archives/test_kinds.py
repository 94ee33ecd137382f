"""Kinds of entries and their attributes (catalogue T10-T14, T20, T32)."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from archive_lab import (
    ACI,
    OCI,
    Canary,
    aci,
    archive,
    directory,
    hardlink,
    member,
    naive_unpack,
    pax,
    snapshot,
    symlink,
    unpack_to,
)

from podctl.errors import ArchiveInvalid

if TYPE_CHECKING:
    from pathlib import Path

#: cap_net_raw=ep, revision 2; and the same for a user namespace whose root is uid 1000.
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
CAPABILITY_V3 = struct.pack("<IIIIII", 0x03000001, 1 << 13, 0, 0, 0, 1000)


def with_xattrs(entry: bytes, **xattrs: bytes) -> bytes:
    return pax(*((b"SCHILY.xattr." + k.encode(), v) for k, v in xattrs.items())) + entry


@pytest.mark.parametrize(("kind", "number"), [(b"3", (1, 3)), (b"4", (7, 0))])
@pytest.mark.parametrize("layout", [OCI, ACI])
def test_t10_device_nodes_are_left_out_with_a_warning(
    kind: bytes, number: tuple[int, int], layout: object, tmp_path: Path
) -> None:
    wrap = archive if layout is OCI else aci
    prefix = "" if layout is OCI else "rootfs/"
    data = wrap(member(f"{prefix}dev/node", kind, device=number), member(f"{prefix}after"))
    done = unpack_to(tmp_path / "target", data, layout)  # type: ignore[arg-type]
    assert [str(path) for path in (tmp_path / "target").rglob("node")] == []
    assert (tmp_path / "target/after").exists()
    assert len(done.warnings) == 1
    assert "dev/node" in done.warnings[0]
    assert unpack_to(None, data, layout).warnings == done.warnings  # type: ignore[arg-type]


def test_t10_device_replaces_an_earlier_file_by_nothing(tmp_path: Path) -> None:
    data = archive(member("null", data=b"x"), member("null", b"3", device=(1, 3)))
    unpack_to(tmp_path / "target", data)
    assert os.listdir(tmp_path / "target") == []


def test_t11_fifo_is_made_and_never_opened(tmp_path: Path) -> None:
    entries = member("pipe", b"6", mode=0o620, uid=3, gid=4, mtime=50), member("pipe/x")
    unpack_to(tmp_path / "target", archive(entries[0]))
    status = os.lstat(tmp_path / "target/pipe")
    assert stat.S_ISFIFO(status.st_mode)
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o620, 3, 4)
    assert status.st_mtime == 50
    # Were the FIFO opened as a parent, or written to when it is replaced, this would hang.
    with pytest.raises(ArchiveInvalid, match="not a directory"):
        unpack_to(tmp_path / "other", archive(*entries))
    unpack_to(tmp_path / "third", archive(entries[0], member("pipe", data=b"file")))
    assert (tmp_path / "third/pipe").read_bytes() == b"file"


def test_t12_set_id_bits_are_kept_after_the_owner_is_set(tmp_path: Path) -> None:
    data = archive(
        member("suid", mode=0o4755, uid=0, gid=0),
        member("sgid", mode=0o2755, uid=12, gid=34),
        directory("sticky", mode=0o1777),
        directory("setgid", mode=0o2775, gid=34),
    )
    unpack_to(tmp_path / "target", data)
    seen = snapshot(tmp_path / "target")
    assert [seen[name][0] for name in ("suid", "sgid", "sticky", "setgid")] == [
        "-rwsr-xr-x",
        "-rwxr-sr-x",
        "drwxrwxrwt",
        "drwxrwsr-x",
    ]
    assert seen["sgid"][1:3] == (12, 34)


@pytest.mark.parametrize("mode", [0o755, 0o555, 0o2755, 0o000])
def test_owners_below_a_set_group_id_directory_are_the_archives(mode: int, tmp_path: Path) -> None:
    """mkdir(2) and open(2) give what is made there the directory's group, and the bit on."""
    data = archive(
        directory("top", mode=0o2755, gid=34), directory("top/sub", mode=mode, gid=56),
        member("top/sub/file"), directory("top/sub/below"), member("top/sub/below/file"),
    )  # fmt: skip
    unpack_to(tmp_path / "target", data)
    seen = snapshot(tmp_path / "target")
    assert stat.S_IMODE(os.lstat(tmp_path / "target/top/sub").st_mode) == mode
    groups = {path: row.gid for path, row in seen.items()}
    assert (groups["top"], groups["top/sub"]) == (34, 56)
    assert {groups[f"top/sub/{path}"] for path in ("file", "below", "below/file")} == {0}
    assert not seen["top/sub/below"].mode.endswith("s")


def test_set_group_id_of_the_target_is_not_inherited(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    os.chown(target, 0, 55)
    os.chmod(target, 0o2770)
    unpack_to(target, archive(member("implied/file"), directory("given")))
    seen = snapshot(target)
    assert seen["implied"][:3] == seen["given"][:3] == ("drwxr-xr-x", 0, 0)
    assert seen["implied/file"][2] == 0


def test_set_group_id_of_a_directory_is_not_inherited_by_what_root_owns(tmp_path: Path) -> None:
    entries = [directory("shared", mode=0o2775, gid=34), member("shared/file", uid=0, gid=0)]
    unpack_to(tmp_path / "target", archive(*entries, directory("shared/below")))
    seen = snapshot(tmp_path / "target")
    assert seen["shared"][:3] == ("drwxrwsr-x", 0, 34)
    assert seen["shared/file"][1:3] == seen["shared/below"][1:3] == (0, 0)


def test_t13_file_capabilities_are_kept_for_root(tmp_path: Path) -> None:
    data = archive(
        with_xattrs(member("ping", mode=0o755, uid=3), **{"security.capability": CAPABILITY})
    )
    done = unpack_to(tmp_path / "target", data)
    assert os.getxattr(tmp_path / "target/ping", "security.capability") == CAPABILITY
    assert done.warnings == ()


@pytest.mark.parametrize("value", [CAPABILITY_V3, CAPABILITY[:12], b"", b"\0" * 20])
def test_t13_other_capability_revisions_are_left_out(value: bytes, tmp_path: Path) -> None:
    data = archive(with_xattrs(member("ping", mode=0o755), **{"security.capability": value}))
    done = unpack_to(tmp_path / "target", data)
    assert os.listxattr(tmp_path / "target/ping") == []
    assert "security.capability" in done.warnings[0]


def test_t13_without_cap_setfcap_capabilities_are_left_out(tmp_path: Path) -> None:
    """A process that is root by number only, as in a user namespace without the capability."""
    data = archive(with_xattrs(member("ping", mode=0o755), **{"security.capability": CAPABILITY}))
    (tmp_path / "in.tar").write_bytes(data)
    program = (
        "import os,sys\n"
        "from podctl.images.unpack import unpack\n"
        "from podctl.model.layout import ArchiveLayout, ArchiveLimits\n"
        "fd = os.open(sys.argv[2], os.O_RDONLY)\n"
        "layout = ArchiveLayout(None, None, True)\n"
        "print(unpack(open(sys.argv[1], 'rb'), fd, layout, ArchiveLimits()).warnings)\n"
    )
    import sys

    (tmp_path / "target").mkdir()
    done = subprocess.run(
        ["capsh", "--drop=cap_setfcap,cap_sys_admin", "--", "-c", 'exec "$0" "$@"', sys.executable,
         "-c", program, tmp_path / "in.tar", tmp_path / "target"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert b"security.capability" in done.stdout
    assert os.listxattr(tmp_path / "target/ping") == []


FORGED = {
    "trusted.overlay.redirect": b"/etc",
    "trusted.overlay.opaque": b"y",
    "trusted.overlay.metacopy": b"",
    "trusted.overlay.origin": b"\0" * 10,
    "trusted.other": b"1",
    "user.overlay.redirect": b"/etc/shadow",
    "user.overlay.whiteout": b"y",
    "security.selinux": b"system_u:object_r:shadow_t:s0",
    "security.ima": b"\x01" * 21,
    "security.evm": b"\x01" * 21,
    "security.SMACK64": b"_",
    "system.posix_acl_access": b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff",
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("kind", ["file", "directory", "root"])
def test_t14_attributes_that_steer_the_host_are_left_out(
    name: str, kind: str, tmp_path: Path
) -> None:
    entry = {"file": member("x"), "directory": directory("x"), "root": directory(".")}[kind]
    done = unpack_to(
        tmp_path / "target", archive(with_xattrs(entry, **{name: FORGED[name], "user.kept": b"1"}))
    )
    path = tmp_path / "target" / ("x" if kind != "root" else "")
    assert os.listxattr(path) == ["user.kept"]
    assert any(name in warning for warning in done.warnings)


def test_t14_control_careless_extraction_forges_an_overlay_attribute(tmp_path: Path) -> None:
    entry = with_xattrs(directory("x"), **{"trusted.overlay.redirect": b"/etc"})
    naive_unpack(archive(entry), tmp_path / "target")
    assert os.listxattr(tmp_path / "target/x") == ["trusted.overlay.redirect"]


def test_t14_libarchive_encoding_of_attributes(tmp_path: Path) -> None:
    records = (b"LIBARCHIVE.xattr.user.a%3db", b"AAEC/w"), (b"LIBARCHIVE.xattr.user.both", b"AA")
    both = (b"SCHILY.xattr.user.both", b"schily")
    for position, target in enumerate(("one", "two")):
        order = (both, *records) if position else (*records, both)
        unpack_to(tmp_path / target, archive(pax(*order) + member("x")))
        path = tmp_path / target / "x"
        assert os.getxattr(path, "user.a=b") == b"\0\x01\x02\xff"
        assert os.getxattr(path, "user.both") == b"schily"


@pytest.mark.parametrize(
    "record",
    [
        (b"SCHILY.xattr.", b"x"),
        (b"SCHILY.xattr.user.\0x", b"x"),
        (b"SCHILY.xattr.user." + b"n" * 300, b"x"),
        (b"SCHILY.xattr.user.big", b"x" * 70_000),
        (b"LIBARCHIVE.xattr.user.%zz", b"AA"),
        (b"LIBARCHIVE.xattr.user.x", b"!!"),
    ],
)
def test_t14_malformed_attributes_are_refused(record: tuple[bytes, bytes], tmp_path: Path) -> None:
    for target in (tmp_path / "target", None):
        with pytest.raises(ArchiveInvalid):
            unpack_to(target, archive(pax(record) + member("x")))


KINDS = {
    "file": lambda: member("x", data=b"last"),
    "directory": lambda: directory("x", mode=0o711),
    "symlink": lambda: symlink("x", "../canary"),
    "file symlink": lambda: symlink("x", "../canary/victim"),
    "fifo": lambda: member("x", b"6"),
    "hardlink": lambda: hardlink("x", "other"),
}
EXPECTED = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "file symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "hardlink": stat.S_IFREG,
}


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("last", KINDS)
@pytest.mark.parametrize("layout", [OCI, ACI])
def test_t20_of_duplicates_the_last_wins_without_following(
    first: str, last: str, layout: object, tmp_path: Path, canary: Canary
) -> None:
    def wrap(data: bytes) -> bytes:
        return data if layout is OCI else _below_rootfs(data)

    members = [member("other", data=b"other"), KINDS[first]()]
    if first == "directory":
        members += [member("x/inner", data=b"in"), directory("x/sub"), member("x/sub/deep")]
    members += [KINDS[last]()]
    data = (archive if layout is OCI else aci)(*map(wrap, members))
    unpack_to(tmp_path / "target", data, layout)  # type: ignore[arg-type]
    unpack_to(None, data, layout)  # type: ignore[arg-type]
    status = os.lstat(tmp_path / "target/x")
    assert stat.S_IFMT(status.st_mode) == EXPECTED[last]
    if last == "file":
        assert (tmp_path / "target/x").read_bytes() == b"last"
        assert (tmp_path / "target/other").read_bytes() == b"other"
    if first == last == "directory":
        assert (tmp_path / "target/x/inner").read_bytes() == b"in"
    assert canary.alive


def _below_rootfs(data: bytes) -> bytes:
    block = bytearray(data[:512])
    name = bytes(block[:100]).rstrip(b"\0")
    block[:100] = (b"rootfs/" + name).ljust(100, b"\0")
    if block[156:157] == b"1":
        link = bytes(block[157:257]).rstrip(b"\0")
        block[157:257] = (b"rootfs/" + link).ljust(100, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[512:]


def test_t20_file_written_over_its_hard_link_leaves_the_other_name(tmp_path: Path) -> None:
    data = archive(member("a", data=b"old"), hardlink("b", "a"), member("b", data=b"new"))
    unpack_to(tmp_path / "target", data)
    assert (tmp_path / "target/a").read_bytes() == b"old"
    assert (tmp_path / "target/b").read_bytes() == b"new"


def test_t32_modes_without_access_and_mtimes_are_settled_last(tmp_path: Path) -> None:
    data = archive(
        directory("none", mode=0o000, mtime=11, uid=5),
        directory("none/sub", mode=0o111, mtime=12),
        member("none/sub/file", data=b"1", mode=0o000, mtime=13),
        directory("read", mode=0o500, mtime=14),
        member("read/file", data=b"2", mtime=15),
        member("none/later", data=b"3", mtime=16),
        symlink("read/link", "x", mtime=17),
        hardlink("none/sub/again", "read/file"),
    )
    unpack_to(tmp_path / "target", data)
    seen = snapshot(tmp_path / "target")
    assert {name: (row[0], row[3] // 10**9) for name, row in seen.items() if name} == {
        "none": ("d---------", 11),
        "none/sub": ("d--x--x--x", 12),
        "none/sub/file": ("----------", 13),
        "none/later": ("-rw-r--r--", 16),
        "none/sub/again": ("-rw-r--r--", 15),
        "read": ("dr-x------", 14),
        "read/file": ("-rw-r--r--", 15),
        "read/link": ("lrwxrwxrwx", 17),
    }


def test_t32_also_without_any_privilege(tmp_path: Path) -> None:
    """As nobody: no owner can be set, modes are still made and settled."""
    data = archive(
        directory("none", mode=0o000, mtime=11),
        directory("none/sub", mode=0o111, mtime=12),
        member("elsewhere", mtime=13),
        member("none/sub/file", data=b"1", mode=0o4700, mtime=14),
        member("elsewhere2", mtime=15),
        member("none/later", data=b"3", mtime=16),
    )
    target = tmp_path / "target"
    target.mkdir()
    fd = os.open(target, os.O_RDONLY)
    os.fchown(fd, 65534, 65534)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            import io

            from podctl.images.unpack import unpack

            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            unpack(io.BytesIO(data), fd, OCI, __import__("archive_lab").LIMITS)
            code = 0
        finally:
            os._exit(code)
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    seen = snapshot(target)
    assert {name: (*row[:2], row[3] // 10**9) for name, row in seen.items() if "none" in name} == {
        "none": ("d---------", 65534, 11),
        "none/sub": ("d--x--x--x", 65534, 12),
        "none/sub/file": ("-rwx------", 65534, 14),
        "none/later": ("-rw-r--r--", 65534, 16),
    }
