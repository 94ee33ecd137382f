"""The signatures a registry has beside an image, in the forms cosign writes.

By tag: `sha256-HEX.sig` leads to a manifest whose layers are signed payloads (cosign's
SIGNATURE_SPEC.md). By referrers: manifests whose subject is the image, found by the API of
distribution-spec 1.1 or by its tag `sha256-HEX`; they hold payloads of the same kind, or sigstore
bundles. What is found here is judged by the trust scheme; here it is only collected, up to a
number and a size that nobody has to fear (CVE-2024-29902, CVE-2024-29903).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from podctl.errors import FetchFailed, InvalidInput, Refused
from podctl.model.imagedocument import (
    MAX_SIGNATURE_SET,
    MAX_SIGNATURES,
    RegistrySignature,
    dump_signatures,
)
from podctl_fetch_docker.descriptors import verify
from podctl_fetch_docker.manifests import Manifest, parse_index, parse_manifest
from podctl_fetch_docker.mediatypes import OCI_INDEX, OCI_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl_fetch_docker.descriptors import Descriptor
    from podctl_fetch_docker.registry import Repository, Served

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
#: artifact type of a manifest whose layers are payloads, found by its subject.
ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle"
#: where cosign says what a bundle states; of an image it states this.
_PREDICATE = "dev.sigstore.bundle.predicateType"
_SIGNS = "https://sigstore.dev/cosign/sign/v1"
#: annotation of a payload: its signature.
SIGNATURE = "dev.cosignproject.cosign/signature"
#: characters of a signature in base64: one by RSA 8192 has 1368.
_MAX_SIGNATURE = 4096
_MAX_PAGES = 4
_MAX_REFERRERS = 256


def signature_tag(digest: str) -> str:
    """The tag under which cosign keeps an image's signatures."""
    return digest.replace(":", "-", 1) + ".sig"


class Collector:
    """Collects the signatures of one image.

    Attributes:
        trouble: the first of what looked like a signature and was none; None: nothing did.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._found: list[RegistrySignature] = []
        self._room = MAX_SIGNATURE_SET - (64 << 10)
        self.trouble: Exception | None = None

    def collect(self, digests: list[str]) -> bytes | None:
        """Return the signatures over any of some documents, serialised; None where there are none.

        Raises:
            FetchFailed: the registry does not answer; or what it has are no signatures.
        """
        for digest in digests:
            self._by_tag(digest)
            self._by_referrers(digest)
        if not self._found:
            if self.trouble is not None:
                raise FetchFailed(f"signatures beside the image are unusable: {self.trouble}")
            return None
        return dump_signatures(self._found)

    def _by_tag(self, digest: str) -> None:
        served = self._repository.manifest(signature_tag(digest), OCI_MANIFEST)
        if served is not None:
            manifest = self._read(served)
            if manifest is not None:
                self._payloads(manifest)

    def _by_referrers(self, digest: str) -> None:
        for entry in self._referrers(digest):
            kind = entry.artifact_type
            if kind != ARTIFACT and not _is_bundle(kind):
                continue
            if entry.annotations.get(_PREDICATE, _SIGNS) != _SIGNS:
                # An attestation: bills of materials and the like, some of them huge.
                continue
            served = self._repository.manifest(entry.digest, OCI_MANIFEST)
            manifest = None if served is None else self._read(served, entry)
            if manifest is None or manifest.subject is None or manifest.subject.digest != digest:
                continue
            if kind == ARTIFACT:
                self._payloads(manifest)
            else:
                self._bundles(manifest)

    def _referrers(self, digest: str) -> Iterator[Descriptor]:
        left, query = _MAX_REFERRERS, ""
        for page in range(_MAX_PAGES):
            served, query = self._repository.referrers(digest, query)
            if served is None and page == 0:
                tag = digest.replace(":", "-", 1)
                served = self._repository.manifest(tag, OCI_INDEX)
            if served is None:
                return
            try:
                entries = parse_index(served.data, served.content_type).manifests
            except (InvalidInput, Refused) as error:
                self.trouble = self.trouble or error
                return
            yield from entries[:left]
            left -= len(entries)
            if not query or left <= 0:
                return

    def _read(self, served: Served, entry: Descriptor | None = None) -> Manifest | None:
        try:
            if entry is not None:
                verify(served.data, entry, "signature manifest")
            return parse_manifest(served.data, served.content_type, what="signature manifest")
        except (InvalidInput, Refused) as error:
            self.trouble = self.trouble or error
            return None

    def _payloads(self, manifest: Manifest) -> None:
        # cosign appends: of too many, the newest count.
        for layer in reversed(manifest.layers):
            signature = layer.annotations.get(SIGNATURE, "")
            if layer.media_type == PAYLOAD and 0 < len(signature) <= _MAX_SIGNATURE:
                self._take("simple", layer, signature)

    def _bundles(self, manifest: Manifest) -> None:
        for layer in manifest.layers:
            if _is_bundle(layer.media_type):
                self._take("bundle", layer, "")

    def _take(self, kind: str, layer: Descriptor, signature: str) -> None:
        if len(self._found) >= MAX_SIGNATURES or layer.size > self._room:
            return
        content = layer.data
        if content is None:
            content = self._repository.blob(layer.digest, layer.size, "signature")
        if content is None:
            return
        if b"\0" in content:
            self.trouble = self.trouble or FetchFailed("a signature holds a NUL")
            return
        try:
            room = len(json.dumps([kind, content.decode(), signature], ensure_ascii=False).encode())
        except UnicodeDecodeError:
            self.trouble = self.trouble or FetchFailed("a signature is no UTF-8")
            return
        one = RegistrySignature(kind, content, signature)
        if room <= self._room and one not in self._found:
            self._room -= room
            self._found.append(one)


def _is_bundle(media_type: str) -> bool:
    """Of any version: `application/vnd.dev.sigstore.bundle.v0.3+json`, and the older
    `...bundle+json;version=0.1`."""
    return media_type.startswith(_BUNDLE) and "+json" in media_type
