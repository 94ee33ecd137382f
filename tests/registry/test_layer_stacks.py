"""Stacks of layers give the tree umoci makes of them: type, mode, owner, times, xattrs, content."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from stacks import YEARS, Stack, stack

from podctl.testing.ociimages import DOCKER, OCI, image, write_layout
from podctl.testing.ocilayers import layer
from podctl.testing.trees import Row, Snapshot, differences, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from clean_home import Clean

    from podctl.testing.ociimages import Image
    from podctl.testing.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

STACKS, GROUP = 200, 20
COMPRESSIONS = ("gzip", "zstd", "none")


def made_of(drawn: Stack, seed: int) -> Image:
    """An image of a stack, of either kind and every compression in turn."""
    kind = (OCI, DOCKER)[seed % 2]
    layers = [
        layer(*entries, compression=COMPRESSIONS[(seed + number) % 3])
        for number, entries in enumerate(drawn.layers)
    ]
    return image(*layers, kind=kind, config={"Cmd": ["/a"]})


def by_umoci(drawn: Stack, work: Path) -> Snapshot:
    """umoci knows neither Docker's media types nor zstd: it gets the same tars as they are."""
    plain = image(*[layer(*entries, compression="none") for entries in drawn.layers])
    write_layout(work / "layout", {"t": plain})
    words = ["umoci", "unpack", "--image", f"{work}/layout:t", f"{work}/bundle"]
    subprocess.run(words, check=True, capture_output=True)
    return snapshot(work / "bundle/rootfs")


def comparable(ours: Snapshot, theirs: Snapshot, implied: set[str]) -> tuple[Snapshot, Snapshot]:
    """Both trees without what nobody decides, or umoci gets wrong.

    A directory that no entry describes has the mode, owner and time its maker likes. umoci leaves
    the time of unpacking to some directories in which a later layer removes or adds something,
    whatever their entries say.
    """

    def plain(path: str, row: Row) -> Row:
        if path in implied:
            return row._replace(mode=row.mode[0], uid=0, gid=0, mtime=0)
        other = theirs.get(path, row)
        touched = other.mode[0] == "d" and other.mtime > YEARS * 10**9
        return row._replace(mtime=0) if touched else row

    return (
        {path: plain(path, row) for path, row in ours.items()},
        {path: plain(path, row) for path, row in theirs.items()},
    )


@pytest.mark.parametrize("start", range(0, STACKS, GROUP))
def test_generated_stacks_give_umocis_tree(
    start: int, registry: Registry, home: Clean, tmp_path: Path
) -> None:
    drawn = {seed: stack(seed) for seed in range(start, start + GROUP)}
    for seed, one in drawn.items():
        registry.put(f"stack/{seed}", made_of(one, seed), "latest")
    names = {seed: f"registry.example/stack/{seed}" for seed in drawn}
    home.must("fetch", *(f"docker://{name}" for name in names.values()))
    unequal: list[str] = []
    for seed, one in drawn.items():
        target = tmp_path / f"ours{seed}"
        home.must("image", "render", "--rootfs-only", names[seed], str(target))
        work = tmp_path / f"theirs{seed}"
        work.mkdir()
        theirs = by_umoci(one, work)
        found = differences(*comparable(snapshot(target), theirs, one.implied))
        unequal += [f"{seed}: {line}" for line in found]
    assert not unequal, "\n".join(unequal)
