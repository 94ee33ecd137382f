"""Images that are three small documents, and the signatures cosign would lay beside them."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ed25519_reference
import pytest
from cryptography.hazmat.primitives import hashes, serialization  # noqa: TID253
from cryptography.hazmat.primitives.asymmetric import (  # noqa: TID253
    ec,
    ed25519,
    padding,
    rsa,
)

from podctl.errors import KeyInvalid, TrustRefused
from podctl.model.imagedocument import (
    ImageDocument,
    RegistrySignature,
    digest_of,
    dump_signatures,
)
from podctl_trust_cosign.hooks import cosign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.trusting import Verdict

NOW = 1764000000
REGISTRY = "registry.example:5000"
REPOSITORY = f"{REGISTRY}/team/app"
PAYLOAD_TYPE = "cosign container image signature"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://sigstore.dev/cosign/sign/v1"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

KINDS = ("p256", "p384", "p521", "ed25519", "rsa2048", "rsa3072", "rsa4096")

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Signer:
    """One private key.

    Args:
        key: of any kind that can sign.
    """

    def __init__(self, key: PrivateKey) -> None:
        self.key = key

    @property
    def spki(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.DER, form)

    @property
    def public(self) -> bytes:
        """`cosign.pub`."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, form)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.spki).hexdigest()

    def sign(self, message: bytes, *, own_hash: bool = False, prehashed: bool = False) -> bytes:
        """Sign as cosign does.

        Args:
            own_hash: with the hash of the curve's size instead of SHA-256, as in bundles.
            prehashed: with Ed25519ph where the key is Ed25519, as in payloads.
        """
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            if prehashed:
                seed = self.key.private_bytes(
                    serialization.Encoding.Raw,
                    serialization.PrivateFormat.Raw,
                    serialization.NoEncryption(),
                )
                return ed25519_reference.sign_prehashed(seed, message)
            return self.key.sign(message)
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        sizes = {384: hashes.SHA384(), 521: hashes.SHA512()}
        chosen = sizes.get(self.key.key_size) if own_hash else None
        return self.key.sign(message, ec.ECDSA(chosen or hashes.SHA256()))


class Lab:
    """Signers by name; the name begins with the kind of key (`p256-alice`)."""

    def __init__(self) -> None:
        self._made: dict[str, Signer] = {}

    def signer(self, name: str) -> Signer:
        if name not in self._made:
            self._made[name] = Signer(make_key(name.partition("-")[0]))
        return self._made[name]


def make_key(kind: str) -> PrivateKey:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    curves: dict[str, ec.EllipticCurve] = {
        "p256": ec.SECP256R1(),
        "p384": ec.SECP384R1(),
        "p521": ec.SECP521R1(),
        "p224": ec.SECP224R1(),
        "k256": ec.SECP256K1(),
    }
    return ec.generate_private_key(curves[kind])


@dataclass(frozen=True)
class Image:
    """A tiny image; documents are derived from each other as a registry has them.

    Args:
        reference: as it was asked for.
        seed: makes images different.
        indexed: whether an index led to the manifest.
    """

    reference: str = f"{REPOSITORY}:1.0"
    seed: str = "app"
    indexed: bool = False

    @property
    def config(self) -> bytes:
        return compact({"architecture": "amd64", "os": "linux", "seed": self.seed})

    @property
    def manifest(self) -> bytes:
        media = "application/vnd.oci.image.config.v1+json"
        config = {"mediaType": media, "digest": digest_of(self.config), "size": len(self.config)}
        return compact({"schemaVersion": 2, "config": config, "layers": []})

    @property
    def image_index(self) -> bytes | None:
        if not self.indexed:
            return None
        media = "application/vnd.oci.image.manifest.v1+json"
        listed = {
            "mediaType": media,
            "digest": digest_of(self.manifest),
            "size": len(self.manifest),
            "platform": {"architecture": "amd64", "os": "linux"},
        }
        return compact({"schemaVersion": 2, "manifests": [listed]})

    @property
    def digest(self) -> str:
        """What `cosign sign` signs: the index if there is one."""
        return digest_of(self.image_index or self.manifest)

    @property
    def document(self) -> bytes:
        return ImageDocument(self.reference, self.image_index, self.manifest, self.config).dump()

    def pinned(self) -> Image:
        """The same, asked for by digest."""
        return replace(self, reference=f"{self.reference.rpartition(':')[0]}@{self.digest}")


def payload(digest: str, reference: str = REPOSITORY, **changes: Any) -> bytes:
    """A simple signing payload; `changes` replace parts of `critical`, and `optional`."""
    optional = changes.pop("optional", None)
    critical = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest},
        "type": PAYLOAD_TYPE,
        **changes,
    }
    return compact({"critical": critical, "optional": optional})


def simple(signer: Signer, content: bytes, **how: bool) -> RegistrySignature:
    return RegistrySignature("simple", content, b64(signer.sign(content, **how)))


def statement(digest: str, **changes: Any) -> bytes:
    """The in-toto statement of `cosign sign`."""
    algorithm, _, value = digest.partition(":")
    return compact(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"digest": {algorithm: value}, "annotations": {}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {},
            **changes,
        }
    )


def pae(content: bytes, kind: str = "application/vnd.in-toto+json") -> bytes:
    return f"DSSEv1 {len(kind)} {kind} {len(content)} ".encode() + content


def envelope(signer: Signer, content: bytes, *, own_hash: bool = True) -> dict[str, Any]:
    return {
        "payload": b64(content),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": b64(signer.sign(pae(content), own_hash=own_hash)), "keyid": ""}],
    }


def material(signer: Signer) -> dict[str, Any]:
    return {"publicKey": {"hint": b64(hashlib.sha256(signer.spki).digest())}}


def bundle_value(signer: Signer, content: bytes, **changes: Any) -> dict[str, Any]:
    return {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": material(signer),
        "dsseEnvelope": envelope(signer, content),
        **changes,
    }


def message_value(signer: Signer, document: bytes, **how: bool) -> dict[str, Any]:
    """What `cosign sign-blob` of a manifest makes."""
    digest = {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(document).digest())}
    signature = b64(signer.sign(document, **how))
    return {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": material(signer),
        "messageSignature": {"messageDigest": digest, "signature": signature},
    }


def bundle(value: object) -> RegistrySignature:
    return RegistrySignature("bundle", compact(value))


def verify(
    signatures: Sequence[RegistrySignature] | bytes,
    keys: Sequence[Signer],
    image: Image | bytes,
    *,
    now: int = NOW,
) -> Verdict:
    """Do what the fetch pipeline does."""
    data = signatures if isinstance(signatures, bytes) else dump_signatures(list(signatures))
    cosign.trust_signers(signature=data)
    verifier = cosign.trust_verifier(signature=data, keys=[key.public for key in keys], now=now)
    verifier.update(image if isinstance(image, bytes) else image.document)
    return verifier.finish()


def refusal(
    signatures: Sequence[RegistrySignature] | bytes,
    keys: Sequence[Signer],
    image: Image | bytes | None = None,
    *,
    now: int = NOW,
) -> str:
    """Why `verify` refuses; in one line, and in no other way than the contract allows."""
    with pytest.raises((TrustRefused, KeyInvalid)) as caught:
        verify(signatures, keys, Image() if image is None else image, now=now)
    assert "\n" not in str(caught.value)
    return str(caught.value)
