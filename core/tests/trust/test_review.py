"""What a reviewer is shown and asked before a key is taken in."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from podctl.errors import Ambiguous, KeyInvalid, PodctlError, Refused
from podctl.model.trusting import KeyDescription
from podctl.trust import review
from podctl.trust.checking import describe, scheme_of, usable_keys
from podctl.trust.keystore import KeyStore, TrustedKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FINGERPRINT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


def parse(data: bytes) -> KeyDescription:
    """A key format of one line: the fingerprint; stands in for a scheme's parser."""
    text = data.decode()
    if text == "crash":
        raise RuntimeError("parser bug")
    if len(text) < 40:
        raise KeyInvalid("no key")
    return KeyDescription("test", text, ("Alice <a@example.com>",), (OTHER,), 0, None, False)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    (tmp_path / "local").mkdir(mode=0o755)
    return KeyStore(str(tmp_path / "system"), str(tmp_path / "local"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def take(store: KeyStore, said: list[str], *, ask: bool, data: str = FINGERPRINT) -> bool:
    return review.take_key(
        store,
        parse,
        data.encode(),
        prefix="example.com",
        location="https://example.com/key",
        review=ask,
        say=said.append,
    )


def test_fingerprint_is_shown_in_groups_with_a_gap_in_the_middle() -> None:
    assert review.grouped(FINGERPRINT) == ("0123 4567 89AB CDEF 0123  4567 89AB CDEF 0123 4567")


def test_without_review_the_key_is_shown_and_added(store: KeyStore) -> None:
    said: list[str] = []
    assert take(store, said, ask=False)
    assert said[0] == 'prefix: "example.com"'
    assert "    Alice <a@example.com>" in said
    assert any(review.grouped(OTHER) in line for line in said)
    assert (
        'Trusting "https://example.com/key" for prefix "example.com" without fingerprint review.'
        in said
    )
    assert store.find("example.com/app", FINGERPRINT) is not None


@pytest.mark.parametrize(
    ("answers", "added"),
    [("yes\n", True), ("no\n", False), ("", False), ("y\nYES\nyes\n", True), ("maybe\n", False)],
)
def test_only_an_exact_yes_adds_the_key(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, answers: str, added: bool
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answers))
    monkeypatch.setattr("sys.stderr", Terminal())
    said: list[str] = []
    assert take(store, said, ask=True) is added
    assert (store.find("example.com", FINGERPRINT) is not None) is added
    assert said.count("Please enter 'yes' or 'no'") == answers.count("\n") - (
        1 if answers.endswith(("yes\n", "no\n")) else 0
    )


def test_without_a_terminal_review_is_refused_with_the_way_out(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    with pytest.raises(Refused, match="lack of tty") as refusal:
        take(store, [], ask=True)
    assert "--skip-fingerprint-review" in str(refusal.value)
    assert store.every_key() == []


def test_a_broken_key_is_refused_and_nothing_is_stored(store: KeyStore) -> None:
    with pytest.raises(KeyInvalid):
        take(store, [], ask=False, data="short")
    assert store.every_key() == []


def test_a_fingerprint_that_is_no_file_name_is_refused() -> None:
    with pytest.raises(KeyInvalid):
        describe(parse, b"../" * 20)


def test_a_key_file_whose_name_is_not_its_fingerprint_is_refused() -> None:
    from podctl.errors import TrustRefused

    key = TrustedKey("/etc/k", "a" * 40, None, FINGERPRINT.encode())
    with pytest.raises(TrustRefused, match="fingerprint mismatch"):
        usable_keys(parse, lambda _s: [], b"signature", [key])


@pytest.mark.parametrize(
    ("issuer", "fits"),
    [
        (FINGERPRINT, True),
        (FINGERPRINT.upper(), True),
        (FINGERPRINT[-16:], True),
        (OTHER, True),
        ("e" * 40, False),
        (FINGERPRINT[-8:], False),
    ],
)
def test_only_keys_the_signature_names_are_kept(issuer: str, fits: bool) -> None:
    key = TrustedKey("/etc/k", FINGERPRINT, None, FINGERPRINT.encode())
    assert usable_keys(parse, lambda _s: [issuer], b"signature", [key]) == ([key] if fits else [])


def test_keys_of_other_schemes_are_passed_over() -> None:
    foreign = TrustedKey("/etc/foreign", "b" * 40, None, b"crash")
    own = TrustedKey("/etc/own", FINGERPRINT, None, FINGERPRINT.encode())

    def usable(recognises: Callable[[bytes], bool]) -> list[TrustedKey]:
        return usable_keys(
            parse, lambda _s: [], b"signature", [foreign, own], recognises=recognises
        )

    assert usable(lambda data: data != b"crash") == [own]
    # Control: where both are taken for keys of the scheme, the foreign one is parsed.
    with pytest.raises(PodctlError, match="parser bug"):
        usable(lambda _data: True)


@pytest.mark.parametrize(
    ("data", "scheme"), [(b"lock", "locks"), (b"seal", "seals"), (b"other", "mute")]
)
def test_a_scheme_that_knows_its_keys_goes_before_one_that_takes_all(
    data: bytes, scheme: str
) -> None:
    schemes = {"locks": lambda data: data == b"lock", "mute": None, "seals": b"seal".__eq__}
    assert scheme_of(data, schemes) == scheme


def test_a_key_of_no_scheme_or_of_several_is_refused() -> None:
    def say(answer: bool) -> Callable[[bytes], bool]:
        return lambda _data: answer

    with pytest.raises(KeyInvalid, match=r"installed \(locks, seals\)"):
        scheme_of(b"key", {"locks": say(False), "seals": say(False)})
    with pytest.raises(Ambiguous, match="locks, seals"):
        scheme_of(b"key", {"locks": say(True), "mute": None, "seals": say(True)})
    with pytest.raises(Ambiguous, match="deaf, mute"):
        scheme_of(b"key", {"deaf": None, "locks": say(False), "mute": None})


def test_keys_are_recognised_without_privileges() -> None:
    """What looks at a stranger's bytes has nothing left to lose."""

    def recognise(_data: bytes) -> bool:
        return os.geteuid() != 0

    assert scheme_of(b"key", {"watchful": recognise}) == "watchful"
