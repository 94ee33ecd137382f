"""Directories of a stack of layers are found where an overlay of them has them."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import stat
from typing import TYPE_CHECKING, Any

import pytest

from podctl.store.copying import Source, merge, open_below
from podctl.store.union import Place, find_directory
from podctl.sys import constants as c
from podctl.sys.inroot import open_in_root
from podctl.sys.mounts import mount
from podctl.sys.namespaces import unshare
from podctl.testing.pods import Process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.root
OPEN = os.O_RDONLY | os.O_DIRECTORY
NAMES = "abc"
LINKS = ("a", "b/c", "/b", "/", ".", "..", "../../..", "../b", "/c/../a", "a/./b/", "nowhere", "c")
PATHS = ["/", "/..", "//a/.", "a/../b", "c/../../c"]
PATHS += ["/".join(way) for length in (1, 2, 3) for way in itertools.product(NAMES, repeat=length)]


def populate(top: Path, chance: random.Random) -> None:
    """A small tree of a few names, so that layers collide in every way."""
    top.mkdir()
    directories = [top]
    for _ in range(chance.randint(3, 16)):
        path = chance.choice(directories) / chance.choice(NAMES)
        if os.path.lexists(path):
            continue
        kind = chance.choice(("directory", "directory", "directory", "link", "file", "whiteout"))
        if kind == "directory":
            path.mkdir()
            os.chown(path, chance.randint(0, 9), chance.randint(0, 9))
            path.chmod(chance.choice((0o755, 0o700, 0o2775, 0o1777)))
            directories.append(path)
            if chance.random() < 0.25:
                os.setxattr(path, "trusted.overlay.opaque", b"y")
        elif kind == "link":
            path.symlink_to(chance.choice(LINKS))
        elif kind == "file":
            path.touch()
        else:
            os.mknod(path, stat.S_IFCHR, 0)


def looks(fd: int) -> list[Any]:
    """A directory's owner and mode, and the names in it that can be found."""
    status = os.fstat(fd)
    names = []
    for name in sorted(os.listdir(fd)):
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not (stat.S_ISCHR(found.st_mode) and found.st_rdev == 0):
            names.append(name)
    return [status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), names]


def as_the_kernel_has_it(layers: Sequence[Path], point: Path) -> dict[str, Any]:
    """What each path leads to in an overlay of the layers that a process has as its root."""
    point.mkdir()

    def look() -> None:
        unshare(c.CLONE_NEWNS)
        mount("none", "/", None, c.MS_REC | c.MS_PRIVATE)
        mount("test", str(point), "overlay", 0, f"lowerdir={':'.join(map(str, layers))}")
        root = os.open(point, OPEN)
        answers: dict[str, Any] = {}
        for path in PATHS:
            try:
                answers[path] = looks(open_in_root(root, path, OPEN))
            except OSError as error:
                answers[path] = errno.errorcode[error.errno or 0]
        os.write(1, json.dumps(answers).encode())

    with Process(look) as process:
        result = process.wait()
    assert result.code == 0, result
    return dict(json.loads(result.out))


def as_found(roots: Sequence[int], path: str, target: Path) -> Any:
    """What find_directory finds, merged into a directory."""
    try:
        place = find_directory(roots, path)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    if place is None:
        return "ENOENT"
    target.mkdir()
    fds = [open_below(roots[index], place.path) for index in place.layers]
    fds.append(os.open(target, OPEN))
    try:
        merge([Source(fd) for fd in fds[:-1]], fds[-1])
        return looks(fds[-1])
    finally:
        for fd in fds:
            os.close(fd)


@pytest.fixture
def opened() -> Iterator[Any]:
    """Opens directories, and closes them when the test is over."""
    fds: list[int] = []

    def roots(*layers: Path) -> list[int]:
        fds.extend(os.open(layer, OPEN) for layer in layers)
        return fds[len(fds) - len(layers) :]

    yield roots
    for fd in fds:
        os.close(fd)


def test_every_path_leads_where_an_overlay_leads_it(tmp_path: Path, opened: Any) -> None:
    upside_down = 0
    answers: set[str] = set()
    for seed in range(60):
        chance = random.Random(seed)
        top = tmp_path / str(seed)
        top.mkdir()
        layers = [top / f"layer{number}" for number in range(chance.randint(2, 4))]
        for layer in layers:
            populate(layer, chance)
        right = as_the_kernel_has_it(layers, top / "mnt")
        roots = opened(*layers)
        found = {p: as_found(roots, p, top / f"f{at}") for at, p in enumerate(PATHS)}
        assert found == right, (seed, [(p, found[p], right[p]) for p in PATHS])
        answers |= {answer for answer in right.values() if isinstance(answer, str)}
        # The control: the same layers upside down are seen to be something else.
        wrong = {p: as_found(roots[::-1], p, top / f"w{at}") for at, p in enumerate(PATHS)}
        upside_down += wrong != right
    assert upside_down > 40
    assert answers == {"ENOENT", "ENOTDIR", "ELOOP"}


def test_a_link_leads_to_what_a_lower_layer_has(tmp_path: Path, opened: Any) -> None:
    (tmp_path / "low/data/inner").mkdir(parents=True)
    (tmp_path / "high/etc").mkdir(parents=True)
    (tmp_path / "high/etc/link").symlink_to("/data/../../data/inner")
    roots = opened(tmp_path / "high", tmp_path / "low")
    assert find_directory(roots, "/etc/link") == Place("data/inner", (1,))


def test_no_link_leads_out(tmp_path: Path, opened: Any) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "layer").mkdir()
    for name, target in (("up", "../outside"), ("far", str(tmp_path / "outside")), ("top", "..")):
        (tmp_path / "layer" / name).symlink_to(target)
    roots = opened(tmp_path / "layer")
    assert [find_directory(roots, name) for name in ("up", "far")] == [None, None]
    assert find_directory(roots, "top") == Place("", (0,))
