"""Descriptors: how one document of an image names another one or a blob.

OCI image-spec 1.1, descriptor.md; a descriptor of Docker's schema 2 is one with fewer members.
"""

from __future__ import annotations

import binascii
import hashlib
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import InvalidInput, ManifestInvalid
from podctl.model.manifest import NOTHING
from podctl_fetch_docker.mediatypes import is_media_type
from podctl_fetch_docker.platforms import PLATFORM_KEYS, Platform, parse_platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.model.fields import Fields

#: registered digest algorithms -> their digits (descriptor.md, "Registered algorithms").
ALGORITHMS = {"sha256": 64, "sha512": 128}

DESCRIPTOR_KEYS = "mediaType digest size urls annotations data artifactType platform"

_HEX = frozenset("0123456789abcdef")
_MAX_SIZE = (1 << 53) - 1
_MAX_DATA = 4 << 20


class Descriptor(NamedTuple):
    """What a document says of another one or of a blob.

    Args:
        media_type: as written.
        digest: `sha256:` and 64 digits or `sha512:` and 128, lower case.
        size: number of bytes.
        platform: os and architecture of an index's entry, where it says so.
        urls: where a layer may also be had; never followed.
        annotations: name -> value.
        artifact_type: of a manifest that is no image; else empty.
        data: the content itself where it was embedded; it has the digest and the size.
    """

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = NOTHING
    artifact_type: str = ""
    data: bytes | None = None


def check_digest(text: str, what: str = "digest") -> str:
    """Return `text` if it is a digest of a registered algorithm, of full length, in lower case.

    This comes before any path or URL is made of it (CVE-2024-3727).

    Raises:
        InvalidInput: it is not.
    """
    algorithm, colon, digits = text.partition(":")
    length = ALGORITHMS.get(algorithm)
    if length is None or not colon:
        known = ", ".join(ALGORITHMS)
        raise InvalidInput(f"{what} {text[:80]!r} is of no algorithm that is supported ({known})")
    if len(digits) != length or not _HEX.issuperset(digits):
        raise InvalidInput(
            f"{what} {text[:140]!r} must be {algorithm}: and {length} lower-case hexadecimal digits"
        )
    return text


def has_digest(data: bytes, digest: str) -> bool:
    """Whether `data` has the digest, which must have been checked."""
    algorithm, _, digits = digest.partition(":")
    return hashlib.new(algorithm, data).hexdigest() == digits


def verify(data: bytes, descriptor: Descriptor, what: str) -> bytes:
    """Return `data` if it is what the descriptor names.

    Raises:
        ManifestInvalid: its size or its digest differs.
    """
    if len(data) != descriptor.size:
        raise ManifestInvalid(
            f"{what}: {len(data)} bytes where its descriptor says {descriptor.size}"
        )
    if not has_digest(data, descriptor.digest):
        raise ManifestInvalid(f"{what}: its digest is not {descriptor.digest}")
    return data


def parse_descriptor(fields: Fields) -> Descriptor:
    """Read one descriptor.

    Raises:
        ManifestInvalid: it breaks the schema, or embedded data is not what it names.
    """
    media_type = fields.need("mediaType", str)
    if not is_media_type(media_type):
        raise fields.error(f"mediaType {media_type[:80]!r} is no media type")
    size = fields.need("size", int)
    if not 0 <= size <= _MAX_SIZE:
        raise fields.error(f"size {size} is out of range")
    platform = fields.child("platform", PLATFORM_KEYS)
    descriptor = Descriptor(
        media_type=media_type,
        digest=fields.checked("digest", check_digest),
        size=size,
        platform=None if platform is None else parse_platform(platform),
        urls=fields.strings("urls"),
        annotations=fields.string_map("annotations"),
        artifact_type=fields.get("artifactType", str) or "",
    )
    return descriptor._replace(data=_embedded(fields, descriptor))


def _embedded(fields: Fields, descriptor: Descriptor) -> bytes | None:
    text = fields.get("data", str)
    if text is None:
        return None
    if len(text) > _MAX_DATA:
        raise fields.error(f"data is over {_MAX_DATA} characters")
    try:
        data = binascii.a2b_base64(text.encode(), strict_mode=True)
    except binascii.Error:
        raise fields.error("data is no base64") from None
    return verify(data, descriptor, f"{fields.where}.data")
