"""The signatures in an OCI layout, kept as in a registry: by tag, and by what they are about.

image-spec 1.1 lists a manifest's referrers in `index.json`, or under the tag `sha256-HEX` as
registries do that do not know the question.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple, cast

from podctl.errors import InvalidInput, Refused
from podctl.model.imagedocument import MAX_PART, digest_of, parse_signatures
from podctl_fetch_docker.archivefiles import REF_NAME, blob_of, blob_path, read_document
from podctl_fetch_docker.descriptors import has_digest
from podctl_fetch_docker.manifests import parse_index, parse_manifest
from podctl_fetch_docker.mediatypes import INDEXES, MANIFESTS, OCI_INDEX
from podctl_fetch_docker.signatures import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.model.imagedocument import RegistrySignature
    from podctl.model.layoutfiles import LayoutFiles
    from podctl_fetch_docker.descriptors import Descriptor
    from podctl_fetch_docker.manifests import Index, Manifest
    from podctl_fetch_docker.registry import Repository

#: manifests that are read to see what they are about.
MAX_REFERRERS = 256


def signatures_of(files: LayoutFiles, index: Index, digests: list[str]) -> list[RegistrySignature]:
    """The signatures over any of some documents.

    Args:
        index: of `index.json`.

    Raises:
        FetchFailed: what looks like signatures is none.
    """
    found = Collector(cast("Repository", _Shelf(files, index))).collect(digests)
    return [] if found is None else parse_signatures(found)


class _Served(NamedTuple):
    """What podctl_fetch_docker.registry.Served is for a registry."""

    data: bytes
    content_type: str | None
    digest: str


class _Shelf:
    """A layout, asked as podctl_fetch_docker.registry.Repository is. Documents that are malformed
    are not there: without a signature an image is not trusted."""

    def __init__(self, files: LayoutFiles, index: Index) -> None:
        self._files = files
        self._index = index

    def manifest(self, reference: str, accept: str = "") -> _Served | None:
        """A manifest or index by tag or digest."""
        if ":" in reference:
            data = self.blob(reference)
            return None if data is None else _Served(data, None, reference)
        entry = next(self._tagged(reference), None)
        data = None if entry is None else self._read(entry)
        return None if entry is None or data is None else _Served(data, None, entry.digest)

    def blob(self, digest: str, size: int | None = None, what: str = "") -> bytes | None:
        """A small blob."""
        try:
            data = read_document(self._files, blob_path(digest), what)
        except InvalidInput:
            return None
        fits = size is None or len(data) == size
        return data if fits and has_digest(data, digest) else None

    def referrers(self, digest: str, query: str = "") -> tuple[_Served | None, str]:
        """An index of the manifests about another one, as a registry would make it."""
        entries = []
        for number, entry in enumerate(self._candidates(digest)):
            manifest = self._about(entry, digest) if number < MAX_REFERRERS else None
            if manifest is not None:
                entries.append(_described(entry, manifest))
        if not entries:
            return None, ""
        value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        data = json.dumps(value).encode()
        return (None, "") if len(data) > MAX_PART else (_Served(data, None, digest_of(data)), "")

    def _candidates(self, digest: str) -> Iterator[Descriptor]:
        """Entries of the layout, and of the index that lists a manifest's referrers by tag."""
        yield from self._index.manifests
        for entry in self._tagged(digest.replace(":", "-", 1)):
            data = self._read(entry) if entry.media_type in INDEXES else None
            if data is not None:
                try:
                    yield from parse_index(data).manifests
                except (InvalidInput, Refused):
                    continue

    def _tagged(self, tag: str) -> Iterator[Descriptor]:
        return (one for one in self._index.manifests if one.annotations.get(REF_NAME) == tag)

    def _about(self, entry: Descriptor, digest: str) -> Manifest | None:
        """The manifest of an entry if it is about `digest`."""
        data = self._read(entry) if entry.media_type in MANIFESTS else None
        if data is None:
            return None
        try:
            manifest = parse_manifest(data)
        except (InvalidInput, Refused):
            return None
        return manifest if manifest.subject and manifest.subject.digest == digest else None

    def _read(self, entry: Descriptor) -> bytes | None:
        try:
            return blob_of(self._files, entry, "signature manifest")
        except InvalidInput:
            return None


def _described(entry: Descriptor, manifest: Manifest) -> dict[str, object]:
    return {
        "mediaType": entry.media_type,
        "digest": entry.digest,
        "size": entry.size,
        "artifactType": manifest.artifact_type or manifest.config.media_type,
        "annotations": dict(manifest.annotations),
    }
