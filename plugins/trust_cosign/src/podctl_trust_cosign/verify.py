"""The signatures beside an image: which are of an accepted kind, and whether one is good.

Everything that does not depend on the image is judged before a byte of it is read. What a
signature says is held against the image before its arithmetic is done, because that is cheap.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import InvalidInput, KeyInvalid, ManifestInvalid, TrustRefused
from podctl.model.imagedocument import MAX_DOCUMENT, parse_signatures
from podctl.model.trusting import Verdict
from podctl_trust_cosign.bundle import read_bundle
from podctl_trust_cosign.document import SignedDocument, identity
from podctl_trust_cosign.payload import read_payload
from podctl_trust_cosign.publickey import SCHEME, PublicKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.model.imagedocument import RegistrySignature
    from podctl_trust_cosign.claims import Claim, Subject

#: a claimed time may be this many seconds ahead of the clock
CLOCK_SKEW = 300
#: 2021-01-01: there are no signatures by cosign from before. And 2100-01-01: a clock outside of
#: these is broken.
_CLOCK_BEGIN, _CLOCK_END = 1609459200, 4102444800
#: tries of one key on one signature, for a whole set: an Ed25519 key takes milliseconds for each.
MAX_TRIES = 1024
_TOLD = 4
_LONGEST = 400

_READERS = {"simple": read_payload, "bundle": read_bundle}


class _Good(NamedTuple):
    """A good signature: `order` is its key's place among the given ones."""

    order: int
    claim: Claim
    subject: Subject


class ImageVerifier:
    """Check the signatures of an image against key files, once the image document was fed.

    Args:
        signature: a set of signatures (podctl.model.imagedocument.dump_signatures).
        keys: key files. Where several of them are good signers, the earliest gives the verdict.
        now: seconds since the epoch.

    Raises:
        KeyInvalid: the set or a key file cannot be parsed.
        TrustRefused: whatever the image is, no signature will be good.
    """

    def __init__(self, signature: bytes, keys: Sequence[bytes], now: int) -> None:
        if not _CLOCK_BEGIN <= now < _CLOCK_END:
            raise TrustRefused(
                f"the clock says {_moment(now)}, no signature is believed at that time",
                hint="set the clock",
            )
        self._now = now
        self._claims, self._notes = read_claims(signature)
        self._keys = list({key.fingerprint: key for key in map(PublicKey, keys)}.values())
        if not self._keys:
            raise TrustRefused("no good signature: no key is given")
        self._parts: list[bytes] = []
        self._size = 0
        self._tries = 0
        self._finished = False

    def update(self, data: bytes) -> None:
        """Take in the next bytes of the image document."""
        self._size += len(data)
        if self._size > MAX_DOCUMENT:
            raise TrustRefused(f"image document: over {MAX_DOCUMENT} bytes")
        self._parts.append(data)

    def finish(self) -> Verdict:
        """Return the verdict on everything that was fed.

        Raises:
            TrustRefused: no signature is good; the message says what is wrong with each.
        """
        if self._finished:
            raise ValueError("finish() was called twice")
        self._finished = True
        try:
            document = SignedDocument(b"".join(self._parts))
        except InvalidInput as error:
            raise _refusal([_plain(error.message)]) from None
        good = [
            found
            for number, claim in self._claims
            if (found := self._examine(number, claim, document)) is not None
        ]
        if not good:
            raise _refusal(self._notes)
        return self._verdict(min(good, key=lambda found: found.order))

    def _examine(self, number: int, claim: Claim, document: SignedDocument) -> _Good | None:
        """Check one signature; None, and a note, where it is not good."""
        if claim.signed_at > self._now + CLOCK_SKEW:
            made, clock = _moment(claim.signed_at), _moment(self._now)
            self._note(number, f"made {made}, but the clock says {clock}")
            return None
        objections = [document.objection(subject) for subject in claim.subjects]
        if None not in objections:
            self._note(number, str(objections[0]))
            return None
        subject = claim.subjects[objections.index(None)]
        message = document.content(subject.digest) if claim.message is None else claim.message
        for order, key in enumerate(self._keys):
            if self._tries == MAX_TRIES:
                self._note(number, f"not looked at, after {MAX_TRIES} others that are not good")
                return None
            self._tries += 1
            if key.made(claim.signature, message or b""):
                return _Good(order, claim, subject)
        self._note(number, "by no key that is trusted here, or changed since")
        return None

    def _note(self, number: int, text: str) -> None:
        self._notes.append(f"signature {number}: {_plain(text)}")

    def _verdict(self, found: _Good) -> Verdict:
        key = self._keys[found.order]
        return Verdict(
            scheme=SCHEME,
            fingerprint=key.fingerprint,
            signer=key.fingerprint,
            identities=(identity(found.subject),),
            signed_at=found.claim.signed_at,
            expires=None,
            notes=tuple(self._notes),
        )


def read_claims(data: bytes) -> tuple[list[tuple[int, Claim]], list[str]]:
    """Read a set of signatures: what each claims, by its number, and notes on the others.

    Raises:
        KeyInvalid: not a set of signatures.
        TrustRefused: none of them is of an accepted kind.
    """
    try:
        signatures = parse_signatures(data)
    except ManifestInvalid as error:
        raise KeyInvalid(_plain(error.message)) from None
    if not signatures:
        raise TrustRefused("image has no signature")
    claims, notes = [], []
    for number, found in enumerate(signatures, 1):
        try:
            claims.append((number, _read(found)))
        except ManifestInvalid as error:
            notes.append(f"signature {number}: {_plain(error.message)}")
    if not claims:
        raise _refusal(notes)
    return claims, notes


def _read(found: RegistrySignature) -> Claim:
    reader = _READERS.get(found.kind)
    if reader is None:
        raise ManifestInvalid(f"kind {found.kind[:40]!r} is not supported")
    return reader(found)


def _refusal(notes: Sequence[str]) -> TrustRefused:
    more = f"; and {len(notes) - _TOLD} more" if len(notes) > _TOLD else ""
    return TrustRefused(f"no good signature: {'; '.join(notes[:_TOLD])}{more}")


def _plain(text: str) -> str:
    """Make one line of a message: it may quote what a stranger wrote."""
    shown = text[:_LONGEST]
    return shown if shown.isprintable() else shown.encode("unicode_escape").decode()


def _moment(seconds: int) -> str:
    """Show a time as UTC, also one that no calendar has."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return f"second {seconds} of 1970"
