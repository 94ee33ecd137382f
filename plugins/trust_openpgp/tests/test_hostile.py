"""Hostile bytes: nothing but the two refusals may come out, and no altered thing is accepted."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from typing import TYPE_CHECKING

import openpgp_forge as forge
import pytest
from cryptography.exceptions import InvalidSignature  # noqa: TID253
from hypothesis import given, settings
from hypothesis import strategies as st
from openpgp_corpus import CASES, DATA, Sample
from openpgp_forge import (
    CERTIFY,
    MADE,
    UID,
    Recipe,
    binding,
    certification,
    detached,
    packet,
    simple,
    with_subkey,
)

from podctl.errors import KeyInvalid, TrustRefused
from podctl_trust_openpgp.hooks import openpgp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openpgp_lab import Lab

    from podctl.model.trusting import Verdict

NOW = int(time.time())
SHORT = b"signed octets\n"


def verdict_on(key: bytes, signature: bytes, data: bytes) -> Verdict | None:
    """Return the verdict, None for one of the two refusals; anything else escapes."""
    try:
        verifier = openpgp.trust_verifier(signature, [key], NOW)
        verifier.update(data)
        return verifier.finish()
    except (KeyInvalid, TrustRefused):
        return None


def feed_all_hooks(data: bytes, partner: Sample) -> None:
    """Give the same bytes to each hook, as key and as signature."""
    for hook in (openpgp.trust_key, openpgp.trust_signers):
        with contextlib.suppress(KeyInvalid, TrustRefused):
            hook(data)
    verdict_on(data, partner.signature, partner.data)
    verdict_on(partner.keys[0], data, partner.data)


# Bit flips: every bit, no sample.


def flips(data: bytes) -> Iterator[tuple[int, bytes]]:
    for at in range(8 * len(data)):
        altered = bytearray(data)
        altered[at // 8] ^= 0x80 >> at % 8
        yield at // 8, bytes(altered)


def unprotected(file: bytes) -> set[int]:
    """Return the offsets that no signature covers: unhashed areas (their length included)."""
    free: set[int] = set()
    at = 0
    while at < len(file):
        first = file[at + 1]
        if first < 192:
            start, size = at + 2, first
        else:
            start, size = at + 3, ((first - 192) << 8) + file[at + 2] + 192
        if file[at] == 0xC0 | 2:
            hashed = int.from_bytes(file[start + 4 : start + 6], "big")
            area = start + 6 + hashed
            length = int.from_bytes(file[area : area + 2], "big")
            free |= set(range(area + 2, area + 2 + length))
        at = start + size
    return free


def survivors(accepted: Callable[[bytes], bool], file: bytes) -> set[int]:
    """Return the offsets, outside the unprotected ones, where a flipped bit went unnoticed."""
    free = unprotected(file)
    return {at for at, altered in flips(file) if at not in free and accepted(altered)}


@pytest.mark.parametrize("kind", ["rsa", "ed", "p256", "dsa"])
def test_every_flipped_bit_of_a_signature_is_refused(lab: Lab, kind: str) -> None:
    signer = forge.dsa_key() if kind == "dsa" else getattr(lab, kind)
    key, signature = simple(signer), detached(signer, SHORT)
    assert verdict_on(key, signature, SHORT) is not None
    assert not survivors(lambda s: verdict_on(key, s, SHORT) is not None, signature)


def test_flipped_bits_that_nothing_protects_change_no_verdict(lab: Lab) -> None:
    key, signature = simple(lab.ed), detached(lab.ed, SHORT)
    expected = verdict_on(key, signature, SHORT)
    free = unprotected(signature)
    assert free
    for at, altered in flips(signature):
        if at in free:
            assert verdict_on(key, altered, SHORT) in (expected, None)


def test_the_sweep_catches_a_verifier_that_ignores_the_hashed_area(lab: Lab) -> None:
    """Control: what the sweep is for."""
    signer = forge.ed25519_key(algorithm=27)
    recipe = Recipe(signer, content=SHORT)
    _, digest = recipe.hashed_part()

    def naive(altered: bytes) -> bool:
        try:
            signer.secret.public_key().verify(altered[-64:], digest)
        except InvalidSignature:
            return False
        return True

    caught = survivors(naive, recipe.packet())
    assert {2, 3, 4, 5, 8, 9} <= caught, "the sweep did not notice an area that is not covered"


def test_every_flipped_bit_of_a_key_file_is_refused(lab: Lab) -> None:
    key = with_subkey(lab.rsa, lab.ed, binding(lab.rsa, lab.ed))
    signature = detached(lab.ed, SHORT)
    expected = verdict_on(key, signature, SHORT)
    assert expected is not None
    assert not survivors(lambda k: verdict_on(k, signature, SHORT) is not None, key)


def test_every_truncation_of_a_key_file_is_refused(lab: Lab) -> None:
    key = with_subkey(lab.rsa, lab.ed, binding(lab.rsa, lab.ed))
    signature = detached(lab.ed, SHORT)
    for end in range(len(key)):
        assert verdict_on(key[:end], signature, SHORT) is None


def test_armored_files_with_any_changed_octet_never_change_the_verdict(lab: Lab) -> None:
    """Some octets of armor mean nothing (headers, line ends): the verdict then is the same."""
    key = simple(lab.ed)
    signature = forge.armored(detached(lab.ed, SHORT))
    expected = verdict_on(key, signature, SHORT)
    for at in range(len(signature)):
        for octet in (0x00, 0x20, 0x0A, 0x2D, 0x3D, 0x41, 0x7E, 0xFF):
            altered = signature[:at] + bytes([octet]) + signature[at + 1 :]
            assert verdict_on(key, altered, SHORT) in (expected, None)


# Fuzzing.


def mutated(seed: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Damage a file as transport, disk or malice would."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        choice = rng.randrange(7)
        if choice == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif choice == 1:
            data[at : at + rng.randint(1, 4)] = rng.randbytes(rng.randint(0, 4))
        elif choice == 2:
            del data[at : at + rng.randint(1, 64)]
        elif choice == 3:
            data[at:at] = data[max(0, at - rng.randint(1, 200)) : at]
        elif choice == 4:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[at:at] = other[start : start + rng.randint(1, 300)]
        elif choice == 5:
            data[at : at + 2] = rng.choice([b"\0\0", b"\xff\xff", b"\x7f\xff", b"\0\1"])
        else:
            data[at : at + 1] = bytes([rng.choice([0, 1, 4, 0x20, 0x80, 0xC0, 0xE8, 0xFE, 0xFF])])
    return bytes(data)


@pytest.fixture(scope="module")
def seeds(lab: Lab) -> list[Sample]:
    return [case.sample(lab) for case in CASES if case.name not in ("many-too-large",)]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
def test_mutated_corpus_raises_nothing_else(seeds: list[Sample], seed: int) -> None:
    rng = random.Random(seed)
    files = [forge.dearmored(f) for s in seeds for f in (*s.keys, s.signature) if f.strip()]
    files = [f for f in files if f]
    sample = rng.choice(seeds)
    for file in (*sample.keys, sample.signature):
        for raw in (file, forge.dearmored(file)):
            feed_all_hooks(mutated(raw, files, rng), sample)


@given(data=st.binary(max_size=300), first=st.integers(0x80, 0xFF))
@settings(max_examples=300, deadline=None)
def test_random_packets_raise_nothing_else(seeds: list[Sample], data: bytes, first: int) -> None:
    feed_all_hooks(bytes([first]) + data, seeds[0])


@given(text=st.text(max_size=200), label=st.sampled_from(["SIGNATURE", "PUBLIC KEY BLOCK", "X"]))
@settings(max_examples=200, deadline=None)
def test_random_armor_raises_nothing_else(seeds: list[Sample], text: str, label: str) -> None:
    block = f"-----BEGIN PGP {label}-----\n\n{text}\n-----END PGP {label}-----\n"
    feed_all_hooks(block.encode("utf-8", "surrogatepass"), seeds[0])


_NUMBERS = st.one_of(
    st.integers(0, 5),
    st.sampled_from([1 << 2047, (1 << 2048) - 1, (1 << 2048) - 2, (1 << 255), (1 << 256) - 1]),
    st.integers(0, (1 << 2048) - 1),
)


@given(algorithm=st.sampled_from([1, 3, 17]), numbers=st.lists(_NUMBERS, min_size=4, max_size=4))
@settings(max_examples=300, deadline=None)
def test_hostile_key_numbers_raise_nothing_else(
    lab: Lab, algorithm: int, numbers: list[int]
) -> None:
    """Zero, even, tiny and huge moduli and orders, with self-signatures of the right shape."""
    count = 4 if algorithm == 17 else 2
    material = b"".join(forge.mpi(n) for n in numbers[:count])
    hostile = forge.Key(algorithm, lab.rsa.secret, material)
    values = 2 if algorithm == 17 else 1
    for made in (certification_shaped(hostile, numbers[:values], 0x13),):
        key = packet(6, hostile.body) + packet(13, UID) + made
        feed_all_hooks(key, Sample((key,), made, SHORT))


def certification_shaped(key: forge.Key, numbers: list[int], kind: int) -> bytes:
    """Return a signature packet whose digest octets are right and whose numbers are given."""
    recipe = Recipe(key, kind=kind, content=forge.uid_content(key, UID), created=MADE)
    head, digest = recipe.hashed_part()
    return packet(2, head + b"\0\0" + digest[:2] + b"".join(forge.mpi(n) for n in numbers))


@given(
    oid=st.sampled_from(["2a8648ce3d030107", "2b81040022", "2b81040023", "2b06010401da470f01"]),
    algorithm=st.sampled_from([19, 22]),
    point=st.binary(max_size=140),
    prefix=st.sampled_from([b"\x04", b"\x40", b"\x02", b""]),
)
@settings(max_examples=300, deadline=None)
def test_hostile_points_raise_nothing_else(
    lab: Lab, oid: str, algorithm: int, point: bytes, prefix: bytes
) -> None:
    raw = bytes.fromhex(oid)
    value = int.from_bytes(prefix + point, "big")
    hostile = forge.Key(algorithm, lab.ed.secret, bytes([len(raw)]) + raw + forge.mpi(value))
    made = certification_shaped(hostile, [1, 2], 0x13)
    key = packet(6, hostile.body) + packet(13, UID) + made
    feed_all_hooks(key, Sample((key,), made, SHORT))


# Caps.


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises((KeyInvalid, TrustRefused)) as caught:
        call()
    return str(caught.value)


def test_ten_thousand_signatures_are_refused(lab: Lab) -> None:
    signature = detached(lab.ed, DATA) * 10_000
    assert "larger than" in refusal(lambda: openpgp.trust_signers(signature))


def test_too_many_packets_in_a_small_file_are_refused(lab: Lab) -> None:
    tiny = packet(2, b"\x04")
    assert "more than 32" in refusal(lambda: openpgp.trust_signers(tiny * 33))
    blocks = forge.armored(tiny) * 33
    assert "more than 32" in refusal(lambda: openpgp.trust_signers(blocks))
    assert "armor blocks" in refusal(lambda: openpgp.trust_signers(forge.armored(tiny) * 65))


def test_large_key_file_is_refused(lab: Lab) -> None:
    key = simple(lab.rsa) + packet(13, bytes(1000)) * 1100
    assert "larger than" in refusal(lambda: openpgp.trust_key(key))


def test_key_file_of_countless_packets_is_refused(lab: Lab) -> None:
    key = simple(lab.rsa) + packet(13, b"x") * 9000
    assert "more than 8192 packets" in refusal(lambda: openpgp.trust_key(key))


def test_key_file_that_keeps_the_verifier_busy_is_refused(lab: Lab) -> None:
    """Six hundred forged self-signatures, each of which has to be checked to be dismissed."""
    junk = b"".join(certification_shaped_at(lab.rsa, MADE + number) for number in range(600))
    key = packet(6, lab.rsa.body) + packet(13, UID) + junk + certification(lab.rsa, UID)
    assert "more than 512" in refusal(lambda: openpgp.trust_key(key))


def certification_shaped_at(key: forge.Key, created: int) -> bytes:
    recipe = Recipe(key, kind=0x13, content=forge.uid_content(key, UID), created=created)
    head, digest = recipe.hashed_part()
    unhashed = forge.subpacket(16, key.fingerprint[-8:])
    return packet(2, head + len(unhashed).to_bytes(2, "big") + unhashed + digest[:2] + forge.mpi(3))


def test_huge_user_id_is_refused(lab: Lab) -> None:
    key = simple(lab.rsa, uid=b"x" * 3000)
    assert "user id of more than" in refusal(lambda: openpgp.trust_key(key))


def test_countless_subpackets_are_refused(lab: Lab) -> None:
    signature = detached(lab.rsa, SHORT, hashed=[forge.subpacket(26, b"")] * 300)
    assert "more than 256 subpackets" in refusal(lambda: openpgp.trust_signers(signature))


# Key ids are 64 bits: not enough to tell keys apart.


def test_key_id_alone_never_decides(lab: Lab) -> None:
    """A signature that names only a key id is checked against the key that has it, and no other:
    the one whose id collides fails by arithmetic, and the verdict carries full fingerprints."""
    signature = detached(lab.other, SHORT, fingerprint=False, issuer=lab.ed.fingerprint)
    assert openpgp.trust_signers(signature) == [lab.ed.fingerprint[-8:].hex()]
    assert verdict_on(simple(lab.ed), signature, SHORT) is None
    genuine = detached(lab.ed, SHORT, fingerprint=False)
    verdict = verdict_on(simple(lab.ed), genuine, SHORT)
    assert verdict is not None
    assert verdict.fingerprint == hashlib.sha1(lab.ed.framed).hexdigest()


def test_foreign_subkey_does_not_lend_its_name(lab: Lab) -> None:
    """A key file that lists somebody else's subkey without proof signs nothing with it."""
    victim = lab.ed
    stolen = simple(lab.other, packet(14, victim.body), flags=CERTIFY)
    assert verdict_on(stolen, detached(victim, SHORT), SHORT) is None
