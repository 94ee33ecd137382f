"""Bringing the layers of a layered image into staging, several at a time.

Each layer is read once: kept, checked against its digests, decompressed and unpacked as it
arrives (podctl.images.transfer). What the store has is not fetched; bytes that are here but not
unpacked are read here. A layer's bytes are named by their digest, so whatever part of them an
earlier attempt left is continued, and whoever else wants the same layer waits and finds it here.
"""

from __future__ import annotations

import os
import select
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import ArchiveInvalid, DigestMismatch, InvalidInput, Refused, StoreCorrupt
from podctl.images.settling import settling
from podctl.images.stored import expectation
from podctl.images.transfer import Passage, Transfer
from podctl.model.fetching import Resume
from podctl.model.layout import ArchiveLimits
from podctl.store import StagedLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podctl.images.session import FetchSession
    from podctl.images.transfer import Download
    from podctl.model.image import Image, Layer
    from podctl.model.layout import ArchiveLayout
    from podctl.store import Partial, Staging, Store
    from podctl.store.staging import Piece

    #: Returns what downloads a layer, continuing a partial download if there is one.
    Fetch = Callable[[Layer, Resume | None], Download]
    #: Opens the bytes of a layer that lie elsewhere on this host; the descriptor stands at their
    #: first byte and is closed by who asked.
    Open = Callable[[Layer], int]

#: Layers under way at once: the unpacking of one hides the waiting of another.
PARALLEL = 3


class LayerSource(NamedTuple):
    """Where layers come from that the store does not have: one of the two, or nowhere.

    Args:
        fetch: downloads a layer.
        open: opens a layer that is on this host.
    """

    fetch: Fetch | None = None
    open: Open | None = None


class _Running:
    """One layer on its way.

    Attributes:
        doubtful: whether bytes of it were here before, which may be others than they should be.
    """

    def __init__(self, layer: Layer, piece: Piece, passage: Passage, *, doubtful: bool) -> None:
        self.layer = layer
        self.piece = piece
        self.passage = passage
        self.doubtful = doubtful
        self.partial: Partial | None = None


class Pull:
    """The layers of one image on their way into staging.

    Args:
        layout: of the layers' archives.
        source: where what the store lacks is got.
    """

    def __init__(
        self,
        session: FetchSession,
        staging: Staging,
        layout: ArchiveLayout,
        source: LayerSource,
    ) -> None:
        self._session = session
        self._store: Store = session.store
        self._staging = staging
        self._layout = layout
        self._source = source
        self._stack = ExitStack()
        self._partials: dict[str, Partial] = {}
        self._done: dict[str, StagedLayer] = {}

    def run(self, image: Image, stack: ExitStack) -> tuple[StagedLayer, ...]:
        """Bring in what is missing; return all layers of the image, lowest first.

        Args:
            stack: keeps downloads locked until the image is committed.

        Raises:
            FetchFailed: a download failed; what arrived is kept for the next attempt.
            DigestMismatch, ArchiveInvalid: a layer's bytes are not what the image says.
            StoreCorrupt: bytes that should be here are not, and cannot be fetched.
        """
        layers = {layer.blob: layer for layer in image.layers}
        self._lock_downloads(layers.values(), stack)
        missing = [layer for layer in layers.values() if not self._is_here(layer)]
        # The largest first: the last ones to end are then small.
        missing.sort(key=lambda layer: layer.size, reverse=True)
        self._bring(missing)
        return tuple(self._done[layer.blob] for layer in image.layers)

    # -- what is needed -----------------------------------------------------------------------

    def _lock_downloads(self, layers: Iterable[Layer], stack: ExitStack) -> None:
        """Become the only one to download what is missing, always in the same order, so that two
        who want the same layers never wait for one another."""
        if self._source.fetch is None:
            return
        for layer in sorted(layers, key=lambda layer: layer.blob):
            # Bytes that are here may turn out to be damaged, and are downloaded then.
            if self._is_here(layer):
                continue
            partial = self._store.partial(
                f"blob:{layer.blob}", on_wait=self._say_waiting, unchanging=True
            )
            self._partials[layer.blob] = stack.enter_context(partial)
            stack.push(_keeper(partial))

    def _say_waiting(self) -> None:
        self._session.say("another podctl instance is downloading a layer of it, waiting...")

    def _has_blob(self, layer: Layer) -> bool:
        return self._store.blob_size(layer.blob) == layer.size

    def _is_here(self, layer: Layer) -> bool:
        """Whether nothing is to be done for a layer. Who is not root has no layers, and believes
        nobody else's bytes before it has read them."""
        note = self._store.layer_note(layer.diff_id)
        if note is None or note.blob != layer.blob or not self._has_blob(layer):
            return False
        self._done[layer.blob] = StagedLayer(
            layer.diff_id, layer.blob, note.size, None, note.implies
        )
        return True

    # -- bringing it --------------------------------------------------------------------------

    def _bring(self, waiting: list[Layer]) -> None:
        """Keep PARALLEL layers under way until none is left."""
        waiting = list(waiting)
        with self._stack:
            size = sum(layer.size for layer in waiting)
            self._stack.enter_context(settling(self._store.layout.top, size))
            poller = select.poll()
            running: dict[int, _Running] = {}
            while waiting or running:
                while waiting and len(running) < PARALLEL:
                    self._watch(self._start(waiting.pop(0)), running, poller)
                for fd, _ in poller.poll():
                    one = running[fd]
                    if one.passage.follow():
                        continue
                    poller.unregister(fd)
                    del running[fd]
                    again = self._finish(one)
                    if again is not None:
                        self._watch(again, running, poller)

    def _watch(self, one: _Running, running: dict[int, _Running], poller: select.poll) -> None:
        running[one.passage.report_fd] = one
        poller.register(one.passage.report_fd, select.POLLIN)

    def _start(self, layer: Layer) -> _Running:
        unpack = self._store.layer_note(layer.diff_id) is None
        piece = self._staging.piece(unpack=unpack)
        if self._has_blob(layer):
            fd = self._store.open_blob(layer.blob)
            return self._read(
                _Running(layer, piece, self._passage(layer, piece), doubtful=True), fd
            )
        return self._get(layer, piece)

    def _get(self, layer: Layer, piece: Piece) -> _Running:
        """Bring in a layer that the store does not have."""
        if self._source.open is not None:
            one = _Running(layer, piece, self._passage(layer, piece), doubtful=False)
            return self._read(one, self._source.open(layer), kept_fd=piece.blob_fd)
        return self._download(layer, piece)

    def _read(self, one: _Running, fd: int, kept_fd: int | None = None) -> _Running:
        try:
            one.passage.start_local(fd, kept_fd, one.layer.size)
        finally:
            os.close(fd)
        return one

    def _download(self, layer: Layer, piece: Piece) -> _Running:
        fetch = self._source.fetch
        partial = self._partials.get(layer.blob)
        if fetch is None or partial is None:
            raise StoreCorrupt(
                f'blob "{layer.blob}" is missing or damaged', hint="fetch the image again"
            )
        if partial.size > layer.size:
            partial.discard()
        passage = self._passage(layer, piece, partial)
        one = _Running(layer, piece, passage, doubtful=partial.size > 0)
        one.partial = partial
        if partial.size == layer.size:
            # All of it is here, of a process that was killed before it could say so.
            partial.rewind()
            passage.start_local(partial.fd, None, layer.size)
        else:
            resume = Resume(partial.size, partial.state) if one.doubtful else None
            passage.start_remote(fetch(layer, resume), partial.fd)
        return one

    def _passage(self, layer: Layer, piece: Piece, partial: Partial | None = None) -> Passage:
        transfer = Transfer(
            self._layout,
            piece.directory,
            None,
            ArchiveLimits(),
            self._session.max_bytes,
            expectation(layer),
        )
        report = self._session.layer_progress

        def progress(done: int, total: int | None) -> None:
            if report is not None:
                report(layer.blob, done, layer.size)

        save = None if partial is None else partial.save_state
        return self._stack.enter_context(Passage(transfer, progress, save))

    def _finish(self, one: _Running) -> _Running | None:
        """Take in a layer that is complete; or start it once more from its first byte."""
        try:
            with one.passage:
                ingested, unpacked, _ = one.passage.finish()
        except (DigestMismatch, ArchiveInvalid):
            again = self._again(one)
            if again is None:
                raise
            return again
        for warning in unpacked.warnings:
            self._session.say(f"layer {one.layer.blob}: {warning}")
        if one.partial is not None:
            one.piece.adopt_blob(one.partial)
        layer = one.layer
        self._done[layer.blob] = StagedLayer(
            layer.diff_id, layer.blob, ingested.size, one.piece, unpacked.implies
        )
        if self._session.layer_progress is not None:
            self._session.layer_progress(layer.blob, layer.size, layer.size)
        return None

    def _again(self, one: _Running) -> _Running | None:
        """Get a layer anew where what was here of it may be what is wrong with it."""
        if not one.doubtful or self._source == LayerSource():
            return None
        if one.partial is not None:
            one.partial.discard()
        return self._get(one.layer, self._staging.renew(one.piece))


def _keeper(partial: Partial) -> Callable[..., None]:
    """What to do at the end of a context: keep the download unless its bytes were refused."""

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, InvalidInput | Refused):
            partial.keep()

    return leave
