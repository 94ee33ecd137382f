"""base64 with one spelling for each content (RFC 4648 section 3.5), and DSSE's encoding."""

from __future__ import annotations

import binascii


def from_base64(text: str) -> bytes:
    """Decode standard base64 with padding.

    Raises:
        ValueError: other characters are in it, or it is not the canonical form of its content.
    """
    data = binascii.a2b_base64(text, strict_mode=True)
    if binascii.b2a_base64(data, newline=False).decode() != text:
        raise ValueError
    return data


def pre_authentication(kind: str, payload: bytes) -> bytes:
    """What a DSSE signature is over (DSSE protocol v1.0.2, PAE)."""
    encoded = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(encoded), encoded, len(payload), payload)
