"""What one signature claims, whatever form it came in."""

from __future__ import annotations

from typing import NamedTuple


class Subject(NamedTuple):
    """An image that is spoken of.

    Args:
        digest: `sha256:` and 64 digits, of an index or a manifest.
        reference: image reference as written, with or without tag or digest; None where the
            signature speaks of content alone.
    """

    digest: str
    reference: str | None


class Claim(NamedTuple):
    """A signature whose form is accepted, not yet checked.

    Args:
        signature: as the algorithm writes it.
        message: the signed bytes; None where they are the document of the subject's digest.
        subjects: the images it is for; one of them must be the image.
        signed_at: seconds since the epoch, as the signer says; 0 where nothing is said.
    """

    signature: bytes
    message: bytes | None
    subjects: tuple[Subject, ...]
    signed_at: int = 0
