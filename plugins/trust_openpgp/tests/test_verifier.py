"""The verifier while bytes stream by: verdict, notes, clock, expiry, work done."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import openpgp_forge as forge
import pytest
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: TID253
from openpgp_corpus import DATA
from openpgp_forge import (
    MADE,
    SHA512,
    UID,
    Recipe,
    binding,
    certification,
    detached,
    packet,
    simple,
    subpacket,
    u32,
    with_subkey,
)

from podctl.errors import KeyInvalid, TrustRefused
from podctl_trust_openpgp import publickey, verify
from podctl_trust_openpgp.hooks import openpgp

if TYPE_CHECKING:
    from openpgp_lab import Lab

    from podctl.model.trusting import Verdict

DAY = 86400
SIGNED = MADE + DAY
NOW = MADE + 30 * DAY


def check(signature: bytes, *keys: bytes, now: int = NOW, data: bytes = DATA) -> Verdict:
    verifier = openpgp.trust_verifier(signature, list(keys), now)
    verifier.update(data)
    return verifier.finish()


def refusal(signature: bytes, *keys: bytes, now: int = NOW, data: bytes = DATA) -> str:
    with pytest.raises(TrustRefused) as caught:
        check(signature, *keys, now=now, data=data)
    return str(caught.value)


def lifetime(seconds: int) -> list[bytes]:
    """Key expiry."""
    return [subpacket(9, u32(seconds))]


# Verdict.


def test_verdict_names_primary_and_signing_subkey(lab: Lab) -> None:
    verdict = check(detached(lab.ed, DATA), with_subkey(lab.rsa, lab.ed, binding(lab.rsa, lab.ed)))
    assert verdict.fingerprint == lab.rsa.fingerprint.hex()
    assert verdict.signer == lab.ed.fingerprint.hex()
    assert verdict.identities == (UID.decode(),)
    assert verdict.signed_at == SIGNED
    assert verdict.expires is None
    assert verdict.notes == ()


def test_verdict_expires_with_the_first_of_signature_subkey_and_key(lab: Lab) -> None:
    def expiry(signature: int, subkey: int, primary: int) -> int | None:
        parts = [
            packet(6, lab.rsa.body),
            packet(13, UID),
            certification(lab.rsa, UID, hashed=lifetime(primary)),
            packet(14, lab.ed.body),
            binding(lab.rsa, lab.ed, hashed=lifetime(subkey)),
        ]
        signed = detached(lab.ed, DATA, hashed=[subpacket(3, u32(signature))])
        return check(signed, b"".join(parts)).expires

    assert expiry(40 * DAY, 50 * DAY, 60 * DAY) == SIGNED + 40 * DAY
    assert expiry(90 * DAY, 50 * DAY, 60 * DAY) == MADE + 50 * DAY
    assert expiry(90 * DAY, 80 * DAY, 60 * DAY) == MADE + 60 * DAY
    assert expiry(90 * DAY, 0, 0) == SIGNED + 90 * DAY
    assert expiry(0, 0, 0) is None


def test_bad_signatures_beside_a_good_one_are_reported(lab: Lab) -> None:
    file = detached(lab.ed, b"other") + detached(lab.other, DATA) + detached(lab.rsa, DATA)
    file += detached(lab.rsa, DATA, hash_id=forge.MD5) + packet(2, b"\x06\0\0")
    verdict = check(file, simple(lab.ed), simple(lab.rsa))
    assert verdict.fingerprint == lab.rsa.fingerprint.hex()
    notes = "\n".join(verdict.notes)
    assert f"signature 1 by {lab.ed.fingerprint.hex()}: bad" in notes
    assert f"signature 2 by {lab.other.fingerprint.hex()}: no key that is trusted" in notes
    assert "signature 4" in notes
    assert "MD5" in notes
    assert "signature 5: version 6" in notes
    assert len(verdict.notes) == 4


def test_earliest_given_key_gives_the_verdict(lab: Lab) -> None:
    file = detached(lab.ed, DATA) + detached(lab.rsa, DATA)
    first = check(file, simple(lab.rsa), simple(lab.ed))
    second = check(file, simple(lab.ed), simple(lab.rsa))
    assert first.fingerprint == lab.rsa.fingerprint.hex()
    assert second.fingerprint == lab.ed.fingerprint.hex()


# Work.


def test_one_hash_context_per_algorithm(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty signatures of two hash algorithms cost two passes of hashing, not thirty."""
    file = b"".join(detached(lab.ed, DATA) for _ in range(15))
    file += b"".join(detached(lab.rsa, DATA, hash_id=SHA512) for _ in range(15))
    hashed = []

    class Counting:
        def __init__(self, hash_id: int) -> None:
            self._context = publickey.new_hash(hash_id)

        def update(self, data: bytes) -> None:
            hashed.append(len(data))
            self._context.update(data)

        def copy(self) -> Any:
            return self._context.copy()

    monkeypatch.setattr(verify, "new_hash", Counting)
    check(file, simple(lab.ed), simple(lab.rsa))
    assert hashed == [len(DATA)] * 2


def test_hopeless_signature_is_refused_before_any_content(lab: Lab) -> None:
    with pytest.raises(TrustRefused):
        openpgp.trust_verifier(detached(lab.other, DATA), [simple(lab.rsa)], NOW)


def test_finish_works_once(lab: Lab) -> None:
    verifier = openpgp.trust_verifier(detached(lab.rsa, DATA), [simple(lab.rsa)], NOW)
    verifier.update(DATA)
    verifier.finish()
    with pytest.raises(ValueError, match="twice"):
        verifier.finish()


def test_malformed_key_file_is_an_error_not_a_missing_key(lab: Lab) -> None:
    with pytest.raises(KeyInvalid):
        check(detached(lab.rsa, DATA), simple(lab.rsa), b"\x99\xff\xff")


# Signers.


def test_signers_prefer_fingerprints(lab: Lab) -> None:
    full = detached(lab.rsa, DATA)
    old = detached(lab.ed, DATA, fingerprint=False)
    assert openpgp.trust_signers(full + old + full) == [
        lab.rsa.fingerprint.hex(),
        lab.ed.fingerprint[-8:].hex(),
    ]


def test_signers_leave_out_unacceptable_signatures(lab: Lab) -> None:
    weak = detached(lab.ed, DATA, hash_id=forge.SHA1)
    assert openpgp.trust_signers(weak + detached(lab.rsa, DATA)) == [lab.rsa.fingerprint.hex()]
    with pytest.raises(TrustRefused, match="SHA-1"):
        openpgp.trust_signers(weak)


# The clock (hostile-input catalogue K20) and other questions of time.


def test_clock_in_1970_is_refused_and_named(lab: Lab) -> None:
    says = refusal(detached(lab.rsa, DATA), simple(lab.rsa), now=0)
    assert "but the clock says 1970-01-01" in says
    assert "2024-06-02" in says


def test_clock_in_2100_is_refused_and_named(lab: Lab) -> None:
    says = refusal(detached(lab.rsa, DATA), simple(lab.rsa), now=4102444800)
    assert "the clock says 2100-01-01" in says


def test_clock_beyond_every_calendar_is_refused(lab: Lab) -> None:
    assert "clock" in refusal(detached(lab.rsa, DATA), simple(lab.rsa), now=1 << 62)
    assert "clock" in refusal(detached(lab.rsa, DATA), simple(lab.rsa), now=-(1 << 62))


def test_clock_a_little_behind_is_forgiven(lab: Lab) -> None:
    signature, key = detached(lab.rsa, DATA), simple(lab.rsa)
    assert check(signature, key, now=SIGNED - 300).signed_at == SIGNED
    assert "but the clock says" in refusal(signature, key, now=SIGNED - 301)


def test_expiry_is_exact_to_the_second(lab: Lab) -> None:
    signature, key = detached(lab.rsa, DATA), simple(lab.rsa, hashed=lifetime(10 * DAY))
    assert check(signature, key, now=MADE + 10 * DAY - 1).expires == MADE + 10 * DAY
    assert "expired 2024-06-11" in refusal(signature, key, now=MADE + 10 * DAY)


def test_signature_made_while_the_key_was_valid_ends_with_the_key(lab: Lab) -> None:
    key = simple(lab.rsa, hashed=lifetime(10 * DAY))
    assert "expired" in refusal(detached(lab.rsa, DATA, created=MADE + DAY), key)


def test_newest_self_signature_decides_on_expiry(lab: Lab) -> None:
    def key(*lifetimes: int) -> bytes:
        certified = [
            certification(lab.rsa, UID, created=MADE + number, hashed=lifetime(seconds))
            for number, seconds in enumerate(lifetimes)
        ]
        return packet(6, lab.rsa.body) + packet(13, UID) + b"".join(certified)

    signature = detached(lab.rsa, DATA)
    assert check(signature, key(DAY, 100 * DAY)).expires == MADE + 100 * DAY
    assert "expired" in refusal(signature, key(100 * DAY, 2 * DAY))
    # Order in the file means nothing.
    late = certification(lab.rsa, UID, created=MADE + 9, hashed=lifetime(2 * DAY))
    early = certification(lab.rsa, UID, created=MADE, hashed=lifetime(100 * DAY))
    shuffled = packet(6, lab.rsa.body) + packet(13, UID) + late + early
    assert "expired" in refusal(signature, shuffled)


def test_of_two_self_signatures_of_one_second_the_stricter_counts(lab: Lab) -> None:
    both = [certification(lab.rsa, UID, hashed=lifetime(s)) for s in (0, 2 * DAY)]
    for order in (both, both[::-1]):
        key = packet(6, lab.rsa.body) + packet(13, UID) + b"".join(order)
        assert "expired" in refusal(detached(lab.rsa, DATA), key)


def test_self_signature_from_the_future_does_not_count_yet(lab: Lab) -> None:
    longer = certification(lab.rsa, UID, created=NOW + 10 * DAY)
    key = simple(lab.rsa, longer, hashed=lifetime(10 * DAY))
    assert "expired" in refusal(detached(lab.rsa, DATA), key)
    assert check(detached(lab.rsa, DATA), key, now=NOW + 11 * DAY).expires is None


def test_revocation_counts_whatever_its_date(lab: Lab) -> None:
    for created in (MADE - DAY, MADE, NOW + 1000 * DAY):
        revocation = Recipe(lab.rsa, kind=0x20, content=lab.rsa.framed, created=created).packet()
        assert "is revoked" in refusal(detached(lab.rsa, DATA), simple(lab.rsa, revocation))


def test_revocation_with_unknown_critical_part_still_revokes(lab: Lab) -> None:
    revocation = Recipe(
        lab.rsa,
        kind=0x20,
        content=lab.rsa.framed,
        hashed=[subpacket(99, b"?", critical=True)],
    ).packet()
    assert "is revoked" in refusal(detached(lab.rsa, DATA), simple(lab.rsa, revocation))


@pytest.mark.parametrize(
    ("made", "good"), [(1547855999, True), (1547856000, False), (1420070400, True)]
)
def test_sha1_self_signatures_count_until_the_cutoff(lab: Lab, made: int, good: bool) -> None:
    signer = forge.rsa_key(created=1400000000)
    key = simple(signer, hash_id=forge.SHA1, created=made)
    signature = detached(signer, DATA)
    if good:
        assert check(signature, key).signer == signer.fingerprint.hex()
    else:
        assert "self-signed with SHA-1" in refusal(signature, key)


def test_sha1_back_signatures_and_bindings_follow_the_same_rule(lab: Lab) -> None:
    def key(made: int) -> tuple[bytes, bytes]:
        primary = forge.ed25519_key(created=1400000000)
        subkey = forge.ecdsa_key(ec.SECP256R1(), created=1400000000)
        content = primary.framed + subkey.framed
        back = Recipe(subkey, kind=0x19, content=content, created=made, hash_id=forge.SHA1).body()
        bound = binding(primary, subkey, back=back, created=made)
        return with_subkey(primary, subkey, bound), detached(subkey, DATA)

    old_key, old_signature = key(1420070400)
    assert check(old_signature, old_key)
    new_key, new_signature = key(MADE)
    assert "has not signed its binding" in refusal(new_signature, new_key)


def test_text_of_a_refusal_is_bounded(lab: Lab) -> None:
    says = refusal(detached(lab.ed, DATA) * 32, simple(lab.rsa))
    assert "and 28 more" in says
    assert len(says) < 1000


def test_fingerprint_is_the_one_of_the_packet(lab: Lab) -> None:
    verdict = check(detached(lab.p256, DATA), simple(lab.p256))
    assert verdict.fingerprint == hashlib.sha1(lab.p256.framed).hexdigest()


def test_statements_older_than_their_key_do_not_count(lab: Lab) -> None:
    signature = detached(lab.rsa, DATA)
    assert "no valid self-signature" in refusal(signature, simple(lab.rsa, created=MADE - 1))
    early = binding(lab.rsa, lab.ed, created=MADE - 1)
    assert "is not bound" in refusal(detached(lab.ed, DATA), with_subkey(lab.rsa, lab.ed, early))


def test_key_and_subkey_from_the_future_are_named(lab: Lab) -> None:
    unborn = forge.ed25519_key(created=NOW + DAY)
    name = unborn.fingerprint.hex()
    says = refusal(detached(unborn, DATA), simple(unborn, created=NOW + DAY))
    assert f": key {name} is from 2024-07-02" in says
    bound = binding(lab.rsa, unborn, created=NOW + DAY)
    says = refusal(detached(unborn, DATA), with_subkey(lab.rsa, unborn, bound))
    assert f": subkey {name} is from 2024-07-02" in says


def test_statements_spread_over_two_copies_of_a_subkey_are_weighed_together(lab: Lab) -> None:
    withdrawn = binding(lab.rsa, lab.ed, flags=forge.ENCRYPT, created=MADE + 60)
    copy = packet(14, lab.ed.body) + binding(lab.rsa, lab.ed)
    for first, second in ((withdrawn, copy), (binding(lab.rsa, lab.ed), b"")):
        key = with_subkey(lab.rsa, lab.ed, first, second)
        if second:
            assert "not allowed to sign" in refusal(detached(lab.ed, DATA), key)
        else:
            assert check(detached(lab.ed, DATA), key)


def test_direct_key_signature_and_certification_are_weighed_by_date(lab: Lab) -> None:
    def key(
        direct: list[bytes], direct_at: int, certified: list[bytes], certified_at: int
    ) -> bytes:
        statement = Recipe(
            lab.rsa, kind=0x1F, content=lab.rsa.framed, created=direct_at, hashed=direct
        ).packet()
        uid = certification(lab.rsa, UID, created=certified_at, hashed=certified)
        return packet(6, lab.rsa.body) + statement + packet(13, UID) + uid

    signature = detached(lab.rsa, DATA)
    short, long = lifetime(2 * DAY), lifetime(100 * DAY)
    assert "expired" in refusal(signature, key(short, MADE + 9, long, MADE))
    assert check(signature, key(short, MADE, long, MADE + 9)).expires == MADE + 100 * DAY
    # A direct-key signature that is silent about expiry leaves the certification in force.
    assert "expired" in refusal(signature, key([], MADE + 9, short, MADE))
