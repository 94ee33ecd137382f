"""The format `oci`: Docker and OCI images, out of their image document.

Everything inside a document must agree, also when it comes from podctl's own store: the index
lists the manifest, the manifest names the configuration, and the reference names one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.api import hookimpl

if TYPE_CHECKING:
    from podctl.model.image import Image, Layer
    from podctl.model.layout import ArchiveLayout
    from podctl.model.layoutfiles import Folded, LayoutFiles, LayoutRequest, Unfolded


class OciFormat:
    """Docker schema 2 and OCI images (image-spec 1.1); see podctl.api.hookspecs.FormatSpec."""

    @hookimpl
    def format_layout(self) -> ArchiveLayout:
        """A layer is the root file system, and `.wh.` names delete from lower layers."""
        from podctl.model.layout import ArchiveLayout

        return ArchiveLayout(manifest=None, rootfs=None, whiteouts=True)

    @hookimpl
    def format_image(self, manifest: bytes) -> Image:
        """Read an image document."""
        from podctl_fetch_docker.image import parse_image

        return parse_image(manifest)

    @hookimpl
    def format_documents(self, manifest: bytes) -> dict[str, bytes]:
        """The documents as they came from the registry."""
        from podctl.model.imagedocument import parse_document

        document = parse_document(manifest)
        found = {"manifest": document.manifest, "config": document.config}
        if document.image_index is not None:
            found["index"] = document.image_index
        return found

    @hookimpl
    def format_preload(self) -> None:
        """Import what reads layouts and archives."""
        import podctl_fetch_docker.image
        import podctl_fetch_docker.unfolding  # noqa: F401

    @hookimpl
    def format_unfold(self, files: LayoutFiles, request: LayoutRequest) -> Unfolded:
        """Find an image in an OCI layout or an archive of `docker save`."""
        from podctl_fetch_docker.unfolding import unfold

        return unfold(files, request)

    @hookimpl
    def format_fold(self, document: bytes, signature: bytes | None, kind: str) -> Folded:
        """The files of an OCI layout, or of an archive that `docker load` reads."""
        from podctl_fetch_docker.folding import fold

        return fold(document, signature, kind)

    @hookimpl
    def format_compose(self, image: Image, layer: Layer) -> bytes:
        """An OCI manifest and configuration for an image of another format."""
        from podctl_fetch_docker.composing import compose

        return compose(image, layer)


oci = OciFormat()
