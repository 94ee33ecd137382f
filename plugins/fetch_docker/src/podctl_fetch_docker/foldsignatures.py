"""Signatures written into an OCI layout the way they lie in a registry.

Signed payloads become a manifest tagged `sha256-HEX.sig`, bundles one that refers to the image.
What a registry had around them was never signed; it is made anew, the same for the same signatures.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any

from podctl.errors import ManifestInvalid
from podctl.model import jsontext
from podctl.model.imagedocument import digest_of
from podctl_fetch_docker.archivefiles import REF_NAME
from podctl_fetch_docker.manifests import parse_top
from podctl_fetch_docker.mediatypes import (
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_MANIFEST,
    is_media_type,
)
from podctl_fetch_docker.signatures import PAYLOAD, SIGNATURE, signature_tag

if TYPE_CHECKING:
    from podctl.model.imagedocument import ImageDocument, RegistrySignature

#: annotation by which cosign finds an image's signatures in a layout, and its value.
_KIND = ("kind", "dev.cosignproject.cosign/sigs")
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_EMPTY = b"{}"


def entries_of(
    signatures: list[RegistrySignature], document: ImageDocument
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Entries of `index.json` for an image's signatures, and the blobs they lead to."""
    by_digest: dict[str, list[RegistrySignature]] = {}
    entries: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for one in signatures:
        digest = _signed_digest(one, document)
        if one.kind == "simple":
            by_digest.setdefault(digest, []).append(one)
        else:
            manifest, more = _bundle(one, digest, document)
            kind = manifest["artifactType"]
            entries.append(_entry(jsontext.dumps(manifest), artifactType=kind))
            blobs += [jsontext.dumps(manifest), *more]
    for digest, payloads in by_digest.items():
        # The newest stands last, and is collected first.
        manifest, more = _payloads(payloads[::-1])
        annotations = {REF_NAME: signature_tag(digest), _KIND[0]: _KIND[1]}
        entries.append(_entry(jsontext.dumps(manifest), annotations=annotations))
        blobs += [jsontext.dumps(manifest), *more]
    return entries, blobs


def _entry(data: bytes, **fields: object) -> dict[str, Any]:
    return {"mediaType": OCI_MANIFEST, "digest": digest_of(data), "size": len(data), **fields}


def _described(data: bytes, media_type: str, **fields: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **fields}


def _payloads(payloads: list[RegistrySignature]) -> tuple[dict[str, Any], list[bytes]]:
    layers = [
        _described(one.content, PAYLOAD, annotations={SIGNATURE: one.signature}) for one in payloads
    ]
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    config = jsontext.dumps({"architecture": "", "os": "", "config": {}, "rootfs": rootfs})
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _described(config, OCI_CONFIG),
        "layers": layers,
    }
    return manifest, [config, *(one.content for one in payloads)]


def _bundle(
    one: RegistrySignature, digest: str, document: ImageDocument
) -> tuple[dict[str, Any], list[bytes]]:
    value = _value(one.content)
    kind = value.get("mediaType") if isinstance(value, dict) else None
    if not isinstance(kind, str) or not is_media_type(kind):
        kind = _BUNDLE
    subject = document.digests()[digest]
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": _described(_EMPTY, OCI_EMPTY),
        "layers": [_described(one.content, kind)],
        "subject": _described(subject, parse_top(subject).media_type),
    }
    return manifest, [_EMPTY, one.content]


def _signed_digest(one: RegistrySignature, document: ImageDocument) -> str:
    """The document of the image a signature says it is over; the first where it says nothing."""
    said = _said(_value(one.content))
    digests = document.digests()
    return next((digest for digest in digests if digest in said), next(iter(digests)))


def _said(value: Any) -> set[str]:
    """The digests that a payload, or the statement in a bundle, names."""
    try:
        if "critical" in value:
            return {str(value["critical"]["image"]["docker-manifest-digest"])}
        statement = _value(binascii.a2b_base64(value["dsseEnvelope"]["payload"]))
        return {f"sha256:{subject['digest']['sha256']}" for subject in statement["subject"]}
    except (KeyError, TypeError, ValueError):
        return set()


def _value(data: bytes) -> Any:
    try:
        return jsontext.loads(data, what="signature")
    except ManifestInvalid:
        return None
