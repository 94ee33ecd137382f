"""Cosign signatures of registry images, good ones and others, for tests and demonstrations.

    signer = Signer()
    attach_tag(registry, "library/app", signer.simple("registry.test/library/app", digest))
    attach_bundle(registry, "library/app", signer.bundle(digest))
    key_file.write_bytes(signer.public)

The formats: simple signing beside the image under the tag `sha256-....sig`, the same as a referrer,
and sigstore bundles (a DSSE envelope about an in-toto statement) as referrers.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.testing.ociimages import OCI, Document, document

if TYPE_CHECKING:
    from podctl.testing.registry import Registry

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIMPLE_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
STATEMENT, PAYLOAD_TYPE = "https://in-toto.io/Statement/v1", "application/vnd.in-toto+json"
PREDICATE = "https://sigstore.dev/cosign/sign/v1"
EMPTY = Document("application/vnd.oci.empty.v1+json", b"{}")


class Simple(NamedTuple):
    """A simple-signing payload and its signature, base64 text."""

    payload: bytes
    signature: str


class Signer:
    """A key pair of one signer.

    Args:
        kind: `p256`, `p384`, `ed25519` or `rsa`.
    """

    def __init__(self, kind: str = "p256") -> None:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        makers: dict[str, Any] = {
            "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "ed25519": ed25519.Ed25519PrivateKey.generate,
            "rsa": lambda: rsa.generate_private_key(65537, 2048),
        }
        self.kind = kind
        self._key = makers[kind]()

    @property
    def public(self) -> bytes:
        """The public key, PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        pem: bytes = self._key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return pem

    def sign(self, data: bytes) -> bytes:
        """Sign as cosign does with a key of this kind."""
        from cryptography.hazmat.primitives.asymmetric import ec, padding
        from cryptography.hazmat.primitives.hashes import SHA256

        arguments: dict[str, tuple[Any, ...]] = {
            "ed25519": (),
            "rsa": (padding.PKCS1v15(), SHA256()),
        }
        signature: bytes = self._key.sign(data, *arguments.get(self.kind, (ec.ECDSA(SHA256()),)))
        return signature

    def simple(self, reference: str, digest: str, **critical: Any) -> Simple:
        """A simple-signing signature of a manifest's digest, claimed for a repository.

        Args:
            critical: members of `critical` to replace.
        """
        payload = simple_payload(reference, digest, **critical)
        return Simple(payload, base64.b64encode(self.sign(payload)).decode())

    def bundle(self, digest: str, *, name: str = "", predicate: str = PREDICATE) -> bytes:
        """A sigstore bundle about a manifest's digest, verified by a key of a hint."""
        statement = {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}],
            "predicateType": predicate,
            "predicate": {},
        }
        return self.envelope(json.dumps(statement).encode())

    def envelope(self, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
        """A sigstore bundle around a DSSE envelope of any payload."""
        signature = self.sign(pre_authentication(payload_type, payload))
        value = {
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": ""}},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": payload_type,
                "signatures": [{"sig": base64.b64encode(signature).decode()}],
            },
        }
        return json.dumps(value).encode()


def simple_payload(reference: str, digest: str, **critical: Any) -> bytes:
    """What cosign signs: critical identity, image and type."""
    value = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": {**value, **critical}, "optional": None}).encode()


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding (PAE)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def signature_tag(digest: str) -> str:
    """The tag under which cosign keeps the signatures of a digest."""
    return f"{digest.replace(':', '-')}.sig"


def signature_manifest(*signatures: Simple, **fields: Any) -> Document:
    """The image whose layers are simple-signing payloads; `fields` are further members."""
    layers = [
        Document(SIMPLE, one.payload).descriptor(annotations={ANNOTATION: one.signature})
        for one in signatures
    ]
    value = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "config": _signature_config(signatures).descriptor(),
        "layers": layers,
    }
    return document(OCI.manifest, {**value, **fields})


def attach_tag(registry: Registry, repository: str, subject: str, *signatures: Simple) -> str:
    """Publish simple-signing signatures of a digest under cosign's tag; return it."""
    _keep(registry, repository, signatures)
    tag = signature_tag(subject)
    registry.put_document(repository, signature_manifest(*signatures), tag)
    return tag


def attach_referrer(registry: Registry, repository: str, subject: str, *signed: Simple) -> str:
    """Publish simple-signing signatures as a referrer, as cosign's OCI 1.1 mode does."""
    _keep(registry, repository, signed)
    about = registry.at(repository).manifests[subject].descriptor()
    one = signature_manifest(*signed, artifactType=SIMPLE_ARTIFACT, subject=about)
    return registry.refer(repository, subject, one, artifactType=SIMPLE_ARTIFACT)


def attach_bundle(registry: Registry, repository: str, subject: str, bundle: bytes) -> str:
    """Publish a sigstore bundle as a referrer of a digest; return the referrer's digest."""
    registry.put_blob(repository, EMPTY.data)
    registry.put_blob(repository, bundle)
    value = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "artifactType": BUNDLE,
        "config": EMPTY.descriptor(),
        "layers": [Document(BUNDLE, bundle).descriptor()],
        "subject": registry.at(repository).manifests[subject].descriptor(),
    }
    return registry.refer(repository, subject, document(OCI.manifest, value), artifactType=BUNDLE)


def _keep(registry: Registry, repository: str, signatures: tuple[Simple, ...]) -> None:
    registry.put_blob(repository, _signature_config(signatures).data)
    for one in signatures:
        registry.put_blob(repository, one.payload)


def _signature_config(signatures: tuple[Simple, ...]) -> Document:
    layers = [Document(SIMPLE, one.payload).digest for one in signatures]
    rootfs = {"type": "layers", "diff_ids": layers}
    return document(OCI.config, {"architecture": "", "os": "", "config": {}, "rootfs": rootfs})
