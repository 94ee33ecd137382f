"""Bytes from one thread to another: a bounded queue that either side can give up.

The stages of reading an image (read and keep, decompress, hash) release the interpreter's lock
for nearly all of their time, so threads of one process keep two processors busy.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from podctl.errors import BrokenStream

if TYPE_CHECKING:
    from collections.abc import Callable


class Channel:
    """One writer, one reader.

    Args:
        depth: chunks that may wait; the writer waits while there are more.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._chunks: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._broken = False

    def put(self, data: bytes) -> None:
        """Hand over a chunk.

        Raises:
            BrokenStream: the reader has given up.
        """
        with self._changed:
            while len(self._chunks) >= self._depth and not self._broken:
                self._changed.wait()
            if self._broken:
                raise BrokenStream("nobody reads on")
            self._chunks.append(data)
            self._changed.notify()

    def get(self) -> bytes:
        """Take the next chunk, `b""` at the end.

        Raises:
            BrokenStream: the writer has given up.
        """
        with self._changed:
            while not self._chunks and not self._ended and not self._broken:
                self._changed.wait()
            if self._broken:
                raise BrokenStream("the stream broke off")
            if not self._chunks:
                return b""
            data = self._chunks.popleft()
            self._changed.notify()
            return data

    def end(self) -> None:
        """The writer has written everything."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def give_up(self) -> None:
        """The writer or the reader does not go on: the other is told."""
        with self._changed:
            self._broken = True
            self._chunks.clear()
            self._changed.notify_all()


class Stage(threading.Thread):
    """A function in a thread of its own; what it raises is kept for whoever joins it."""

    def __init__(self, work: Callable[[], None], *channels: Channel) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._channels = channels
        self.error: BaseException | None = None

    def run(self) -> None:
        """See threading.Thread; a failure breaks the channels, so that neighbours end as well."""
        try:
            self._work()
        except BaseException as error:  # it is raised again by whoever joins
            self.error = error
            for channel in self._channels:
                channel.give_up()
