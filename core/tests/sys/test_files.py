"""Atomic writes, capped reads, trees removed without following anything."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podctl.sys import constants as c
from podctl.sys import files
from podctl.sys.child import Privileges, spawn
from podctl.sys.mounts import mount

if TYPE_CHECKING:
    from collections.abc import Callable


def test_write_atomic_replaces_content_and_mode_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    before = os.umask(0o077)
    try:
        files.write_atomic(str(path), b"new", mode=0o664)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o664
    assert os.listdir(tmp_path) == ["file"]


def test_write_atomic_replaces_a_link_not_its_target(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("safe")
    (tmp_path / "link").symlink_to(canary)
    files.write_atomic(str(tmp_path / "link"), b"new")
    assert canary.read_text() == "safe"
    assert not (tmp_path / "link").is_symlink()


def test_write_atomic_relative_to_a_descriptor(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        (tmp_path / "sub").mkdir()
        files.write_atomic("sub/file", b"x", dir_fd=fd)
    finally:
        os.close(fd)
    assert (tmp_path / "sub" / "file").read_bytes() == b"x"


def test_failed_write_leaves_old_file_and_no_temporary(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_atomic(str(tmp_path / "directory"), b"x")
    assert os.listdir(tmp_path) == ["directory"]


def test_read_small_reads_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read_small(str(path), 5) == b"12345"
    with pytest.raises(ValueError, match="longer than 4"):
        files.read_small(str(path), 4)


def test_read_small_refuses_links_and_does_not_wait_for_fifos(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="symbolic") as caught:
        files.read_small(str(tmp_path / "link"), 9)
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(ValueError, match="not a regular file"):
        files.read_small(str(tmp_path / "fifo"), 9)
    with pytest.raises(ValueError, match="not a regular file"):
        files.read_small("/dev/zero", 9)


def test_rename_durable_moves_between_directories(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "x").write_text("x")
    files.rename_durable(str(tmp_path / "a" / "x"), str(tmp_path / "b" / "y"))
    assert (tmp_path / "b" / "y").read_text() == "x"


def test_syncfs_takes_any_descriptor(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    files.syncfs(fd)
    os.close(fd)
    with pytest.raises(OSError, match="syncfs"):
        files.syncfs(fd)


def test_remove_tree_removes_everything_and_follows_no_link(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("safe")
    tree = tmp_path / "tree"
    (tree / "a" / "b" / "c").mkdir(parents=True)
    (tree / "a" / "file").write_text("x")
    (tree / "a" / "b" / "out").symlink_to(canary)
    (tree / "root").symlink_to("/")
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    (tree / "a" / "b" / "closed").mkdir(mode=0)
    files.remove_tree(str(tree))
    assert not tree.exists()
    assert (canary / "file").read_text() == "safe"


def test_remove_tree_of_what_is_no_directory_or_gone(tmp_path: Path) -> None:
    (tmp_path / "canary").mkdir()
    (tmp_path / "link").symlink_to("canary")
    files.remove_tree(str(tmp_path / "link"))
    files.remove_tree(str(tmp_path / "never-was"))
    files.remove_tree(str(tmp_path / "no" / "parent"))
    assert os.listdir(tmp_path) == ["canary"]


def test_remove_tree_is_not_stopped_by_depth(tmp_path: Path) -> None:
    """More levels than descriptors allowed, and a path longer than PATH_MAX."""
    here = os.getcwd()
    os.chdir(tmp_path)
    for _ in range(1500):
        os.mkdir("deep")
        os.chdir("deep")
    os.chdir(here)

    def remove() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
        files.remove_tree(str(tmp_path / "deep"))

    try:
        with spawn(remove, privileges=Privileges.SAME, name="remove") as child:
            child.wait()
        assert os.listdir(tmp_path) == []
    finally:
        # What is left by a failure is too deep for pytest's own cleaning up.
        subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)


def test_remove_tree_opens_up_directories_of_an_ordinary_user(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/tmp") and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)

    def make_and_remove() -> None:
        os.makedirs(tmp_path / "tree" / "closed" / "inner")
        os.chmod(tmp_path / "tree" / "closed" / "inner", 0)
        os.chmod(tmp_path / "tree" / "closed", 0)
        files.remove_tree(str(tmp_path / "tree"))

    with spawn(make_and_remove, privileges=Privileges.NONE, name="remove") as child:
        child.wait()
    assert os.listdir(tmp_path) == []


def test_remove_tree_enters_no_mount(
    tmp_path: Path, in_own_mounts: Callable[[Callable[[], object]], object]
) -> None:
    """Not even a bind mount of the same filesystem, which st_dev does not tell."""
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary" / "file").write_text("safe")
    (tmp_path / "tree" / "mounted").mkdir(parents=True)

    def remove() -> int | None:
        mount(str(tmp_path / "canary"), str(tmp_path / "tree" / "mounted"), None, c.MS_BIND)
        try:
            files.remove_tree(str(tmp_path / "tree"))
        except OSError as error:
            return error.errno
        return None

    assert in_own_mounts(remove) == errno.EBUSY
    assert (tmp_path / "canary" / "file").read_text() == "safe"
