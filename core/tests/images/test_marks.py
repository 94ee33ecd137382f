"""Marks on directories of an unpacked layer: in it, through no link, or not at all."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from podctl.errors import HostLacks
from podctl.images.marks import mark
from podctl.store.copying import IMPLIED, OPAQUE
from podctl.sys.child import Privileges, spawn
from podctl.sys.constants import CLONE_NEWNS
from podctl.sys.mounts import make_tree_slave
from podctl.sys.namespaces import unshare

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A layer's root with some directories; beside it a directory that is none of it."""
    (tmp_path / "outside/inside").mkdir(parents=True)
    root = tmp_path / "root"
    (root / "etc/conf.d").mkdir(parents=True)
    (root / "srv").mkdir()
    (root / os.fsdecode(b"caf\xe9")).mkdir()
    (root / "file").touch()
    return root


def marks(path: Path) -> set[str]:
    return set(os.listxattr(path)) & {OPAQUE, IMPLIED}


def test_directories_are_marked_as_what_they_are(root: Path) -> None:
    latin = os.fsdecode(b"caf\xe9")
    mark(str(root), ["etc", latin], [".", "etc/conf.d"])
    assert marks(root) == {IMPLIED}
    assert marks(root / "etc") == {OPAQUE}
    assert marks(root / "etc/conf.d") == {IMPLIED}
    assert marks(root / latin) == {OPAQUE}
    assert marks(root / "srv") == set()
    # What overlayfs asks for is the letter alone.
    assert os.getxattr(root / "etc", OPAQUE) == b"y"


def test_opaque_directories_hide_what_is_below(root: Path, tmp_path: Path) -> None:
    """The control is the directory that is not marked."""
    lower = tmp_path / "lower"
    for name in ("etc", "srv"):
        (lower / name).mkdir(parents=True)
        (lower / name / "old").touch()
    mark(str(root), ["etc"], [])
    (tmp_path / "merged").mkdir()

    def look() -> list[list[str]]:
        unshare(CLONE_NEWNS)
        make_tree_slave()
        options = f"lowerdir={root}:{lower}"
        command = ["mount", "-t", "overlay", "overlay", "-o", options]
        subprocess.run([*command, str(tmp_path / "merged")], check=True)
        return [sorted(os.listdir(tmp_path / "merged" / name)) for name in ("etc", "srv")]

    with spawn(look, privileges=Privileges.SAME, name="look") as child:
        assert child.wait() == [["conf.d"], ["old"]]


@pytest.mark.parametrize("path", ["../outside", "/etc", "link", "link/inside", "etc/../../outside"])
def test_nothing_outside_is_marked(root: Path, tmp_path: Path, path: str) -> None:
    """Whatever a child that has read a hostile archive reports."""
    (root / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(HostLacks, match="cannot mark a directory"):
        mark(str(root), [path], [])
    assert marks(tmp_path / "outside") == marks(tmp_path / "outside/inside") == set()
    assert marks(root / "etc") == set()


@pytest.mark.parametrize("path", ["missing", "file"])
def test_what_is_no_directory_cannot_be_marked(root: Path, path: str) -> None:
    with pytest.raises(HostLacks):
        mark(str(root), [], [path])


def test_a_file_system_that_takes_no_attributes_is_named(root: Path, tmp_path: Path) -> None:
    def attempt() -> None:
        unshare(CLONE_NEWNS)
        make_tree_slave()
        subprocess.run(["mount", "-t", "ramfs", "none", tmp_path / "outside"], check=True)
        os.mkdir(tmp_path / "outside/etc")
        mark(str(tmp_path / "outside"), ["etc"], [])

    with (
        spawn(attempt, privileges=Privileges.SAME, name="attempt") as child,
        pytest.raises(HostLacks) as caught,
    ):
        child.wait()
    assert caught.value.hint is not None
    assert "trusted extended attributes" in caught.value.hint
