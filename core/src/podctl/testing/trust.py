"""What every trust scheme must do: a suite of tests to inherit from.

    class TestOpenPGP(TrustContract):
        provider = openpgp

        def key(self, name): ...
        def sign(self, name, content): ...

pytest collects the inherited tests with the subclass. Nothing is assumed about the format of keys
and signatures; `altered_signatures` may add what is known about it.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from podctl.errors import KeyInvalid, PodctlError, TrustRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from podctl.model.trusting import Verdict

#: The only errors hostile keys and signatures may lead to.
REFUSALS = (KeyInvalid, TrustRefused)

CONTENT = bytes(range(256)) * 17

GARBAGE = (
    b"",
    b"\n",
    b"\0",
    b"\xff" * 64,
    b"\x80",
    b"<!DOCTYPE html><title>404 Not Found</title>",
    b"{}",
    b"-----BEGIN",
    bytes(range(256)) * 8,
)


class TrustContract:
    """Inherit, set `provider`, and say how a key and a signature are made.

    Attributes:
        provider: the object the `podctl.trust` entry point names.
        now: the time good signatures are checked at, seconds since the epoch.
        content: what is signed. A scheme for registries signs image documents
            (podctl.model.imagedocument): set it to one, of which no bit may be free.
        sample: shorter content, of which every bit is flipped once.
        signs_anything: whether other bytes can be signed as well.
    """

    provider: ClassVar[Any]
    now: ClassVar[int] = int(time.time())
    content: ClassVar[bytes] = CONTENT
    sample: ClassVar[bytes] = CONTENT[:24]
    signs_anything: ClassVar[bool] = True

    def key(self, name: str) -> bytes:
        """Return the public key file of a signer; the same name is the same key each time."""
        raise NotImplementedError

    def sign(self, name: str, content: bytes) -> bytes:
        """Return a detached signature of `content`, valid at `now`, by that signer's key."""
        raise NotImplementedError

    def altered_signatures(self, signature: bytes) -> Iterable[bytes]:
        """Yield changed signatures, none of which may be accepted. Default: every truncation.

        A trailing newline may be missing from a text format without harm, so the last octet is
        left out here.
        """
        return (signature[:end] for end in range(len(signature) - 1))

    def verify(
        self,
        signature: bytes,
        keys: Sequence[bytes],
        content: bytes | None = None,
        *,
        now: int | None = None,
        chunk: int = 1 << 20,
    ) -> Verdict:
        """Do what the fetch pipeline does with a signature."""
        moment = self.now if now is None else now
        content = self.content if content is None else content
        verifier = self.provider.trust_verifier(signature=signature, keys=keys, now=moment)
        for at in range(0, len(content), chunk):
            verifier.update(content[at : at + chunk])
        verdict: Verdict = verifier.finish()
        return verdict

    # Keys.

    def test_preload_may_be_called_twice(self) -> None:
        self.provider.trust_preload()
        self.provider.trust_preload()

    def test_key_is_described(self) -> None:
        described = self.provider.trust_key(data=self.key("alice"))
        assert described.scheme
        assert len(described.fingerprint) in (40, 64)
        assert set(described.fingerprint) <= set("0123456789abcdef")
        assert 0 <= described.created <= self.now
        assert described.expires is None or described.expires > self.now
        assert not described.revoked
        # The description crosses a process boundary as JSON.
        json.dumps([*described.identities, *described.subkeys])

    def test_fingerprints_tell_keys_apart(self) -> None:
        alice, bob = self.key("alice"), self.key("bob")
        assert self._fingerprint(alice) == self._fingerprint(alice)
        assert self._fingerprint(alice) != self._fingerprint(bob)

    def test_two_keys_in_one_file_are_refused(self) -> None:
        with pytest.raises(KeyInvalid):
            self.provider.trust_key(data=self.key("alice") + self.key("bob"))

    def test_what_is_no_key_is_refused(self) -> None:
        for data in (*GARBAGE, self.sign("alice", self.content)):
            with pytest.raises(KeyInvalid):
                self.provider.trust_key(data=data)

    # Good signatures.

    def test_good_signature_is_accepted(self) -> None:
        key = self.key("alice")
        verdict = self.verify(self.sign("alice", self.content), [key])
        described = self.provider.trust_key(data=key)
        assert verdict.scheme == described.scheme
        assert verdict.fingerprint == described.fingerprint
        assert verdict.signer in (described.fingerprint, *described.subkeys)
        assert verdict.signed_at <= self.now
        assert verdict.expires is None or verdict.expires > self.now

    def test_key_is_found_among_others(self) -> None:
        keys = [self.key("bob"), self.key("alice")]
        verdict = self.verify(self.sign("alice", self.content), keys)
        assert verdict.fingerprint == self._fingerprint(keys[1])

    @pytest.mark.parametrize("chunk", [1, 7, 4096])
    def test_chunking_makes_no_difference(self, chunk: int) -> None:
        self.verify(self.sign("alice", self.content), [self.key("alice")], chunk=chunk)

    def test_empty_content_is_content(self) -> None:
        key = self.key("alice")
        if self.signs_anything:
            self.verify(self.sign("alice", b""), [key], b"")
        with pytest.raises(TrustRefused):
            self.verify(self.sign("alice", self.content), [key], b"")

    def test_signers_name_the_key_or_nothing(self) -> None:
        named = self.provider.trust_signers(signature=self.sign("alice", self.content))
        described = self.provider.trust_key(data=self.key("alice"))
        known = (described.fingerprint, *described.subkeys)
        for signer in named:
            assert len(signer) in (16, 40, 64)
            assert any(fingerprint.endswith(signer.lower()) for fingerprint in known)

    # Bad signatures.

    def test_any_changed_bit_of_the_content_is_refused(self) -> None:
        signature, key = self.sign("alice", self.sample), self.key("alice")
        self.verify(signature, [key], self.sample)
        for altered in _one_bit_off(self.sample):
            with pytest.raises(TrustRefused):
                self.verify(signature, [key], altered)

    def test_shorter_and_longer_content_is_refused(self) -> None:
        content = self.content
        signature, key = self.sign("alice", content), self.key("alice")
        for altered in (b"", content[:-1], content[1:], content + b"\0", content + content):
            with pytest.raises(TrustRefused):
                self.verify(signature, [key], altered)

    def test_signature_by_another_key_is_refused(self) -> None:
        with pytest.raises(TrustRefused):
            self.verify(self.sign("bob", self.content), [self.key("alice")])

    def test_without_keys_nothing_is_accepted(self) -> None:
        with pytest.raises(TrustRefused):
            self.verify(self.sign("alice", self.content), [])

    def test_what_is_no_signature_is_refused(self) -> None:
        key = self.key("alice")
        for data in (*GARBAGE, key, self.content):
            with pytest.raises(REFUSALS):
                self.verify(data, [key])
            with pytest.raises(REFUSALS):
                self.provider.trust_signers(signature=data)

    def test_altered_signature_is_refused(self) -> None:
        key = self.key("alice")
        tried = 0
        for altered in self.altered_signatures(self.sign("alice", self.content)):
            tried += 1
            with pytest.raises(REFUSALS):
                self.verify(altered, [key])
        assert tried

    def test_clock_before_the_signature_is_refused(self) -> None:
        with pytest.raises(TrustRefused):
            self.verify(self.sign("alice", self.content), [self.key("alice")], now=0)

    def test_expiry_that_was_told_is_kept(self) -> None:
        signature, key = self.sign("alice", self.content), self.key("alice")
        expires = self.verify(signature, [key]).expires
        if expires is not None:
            with pytest.raises(TrustRefused):
                self.verify(signature, [key], now=expires)

    def test_refusals_are_one_line(self) -> None:
        with pytest.raises(PodctlError) as caught:
            self.verify(self.sign("alice", self.content), [self.key("alice")], b"other")
        assert caught.value.message
        assert "\n" not in str(caught.value)

    def _fingerprint(self, data: bytes) -> str:
        described = self.provider.trust_key(data=data)
        return str(described.fingerprint)


def _one_bit_off(content: bytes) -> Iterator[bytes]:
    for at in range(8 * len(content)):
        altered = bytearray(content)
        altered[at // 8] ^= 1 << at % 8
        yield bytes(altered)
