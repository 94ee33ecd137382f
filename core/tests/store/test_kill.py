"""kill -9 before every mutating system call of commit, removal, rendering and collection.

Every point, not a sample. Whatever is left, the next command accepts it: what was committed
before is whole, what was under way is there in full or not at all, and nothing stays behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from podctl.store import Store
from podctl.store.fsck import Structure
from podctl.store.gc import collect
from podctl.store.leftovers import clear_leftovers
from podctl.store.trees import finished, render
from podctl.testing.tracer import run_traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.store import ImageRecord

    Put = Callable[..., ImageRecord]

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.uname().machine != "x86_64",
        reason="the tracer knows the system call numbers of x86-64 alone",
    ),
]


@pytest.fixture
def template(store: Store, put: Put, data_dir: Path) -> Path:
    """A store with one image, put aside."""
    put(store, "example.com/kept", b"kept", signature=b"s")
    place = data_dir.with_name("template")
    data_dir.rename(place)
    return place


def sweep(
    template: Path, data_dir: Path, work: Callable[[], object], check: Callable[[], object]
) -> int:
    """Kill `work` at each point; `check` looks at the store as the next command finds it."""

    def run() -> int:
        work()
        return 0

    def reset() -> None:
        shutil.rmtree(data_dir, ignore_errors=True)
        subprocess.run(["cp", "-a", template, data_dir], check=True)

    reset()
    whole = run_traced(run)
    assert whole.status == 0
    for point in whole.points:
        reset()
        run_traced(run, point)
        try:
            check()
            aftermath(data_dir)
        except Exception as error:
            raise AssertionError(f"killed at {point}: {error}") from error
    return len(whole.points)


def aftermath(data_dir: Path) -> None:
    """What the next commands must find, and leave."""
    store = Store(str(data_dir))
    assert list(Structure(store).check()) == []
    for record in store.images():
        assert_whole(store, record)
    clear_leftovers(store)
    structure = Structure(store)
    assert list(structure.check()) == []
    assert structure.orphans == []
    assert structure.unmarked == []
    assert os.listdir(data_dir / "cas/tmp") == []
    assert [name for name in os.listdir(data_dir / "layers") if name.startswith(".")] == []
    assert [name for name in os.listdir(data_dir / "trees") if name.startswith(".")] == []
    assert "example.com/kept" in {record.name for record in store.images()}


def assert_whole(store: Store, record: ImageRecord) -> None:
    """Everything a record promises is there."""
    with os.fdopen(store.open_blob(record.blob), "rb") as blob:
        assert len(blob.read()) == record.blob_size
    assert record.name.encode() in store.manifest(record.key)
    assert (store.signature(record.key) is not None) == record.signed
    layer = store.layer(record.layers[0])
    assert layer is not None
    assert os.listdir(layer) == ["file"]


def test_l1_commit(template: Path, data_dir: Path, put: Put) -> None:
    store = Store(str(data_dir))

    def again() -> None:
        put(store, "example.com/new", b"new")
        assert store.find("example.com/new", {}) is not None

    count = sweep(template, data_dir, lambda: put(store, "example.com/new", b"new"), again)
    assert count > 30


def test_l1_commit_without_another_try(template: Path, data_dir: Path, put: Put) -> None:
    """The image is there in full, or not at all."""
    store = Store(str(data_dir))
    seen: set[bool] = set()

    def look() -> None:
        seen.add(store.find("example.com/new", {}) is not None)

    sweep(template, data_dir, lambda: put(store, "example.com/new", b"new"), look)
    assert seen == {False, True}


def test_l1_commit_of_what_is_there(template: Path, data_dir: Path, put: Put) -> None:
    """Renewing a record: the old one or the new one, with its own signature."""
    store = Store(str(data_dir))
    seen: set[bytes | None] = set()

    def look() -> None:
        record = store.find("example.com/kept", {})
        assert record is not None
        seen.add(store.signature(record.key))

    def renew() -> None:
        put(store, "example.com/kept", b"kept", signature=b"second")

    sweep(template, data_dir, renew, look)
    assert seen == {b"s", b"second"}


def test_l1_remove(store: Store, template: Path, data_dir: Path, put: Put) -> None:
    subprocess.run(["cp", "-a", template, data_dir], check=True)
    record = put(store, "example.com/doomed", b"doomed")
    store.put_remote("https://example.com/x", record.key, etag=None, max_age=0)
    shutil.rmtree(template)
    data_dir.rename(template)
    seen: set[bool] = set()

    def look() -> None:
        seen.add(store.lookup(record.key) is not None)
        clear_leftovers(store)
        if store.lookup(record.key) is None:
            assert not store.area.exists(store.layout.blob(record.blob))

    count = sweep(template, data_dir, lambda: store.remove(record.key), look)
    assert seen == {False, True}
    assert count > 10


def test_l1_image_gc(store: Store, template: Path, data_dir: Path, put: Put) -> None:
    subprocess.run(["cp", "-a", template, data_dir], check=True)
    record = put(store, "example.com/doomed", b"doomed")
    os.utime(data_dir / "cas/images" / record.key / "record.json", (1, 1))
    shutil.rmtree(template)
    data_dir.rename(template)

    def gc() -> None:
        collect(store, 3600, lambda line: None)

    def again() -> None:
        gc()
        assert store.lookup(record.key) is None
        assert not (data_dir / "layers" / record.layers[0]).exists()

    sweep(template, data_dir, gc, again)


def test_l1_render(template: Path, data_dir: Path, put: Put) -> None:
    store = Store(str(data_dir))
    name = "deps-sha512-" + "0" * 64

    def work() -> None:
        record = store.images()[0]
        layer = store.layer(record.layers[0])
        assert layer is not None
        render(store, name, [record.key], [(layer, None)])

    def again() -> None:
        before = finished(store, name)
        assert before is None or os.listdir(before) == ["file"]
        work()
        assert finished(store, name) is not None

    sweep(template, data_dir, work, again)
