"""The `cosign` provider. Nothing is parsed here, and nothing heavy imported before it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.api import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.trusting import KeyDescription, Verifier


class Cosign:
    """Answers the trust hooks for the signatures beside an image in a registry."""

    @hookimpl
    def trust_preload(self) -> None:
        """Import the parsers and the cryptography library, down to what it imports on first use."""
        from podctl_trust_cosign import preload

        preload.exercise()

    @hookimpl
    def trust_recognises(self, data: bytes) -> bool:
        """Whether this is PEM (RFC 7468) of another kind than OpenPGP's armor.

        Private keys and certificates are recognised as well, to be refused by name.
        """
        start = data.lstrip()
        return start.startswith(b"-----BEGIN ") and not start.startswith(b"-----BEGIN PGP ")

    @hookimpl
    def trust_key(self, data: bytes) -> KeyDescription:
        """Describe one public key file.

        Raises:
            KeyInvalid: not exactly one public key in PEM, or one too weak to be trusted.
        """
        from podctl_trust_cosign.publickey import PublicKey

        return PublicKey(data).describe()

    @hookimpl
    def trust_signers(self, signature: bytes) -> Sequence[str]:
        """Name nobody: cosign's signatures do not say who made them.

        Raises:
            KeyInvalid: not a set of signatures.
            TrustRefused: no signature in it is of an accepted kind, whoever made it.
        """
        from podctl_trust_cosign.verify import read_claims

        read_claims(signature)
        return ()

    @hookimpl
    def trust_verifier(self, signature: bytes, keys: Sequence[bytes], now: int) -> Verifier:
        """Begin to verify; refuses at once when no signature can become good.

        Raises:
            KeyInvalid: the signature set or a key file cannot be parsed.
            TrustRefused: no signature can be good, with the rule each of them breaks.
        """
        from podctl_trust_cosign.verify import ImageVerifier

        return ImageVerifier(signature, keys, now)


cosign = Cosign()
