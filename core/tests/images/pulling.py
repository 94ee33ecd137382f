"""Layered images of a transport in memory, and pulls of them into a scratch store."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from podctl.images.pull import LayerSource, Pull
from podctl.images.session import FetchSession
from podctl.images.stored import describe_document
from podctl.model.fetching import CacheState, Downloaded
from podctl.model.image import Image
from podctl.model.image import Layer as ImageLayer
from podctl.model.layout import ArchiveLayout
from podctl.store import Store
from podctl.trust.keystore import KeyStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.images.transfer import Download
    from podctl.model.fetching import Resume, Sink
    from podctl.store import ImageRecord
    from podctl.testing.ocilayers import Layer

    Start = Callable[[str, int], None]

LAYOUT = ArchiveLayout(manifest=None, rootfs=None, whiteouts=True)
PIECE = 64 << 10


class Asked(NamedTuple):
    """A download as it was asked for: of which layer, and from which byte."""

    layer: Layer
    start: int


class Origin:
    """Layers that can be downloaded, a piece at a time, and what was asked for.

    Attributes:
        before: called in the child, with digest and position, before a piece is delivered.
        tail: bytes that come behind every layer though they are none of its.
    """

    def __init__(self, *layers: Layer) -> None:
        self.layers = {layer.digest: layer for layer in layers}
        self.asked: list[Asked] = []
        self.before: Start = lambda digest, position: None
        self.tail = b""

    def fetch(self, wanted: ImageLayer, resume: Resume | None) -> Download:
        """See podctl.images.pull.LayerSource."""
        layer = self.layers[wanted.blob]
        start = 0 if resume is None else resume.offset
        self.asked.append(Asked(layer, start))
        data = layer.blob + self.tail

        def download(sink: Sink) -> Downloaded:
            sink.begin(start, len(data), CacheState(etag='"1"'))
            for at in range(start, len(data), PIECE):
                self.before(layer.digest, at)
                sink.write(data[at : at + PIECE])
            return Downloaded(len(data), CacheState(etag='"1"'), 0)

        return download


def image_of(name: str, *layers: Layer) -> Image:
    """An image of layers; its document is made up."""
    parts = tuple(
        ImageLayer(
            layer.diff_id.replace(":", "-"), layer.digest, len(layer.blob), layer.compression
        )
        for layer in layers
    )
    document = repr((name, parts)).encode()
    return Image("oci", name, {"version": "1"}, None, (), (), {}, document, parts)


class Puller:
    """A store, and pulls into it.

    Attributes:
        said: what it told the user.
        progress: called with digest, bytes done and bytes in all.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.said: list[str] = []
        self.progress: Callable[[str, int, int], None] | None = None

    @property
    def store(self) -> Store:
        """The store, opened anew."""
        return Store(str(self.data))

    def pull(self, image: Image, source: LayerSource) -> ImageRecord:
        """Pull an image and commit it."""
        session = FetchSession(
            self.store,
            KeyStore(str(self.data / "usr"), str(self.data / "etc")),
            say=self.said.append,
            layer_progress=self.progress,
        )
        with ExitStack() as stack:
            staging = stack.enter_context(session.store.staging())
            layers = Pull(session, staging, LAYOUT, source).run(image, stack)
            return session.store.commit(staging, describe_document(image, layers))

    def partial(self, layer: Layer) -> Path:
        """Where what there is of a layer's download lies."""
        from podctl.store.layout import name_of

        return self.data / f"cas/tmp/{name_of(f'blob:{layer.digest}')}.part"

    def leave(self, layer: Layer, data: bytes) -> None:
        """Leave a partial download behind, as a process that was killed."""
        self.store.layout.create(privileged=os.geteuid() == 0)
        self.partial(layer).write_bytes(data)

    def blob(self, layer: Layer) -> Path:
        """Where a layer's bytes are kept."""
        return self.data / Store(str(self.data)).layout.blob(layer.digest)

    def leftovers(self) -> list[str]:
        """What is in the places of what is being made."""
        found = [path.name for path in (self.data / "cas/tmp").iterdir()]
        return found + [path.name for path in (self.data / "layers").glob(".*")]
