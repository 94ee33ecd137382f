"""The image that signatures are held against: its documents, and the name it was asked for by."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from podctl.errors import InvalidInput, ManifestInvalid
from podctl.model import jsontext
from podctl.model.fields import Fields
from podctl.model.imagedocument import MAX_PART, digest_of, parse_document
from podctl.model.reference import parse

if TYPE_CHECKING:
    from podctl.model.reference import Reference
    from podctl_trust_cosign.claims import Subject


class SignedDocument:
    """An image document whose parts belong together.

    Each document names the next one by digest and size: a signature of the index covers manifest
    and configuration, one of the manifest the configuration.

    Args:
        data: what `podctl.model.imagedocument.ImageDocument.dump` wrote.

    Raises:
        ManifestInvalid: it is none, or a part is not the one that the part before it names.
    """

    def __init__(self, data: bytes) -> None:
        document = parse_document(data)
        self._reference = _parse_reference(document.reference)
        self._parts = document.digests()
        parts = {"index": document.image_index, "manifest": document.manifest}
        self._check_pin([part for part in parts.values() if part is not None])
        if document.image_index is not None:
            _check_index(document.image_index, document.manifest)
        _check_manifest(document.manifest, document.config)

    def content(self, digest: str) -> bytes | None:
        """The index or manifest with this digest; None where the image has no such part."""
        return self._parts.get(digest)

    def objection(self, subject: Subject) -> str | None:
        """Say why a signature that speaks of `subject` does not speak of this image; None if it
        does.

        The repository must be the one the image was asked for by, and a tag the one that was asked
        for; an image that was asked for by digest may have any tag, as containers-policy.json(5)
        has it in `matchRepoDigestOrExact`.
        """
        if self.content(subject.digest) is None:
            return f"is for {subject.digest[:80]!r}, which is neither this image nor its index"
        if subject.reference is None:
            return None
        name, at, digest = subject.reference.partition("@")
        try:
            claimed = _parse_reference(name)
        except ManifestInvalid:
            return f"is for {subject.reference[:128]!r}, which is no image reference"
        if _repository(claimed) != _repository(self._reference):
            return f"is for {claimed.name}, not for {self._reference.name}"
        if at and self.content(digest) is None:
            return f"is for {subject.reference[:300]!r}, and contradicts itself in the digest"
        return self._tag_objection(claimed, name)

    def _tag_objection(self, claimed: Reference, written: str) -> str | None:
        asked = self._reference.version or ""
        tagged = ":" in written.rpartition("/")[2]
        if tagged and ":" not in asked and claimed.version != asked:
            return f"is for the tag {claimed.version}, not for {asked}"
        return None

    def _check_pin(self, parts: list[bytes]) -> None:
        """See that an image asked for by digest has a part with that digest."""
        asked = self._reference.version or ""
        if ":" in asked and not any(asked in _digests(part) for part in parts):
            raise ManifestInvalid(
                f"image document: has no part with the digest it was asked for by, {asked}"
            )


def identity(subject: Subject) -> str:
    """How a good signature's subject is told to the user."""
    if subject.reference is None:
        return subject.digest
    name, at, digest = subject.reference.partition("@")
    claimed = _parse_reference(name)
    shown = claimed.path_or_url if ":" in name.rpartition("/")[2] else claimed.name
    return f"{shown}{at}{digest}"


def _parse_reference(text: str) -> Reference:
    """Parse `registry/repository[:tag|@digest]`; Docker Hub's names become one."""
    try:
        return parse(f"docker://{text}")
    except InvalidInput as error:
        raise ManifestInvalid(f"image document: {error.message}") from None


def _repository(reference: Reference) -> str:
    # Host names know no case; repositories are lower-case already.
    return (reference.name or "").lower()


def _check_index(index: bytes, manifest: bytes) -> None:
    value = jsontext.loads(index, what="index", max_bytes=MAX_PART)
    entries = Fields(value, "index", "manifests").items("manifests", "digest size")
    names, size = _digests(manifest), len(manifest)
    listed = [(entry.need("digest", str), entry.need("size", int)) for entry in entries]
    if not any(digest in names and length == size for digest, length in listed):
        raise ManifestInvalid(f"index: does not list the manifest {digest_of(manifest)}")


def _check_manifest(manifest: bytes, config: bytes) -> None:
    value = jsontext.loads(manifest, what="manifest", max_bytes=MAX_PART)
    named = Fields(value, "manifest", "config").child("config", "digest size")
    if (
        named is None
        or named.need("digest", str) not in _digests(config)
        or named.need("size", int) != len(config)
    ):
        raise ManifestInvalid(f"manifest: does not name the configuration {digest_of(config)}")


def _digests(part: bytes) -> frozenset[str]:
    """Both digests a document can be named by."""
    return frozenset((digest_of(part), f"sha512:{hashlib.sha512(part).hexdigest()}"))
