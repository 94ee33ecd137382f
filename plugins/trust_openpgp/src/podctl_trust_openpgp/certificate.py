"""A public key file as a whole: what the owner said about the key, and whether it is still good.

The owner speaks through signatures by the primary key: certifications of user ids, direct-key
signatures, subkey bindings, revocations. Only those that verify count; of several statements the
newest does. Revocations count wherever in the file they stand, and whatever their date.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from podctl.errors import KeyInvalid
from podctl.model.trusting import KeyDescription
from podctl_trust_openpgp import signature as sig
from podctl_trust_openpgp.keyfile import Component, KeyFile
from podctl_trust_openpgp.publickey import SHA1, PublicKey, hash_name, new_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SCHEME = "openpgp"
#: A statement of at most this age in the future is taken for a clock that is a little ahead.
CLOCK_SKEW = 300
#: SHA-1 in an owner's statement about the own key counts if made before 2019-01-19, the day from
#: which GnuPG stopped to believe SHA-1 certifications by others. Forging one needs a second
#: preimage, unlike for data, where whoever chooses the content can aim for a collision.
SHA1_CUTOFF = 1547856000

_MAX_CHECKS = 512
_CAN_SIGN = 0x02
_LAST_MOMENT = 253402300799  # 9999-12-31T23:59:59Z


def moment(seconds: int) -> str:
    """Show a time for people; a broken clock may be far outside of every calendar."""
    shown = min(max(seconds, 0), _LAST_MOMENT)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(shown))


class Standing:
    """Whether one key may sign at the time that was asked about.

    Attributes:
        objection: why it may not; None when it may.
        expires: seconds since the epoch, None for never.
    """

    __slots__ = ("expires", "objection")

    def __init__(self, objection: str | None, expires: int | None = None) -> None:
        self.objection = objection
        self.expires = expires


class Certificate:
    """One public key with user ids, subkeys and their signatures, not yet judged.

    Args:
        data: a key file, armored or binary.

    Raises:
        KeyInvalid: anything but one well-formed public key.
    """

    def __init__(self, data: bytes) -> None:
        self._file = KeyFile(data)
        self._checked: dict[tuple[str, bytes, sig.Signature], bool] = {}

    @property
    def primary(self) -> PublicKey:
        """The key that everything else in the file is signed by."""
        return self._file.primary

    @property
    def subkeys(self) -> list[PublicKey]:
        """Every subkey, good or not, in file order."""
        return [c.key for c in self._file.subkeys.values() if c.key is not None]

    def merge(self, data: bytes) -> None:
        """Add what another copy of the same key says (a revocation in one copy counts for all).

        Raises:
            KeyInvalid: malformed, or another key.
        """
        self._file.add(data)

    def identities(self, now: int | None) -> tuple[str, ...]:
        """Return the user ids that the owner certified and did not revoke."""
        return tuple(
            uid.content.decode("utf-8", "backslashreplace")
            for uid in self._file.uids.values()
            if self._uid_statements(uid, now)
        )

    def revocation(self) -> str | None:
        """Say that and how the primary key is revoked; None when it is not."""
        key = self.primary
        revokers = self._revokers()
        for other in self._file.unreadable_revocations:
            if other.kind == sig.KEY_REVOCATION and key.fingerprint[-16:] in other.key_ids:
                return f"key {key.fingerprint} has a revocation that cannot be checked"
        for signature in self._file.revocations:
            by_owner = not signature.named() or signature.may_be_by(key.fingerprint)
            if any(signature.may_be_by(revoker) for revoker in revokers):
                return f"key {key.fingerprint} has a revocation by a designated revoker"
            if not by_owner:
                continue
            if key.accepts(signature) is not None:
                return f"key {key.fingerprint} has a revocation that cannot be checked"
            if self._holds(key, signature, key.framed()):
                return f"key {key.fingerprint} is revoked"
        return None

    def primary_standing(self, now: int | None) -> Standing:
        """Judge the primary key as such, and as a signer (see `primary_may_sign`)."""
        key = self.primary
        if key.objection is not None:
            return Standing(f"key {key.fingerprint}: {key.objection}")
        if (revoked := self.revocation()) is not None:
            return Standing(revoked)
        if now is not None and key.created > now + CLOCK_SKEW:
            return Standing(_future(f"key {key.fingerprint}", key.created, now))
        statements = self._statements(now)
        if self._all_uids_revoked(now):
            return Standing(f"key {key.fingerprint} has no user id that is not revoked")
        if not statements:
            return Standing(self._why_no_statement(now))
        expires = _expiry(key, statements)
        if now is not None and expires is not None and expires <= now:
            return Standing(f"key {key.fingerprint} expired {moment(expires)}", expires)
        return Standing(None, expires)

    def primary_may_sign(self, now: int | None) -> bool:
        """Whether the owner lets the primary key sign data: its flags say so, or nothing."""
        for statement in self._statements(now):
            if statement.key_flags is not None:
                return bool(statement.key_flags & _CAN_SIGN)
        return True

    def signer_standing(self, key: PublicKey, now: int) -> Standing:
        """Judge the primary key or one of the subkeys as a signer of data at `now`."""
        primary = self.primary_standing(now)
        if primary.objection is not None:
            return primary
        if key.fingerprint == self.primary.fingerprint:
            if not self.primary_may_sign(now):
                return Standing(f"key {key.fingerprint} is not allowed to sign by its key flags")
            return primary
        subkey = self._subkey_standing(self._file.subkeys[key.fingerprint], key, now)
        if subkey.objection is not None:
            return subkey
        return Standing(None, earliest((primary.expires, subkey.expires)))

    def _subkey_standing(self, subkey: Component, key: PublicKey, now: int) -> Standing:
        name = f"subkey {key.fingerprint}"
        if key.objection is not None:
            return Standing(f"{name}: {key.objection}")
        if (revoked := self._subkey_revocation(key)) is not None:
            return Standing(revoked)
        if key.created > now + CLOCK_SKEW:
            return Standing(_future(name, key.created, now))
        content = self.primary.framed() + key.framed()
        bindings = self._valid(
            subkey.signatures,
            lambda s: s.kind == sig.SUBKEY_BINDING,
            content,
            now,
            since=key.created,
        )
        if not bindings:
            return Standing(f"{name} is not bound to key {self.primary.fingerprint}")
        newest = bindings[0]
        if not (newest.key_flags or 0) & _CAN_SIGN:
            return Standing(f"{name} is not allowed to sign by its key flags")
        if not any(self._back_signed(key, body, content, now) for body in newest.embedded):
            return Standing(f"{name} has not signed its binding to the primary key")
        expires = _expiry(key, [newest])
        if expires is not None and expires <= now:
            return Standing(f"{name} expired {moment(expires)}", expires)
        return Standing(None, expires)

    def _subkey_revocation(self, key: PublicKey) -> str | None:
        for other in self._file.unreadable_revocations:
            if (
                other.kind == sig.SUBKEY_REVOCATION
                and self.primary.fingerprint[-16:] in other.key_ids
            ):
                return f"subkey {key.fingerprint} may be revoked, which cannot be checked"
        primary = self.primary
        content = primary.framed() + key.framed()
        for signature in self._file.subkey_revocations:
            if signature.named() and not signature.may_be_by(primary.fingerprint):
                continue
            if primary.accepts(signature) is not None:
                return f"subkey {key.fingerprint} may be revoked, which cannot be checked"
            if self._holds(primary, signature, content):
                return f"subkey {key.fingerprint} is revoked"
        return None

    def _back_signed(self, key: PublicKey, body: bytes, content: bytes, now: int) -> bool:
        """Whether an embedded signature shows that the subkey's owner agreed to the binding."""
        try:
            signature = sig.parse_signature(body)
        except (KeyInvalid, sig.UnsupportedVersion):
            return False
        return (
            signature.kind == sig.PRIMARY_BINDING
            and _believable(signature, key.created, now)
            and key.accepts(signature) is None
            and self._holds(key, signature, content)
        )

    def _statements(self, now: int | None) -> list[sig.Signature]:
        """Return what the owner said of the key as a whole, newest first."""
        found = list(self._direct_statements(now))
        for uid in self._file.uids.values():
            found += self._uid_statements(uid, now)
        return sorted(found, key=_newest_first)

    def _direct_statements(self, now: int | None) -> list[sig.Signature]:
        key = self.primary
        return self._valid(self._file.direct, lambda _: True, key.framed(), now, since=key.created)

    def _uid_certifications(self, uid: Component, now: int | None) -> list[sig.Signature]:
        return self._valid(
            uid.signatures,
            lambda s: s.kind in sig.CERTIFICATIONS,
            self.primary.framed() + _framed_uid(uid.content),
            now,
            since=self.primary.created,
        )

    def _uid_statements(self, uid: Component, now: int | None) -> list[sig.Signature]:
        """Return the valid certifications of one user id, newest first, unless revoked since."""
        content = self.primary.framed() + _framed_uid(uid.content)
        revoked_at = max(
            (
                s.created or 0
                for s in uid.signatures
                if s.kind == sig.CERTIFICATION_REVOCATION and self._by_owner(s, content)
            ),
            default=-1,
        )
        return [s for s in self._uid_certifications(uid, now) if (s.created or 0) > revoked_at]

    def _all_uids_revoked(self, now: int | None) -> bool:
        certified = [uid for uid in self._file.uids.values() if self._uid_certifications(uid, now)]
        return bool(certified) and not any(self._uid_statements(uid, now) for uid in certified)

    def _by_owner(self, signature: sig.Signature, content: bytes) -> bool:
        key = self.primary
        return (
            signature.may_be_by(key.fingerprint)
            and key.accepts(signature) is None
            and self._holds(key, signature, content)
        )

    def _valid(
        self,
        signatures: Sequence[sig.Signature],
        wanted: Callable[[sig.Signature], bool],
        content: bytes,
        now: int | None,
        *,
        since: int,
    ) -> list[sig.Signature]:
        good = [
            s
            for s in signatures
            if wanted(s) and _believable(s, since, now) and self._by_owner(s, content)
        ]
        return sorted(good, key=_newest_first)

    def _revokers(self) -> set[str]:
        """Return who else may revoke the key, as any valid statement of the owner ever said."""
        content = self.primary.framed()
        candidates = [s for s in self._file.direct if s.revokers]
        named = {r for s in candidates if self._by_owner(s, content) for r in s.revokers}
        for uid in self._file.uids.values():
            framed = content + _framed_uid(uid.content)
            for signature in uid.signatures:
                if signature.revokers and self._by_owner(signature, framed):
                    named.update(signature.revokers)
        return named

    def _why_no_statement(self, now: int | None) -> str:
        """Tell the usual reasons apart: an old hash algorithm, a wrong clock."""
        name = f"key {self.primary.fingerprint}"
        mine = [
            s
            for s in (
                *self._file.direct,
                *(s for uid in self._file.uids.values() for s in uid.signatures),
            )
            if s.may_be_by(self.primary.fingerprint) and s.kind != sig.CERTIFICATION_REVOCATION
        ]
        if mine and all(_weak_hash(s) for s in mine):
            since = f" after {moment(SHA1_CUTOFF)}" if mine[0].hash_id == SHA1 else ""
            return f"{name} is self-signed with {hash_name(mine[0].hash_id)}{since}"
        if now is not None and mine and all((s.created or 0) > now + CLOCK_SKEW for s in mine):
            return _future(f"the self-signature of {name}", mine[0].created or 0, now)
        return f"{name} has no valid self-signature"

    def _holds(self, key: PublicKey, signature: sig.Signature, content: bytes) -> bool:
        """Check one signature, within the budget that keeps a hostile file from costing minutes."""
        context = new_hash(signature.hash_id)
        context.update(content)
        context.update(signature.trailer)
        digest = context.digest()
        known = (key.fingerprint, digest, signature)
        if known not in self._checked:
            if len(self._checked) == _MAX_CHECKS:
                raise KeyInvalid(
                    f"public key file wants more than {_MAX_CHECKS} signatures checked",
                    hint="gpg --export --export-options export-minimal makes it smaller",
                )
            self._checked[known] = key.verifies(signature, digest)
        return self._checked[known]


def describe(data: bytes) -> KeyDescription:
    """Describe a key file to somebody who has to decide whether to trust it.

    Expiry is told, not judged. A key that could never verify anything is refused at once.

    Raises:
        KeyInvalid: not one public key, or one whose signatures would never be accepted.
    """
    certificate = Certificate(data)
    key = certificate.primary
    revoked = key.objection is None and certificate.revocation() is not None
    standing = certificate.primary_standing(None)
    if standing.objection is not None and not revoked:
        raise KeyInvalid(standing.objection)
    return KeyDescription(
        scheme=SCHEME,
        fingerprint=key.fingerprint,
        identities=certificate.identities(None),
        subkeys=tuple(subkey.fingerprint for subkey in certificate.subkeys),
        created=key.created,
        expires=standing.expires,
        revoked=revoked,
    )


def earliest(times: Iterable[int | None]) -> int | None:
    """Return the earliest of several expiry times, None when none expires."""
    return min((t for t in times if t is not None), default=None)


def _future(name: str, created: int, now: int) -> str:
    return f"{name} is from {moment(created)}, but the clock says {moment(now)}"


def _newest_first(signature: sig.Signature) -> tuple[int, float]:
    """Of two statements made in one second, the one that expires the key earlier comes first."""
    return -(signature.created or 0), signature.key_lifetime or float("inf")


def _weak_hash(signature: sig.Signature) -> bool:
    if signature.hash_id == SHA1:
        return (signature.created or 0) >= SHA1_CUTOFF
    return signature.hash_id in (1, 3)


def _believable(signature: sig.Signature, since: int, now: int | None) -> bool:
    """Whether a self-signature, if it verifies, counts: age, critical parts, hash algorithm."""
    created = signature.created
    if created is None or created < since or signature.critical is not None:
        return False
    if signature.hash_id == SHA1 and created >= SHA1_CUTOFF:
        return False
    if now is None:
        return True
    return created <= now + CLOCK_SKEW and (signature.expires is None or signature.expires > now)


def _expiry(key: PublicKey, statements: Sequence[sig.Signature]) -> int | None:
    """Return when a key expires, from the newest statement that speaks about it.

    A certification or binding without the subpacket says "never"; a direct-key signature without
    it (one that only names a designated revoker, say) leaves the question open.
    """
    for statement in statements:
        if statement.key_lifetime is None and statement.kind == sig.DIRECT_KEY:
            continue
        key_expires = key.created + statement.key_lifetime if statement.key_lifetime else None
        return earliest((key_expires, statement.expires))
    return None


def _framed_uid(content: bytes) -> bytes:
    return b"\xb4" + len(content).to_bytes(4, "big") + content
