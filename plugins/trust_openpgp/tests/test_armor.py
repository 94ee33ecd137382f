"""ASCII armor: what is unwrapped, and what is refused by name."""

from __future__ import annotations

import openpgp_forge as forge
import pytest

from podctl.errors import KeyInvalid
from podctl_trust_openpgp import armor

CONTENT = bytes([0xC2]) + bytes(range(100))


def unwrap(text: bytes) -> list[bytes]:
    return armor.unwrap(text, armor.SIGNATURE, max_bytes=1 << 16)


def refusal(text: bytes) -> str:
    with pytest.raises(KeyInvalid) as caught:
        unwrap(text)
    return caught.value.message


def test_checksum_is_the_one_of_the_standard() -> None:
    # The value published with the algorithm's parameters, for the customary check string.
    assert armor.crc24(b"123456789") == 0x21CF02


def test_armored_and_binary_give_the_same() -> None:
    assert unwrap(forge.armored(CONTENT)) == unwrap(CONTENT) == [CONTENT]


def test_blocks_are_kept_apart() -> None:
    text = forge.armored(CONTENT) + b"\n \n" + forge.armored(CONTENT[::-1])
    assert unwrap(text) == [CONTENT, CONTENT[::-1]]


def test_headers_are_ignored() -> None:
    text = forge.armored(CONTENT).replace(b"-\n\n", b"-\nVersion: 1\nComment: \xc3\xa4: b\n\n", 1)
    assert unwrap(text) == [CONTENT]


def test_any_line_length_is_taken() -> None:
    lines = forge.armored(CONTENT).split(b"\n")
    text = b"\n".join([*lines[:2], b"".join(lines[2:-3]), *lines[-3:]])
    assert unwrap(text) == [CONTENT]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.replace(b"-\n\n", b"-\n", 1), "not followed by an empty line"),
        (lambda t: t.replace(b"-\n\n", b"-\nno header\n\n", 1), "not followed by an empty line"),
        (lambda t: t.replace(b"-\n\n", b"-\n" + b"A: b\n" * 70 + b"\n", 1), "empty line"),
        (lambda t: t.replace(b"END PGP SIGNATURE", b"END PGP MESSAGE"), "END line"),
        (lambda t: t[: t.index(b"-----END")], "END line"),
        (lambda t: t.replace(b"wgAB", b"wg*B"), "not base64"),
        (lambda t: t.replace(b"wgAB", b"wg=B"), "not base64"),
        (lambda t: t.replace(b"\n=", b"\n=A"), "checksum"),
        (lambda t: t.replace(b"-----BEGIN PGP S", b"----BEGIN PGP S"), "no OpenPGP data"),
        (lambda t: b"\xef\xbb\xbf" + t, "no OpenPGP data|packet|OpenPGP"),
        (lambda t: t + b"trailing", "no OpenPGP data"),
    ],
)
def test_broken_armor_is_refused(change: object, says: str) -> None:
    assert callable(change)
    whole = forge.armored(CONTENT)
    broken = change(whole)
    assert broken != whole
    if broken[0] & 0x80:  # A byte order mark looks like a packet; the packet parser refuses it.
        from podctl_trust_openpgp.verify import signers

        with pytest.raises(KeyInvalid):
            signers(broken)
        return
    assert says in refusal(broken)


def test_base64_has_one_spelling() -> None:
    """Unused bits in the last character would be a place to vary a file without effect."""
    text = forge.armored(b"\xc2\x00", crc=b"")
    assert b"\nwgA=\n" in text
    assert "canonical" in refusal(text.replace(b"wgA=", b"wgB="))


def test_empty_block_is_refused() -> None:
    assert "empty" in refusal(b"-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n")


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("SIGNED MESSAGE", "cleartext-signed message"),
        ("MESSAGE", "signed inline or encrypted"),
        ("PRIVATE KEY BLOCK", "a secret key"),
        ("PUBLIC KEY BLOCK", "a public key"),
    ],
)
def test_other_blocks_are_named(label: str, says: str) -> None:
    assert says in refusal(forge.armored(CONTENT, label))


def test_size_is_capped_before_anything_is_decoded() -> None:
    assert "larger than 65536" in refusal(forge.armored(bytes([0xC2]) * 100_000))
