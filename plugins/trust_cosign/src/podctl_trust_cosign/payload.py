"""Simple signing payloads (containers-signature(5), with the type cosign gives them)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.model import jsontext
from podctl.model.fields import Fields
from podctl_trust_cosign.claims import Claim, Subject
from podctl_trust_cosign.encoding import from_base64

if TYPE_CHECKING:
    from podctl.model.imagedocument import RegistrySignature

#: critical.type; cosign and containers/image write and accept this one alone.
PAYLOAD_TYPE = "cosign container image signature"
MAX_PAYLOAD = 64 << 10


def read_payload(found: RegistrySignature) -> Claim:
    """Read a payload and the signature beside it.

    In `critical` nothing may stand that is not understood. `optional` holds what the signer liked
    to add: of it only `timestamp` is read (containers/image writes it).

    Raises:
        ManifestInvalid: another type, an unknown critical field, no digest or no reference.
    """
    value = jsontext.loads(found.content, what="payload", max_bytes=MAX_PAYLOAD)
    top = Fields(value, "payload", "critical optional", closed=True)
    critical = Fields(top.need("critical", dict), "critical", "type image identity", closed=True)
    kind = critical.need("type", str)
    if kind != PAYLOAD_TYPE:
        raise critical.error(f"type {kind[:80]!r} is no signature of an image by cosign")
    image = Fields(
        critical.need("image", dict), "critical.image", "docker-manifest-digest", closed=True
    )
    identity = Fields(
        critical.need("identity", dict), "critical.identity", "docker-reference", closed=True
    )
    reference = identity.need("docker-reference", str)
    if not reference:
        raise identity.error("docker-reference is empty: it is for no repository")
    try:
        signature = from_base64(found.signature)
    except ValueError:
        raise top.error("its signature is no canonical base64") from None
    subject = Subject(image.need("docker-manifest-digest", str), reference)
    return Claim(signature, found.content, (subject,), _timestamp(top))


def _timestamp(top: Fields) -> int:
    optional = Fields(top.get("optional", dict) or {}, "optional", "")
    timestamp = optional.get("timestamp", int) or 0
    if timestamp < 0:
        raise optional.error("timestamp is before 1970")
    return timestamp
