"""Sigstore bundles (protobuf-specs, sigstore_bundle.proto, versions 0.1 to 0.3) verified by key.

A bundle brings what is needed to verify it, and is not asked for it: its log entries and
timestamps are left alone, and a key or certificate in it proves nothing (GHSA-fx35-mq7g-6g98).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import InvalidInput
from podctl.model import jsontext
from podctl.model.fields import Fields
from podctl.model.imagedocument import MAX_SIGNATURE_SET
from podctl.model.reference import parse
from podctl_trust_cosign.claims import Claim, Subject
from podctl_trust_cosign.encoding import from_base64, pre_authentication

if TYPE_CHECKING:
    from podctl.errors import ManifestInvalid
    from podctl.model.imagedocument import RegistrySignature

MEDIA_TYPES = frozenset(
    (
        *(f"application/vnd.dev.sigstore.bundle+json;version=0.{minor}" for minor in (1, 2, 3)),
        "application/vnd.dev.sigstore.bundle.v0.3+json",
    )
)
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
#: what `cosign sign` writes; every other predicate attests something about an image, it may be
#: that the image must not be used.
PREDICATE_TYPE = "https://sigstore.dev/cosign/sign/v1"
MAX_SUBJECTS = 64

_HASH = "SHA2_256"


def read_bundle(found: RegistrySignature) -> Claim:
    """Read a bundle.

    Raises:
        ManifestInvalid: another version, a field that is not understood, a certificate instead of
            a key, or content that is no signature of an image.
    """
    value = jsontext.loads(found.content, what="bundle", max_bytes=MAX_SIGNATURE_SET)
    known = "mediaType verificationMaterial messageSignature dsseEnvelope"
    bundle = Fields(value, "bundle", known, closed=True)
    kind = bundle.need("mediaType", str)
    if kind not in MEDIA_TYPES:
        raise bundle.error(f"mediaType {kind[:80]!r} is not supported, versions 0.1 to 0.3 are")
    if found.signature:
        raise bundle.error("holds its own signature, another stands beside it")
    _check_material(bundle)
    envelope = bundle.child("dsseEnvelope", "payload payloadType signatures")
    message = bundle.child("messageSignature", "messageDigest signature")
    if (envelope is None) == (message is None):
        raise bundle.error("must hold either dsseEnvelope or messageSignature")
    if envelope is not None:
        return _read_envelope(envelope)
    assert message is not None
    return _read_message(message)


def _check_material(bundle: Fields) -> None:
    """See that it is to be verified by a key which we are to know."""
    known = "publicKey x509CertificateChain certificate tlogEntries timestampVerificationData"
    material = bundle.child("verificationMaterial", known)
    if material is None:
        raise bundle.error("verificationMaterial is required")
    if any(material.get(key, dict) for key in ("certificate", "x509CertificateChain")):
        raise bundle.error("keyless signatures (by certificate) are not supported, a key is needed")
    key = material.child("publicKey", "hint")
    if key is None:
        raise material.error("publicKey is required")
    # The hint's form is left to signer and verifier; every trusted key is tried.
    key.get("hint", str)
    material.get("tlogEntries", list)
    material.get("timestampVerificationData", dict)


def _read_envelope(envelope: Fields) -> Claim:
    kind = envelope.need("payloadType", str)
    if kind != PAYLOAD_TYPE:
        raise envelope.error(f"payloadType {kind[:80]!r} is not supported, {PAYLOAD_TYPE} is")
    payload = _binary(envelope, "payload")
    signatures = list(envelope.items("signatures", "sig keyid"))
    if len(signatures) != 1:
        raise envelope.error("must hold exactly one signature")
    signatures[0].get("keyid", str)
    return Claim(
        _binary(signatures[0], "sig"), pre_authentication(kind, payload), _subjects(payload)
    )


def _subjects(payload: bytes) -> tuple[Subject, ...]:
    """Read the in-toto statement: the images it says are signed."""
    value = jsontext.loads(payload, what="statement", max_bytes=MAX_SIGNATURE_SET)
    statement = Fields(value, "statement", "_type subject predicateType predicate")
    kind = statement.need("_type", str)
    if kind != STATEMENT_TYPE:
        raise statement.error(f"_type {kind[:80]!r} is not supported, {STATEMENT_TYPE} is")
    predicate = statement.need("predicateType", str)
    if predicate != PREDICATE_TYPE:
        raise statement.error(f"an attestation ({predicate[:80]!r}) is no signature of the image")
    statement.get("predicate", dict)
    subjects = list(statement.items("subject", "name digest"))
    if not 1 <= len(subjects) <= MAX_SUBJECTS:
        raise statement.error(f"must have 1 to {MAX_SUBJECTS} subjects")
    return tuple(_subject(one) for one in subjects)


def _subject(subject: Fields) -> Subject:
    digests = subject.string_map("digest")
    if "sha256" not in digests:
        raise subject.error("has no sha256 digest")
    return Subject(f"sha256:{digests['sha256']}", _reference(subject.get("name", str) or ""))


def _reference(name: str) -> str | None:
    """A subject's name where it can be an image's: cosign gives none, others what they like."""
    try:
        parse(f"docker://{name.partition('@')[0]}")
    except InvalidInput:
        return None
    return name


def _read_message(message: Fields) -> Claim:
    """Read a signature of the manifest's own bytes (`cosign sign-blob` of it)."""
    digest = message.child("messageDigest", "algorithm digest")
    if digest is None:
        raise message.error("messageDigest is required, it says which document was signed")
    if digest.need("algorithm", str) != _HASH:
        raise digest.error(f"algorithm must be {_HASH}")
    subject = Subject(f"sha256:{_binary(digest, 'digest').hex()}", None)
    return Claim(_binary(message, "signature"), None, (subject,))


def _binary(fields: Fields, key: str) -> bytes:
    try:
        return from_base64(fields.need(key, str))
    except ValueError:
        raise _no_base64(fields, key) from None


def _no_base64(fields: Fields, key: str) -> ManifestInvalid:
    return fields.error(f"{key} is no canonical base64")
