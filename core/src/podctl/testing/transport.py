"""What every transport must keep to: subclass TransportContract in a plugin's tests.

class TestMine(TransportContract):
    @pytest.fixture
    def published(self, server): return Published(my_transport, reference, request, data, ...)
"""

from __future__ import annotations

import importlib
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from podctl.errors import FetchFailed, PodctlError
from podctl.model.fetching import CacheState, Downloaded, FetchRequest, Resolution, Resume
from podctl.model.reference import parse
from podctl.sys.child import Privileges, spawn
from podctl.testing.httpserver import names_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.model.reference import Reference


class MemorySink:
    """A sink that keeps what it is given, and how it was begun."""

    def __init__(self, kept: bytes = b"") -> None:
        self._kept = kept
        self.data = b""
        self.begun: list[tuple[int, int | None, CacheState]] = []

    def begin(self, offset: int, total: int | None, state: CacheState) -> None:
        """See podctl.model.fetching.Sink."""
        assert not self.begun, "a body is begun once"
        assert offset in (0, len(self._kept)), "a body begins at 0 or where it was left"
        self.begun.append((offset, total, state))
        self.data = self._kept[:offset]

    def write(self, data: bytes) -> None:
        """See podctl.model.fetching.Sink."""
        assert self.begun, "bytes before begin"
        self.data += data


class Published(NamedTuple):
    """An image a transport can fetch.

    Args:
        transport: the provider.
        reference: names the image.
        request: as core would make it.
        data: the image's bytes.
        signature: its signature, None where there is none.
        missing: names an image at the same place that is not there.
        entry: how a fresh process imports the transport, as in an entry point.
        names: host names that are at test servers; see podctl.testing.httpserver.names_at.
    """

    transport: Any
    reference: Reference
    request: FetchRequest
    data: bytes
    signature: bytes | None
    missing: Reference
    entry: str
    names: Mapping[tuple[str, int], tuple[str, int]] = MappingProxyType({})


class TransportContract:
    """The rules, as tests. `published` is the subclass's fixture."""

    @pytest.fixture
    def published(self) -> Published:
        """Publish an image and say how to fetch it."""
        raise NotImplementedError

    def _fetch(
        self, published: Published, resume: Resume | None = None, kept: bytes = b""
    ) -> tuple[Resolution, MemorySink, Downloaded]:
        published.transport.transport_preload()
        resolution = published.transport.transport_resolve(published.reference, published.request)
        sink = MemorySink(kept)
        done = published.transport.transport_download(resolution, resume, published.request, sink)
        return resolution, sink, done

    def test_download_delivers_the_bytes(self, published: Published) -> None:
        resolution, sink, done = self._fetch(published)
        assert sink.data == published.data
        assert done.size == len(published.data)
        assert resolution.location

    def test_total_is_announced_right_or_not_at_all(self, published: Published) -> None:
        _, sink, _ = self._fetch(published)
        assert sink.begun[0][1] in (None, len(published.data))

    def test_signature_comes_with_the_resolution(self, published: Published) -> None:
        resolution, _, _ = self._fetch(published)
        if resolution.signature_deferred:
            signature = published.transport.transport_signature(resolution, published.request)
            assert signature == published.signature
        else:
            assert resolution.signature == published.signature

    def test_unwanted_signature_is_not_looked_for(self, published: Published) -> None:
        request = replace(published.request, want_signature=False)
        published.transport.transport_preload()
        resolution = published.transport.transport_resolve(published.reference, request)
        assert resolution.signature is None

    def test_download_resumes_or_restarts_to_the_same_bytes(self, published: Published) -> None:
        _, first, done = self._fetch(published)
        for offset in {0, 1, len(published.data) // 2, len(published.data) - 1}:
            kept = first.data[:offset]
            _, sink, _ = self._fetch(published, Resume(offset, done.state), kept)
            assert sink.data == published.data

    def test_partial_of_another_version_is_never_continued(self, published: Published) -> None:
        stale = bytes(len(published.data) // 2)
        resume = Resume(len(stale), CacheState(etag='"another"', last_modified=None))
        _, sink, _ = self._fetch(published, resume, stale)
        assert sink.data == published.data

    def test_image_larger_than_the_cap_is_refused(self, published: Published) -> None:
        small = published._replace(request=replace(published.request, max_bytes=10))
        with pytest.raises(FetchFailed):
            self._fetch(small)

    def test_missing_image_fails_in_one_line(self, published: Published) -> None:
        absent = published._replace(reference=published.missing)
        with pytest.raises(PodctlError) as caught:
            self._fetch(absent)
        assert "\n" not in str(caught.value)

    def test_nothing_is_imported_after_preload(self, published: Published) -> None:
        """The child has other rights than its parent: the installation may be unreadable to it,
        and code loaded after bytes from outside were read is code they may have chosen."""
        job = (
            published.entry,
            published.reference.text,
            published.request,
            dict(published.names),
            len(published.data),
        )
        done = subprocess.run(
            [sys.executable, "-c", f"import {__name__} as t; t.report_late_imports()"],
            input=pickle.dumps(job),
            capture_output=True,
            check=False,
        )
        assert done.stderr == b""
        late = json.loads(done.stdout)
        assert late == [], f"imported after preload: {late}"


def report_late_imports() -> None:
    """Fetch what standard input describes, in a fresh process, and print which modules a child
    without privileges imported after preload."""
    entry, text, request, names, size = pickle.loads(sys.stdin.buffer.read())
    module, _, attribute = entry.partition(":")
    transport = getattr(importlib.import_module(module), attribute)
    # The child's own tools are no transport's business.
    reference = parse(text)
    reference.search_labels()
    transport.transport_preload()

    def work() -> Any:
        before = set(sys.modules)
        sink = MemorySink()
        resolution = transport.transport_resolve(reference, request)
        transport.transport_download(resolution, None, request, sink)
        assert len(sink.data) == size
        return sorted(set(sys.modules) - before)

    with names_at(names), spawn(work, privileges=Privileges.NONE, name="transport") as child:
        print(json.dumps(child.wait()))
