"""What every transport of layered images must keep to: subclass LayeredContract in its tests.

class TestMine(LayeredContract):
    @pytest.fixture
    def published(self, registry): return LayeredImage(my_transport, my_format, reference, ...)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from podctl.errors import FetchFailed, PodctlError
from podctl.model.fetching import CacheState, FetchRequest, Resume
from podctl.model.imagedocument import parse_document
from podctl.testing.transport import MemorySink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.model.fetching import Resolution
    from podctl.model.image import Image
    from podctl.model.reference import Reference


class LayeredImage(NamedTuple):
    """An image of several layers that a transport can fetch.

    Args:
        transport: its provider.
        form: the provider of the format it resolves to.
        reference: names the image.
        request: as core would make it.
        layers: digest -> bytes as published.
        signature: the set of signatures beside it; None where there is none.
        missing: names an image at the same place that is not there.
    """

    transport: Any
    form: Any
    reference: Reference
    request: FetchRequest
    layers: Mapping[str, bytes]
    signature: bytes | None
    missing: Reference


class LayeredContract:
    """The rules, as tests. `published` is the subclass's fixture."""

    @pytest.fixture
    def published(self) -> LayeredImage:
        """Publish an image and say how to fetch it."""
        raise NotImplementedError

    def _request(self, published: LayeredImage, **fields: Any) -> FetchRequest:
        """What core asks with: the host's configuration read, then the work preloaded."""
        request = replace(published.request, **fields)
        configure = getattr(published.transport, "transport_configure", None)
        if configure is not None and request.settings is None:
            request = replace(request, settings=configure(published.reference, request))
        published.transport.transport_preload()
        return request

    def _resolve(self, published: LayeredImage, **fields: Any) -> tuple[Resolution, Image]:
        request = self._request(published, **fields)
        resolution = published.transport.transport_resolve(published.reference, request)
        assert resolution.document is not None
        return resolution, published.form.format_image(resolution.document)

    def _layer(
        self, published: LayeredImage, digest: str, resume: Resume | None = None, kept: bytes = b""
    ) -> MemorySink:
        resolution, image = self._resolve(published)
        (layer,) = {one for one in image.layers if one.blob == digest}
        sink, request = MemorySink(kept), self._request(published)
        done = published.transport.transport_layer(resolution, layer, resume, request, sink)
        assert done.size == layer.size
        return sink

    def test_the_document_is_what_the_format_reads(self, published: LayeredImage) -> None:
        resolution, image = self._resolve(published)
        assert {one.blob for one in image.layers} == set(published.layers)
        assert all(one.size == len(published.layers[one.blob]) for one in image.layers)
        assert resolution.location and resolution.etag

    def test_the_document_remembers_what_was_asked_for(self, published: LayeredImage) -> None:
        resolution, _ = self._resolve(published)
        assert resolution.document is not None
        document = parse_document(resolution.document)
        assert document.reference == published.reference.path_or_url
        assert document.dump() == resolution.document

    def test_equal_images_have_equal_documents(self, published: LayeredImage) -> None:
        first, second = (self._resolve(published)[0] for _ in range(2))
        assert first == second

    def test_layers_are_delivered_as_published(self, published: LayeredImage) -> None:
        for digest, data in published.layers.items():
            assert self._layer(published, digest).data == data

    def test_a_layer_is_continued_whatever_its_validators(self, published: LayeredImage) -> None:
        for digest, data in published.layers.items():
            for offset in {0, 1, len(data) // 2, len(data) - 1}:
                resume = Resume(offset, CacheState(etag='"another"'))
                assert self._layer(published, digest, resume, data[:offset]).data == data

    def test_an_image_that_is_known_is_not_fetched_again(self, published: LayeredImage) -> None:
        resolution, _ = self._resolve(published)
        request = self._request(published, cached=CacheState(etag=resolution.etag))
        again = published.transport.transport_resolve(published.reference, request)
        assert again.not_modified
        assert (again.etag, again.document) == (resolution.etag, None)

    def test_signatures_come_if_they_are_wanted(self, published: LayeredImage) -> None:
        assert self._resolve(published)[0].signature == published.signature
        assert self._resolve(published, want_signature=False)[0].signature is None

    def test_a_layer_larger_than_the_cap_is_refused(self, published: LayeredImage) -> None:
        resolution, image = self._resolve(published)
        request = self._request(published, max_bytes=1)
        with pytest.raises(FetchFailed):
            published.transport.transport_layer(
                resolution, image.layers[0], None, request, MemorySink()
            )

    def test_a_missing_image_fails_in_one_line(self, published: LayeredImage) -> None:
        absent = published._replace(reference=published.missing)
        with pytest.raises(PodctlError) as caught:
            self._resolve(absent)
        assert "\n" not in str(caught.value)
