"""Removing when it is needed most: with no space left."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from podctl.store import Store
from podctl.store.fsck import Structure
from podctl.store.gc import collect
from podctl.sys.constants import CLONE_NEWNS
from podctl.sys.mounts import make_tree_slave
from podctl.sys.namespaces import unshare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.store import ImageRecord

    Put = Callable[..., ImageRecord]

pytestmark = pytest.mark.root


def fill(place: Path) -> None:
    """Use up every block and every inode."""
    with (place / "filler").open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    try:
        for number in range(1 << 20):
            (place / f"filler{number}").touch()
    except OSError:
        pass


@pytest.mark.parametrize("remove", ["rm", "gc"])
def test_l5_images_can_be_removed_from_a_full_disk(
    tmp_path: Path, put: Put, in_child: Callable[[Callable[[], object]], int], remove: str
) -> None:
    disk, place = tmp_path / "disk", tmp_path / "mnt"
    place.mkdir()
    with disk.open("wb") as file:
        file.truncate(20 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-N", "256", disk], check=True)

    def work() -> None:
        unshare(CLONE_NEWNS)
        make_tree_slave()
        subprocess.run(["mount", "-o", "loop", disk, place], check=True)
        store = Store(str(place / "data"))
        records = [put(store, f"example.com/{number}", os.urandom(1 << 20)) for number in range(3)]
        fill(place)
        with pytest.raises(OSError, match="No space"):
            (place / "one-more").write_bytes(bytes(1 << 20))
        if remove == "rm":
            for record in records:
                assert store.remove(record.key) == []
        else:
            assert collect(store, 0, lambda line: None) == []
        assert store.keys() == []
        assert os.listdir(place / "data/layers") == []
        assert list(Structure(store).check()) == []
        # There is room again.
        put(store, "example.com/new", os.urandom(1 << 20))
        subprocess.run(["umount", place], check=True)

    assert in_child(work) == 0


def test_a_download_that_ends_while_collection_looks_is_passed_by(
    store: Store, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "example.com/app")
    with store.partial("https://example.com/app.aci") as partial:
        os.write(partial.fd, b"half")
        partial.keep()
    (name,) = [name for name in store.area.names("cas/tmp") if name.endswith(".part")]
    right = type(store.area).status

    def status(area: object, path: str) -> os.stat_result:
        store.area.remove(path)
        return right(store.area, path)

    monkeypatch.setattr(type(store.area), "status", status)
    said: list[str] = []
    assert collect(store, 3600, said.append) == []
    assert not any(name in line for line in said)
