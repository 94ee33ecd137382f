"""The contract of every trust scheme, kept by cosign in each of its forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cosign_lab import (
    NOW,
    Image,
    bundle,
    bundle_value,
    payload,
    simple,
    statement,
)

from podctl.model.imagedocument import RegistrySignature, dump_signatures, parse_document
from podctl.testing.trust import TrustContract
from podctl_trust_cosign.hooks import cosign

if TYPE_CHECKING:
    from cosign_lab import Lab, Signer

#: Asked for by digest at a registry without letters, so that every bit of the reference counts.
REPOSITORY = "10.0.0.1:5000/team/app"
IMAGE = Image(f"{REPOSITORY}:1.0", indexed=True).pinned()


class Contract(TrustContract):
    provider = cosign
    now = NOW
    content = sample = IMAGE.document
    signs_anything = False
    kinds = ("p256", "p384")

    @pytest.fixture(autouse=True)
    def _lab(self, lab: Lab) -> None:
        self.lab = lab

    def signer(self, name: str) -> Signer:
        return self.lab.signer(f"{self.kinds[name != 'alice']}-{name}")

    def key(self, name: str) -> bytes:
        return self.signer(name).public

    def sign(self, name: str, content: bytes) -> bytes:
        digest = parse_document(content).reference.rpartition("@")[2]
        return dump_signatures([self.make(self.signer(name), digest)])

    def make(self, signer: Signer, digest: str) -> RegistrySignature:
        raise NotImplementedError


class TestPayload(Contract):
    def make(self, signer: Signer, digest: str) -> RegistrySignature:
        return simple(signer, payload(digest, REPOSITORY))


class TestPrehashedPayload(Contract):
    kinds = ("ed25519", "ed25519")

    def make(self, signer: Signer, digest: str) -> RegistrySignature:
        return simple(signer, payload(digest, REPOSITORY), prehashed=True)


class TestEnvelope(Contract):
    kinds = ("rsa2048", "p521")

    def make(self, signer: Signer, digest: str) -> RegistrySignature:
        subject = {"name": REPOSITORY, "digest": {"sha256": digest.partition(":")[2]}}
        return bundle(bundle_value(signer, statement(digest, subject=[subject])))
