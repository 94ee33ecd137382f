"""Mount wrappers, and taking leftovers away without reaching the host."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from podctl.sys import constants as c
from podctl.sys import mounts
from podctl.sys.calls import filesystem_magic

if TYPE_CHECKING:
    from pathlib import Path

Runner = Callable[[Callable[[], object]], object]


def points(below: Path) -> list[str]:
    return mounts.mount_points_below(str(below))


def test_errors_name_call_and_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="mount: .*missing") as caught:
        mounts.mount("none", str(tmp_path / "missing"), "tmpfs")
    assert caught.value.filename == str(tmp_path / "missing")
    with pytest.raises(OSError, match="open_tree"):
        mounts.open_tree(c.AT_FDCWD, str(tmp_path / "missing"), 0)


def test_detached_tree_is_made_read_only_with_submounts(
    tmp_path: Path, in_own_mounts: Runner
) -> None:
    for name in ("source/sub", "target"):
        (tmp_path / name).mkdir(parents=True)

    def work() -> list[str]:
        mounts.mount("none", str(tmp_path / "source" / "sub"), "tmpfs")
        flags = c.OPEN_TREE_CLONE | c.AT_RECURSIVE
        tree = mounts.open_tree(c.AT_FDCWD, str(tmp_path / "source"), flags)
        mounts.mount_setattr(
            tree, attr_set=c.MOUNT_ATTR_RDONLY, propagation=c.MS_PRIVATE, recursive=True
        )
        target = os.open(tmp_path / "target", os.O_PATH)
        mounts.move_mount(tree, target)
        assert mounts.mount_id(tree) != mounts.mount_id(target)
        denied = []
        for name in ("target/x", "target/sub/x", "source/x", "source/sub/x"):
            try:
                (tmp_path / name).touch()
            except OSError:
                denied.append(name)
        return denied

    assert in_own_mounts(work) == ["target/x", "target/sub/x"]


def test_detach_below_takes_everything_and_is_idempotent(
    tmp_path: Path, in_own_mounts: Runner
) -> None:
    def work() -> list[list[str]]:
        for name in ("a", "a/b c", "a/b c/d\\e", "a"):
            (tmp_path / "pod" / name).mkdir(parents=True, exist_ok=True)
            mounts.mount("none", str(tmp_path / "pod" / name), "tmpfs")
        (tmp_path / "pod2").mkdir()
        mounts.mount("none", str(tmp_path / "pod2"), "tmpfs")
        before = points(tmp_path / "pod")
        mounts.detach_below(str(tmp_path / "pod"))
        mounts.detach_below(str(tmp_path / "pod"))
        return [before, points(tmp_path)]

    found = in_own_mounts(work)
    assert isinstance(found, list)
    before, after = found
    assert len(before) == 4
    assert after == [str(tmp_path / "pod2")]


@pytest.mark.parametrize("naive", [False, True])
def test_detaching_a_shared_copy_leaves_the_original_alone(
    tmp_path: Path, in_own_mounts: Runner, naive: bool
) -> None:
    """Control: a plain lazy unmount takes the submount away from the original as well."""

    def work() -> bool:
        origin, copy = tmp_path / "origin", tmp_path / "pod" / "copy"
        (origin / "sub").mkdir(parents=True)
        copy.mkdir(parents=True)
        mounts.mount(str(origin), str(origin), None, c.MS_BIND)
        mounts.mount("none", str(origin), None, c.MS_SHARED)
        mounts.mount("none", str(origin / "sub"), "tmpfs")
        mounts.mount(str(origin), str(copy), None, c.MS_BIND | c.MS_REC)
        if naive:
            for point in reversed(points(tmp_path / "pod")):
                mounts.umount2(point, c.MNT_DETACH)
        else:
            mounts.detach_below(str(tmp_path / "pod"))
        assert points(tmp_path / "pod") == []
        return str(origin / "sub") in points(tmp_path)

    assert in_own_mounts(work) is not naive


def test_filesystem_magic_tells_proc() -> None:
    for path, expected in (("/proc", True), ("/", False)):
        fd = os.open(path, os.O_PATH)
        assert (filesystem_magic(fd) == c.PROC_SUPER_MAGIC) is expected
        os.close(fd)
