"""Many processes at one store: nothing is lost, nothing half-visible, nothing waits for ever."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from podctl.errors import NotFound, StoreCorrupt
from podctl.images.render import Part, Resolved
from podctl.store import Store
from podctl.store.fsck import Structure
from podctl.store.gc import collect
from podctl.store.usage import dump_needs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.store import ImageRecord

    Put = Callable[..., ImageRecord]

pytestmark = pytest.mark.root
WORKERS = 8
STEPS = 40
NAMES = [f"example.com/app{number}" for number in range(4)]


def silent(line: str) -> None:
    """Collection reports to nobody."""


def read_whole(store: Store, record: ImageRecord) -> None:
    """Read all of an image; it may vanish meanwhile, but not be something else."""
    try:
        fd = store.open_blob(record.blob)
    except StoreCorrupt:
        assert store.lookup(record.key) is None
        return
    with os.fdopen(fd, "rb") as blob:
        data = blob.read()
    assert len(data) == record.blob_size
    assert record.name.encode() in data


def one_worker(store: Store, put: Put, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(STEPS):
        name = chance.choice(NAMES)
        what = chance.choice(("put", "put", "remove", "find", "list", "gc", "url", "touch"))
        record = store.find(name, {})
        if what == "put":
            made = put(store, name, name.encode() * 100, signature=name.encode())
            assert made.name == name
        elif record is None:
            continue
        elif what == "remove":
            with suppress(NotFound):  # somebody else was faster
                store.remove(record.key)
        elif what == "find":
            read_whole(store, record)
        elif what == "list":
            for found in store.images():
                assert found.name in NAMES
        elif what == "gc":
            collect(store, 3600, silent)
        elif what == "url":
            with store.partial(f"https://{name}") as partial:
                os.write(partial.fd, b"data")
            store.put_remote(f"https://{name}", record.key, etag=None, max_age=1)
        else:
            store.touch(record.key)


def run_workers(work: Callable[[int], object], count: int) -> list[int]:
    """Exit codes of `count` forked workers."""
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                work(number)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_everything_at_once(store: Store, put: Put, data_dir: Path) -> None:
    put(store, NAMES[0])
    codes = run_workers(lambda number: one_worker(Store(str(data_dir)), put, number), WORKERS)
    assert codes == [0] * WORKERS
    structure = Structure(store)
    assert list(structure.check()) == []
    assert structure.orphans == []
    assert os.listdir(data_dir / "cas/tmp") == []
    for record in store.images():
        read_whole(store, record)
    # Layers left by removals beside a commit are collected.
    assert collect(store, 3600, silent) == []
    assert set(os.listdir(data_dir / "layers")) == {
        layer for record in store.images() for layer in record.layers
    }


def test_one_image_committed_by_all_is_one_image(store: Store, put: Put, data_dir: Path) -> None:
    codes = run_workers(lambda _: put(Store(str(data_dir)), NAMES[0], b"same"), WORKERS)
    assert codes == [0] * WORKERS
    assert len(store.images()) == 1
    assert len(os.listdir(data_dir / "layers")) == 1
    assert list(Structure(store).check()) == []


def test_l8_an_image_is_never_collected_under_a_pod(store: Store, put: Put, data_dir: Path) -> None:
    """Preparing against gc and rm: once the lock is given back, all the pod named is there."""

    def prepare(number: int) -> None:
        mine = Store(str(data_dir))
        for step in range(25):
            with mine.preparing():
                record = put(mine, NAMES[0])
                pod = data_dir / f"pods/run/{number}-{step}"
                pod.mkdir(parents=True)
                needs = dump_needs([record.key], record.layers, [])
                (pod / "images.json").write_bytes(needs)
                layer = mine.layer(record.layers[0])
                assert layer is not None
            assert os.listdir(layer) == ["file"]
            (pod / "images.json").unlink()
            pod.rmdir()

    def destroy(number: int) -> None:
        mine = Store(str(data_dir))
        for _ in range(25):
            collect(mine, 0, silent)
            for record in mine.images():
                with suppress(NotFound):
                    mine.remove(record.key)

    codes = run_workers(lambda number: (prepare if number % 2 else destroy)(number), 6)
    assert codes == [0] * 6


def test_a_pod_that_is_not_visible_yet_holds_collection_off(store: Store, put: Put) -> None:
    record = put(store, NAMES[0])
    with store.preparing(), pytest.raises(BlockingIOError), store.locks.collecting(blocking=False):
        pytest.fail("collected under a preparation")
    with store.preparing():
        # Removing the image is allowed; its layer waits for the next collection.
        assert store.remove(record.key) == []
        assert store.layer(record.layers[0]) is not None
    collect(store, 3600, silent)
    assert store.layer(record.layers[0]) is None


def test_needs_are_those_of_the_resolved_image(store: Store, put: Put) -> None:
    record = put(store, NAMES[0])
    resolved = Resolved((Part(record, {}),), None)
    assert resolved.needs() == dump_needs([record.key], record.layers, [])
