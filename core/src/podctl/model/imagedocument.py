"""The documents of a layered image as one value: what it was asked for, and what a registry said.

An App Container Image is one archive that names itself. A Docker or OCI image is a manifest that
names a configuration and layers, and its name is whatever it was asked for by. So that the store
can keep, identify and check both in the same way, the documents of a layered image are kept byte
for byte in one JSON object, the image document; its SHA-512 is the image ID.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from podctl.errors import ManifestInvalid
from podctl.model import jsontext
from podctl.model.fields import Fields

#: bytes of one manifest, index or configuration (registries take no larger manifest either).
MAX_PART = 4 << 20
#: bytes of an image document: its parts are JSON inside JSON, so quotes take two bytes.
MAX_DOCUMENT = 16 << 20
MAX_SIGNATURES = 64
MAX_SIGNATURE_SET = 1 << 20

#: what every image document begins with
DOCUMENT_START = b'{"config":'

_KIND = "podctl.image/1"


class ImageDocument(NamedTuple):
    """The documents of one layered image.

    Args:
        reference: `registry/repository:tag` or `registry/repository@digest` as it was asked for.
        image_index: the index (manifest list) that led to the manifest; None where there was none.
        manifest: the manifest of the platform that was chosen.
        config: the configuration that the manifest names.
    """

    reference: str
    image_index: bytes | None
    manifest: bytes
    config: bytes

    def dump(self) -> bytes:
        """Serialise; equal documents give equal bytes.

        Raises:
            ManifestInvalid: a part is no UTF-8, or too large.
        """
        value = {
            "kind": _KIND,
            "reference": self.reference,
            "image_index": None if self.image_index is None else _text(self.image_index, "index"),
            "manifest": _text(self.manifest, "manifest"),
            "config": _text(self.config, "config"),
        }
        data = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        if len(data) > MAX_DOCUMENT:
            raise ManifestInvalid(f"image document: over {MAX_DOCUMENT} bytes")
        return data

    def digests(self) -> dict[str, bytes]:
        """The documents that a signature may be over, by `sha256:` digest: index and manifest."""
        parts = [part for part in (self.image_index, self.manifest) if part is not None]
        return {digest_of(part): part for part in parts}


def parse_document(data: bytes, *, what: str = "image document") -> ImageDocument:
    """Read what `ImageDocument.dump` wrote; anything else it could not have written is refused.

    Raises:
        ManifestInvalid: it is none.
    """
    value = jsontext.loads(data, what=what, max_bytes=MAX_DOCUMENT)
    fields = Fields(value, what, "kind reference image_index manifest config", closed=True)
    if fields.need("kind", str) != _KIND:
        raise fields.error("is of another kind")
    index = fields.get("image_index", str)
    document = ImageDocument(
        reference=fields.need("reference", str),
        image_index=None if index is None else index.encode(),
        manifest=fields.need("manifest", str).encode(),
        config=fields.need("config", str).encode(),
    )
    if document.dump() != data:
        raise fields.error("is not in its canonical form")
    return document


class RegistrySignature(NamedTuple):
    """One signature found beside an image.

    Args:
        kind: `simple` (cosign's simple signing) or `bundle` (sigstore bundle).
        content: the signed payload, or the whole bundle.
        signature: base64 text of the signature; empty for a bundle, which holds its own.
    """

    kind: str
    content: bytes
    signature: str = ""


def dump_signatures(signatures: list[RegistrySignature]) -> bytes:
    """Serialise the signatures of one image: what the store keeps as its detached signature.

    Raises:
        ManifestInvalid: there are too many, or one is no UTF-8 or holds a NUL.
    """
    if len(signatures) > MAX_SIGNATURES:
        raise ManifestInvalid(f"image has more than {MAX_SIGNATURES} signatures")
    if any(b"\0" in one.content for one in signatures):
        # It could be written, but not be read again with the others.
        raise ManifestInvalid("a signature holds a NUL")
    value = [[one.kind, _text(one.content, "signature"), one.signature] for one in signatures]
    data = json.dumps({"signatures": value}, ensure_ascii=False, separators=(",", ":")).encode()
    if len(data) > MAX_SIGNATURE_SET:
        raise ManifestInvalid(f"image has more than {MAX_SIGNATURE_SET} bytes of signatures")
    return data


def parse_signatures(data: bytes, *, what: str = "signatures") -> list[RegistrySignature]:
    """Read what `dump_signatures` wrote.

    Raises:
        ManifestInvalid: it is none.
    """
    value = jsontext.loads(data, what=what, max_bytes=MAX_SIGNATURE_SET)
    fields = Fields(value, what, "signatures", closed=True)
    found = []
    for item in fields.need("signatures", list):
        if not isinstance(item, list) or [type(part) for part in item] != [str, str, str]:
            raise fields.error("holds something else than signatures")
        kind, content, signature = item
        found.append(RegistrySignature(kind, content.encode(), signature))
    if len(found) > MAX_SIGNATURES:
        raise fields.error(f"holds more than {MAX_SIGNATURES}")
    return found


def digest_of(data: bytes) -> str:
    """`sha256:` and 64 digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _text(part: bytes, what: str) -> str:
    if len(part) > MAX_PART:
        raise ManifestInvalid(f"{what}: over {MAX_PART} bytes")
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise ManifestInvalid(f"{what}: is no UTF-8") from None
