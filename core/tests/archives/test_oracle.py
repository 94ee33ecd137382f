"""Good archives unpack as GNU tar unpacks them, to the last attribute."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest
from archive_lab import Dribble, Snapshot, run, snapshot, unpack_to
from test_kinds import CAPABILITY

if TYPE_CHECKING:
    from pathlib import Path


def image_like(root: Path) -> None:
    """A tree with what images have: links, modes, owners, fractional times, xattrs, odd names."""
    choice = random.Random(9)
    os.makedirs(root / "usr/bin")
    for n in range(60):
        path = (
            root / "usr" / choice.choice(["lib", "share", "bin", "lib/a/b/c", "share/" + "n" * 120])
        )
        path.mkdir(parents=True, exist_ok=True)
        file = path / f"file-{n}"
        file.write_bytes(choice.randbytes(choice.choice([0, 1, 511, 512, 513, 5000, 200_000])))
        os.chown(file, choice.choice([0, 1000, 3_000_000]), choice.choice([0, 5, 2_500_000_000]))
        os.chmod(file, choice.choice([0o644, 0o755, 0o4755, 0o2755, 0o600, 0o000]))
    (root / "big").write_bytes(choice.randbytes(3_000_001))
    (root / "lib").symlink_to("usr/lib")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to("x/" * 150)
    os.lchown(root / "dangling", 42, 43)
    os.link(root / "big", root / "usr/bin/hard")
    os.link(root / "lib", root / "usr/bin/hard-symlink", follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o620)
    (root / "name with \u2603 and space").write_text("snow")
    (root / ("n" * 255)).write_text("long")
    (root / "empty").mkdir(mode=0o1777)
    os.chmod(root / "empty", 0o1777)
    (root / "private").mkdir()
    (root / "private/file").write_text("x")
    os.setxattr(root / "usr/bin", "user.directory", b"yes\0binary\xff\n=")
    os.setxattr(root / "big", "user.file", b"v" * 500)
    os.setxattr(root / "big", "security.capability", CAPABILITY)
    for path in sorted(root.rglob("*"), reverse=True):
        moment = choice.choice([choice.randrange(10**18), 0, 5 * 10**9, -(10**9)])
        os.utime(path, ns=(moment, moment), follow_symlinks=False)
    os.chmod(root / "private", 0o000)
    os.chmod(root, 0o751)
    os.utime(root, ns=(123_456_789_012, 123_456_789_012))


@pytest.mark.parametrize("fmt", ["pax", "gnu"])
@pytest.mark.parametrize("order", ["name", "none"])
def test_tree_equals_gnu_tars(fmt: str, order: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    image_like(source)
    options = ["--xattrs", "--xattrs-include=*"] if fmt == "pax" else []
    tar = run(
        ["tar", "-c", f"--format={fmt}", f"--sort={order}", *options, "-C", source, "."]
    ).stdout
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    run(["tar", "-x", "-p", "--numeric-owner", *options, "-C", theirs], input=tar)
    done = unpack_to(tmp_path / "ours", tar, source=Dribble(tar))
    ours = snapshot(tmp_path / "ours")
    assert ours == snapshot(theirs)
    if fmt == "pax":
        assert ours == snapshot(source)
    assert done.warnings == ()
    assert unpack_to(None, tar).size == done.size


def test_archive_by_umoci_reads_back(tmp_path: Path) -> None:
    """What Go's tar writer makes of a tree with long names, xattrs and big ids."""
    import json

    run(["umoci", "init", "--layout", tmp_path / "layout"])
    run(["umoci", "new", "--image", f"{tmp_path / 'layout'}:t"])
    run(["umoci", "unpack", "--image", f"{tmp_path / 'layout'}:t", tmp_path / "bundle"])
    image_like(tmp_path / "bundle/rootfs")
    run(["umoci", "repack", "--image", f"{tmp_path / 'layout'}:t", tmp_path / "bundle"])
    index = json.loads((tmp_path / "layout/index.json").read_text())

    def blob(descriptor: dict[str, str]) -> Path:
        return tmp_path / "layout/blobs" / descriptor["digest"].replace(":", "/")

    manifest = json.loads(blob(index["manifests"][0]).read_text())
    tar = run(["gzip", "-dc", blob(manifest["layers"][0])]).stdout
    unpack_to(tmp_path / "ours", tar)
    assert whole_seconds(tmp_path / "ours") == whole_seconds(tmp_path / "bundle/rootfs")


def whole_seconds(root: Path) -> Snapshot:
    """umoci rounds times to whole seconds."""
    return {
        path: (*row[:3], (row[3] + 5 * 10**8) // 10**9, *row[4:])
        for path, row in snapshot(root).items()
    }
