"""Merging trees: what an overlay of the same layers shows, and nothing outside of them."""

from __future__ import annotations

import os
import random
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from podctl.store.compare import differences
from podctl.store.copying import IMPLIED, OPAQUE, Source, merge
from podctl.sys.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.root
OPEN = os.O_RDONLY | os.O_DIRECTORY


def merge_paths(layers: Sequence[Path], target: Path, *, link: bool = False) -> list[str]:
    """Merge directories, highest first, into a new one; return the warnings."""
    target.mkdir()
    warnings: list[str] = []
    fds = [os.open(path, OPEN) for path in (*layers, target)]
    try:
        merge([Source(fd) for fd in fds[:-1]], fds[-1], link=link, warn=warnings.append)
    finally:
        for fd in fds:
            os.close(fd)
    return warnings


def differ(found: Path, right: Path) -> list[str]:
    """Differences of two directories."""
    fds = [os.open(path, OPEN) for path in (found, right)]
    try:
        return [str(difference) for difference in differences(*fds)]
    finally:
        for fd in fds:
            os.close(fd)


def populate(top: Path, chance: random.Random) -> None:
    """A small tree of a few names, so that layers collide in every way."""
    top.mkdir()
    directories = [top]
    for _ in range(chance.randint(0, 14)):
        path = chance.choice(directories) / chance.choice("abc")
        if path.exists() or path.is_symlink():
            continue
        kind = chance.choice(("directory", "directory", "file", "link", "fifo", "hard", "whiteout"))
        if kind == "directory":
            path.mkdir()
            directories.append(path)
        elif kind == "file":
            path.write_bytes(chance.randbytes(chance.randint(0, 40)))
        elif kind == "link":
            path.symlink_to(chance.choice(("a", "/etc/passwd", "../../..")))
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "whiteout":
            # In a directory that only one layer has, the kernel lists whiteouts it cannot find.
            if path.parent == top:
                os.mknod(path, stat.S_IFCHR, 0)
        else:  # another name for a file
            files = [p for p in top.rglob("*") if p.is_file() and not p.is_symlink()]
            if files:
                os.link(chance.choice(files), path)
        if os.path.lexists(path):
            os.chown(path, chance.randint(0, 3), chance.randint(0, 3), follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(chance.choice((0o755, 0o644, 0o4711, 0o2775, 0o1777, 0)))
            if path in directories and chance.random() < 0.2:
                os.setxattr(path, "trusted.overlay.opaque", b"y")


def overlay_copy(layers: Sequence[Path], target: Path) -> None:
    """What the kernel shows of the layers, copied by GNU cp."""
    lowers = ":".join(str(path) for path in layers)
    script = 'mount -t overlay overlay -o "lowerdir=$1" "$2" && cp -a --no-preserve=links "$2" "$3"'
    mountpoint = target.with_name(f"{target.name}.mnt")
    mountpoint.mkdir()
    words = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh"]
    subprocess.run([*words, lowers, str(mountpoint), str(target)], check=True)
    mountpoint.rmdir()


def without_links(found: list[str]) -> list[str]:
    """An overlay does not show which names of different layers are one file."""
    return [line for line in found if "linked to other names" not in line]


@pytest.mark.parametrize("link", [False, True])
def test_a_merge_is_what_an_overlay_shows(tmp_path: Path, link: bool) -> None:
    made_difference = 0
    for seed in range(40):
        chance = random.Random(seed)
        top = tmp_path / str(seed)
        top.mkdir()
        layers = [top / f"layer{number}" for number in range(chance.randint(2, 4))]
        for layer in layers:
            populate(layer, chance)
        overlay_copy(layers, top / "overlay")
        warnings = merge_paths(layers, top / "merged", link=link)
        assert warnings == []
        found = without_links(differ(top / "merged", top / "overlay"))
        assert found == [], (seed, found)
        # The control: putting the same layers together upside down is seen to be wrong.
        merge_paths(layers[::-1], top / "wrong")
        made_difference += bool(without_links(differ(top / "wrong", top / "overlay")))
    assert made_difference > 20


def test_a_copy_shares_nothing_and_links_share_all(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "file").write_bytes(b"content")
    os.link(layer / "file", layer / "again")
    merge_paths([layer], tmp_path / "copy")
    merge_paths([layer], tmp_path / "linked", link=True)
    inodes = [os.stat(tmp_path / name / "file").st_ino for name in ("layer", "copy", "linked")]
    assert inodes[0] != inodes[1]
    assert inodes[0] == inodes[2]
    assert os.path.samefile(tmp_path / "copy/file", tmp_path / "copy/again")


def test_holes_stay_holes(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    with (layer / "sparse").open("wb") as file:
        file.truncate(1 << 36)
        file.seek(1 << 35)
        file.write(b"middle")
    merge_paths([layer], tmp_path / "copy")
    status = (tmp_path / "copy/sparse").stat()
    assert status.st_size == 1 << 36
    assert status.st_blocks * 512 < 1 << 20
    with (tmp_path / "copy/sparse").open("rb") as file:
        file.seek(1 << 35)
        assert file.read(6) == b"middle"


def test_attributes_capabilities_and_times_are_kept(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    path = layer / "file"
    path.write_bytes(b"x")
    os.chown(path, 7, 8)
    path.chmod(0o6755)
    os.setxattr(path, "user.note", b"value")
    capability = b"\x01\x00\x00\x02" + b"\x00\x04\x00\x00" + b"\x00" * 12
    os.setxattr(path, "security.capability", capability)
    os.utime(path, ns=(1, 1_000_000_001))
    merge_paths([layer], tmp_path / "copy")
    copy = tmp_path / "copy/file"
    assert differ(tmp_path / "copy", layer) == []
    assert copy.stat().st_mode == path.stat().st_mode
    assert copy.stat().st_mtime_ns == 1_000_000_001
    assert os.getxattr(copy, "security.capability") == capability


@pytest.mark.parametrize("opaque", [False, True])
def test_a_directory_its_layer_does_not_describe_looks_as_the_one_below(
    opaque: bool, tmp_path: Path
) -> None:
    """Opaque or not: that hides what is inside, not how it looks."""
    layers = [tmp_path / name for name in ("top", "middle", "bottom")]
    for number, top in enumerate(layers):
        (top / "d").mkdir(parents=True)
        (top / f"d/{number}").touch()
        (top / "d").chmod(0o750 - number)
        os.setxattr(top / "d", "user.from", b"%d" % number)
    for top in layers[:2]:
        os.setxattr(top / "d", IMPLIED, b"y")
    if opaque:
        os.setxattr(layers[0] / "d", OPAQUE, b"y")
    merge_paths(layers, tmp_path / "merged")
    merged = tmp_path / "merged/d"
    assert sorted(os.listdir(merged)) == (["0"] if opaque else ["0", "1", "2"])
    assert stat.S_IMODE(merged.stat().st_mode) == 0o746
    assert os.getxattr(merged, "user.from") == b"2"
    assert os.listxattr(merged) == ["user.from"]


def test_deep_trees_are_copied(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    fd = os.open(layer, OPEN)
    depth = 1050  # deeper than Python's own recursion may go
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", OPEN, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    try:
        merge_paths([layer], tmp_path / "copy")
        assert differ(tmp_path / "copy", layer) == []
        words = ["find", str(tmp_path / "copy"), "-type", "d", "-printf", "."]
        assert len(subprocess.run(words, check=True, capture_output=True).stdout) == depth + 1
    finally:
        # pytest would remove them by recursion, some sessions later.
        for place in (layer, tmp_path / "copy"):
            remove_tree(str(place))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _relink(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a flipped byte": lambda top: _flip(top / "d/file"),
    "another mode": lambda top: (top / "d/file").chmod(0o600),
    "another mode of a directory": lambda top: (top / "d").chmod(0o700),
    "another mode of the root": lambda top: top.chmod(0o700),
    "a set-id bit": lambda top: (top / "d/file").chmod(0o4644),
    "another owner": lambda top: os.chown(top / "d/file", 1, -1),
    "another group": lambda top: os.chown(top / "link", -1, 1, follow_symlinks=False),
    "an added file": lambda top: (top / "d/new").write_bytes(b""),
    "an added directory": lambda top: (top / "d/new").mkdir(),
    "a removed file": lambda top: (top / "d/file").unlink(),
    "a cut file": lambda top: os.truncate(top / "d/file", 3),
    "a longer file": lambda top: os.truncate(top / "d/file", 5000),
    "another link target": lambda top: ((top / "link").unlink(), (top / "link").symlink_to("b")),
    "a file in place of a link": lambda top: ((top / "link").unlink(), (top / "link").touch()),
    "a link in place of a file": lambda top: (
        (top / "d/file").unlink(),
        (top / "d/file").symlink_to("/etc/passwd"),
    ),
    "a FIFO in place of a file": lambda top: ((top / "d/file").unlink(), os.mkfifo(top / "d/file")),
    "an attribute": lambda top: os.setxattr(top / "d/file", "user.x", b"y"),
    "an attribute of a directory": lambda top: os.setxattr(top / "d", "user.x", b"y"),
    "a broken hard link": lambda top: _relink(top / "one"),
    "an added hard link": lambda top: os.link(top / "d/file", top / "d/new"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_kind_of_change_is_found(tmp_path: Path, change: str) -> None:
    right = tmp_path / "right"
    (right / "d").mkdir(parents=True)
    (right / "d/file").write_bytes(bytes(range(256)) * 16)
    (right / "d/file").chmod(0o644)
    (right / "link").symlink_to("a")
    (right / "one").write_bytes(b"1")
    os.link(right / "one", right / "two")
    merge_paths([right], tmp_path / "found")
    assert differ(tmp_path / "found", right) == []
    CHANGES[change](tmp_path / "found")
    assert differ(tmp_path / "found", right) != []


def test_one_flipped_byte_in_any_place_is_found(tmp_path: Path) -> None:
    chance = random.Random(1)
    right = tmp_path / "right"
    right.mkdir()
    for number in range(20):
        (right / str(number)).write_bytes(chance.randbytes(chance.randint(1, 5000)))
    merge_paths([right], tmp_path / "found")
    for _ in range(300):
        path = tmp_path / "found" / str(chance.randrange(20))
        at = chance.randrange(path.stat().st_size)
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << chance.randrange(8)]))
        assert differ(tmp_path / "found", right) == [f"/{path.name} has other content at byte {at}"]
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([byte]))
    assert differ(tmp_path / "found", right) == []
