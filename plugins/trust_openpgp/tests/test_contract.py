"""The contract of every trust scheme, kept by openpgp with keys made by gpg."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podctl.testing.trust import TrustContract
from podctl_trust_openpgp.hooks import openpgp

if TYPE_CHECKING:
    from openpgp_lab import Lab

_USAGE = {"alice": "ed25519", "bob": "nistp256"}


class TestOpenPGP(TrustContract):
    provider = openpgp

    @pytest.fixture(autouse=True)
    def _lab(self, lab: Lab) -> None:
        self.lab = lab

    def key(self, name: str) -> bytes:
        self.lab.key(f"contract-{name}", _USAGE[name], expire="20990101T000000")
        return self.lab.export(f"contract-{name}")

    def sign(self, name: str, content: bytes) -> bytes:
        self.key(name)
        return self.lab.sign(f"contract-{name}", content)
