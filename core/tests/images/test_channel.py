"""A bounded queue between threads that either side can give up."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from podctl.errors import BrokenStream
from podctl.images.channel import Channel, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(60)


class Told(threading.Condition):
    """A condition that tells when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.set()
        return super().wait(timeout)


@pytest.fixture
def channel() -> Channel:
    """A channel for two chunks; `waits_of` tells when one of its sides waits."""
    channel = Channel(2)
    channel._changed = Told()
    return channel


def waits_of(channel: Channel) -> threading.Event:
    assert isinstance(channel._changed, Told)
    return channel._changed.waits


def started(work: Callable[[], object], *channels: Channel) -> Stage:
    def run() -> None:
        work()

    stage = Stage(run, *channels)
    stage.start()
    return stage


def test_chunks_come_in_order_and_then_the_end(channel: Channel) -> None:
    chunks = [bytes([number]) * (number + 1) for number in range(200)]

    def write() -> None:
        for chunk in chunks:
            channel.put(chunk)
        channel.end()

    stage = started(write)
    assert list(iter(channel.get, b"")) == chunks
    # It stays at its end.
    assert channel.get() == b""
    stage.join()
    assert stage.error is None


def test_the_writer_waits_while_as_many_chunks_wait_as_may(channel: Channel) -> None:
    written: list[int] = []

    def write() -> None:
        for number in range(4):
            channel.put(b"x")
            written.append(number)

    stage = started(write)
    assert waits_of(channel).wait(30)
    assert written == [0, 1]
    for _ in range(4):
        assert channel.get() == b"x"
    stage.join()
    assert written == [0, 1, 2, 3]


def test_the_reader_waits_until_there_is_something(channel: Channel) -> None:
    got: list[bytes] = []
    stage = started(lambda: got.append(channel.get()))
    assert waits_of(channel).wait(30)
    assert got == []
    channel.put(b"x")
    stage.join()
    assert got == [b"x"]


@pytest.mark.parametrize("waiting", [True, False])
def test_a_writer_learns_that_nobody_reads_on(channel: Channel, waiting: bool) -> None:
    if not waiting:
        channel.give_up()

    def write() -> None:
        for _ in range(3):
            channel.put(b"x")

    stage = started(write)
    if waiting:
        assert waits_of(channel).wait(30)
        channel.give_up()
    stage.join()
    assert isinstance(stage.error, BrokenStream)


@pytest.mark.parametrize("waiting", [True, False])
def test_a_reader_learns_that_the_stream_broke_off(channel: Channel, waiting: bool) -> None:
    """An end that was not said is never taken for one, nor is what was not read yet handed out."""
    if not waiting:
        channel.put(b"x")
        channel.give_up()
    stage = started(channel.get)
    if waiting:
        assert waits_of(channel).wait(30)
        channel.give_up()
    stage.join()
    assert isinstance(stage.error, BrokenStream)


def test_a_stage_that_fails_breaks_its_channels(channel: Channel) -> None:
    def fail() -> None:
        raise MemoryError("of a thread")

    stage = started(fail, channel)
    with pytest.raises(BrokenStream):
        channel.get()
    stage.join()
    assert isinstance(stage.error, MemoryError)


def test_memory_is_bounded_by_the_depth(channel: Channel) -> None:
    """However fast the writer and slow the reader is."""
    most = 0

    def write() -> None:
        for _ in range(100):
            channel.put(b"x")
        channel.end()

    stage = started(write)
    while channel.get():
        most = max(most, len(channel._chunks))
    stage.join()
    assert 0 < most <= 2
