"""The one decision: may an image of this name be used, given what its signature proved?

The same rule serves every format and scheme. It is asked twice: when an image is committed (with
the verdict fresh from the signature) and again each time root uses it (with the verdict as root
recorded it), because a key may have been masked, removed or replaced, or have expired, since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import TrustRefused

if TYPE_CHECKING:
    from podctl.model.trusting import Verdict
    from podctl.trust.keystore import KeyStore, TrustedKey

HINT = "trust the right key with podctl trust, or pass --insecure-options=image"


def trusted_key(keystore: KeyStore, name: str, verdict: Verdict) -> TrustedKey:
    """Return the key store's entry that makes a good signature count for `name`.

    Raises:
        TrustRefused: no entry for this name has the signature's primary key.
    """
    key = keystore.find(name, verdict.fingerprint)
    if key is None:
        raise TrustRefused(
            f'image "{name}" is signed by key {verdict.fingerprint}, '
            "which is not trusted for this name",
            hint=HINT,
        )
    return key


def objection(
    keystore: KeyStore, name: str, fingerprint: str, expires: int | None, now: float
) -> str | None:
    """Say why an earlier verification does not hold any more; None when it does."""
    if keystore.find(name, fingerprint) is None:
        return f"key {fingerprint} is not trusted for this name any more"
    if expires is not None and expires <= now:
        return f"the signature by key {fingerprint} has expired"
    return None
