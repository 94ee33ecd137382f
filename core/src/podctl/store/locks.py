"""The store's locks. All are flock(2) on what they guard; none outlives its holder.

Order, for whoever takes several: preparing, then image; or removing, then collecting; then
using/changing, then rendering.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from podctl.errors import ImageGone
from podctl.store.layout import TREES
from podctl.sys.files import make_directory
from podctl.sys.locks import LockedFile, lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.store.area import Area
    from podctl.store.layout import Layout
    from podctl.store.records import ImageRecord

_PREPARE = "locks/prepareLock"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Locks:
    """Locks of one store, as context managers."""

    def __init__(self, layout: Layout, area: Area) -> None:
        self._layout = layout
        self._area = area

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Hold off the collection of layers and trees, for a pod that cannot be seen yet.

        Shared; held from before an image is looked up until the pod's `images.json` stands.
        Without root there is nothing to hold off: only root uses layers.
        """
        if os.geteuid() != 0:
            yield
            return
        with self._prepare_lock(exclusive=False, blocking=True):
            yield

    @contextmanager
    def collecting(self, *, blocking: bool = True) -> Iterator[None]:
        """Have no preparation and no commit under way; root only.

        Raises:
            BlockingIOError: not `blocking`, and one is.
        """
        with self._prepare_lock(exclusive=True, blocking=blocking):
            yield

    @contextmanager
    def using(self) -> Iterator[None]:
        """Hold off removals while content and record are put in place. Shared."""
        with self._directory("cas", exclusive=False):
            yield

    @contextmanager
    def changing(self, *, blocking: bool = True) -> Iterator[None]:
        """Have no commit under way, so that a blob without a record is one nobody wants.

        Raises:
            BlockingIOError: not `blocking`, and one is.
        """
        with self._directory("cas", exclusive=True, blocking=blocking):
            yield

    def image(self, record: ImageRecord) -> int:
        """Keep an unpacked image from being removed; root only.

        The lock is on its top layer alone: whoever keeps several images, and waits for one, holds
        none that somebody who removes an image waits for while having another.

        Returns:
            A descriptor of the layer, shared locked: closing it, ending, or becoming another
            program lets go.

        Raises:
            ImageGone: the layer is not there.
        """
        path = self._layout.layer(record.layers[-1])
        while True:
            fd = _open_layer(path)
            if fd < 0:
                raise ImageGone(f'layer "{record.layers[-1]}" was removed')
            lock(fd, exclusive=False)
            if _is_at(fd, path):
                return fd
            os.close(fd)

    @contextmanager
    def removing(self, record: ImageRecord, on_wait: Callable[[], None]) -> Iterator[None]:
        """Wait until nobody keeps an image for a pod that cannot be seen yet; root only.

        Args:
            on_wait: called before waiting.
        """
        fd = _open_layer(self._layout.layer(record.layers[-1]))
        if fd < 0:
            yield
            return
        try:
            if not lock(fd, exclusive=True, blocking=False):
                on_wait()
                lock(fd, exclusive=True)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def rendering(self) -> Iterator[None]:
        """One rendering of trees at a time."""
        with self._directory(TREES, exclusive=True):
            yield

    def _prepare_lock(self, *, exclusive: bool, blocking: bool) -> LockedFile:
        self._layout.create(privileged=True)
        make_directory(self._layout.path("locks"), 0o750)
        path = self._layout.path(_PREPARE)
        # 0600: a member of the group could else hold every preparation up.
        return LockedFile(path, exclusive=exclusive, blocking=blocking, mode=0o600)

    @contextmanager
    def _directory(self, name: str, *, exclusive: bool, blocking: bool = True) -> Iterator[None]:
        with self._area.directory(name) as fd:
            if not lock(fd, exclusive=exclusive, blocking=blocking):
                raise BlockingIOError(f"{self._layout.path(name)} is locked by another process")
            yield


def _open_layer(path: str) -> int:
    try:
        return os.open(path, _OPEN)
    except FileNotFoundError:
        return -1


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
