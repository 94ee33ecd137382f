"""Detached signature files: which signatures are of an accepted kind, and whether one is good.

Everything that does not depend on the signed bytes is judged before the first of them is read, so
that a signature that cannot become good costs no download. While the bytes stream by there is one
hash context for each hash algorithm still in question, however many signatures there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podctl.errors import KeyInvalid, TrustRefused
from podctl.model.trusting import Verdict
from podctl_trust_openpgp import armor, packets
from podctl_trust_openpgp import signature as sig
from podctl_trust_openpgp.certificate import (
    CLOCK_SKEW,
    SCHEME,
    Certificate,
    earliest,
    moment,
)
from podctl_trust_openpgp.publickey import HASHES, SHA1, PublicKey, hash_name, new_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SIGNATURE_BYTES = 64 << 10
MAX_SIGNATURES = 32
#: 2100-01-01. OpenPGP times end in 2106; a clock beyond this is broken, not late.
_CLOCK_END = 4102444800
_TOLD = 4


class _Candidate:
    """A signature that is good if its digest is right: it, its signer and the signer's key file."""

    __slots__ = ("certificate", "expires", "label", "order", "signature", "signer")

    def __init__(
        self,
        signature: sig.Signature,
        label: str,
        order: int,
        certificate: Certificate,
        signer: PublicKey,
        expires: int | None,
    ) -> None:
        self.signature = signature
        self.label = label
        self.order = order
        self.certificate = certificate
        self.signer = signer
        self.expires = expires


class DetachedVerifier:
    """Check a signature file against key files while the signed bytes stream by.

    Args:
        signature: the signature file, armored or binary.
        keys: key files. Where several of them are good signers, the earliest gives the verdict.
        now: seconds since the epoch.

    Raises:
        KeyInvalid: the signature file or a key file cannot be parsed.
        TrustRefused: whatever the signed bytes are, no signature will be good.
    """

    def __init__(self, signature: bytes, keys: Sequence[bytes], now: int) -> None:
        if now >= _CLOCK_END:
            raise TrustRefused(
                f"the clock says {moment(now)}, no signature is believed at that time",
                hint="set the clock",
            )
        certificates = _certificates(keys)
        self._notes: list[str] = []
        self._candidates: list[_Candidate] = []
        self._finished = False
        self._now = now
        for number, entry in enumerate(_parse_file(signature), 1):
            self._examine(number, entry, certificates, now)
        if not self._candidates:
            raise self._refusal()
        self._contexts: dict[int, Any] = {
            hash_id: new_hash(hash_id)
            for hash_id in {c.signature.hash_id for c in self._candidates}
        }

    def update(self, data: bytes) -> None:
        """Hash the next bytes of the signed content."""
        for context in self._contexts.values():
            context.update(data)

    def finish(self) -> Verdict:
        """Return the verdict on everything that was fed.

        Raises:
            TrustRefused: no signature is good; the message says what is wrong with each.
        """
        if self._finished:
            raise ValueError("finish() was called twice")
        self._finished = True
        good = [c for c in self._candidates if self._is_good(c)]
        if not good:
            raise self._refusal()
        return self._verdict(min(good, key=lambda c: c.order))

    def _examine(
        self,
        number: int,
        entry: sig.Signature | str,
        certificates: Sequence[Certificate],
        now: int,
    ) -> None:
        """Turn one signature into candidates, or into a note that says why it is none."""
        if isinstance(entry, str):
            self._notes.append(f"signature {number}: {entry}")
            return
        label = f"signature {number} by {entry.named()[0]}"
        objection = _form_objection(entry) or _time_objection(entry, now)
        if objection is not None:
            self._notes.append(f"{label}: {objection}")
            return
        reasons: list[str] = []
        found = False
        for order, certificate in enumerate(certificates):
            for key in (certificate.primary, *certificate.subkeys):
                if not entry.may_be_by(key.fingerprint):
                    continue
                reason, expires = _signer_objection(entry, certificate, key, now)
                if reason is None:
                    found = True
                    self._candidates.append(
                        _Candidate(entry, label, order, certificate, key, expires)
                    )
                else:
                    reasons.append(reason)
        if not found:
            reason = reasons[0] if reasons else "no key that is trusted here"
            self._notes.append(f"{label}: {reason}")

    def _is_good(self, candidate: _Candidate) -> bool:
        context = self._contexts[candidate.signature.hash_id].copy()
        context.update(candidate.signature.trailer)
        good = candidate.signer.verifies(candidate.signature, context.digest())
        if not good:
            self._notes.append(f"{candidate.label}: bad, the content is not what was signed")
        return good

    def _verdict(self, candidate: _Candidate) -> Verdict:
        created = candidate.signature.created
        assert created is not None
        return Verdict(
            scheme=SCHEME,
            fingerprint=candidate.certificate.primary.fingerprint,
            signer=candidate.signer.fingerprint,
            identities=candidate.certificate.identities(self._now),
            signed_at=created,
            expires=candidate.expires,
            notes=tuple(self._notes),
        )

    def _refusal(self) -> TrustRefused:
        return _refusal(self._notes)


def signers(data: bytes) -> list[str]:
    """Return the issuers of the signatures in a file whose kind is accepted.

    Raises:
        KeyInvalid: not a file of detached signatures.
        TrustRefused: none of its signatures is of an accepted kind.
    """
    named: dict[str, None] = {}
    notes = []
    for number, entry in enumerate(_parse_file(data), 1):
        objection = entry if isinstance(entry, str) else _form_objection(entry)
        if objection is not None:
            notes.append(f"signature {number}: {objection}")
        elif isinstance(entry, sig.Signature):
            named.update(dict.fromkeys(entry.named()))
    if not named:
        raise _refusal(notes)
    return list(named)


def _refusal(notes: Sequence[str]) -> TrustRefused:
    more = f"; and {len(notes) - _TOLD} more" if len(notes) > _TOLD else ""
    return TrustRefused(f"no good signature: {'; '.join(notes[:_TOLD])}{more}")


def _certificates(keys: Sequence[bytes]) -> list[Certificate]:
    """Parse the key files; copies of one key become one, so that no copy hides a revocation."""
    found: dict[str, Certificate] = {}
    for data in dict.fromkeys(keys):
        certificate = Certificate(data)
        known = found.setdefault(certificate.primary.fingerprint, certificate)
        if known is not certificate:
            known.merge(data)
    return list(found.values())


def _parse_file(data: bytes) -> list[sig.Signature | str]:
    """Return each signature, or why it is none that could be checked.

    One signature that is malformed does not spoil the others; a file that holds anything but
    signatures is refused as a whole.
    """
    found: list[sig.Signature | str] = []
    for piece in armor.unwrap(data, armor.SIGNATURE, max_bytes=MAX_SIGNATURE_BYTES):
        for tag, body in packets.packets(piece, what="signature file", limit=MAX_SIGNATURES):
            if tag != packets.SIGNATURE:
                raise KeyInvalid(
                    f"a detached signature was expected, the file holds {packets.packet_name(tag)}"
                )
            found.append(_parse_one(body))
    if len(found) > MAX_SIGNATURES:
        raise KeyInvalid(f"signature file has more than {MAX_SIGNATURES} signatures")
    return found


def _parse_one(body: bytes) -> sig.Signature | str:
    try:
        signature = sig.parse_signature(body)
    except sig.UnsupportedVersion as other:
        return f"version {other.version} is not supported"
    except KeyInvalid as error:
        return error.message
    return signature if signature.named() else "does not name the key that made it"


def _form_objection(signature: sig.Signature) -> str | None:
    """Say what kind of signature it is, if not one over binary data with a good hash."""
    if signature.kind != sig.BINARY:
        return f"type 0x{signature.kind:02x} is no signature of binary data"
    if signature.hash_id == SHA1 or signature.hash_id not in HASHES:
        return f"{hash_name(signature.hash_id)} is not accepted, SHA-256 or stronger is needed"
    if signature.critical is not None:
        return f"critical subpacket {signature.critical} is not understood"
    if signature.created is None:
        return "has no creation time"
    if signature.numbers is None:
        return f"public-key algorithm {signature.algorithm} is not supported"
    return None


def _time_objection(signature: sig.Signature, now: int) -> str | None:
    assert signature.created is not None
    if signature.created > now + CLOCK_SKEW:
        return f"made {moment(signature.created)}, but the clock says {moment(now)}"
    if signature.expires is not None and signature.expires <= now:
        return f"expired {moment(signature.expires)}"
    return None


def _signer_objection(
    signature: sig.Signature, certificate: Certificate, key: PublicKey, now: int
) -> tuple[str | None, int | None]:
    """Return why this key cannot have made the signature, or None and when the whole expires."""
    assert signature.created is not None
    standing = certificate.signer_standing(key, now)
    if standing.objection is not None:
        return standing.objection, None
    if (reason := key.accepts(signature)) is not None:
        return reason, None
    if signature.created < key.created:
        return f"made {moment(signature.created)}, before its key was created", None
    return None, earliest((signature.expires, standing.expires))
