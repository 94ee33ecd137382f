"""Paths inside a root: links mean the root, magic links are refused, races do not lead out."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from podctl.sys import inroot
from podctl.sys.calls import libc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RENAME_EXCHANGE = 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "file").write_text("inside")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "file").write_text("outside")
    return root


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "path",
    [
        "etc/file",
        "/etc/file",
        "../../etc/file",
        "/../etc/./file",
        "absolute/file",
        "climbing/file",
        "chain/file",
    ],
)
def test_every_path_stays_inside(root: Path, root_fd: int, path: str) -> None:
    (root / "absolute").symlink_to("/etc")
    (root / "climbing").symlink_to("../../../../etc")
    (root / "chain").symlink_to("absolute")
    assert inroot.read_file_in_root(root_fd, path, 99) == b"inside"


def test_naive_join_would_read_outside(root: Path, tmp_path: Path) -> None:
    """Control: the canary outside is within a naive implementation's reach."""
    (root / "climbing").symlink_to("../../etc")
    (root / "sub").mkdir()
    (root / "sub" / "climbing").symlink_to("../../etc")
    assert (root / "sub" / "climbing" / "file").read_text() == "outside"


def test_magic_links_are_refused(root: Path, root_fd: int) -> None:
    (root / "self").symlink_to("/proc/self/root")
    fd = os.open("/", os.O_PATH)
    host = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        for path in (f"/proc/self/fd/{fd}", "/proc/self/exe", "/proc/self/cwd", "/proc/self/root"):
            with pytest.raises(OSError, match="openat2") as caught:
                inroot.open_in_root(host, path, os.O_PATH)
            assert caught.value.errno == errno.ELOOP
    finally:
        os.close(host)
        os.close(fd)


def test_read_is_capped_and_never_blocks(root: Path, root_fd: int) -> None:
    os.mkfifo(root / "fifo")
    (root / "zero").symlink_to("/dev/zero")
    for path, error in (("fifo", ValueError), ("etc", ValueError), ("zero", FileNotFoundError)):
        with pytest.raises(error):
            inroot.read_file_in_root(root_fd, path, 99)
    with pytest.raises(ValueError, match="longer than 5"):
        inroot.read_file_in_root(root_fd, "etc/file", 5)


def test_nul_byte_does_not_cut_a_path(root_fd: int) -> None:
    with pytest.raises(OSError, match="Invalid"):
        inroot.open_in_root(root_fd, "etc/file\0x", os.O_PATH)


def test_make_directories_makes_what_is_missing(root: Path, root_fd: int) -> None:
    os.close(inroot.make_directories(root_fd, "/a/b/../c//d", 0o750))
    assert (root / "a" / "c" / "d").is_dir()
    assert (root / "a" / "b").is_dir()
    fd = inroot.make_directories(root_fd, "a/c/d")
    assert os.path.samestat(os.fstat(fd), os.stat(root / "a" / "c" / "d"))
    os.close(fd)


def test_make_directories_follows_dangling_links_inside(root: Path, root_fd: int) -> None:
    (root / "var").mkdir()
    (root / "var" / "run").symlink_to("/run")
    (root / "var" / "up").symlink_to("../../../../up")
    os.close(inroot.make_directories(root_fd, "/var/run/app"))
    os.close(inroot.make_directories(root_fd, "/var/up/x"))
    assert (root / "run" / "app").is_dir()
    assert (root / "up" / "x").is_dir()
    assert not (root.parent / "up").exists()


def test_make_directories_refuses_files_and_loops(root: Path, root_fd: int) -> None:
    (root / "loop").symlink_to("loop")
    with pytest.raises(NotADirectoryError):
        inroot.make_directories(root_fd, "/etc/file/below")
    with pytest.raises(NotADirectoryError):
        inroot.make_directories(root_fd, "/etc/file")
    with pytest.raises(OSError, match="levels of symbolic links"):
        inroot.make_directories(root_fd, "/loop/x")


def test_make_file_makes_parents_and_follows_a_dangling_link(root: Path, root_fd: int) -> None:
    (root / "etc" / "resolv.conf").symlink_to("../run/systemd/resolv.conf")
    os.close(inroot.make_file(root_fd, "/etc/resolv.conf"))
    assert (root / "run" / "systemd" / "resolv.conf").is_file()
    os.close(inroot.make_file(root_fd, "/etc/file"))
    assert (root / "etc" / "file").read_text() == "inside"


def test_caller_may_forbid_making_something(root: Path, root_fd: int) -> None:
    def forbid(parent: int) -> None:
        raise PermissionError("not here")

    os.close(inroot.make_directories(root_fd, "/etc", before=forbid))
    with pytest.raises(PermissionError):
        inroot.make_directories(root_fd, "/etc/new", before=forbid)
    assert os.listdir(root / "etc") == ["file"]


def test_swapped_link_never_leads_out(root: Path, root_fd: int, tmp_path: Path) -> None:
    """A racer exchanges a directory with a link to the outside; a control is led astray."""
    (root / "dir").mkdir()
    (root / "dir" / "file").write_text("inside")
    (root / "link").symlink_to(tmp_path / "etc")
    racer = os.fork()
    if racer == 0:
        one, other = os.fsencode(root / "dir"), os.fsencode(root / "link")
        at = ctypes.c_int(-100)
        while True:
            libc.renameat2(at, one, at, other, ctypes.c_uint(RENAME_EXCHANGE))
    try:
        escaped = 0
        for _ in range(50_000):
            if not (root / "dir").is_symlink() and _naive(root / "dir" / "file") == "outside":
                escaped += 1
            if escaped >= 3:
                break
        assert escaped >= 3, "the race is never won, so this test proves nothing"
        for _ in range(10_000):
            try:
                assert inroot.read_file_in_root(root_fd, "/dir/file", 99) == b"inside"
            except (FileNotFoundError, BlockingIOError):
                continue
    finally:
        os.kill(racer, signal.SIGKILL)
        os.waitpid(racer, 0)


def _naive(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
