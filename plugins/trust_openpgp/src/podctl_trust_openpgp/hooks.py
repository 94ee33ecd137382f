"""The `openpgp` provider. Nothing is parsed here, and nothing heavy imported before it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.api import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.trusting import KeyDescription, Verifier


class OpenPGP:
    """Answers the trust hooks for detached OpenPGP signatures, version 4."""

    @hookimpl
    def trust_preload(self) -> None:
        """Import the parsers and the cryptography library, down to what it imports on first use."""
        from podctl_trust_openpgp import preload

        preload.exercise()

    @hookimpl
    def trust_recognises(self, data: bytes) -> bool:
        """Whether this is OpenPGP's armor, of whatever label, or begins as a packet does.

        Secret keys and messages are recognised as well, to be refused by name.
        """
        return data[:1] >= b"\x80" or data.lstrip().startswith(b"-----BEGIN PGP ")

    @hookimpl
    def trust_key(self, data: bytes) -> KeyDescription:
        """Describe one public key file.

        Raises:
            KeyInvalid: not exactly one public key, a secret key, or one too weak to be trusted.
        """
        from podctl_trust_openpgp.certificate import describe

        return describe(data)

    @hookimpl
    def trust_signers(self, signature: bytes) -> Sequence[str]:
        """Name the issuers of a signature file, fingerprints where they are given.

        Raises:
            KeyInvalid: not a file of detached signatures.
            TrustRefused: no signature in it is of an accepted kind, whoever made it.
        """
        from podctl_trust_openpgp.verify import signers

        return signers(signature)

    @hookimpl
    def trust_verifier(self, signature: bytes, keys: Sequence[bytes], now: int) -> Verifier:
        """Begin to verify; refuses at once when no signature can become good.

        Raises:
            KeyInvalid: the signature file or a key file cannot be parsed.
            TrustRefused: no signature can be good, with the rule each of them breaks.
        """
        from podctl_trust_openpgp.verify import DetachedVerifier

        return DetachedVerifier(signature, keys, now)


openpgp = OpenPGP()
