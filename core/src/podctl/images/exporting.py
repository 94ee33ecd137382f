"""`image export`: a stored image as a file or a directory that other tools read."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import UsageError
from podctl.images.composing import root_filesystem, write_aci, write_layer
from podctl.images.layoutarchive import scratch
from podctl.images.layoutwrite import write_archive, write_directory
from podctl.images.placing import output_directory, output_file
from podctl.model.image import Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.images.composing import Identify
    from podctl.model.image import Image
    from podctl.model.manifest import App
    from podctl.plugins import FormatHandle
    from podctl.store import ImageRecord, Store

FORMATS = ("aci", "oci", "docker")
#: The format whose provider writes layouts.
_LAYERED = "oci"


class Exporter:
    """Writes images out of a store.

    Args:
        identify: see podctl.images.composing.write_aci.
        say: prints one line of what is left out.
    """

    def __init__(self, store: Store, identify: Identify, say: Callable[[str], None]) -> None:
        self._store = store
        self._identify = identify
        self._say = say

    def export(
        self, record: ImageRecord, target: str, form: str | None, *, overwrite: bool
    ) -> None:
        """Write an image; it appears when it is complete and was found to be the image.

        Args:
            target: of a file; with `oci` of a directory unless it ends in `.tar`.
            form: one of FORMATS; None for the image's own.

        Raises:
            UsageError: the target is named like something else.
            Refused: it exists, or the image cannot be said in that format.
            StoreCorrupt: the stored bytes are not the image.
        """
        form = form or (_LAYERED if record.layered else "aci")
        if form == "aci":
            self._aci(record, target, overwrite)
            return
        if target.endswith(".aci"):
            raise UsageError(
                f'"{target}" is named like an App Container Image, and would be none',
                hint="pass --format=aci to convert the image",
            )
        self._layered(record, target, form, overwrite)

    def _aci(self, record: ImageRecord, target: str, overwrite: bool) -> None:
        from podctl.images.stored import export

        with output_file(target, what="output ACI file", overwrite=overwrite) as fd:
            if not record.layered:
                export(self._store, record, fd)
                return
            image = self._image(record)
            with root_filesystem(self._store, record, self._say) as root:
                write_aci(root, fd, image, self._identify, self._say)

    def _layered(self, record: ImageRecord, target: str, form: str, overwrite: bool) -> None:
        from podctl.plugins import image_format

        writer = image_format(_LAYERED)
        with self._parts(record, writer) as parts:
            folded = writer.fold(parts.document, parts.signature, form)
            if form == "oci" and not target.endswith(".tar"):
                protected = self._store.layout.top
                with output_directory(target, overwrite=overwrite, protected=protected) as output:
                    write_directory(folded, output.temporary, parts.open_blob)
                return
            with output_file(target, what="output file", overwrite=overwrite) as fd:
                write_archive(folded, fd, parts.open_blob)

    @contextmanager
    def _parts(self, record: ImageRecord, writer: FormatHandle) -> Iterator[_Parts]:
        """Documents and layers of an image; an archive is made one of one layer."""
        store = self._store
        if record.layered:
            document, signature = store.manifest(record.key), store.signature(record.key)
            yield _Parts(document, signature, store.open_blob)
            return
        image = self._image(record)
        self._tell_losses(record, image.app)
        fd = scratch(store)
        try:
            with root_filesystem(store, record, self._say) as root:
                digest, size = write_layer(root, fd, self._say)
            layer = Layer(digest.replace(":", "-", 1), digest, size, "none")
            yield _Parts(writer.compose(image, layer), None, lambda _: _again(fd))
        finally:
            os.close(fd)

    def _image(self, record: ImageRecord) -> Image:
        from podctl.plugins import image_format

        image: Image = image_format(record.format).image(self._store.manifest(record.key))
        return image

    def _tell_losses(self, record: ImageRecord, app: App | None) -> None:
        lost = ["its signature"] if record.signed else []
        if app is not None:
            parts = {
                "isolators": app.isolators,
                "event handlers": app.event_handlers,
                "supplementary groups": app.supplementary_gids,
            }
            lost += [name for name, value in parts.items() if value]
        if lost:
            self._say(f"left out, for the format has no place for it: {', '.join(lost)}")


class _Parts(NamedTuple):
    """What an image is written from.

    Args:
        open_blob: opens a layer's bytes by their digest.
    """

    document: bytes
    signature: bytes | None
    open_blob: Callable[[str], int]


def _again(fd: int) -> int:
    """A descriptor of the same file that stands at its beginning."""
    again = os.dup(fd)
    os.lseek(again, 0, os.SEEK_SET)
    return again
