"""What passes between core's trust policy and a signature scheme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """One public key, as shown to a user before it is trusted.

    Args:
        scheme: the trust provider's name, e.g. `openpgp`.
        fingerprint: full, lower-case hexadecimal; also the file name in the key store.
        identities: user ids, as in the key (escape before printing).
        subkeys: fingerprints of subkeys.
        created: seconds since the epoch.
        expires: seconds since the epoch, None for never.
        revoked: whether the key carries its own revocation.
    """

    scheme: str
    fingerprint: str
    identities: tuple[str, ...]
    subkeys: tuple[str, ...]
    created: int
    expires: int | None
    revoked: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """A good signature: whose, when, and how long it holds.

    `fingerprint` is the primary key's (the trusted one), `signer` the key or subkey that signed.
    `expires` is the earliest expiry among signature, signer and primary key, None for never.
    `notes` tells of other signatures in the same file that were not good, one line each.
    """

    scheme: str
    fingerprint: str
    signer: str
    identities: tuple[str, ...]
    signed_at: int
    expires: int | None
    notes: tuple[str, ...] = ()


class Verifier(Protocol):
    """A detached signature being checked while the signed bytes stream by."""

    def update(self, data: bytes) -> None:
        """Hash the next bytes of the signed content."""

    def finish(self) -> Verdict:
        """Raise TrustRefused (naming the rule) unless one signature by a given key is good."""
