"""Who has looked an image up is not left with nothing: removal waits, collection passes it by."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from podctl.errors import ImageGone
from podctl.store import Store
from podctl.store.gc import collect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.store import ImageRecord

    Put = Callable[..., ImageRecord]

pytestmark = pytest.mark.root


class Keeper:
    """Another process that keeps an image until it is told to end."""

    def __init__(self, store: Store, record: ImageRecord) -> None:
        ready, self._end = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._end[1])
            Store(store.layout.top).keep(record)
            os.write(ready[1], b"x")
            os.read(self._end[0], 1)
            os._exit(0)
        os.close(self._end[0])
        assert os.read(ready[0], 1) == b"x"
        os.close(ready[0])
        os.close(ready[1])

    def end(self) -> None:
        os.close(self._end[1])
        os.waitpid(self.pid, 0)


def test_removal_waits_for_who_keeps_the_image(store: Store, put: Put) -> None:
    record, other = put(store, "example.com/kept"), put(store, "example.com/other", b"other")
    keeper = Keeper(store, record)
    waiting = threading.Event()
    remover = threading.Thread(target=store.remove, args=(record.key, waiting.set))
    remover.start()
    try:
        assert waiting.wait(30)
        assert store.holds(record.key)
        # Nobody else is held up by that.
        store.remove(other.key, pytest.fail)
        put(store, "example.com/third", b"third")
    finally:
        keeper.end()
        remover.join(30)
    assert not store.holds(record.key)


def test_collection_passes_a_kept_image_by(store: Store, put: Put, data_dir: Path) -> None:
    record = put(store, "example.com/kept")
    put(store, "example.com/other", b"other")
    keeper = Keeper(store, record)
    try:
        collect(store, 0, lambda line: None)
        assert [image.key for image in store.images()] == [record.key]
        assert store.layer(record.layers[0]) is not None
    finally:
        keeper.end()
    collect(store, 0, lambda line: None)
    assert store.images() == []


def test_what_was_removed_before_cannot_be_kept(store: Store, put: Put) -> None:
    record = put(store, "example.com/gone")
    store.remove(record.key)
    with pytest.raises(ImageGone):
        store.keep(record)


def test_keeping_twice_is_keeping_once(store: Store, put: Put) -> None:
    record = put(store, "example.com/kept")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        store.keep(record)
    assert len(os.listdir("/proc/self/fd")) == before + 1
