"""ASCII armor (RFC 9580 section 6): text around binary OpenPGP data.

Stricter than the RFC asks: nothing but white space may stand around the blocks, and the base64
must be canonical. A page of HTML, a cleartext-signed message or a secret key is named as such.
"""

from __future__ import annotations

import binascii

from podctl.errors import KeyInvalid

PUBLIC_KEY = b"PGP PUBLIC KEY BLOCK"
SIGNATURE = b"PGP SIGNATURE"

_MAX_BLOCKS = 64
_MAX_HEADERS = 64
_DASHES = b"-----"
_CRC24_INIT = 0xB704CE
_CRC24_POLYNOMIAL = 0x1864CFB
#: What other armor labels hold, for the message.
_OTHER = {
    b"PGP SIGNED MESSAGE": "a cleartext-signed message",
    b"PGP MESSAGE": "a message that is signed inline or encrypted",
    b"PGP PRIVATE KEY BLOCK": "a secret key",
    PUBLIC_KEY: "a public key",
    SIGNATURE: "a signature",
}
_WANTED = {PUBLIC_KEY: "a public key", SIGNATURE: "a detached signature"}


def unwrap(data: bytes, label: bytes, *, max_bytes: int) -> list[bytes]:
    """Return the binary content of `data`: one piece per armor block, or `data` itself.

    Args:
        data: a whole file, armored or binary.
        label: PUBLIC_KEY or SIGNATURE; blocks of any other label are refused.
        max_bytes: cap on the file.

    Raises:
        KeyInvalid: too large, empty, not OpenPGP, wrong kind of block, bad base64 or checksum.
    """
    wanted = _WANTED[label]
    if len(data) > max_bytes:
        raise KeyInvalid(f"{wanted} was expected, the file is larger than {max_bytes} bytes")
    if not data.strip():
        raise KeyInvalid(f"{wanted} was expected, the file is empty")
    # Every OpenPGP packet starts with bit 7 set, no line of armor does.
    if data[0] & 0x80:
        return [data]
    lines = [line.rstrip() for line in data.split(b"\n")]
    blocks: list[bytes] = []
    at = 0
    while (at := _skip_blank(lines, at)) < len(lines):
        if len(blocks) == _MAX_BLOCKS:
            raise KeyInvalid(f"more than {_MAX_BLOCKS} armor blocks in one file")
        block, at = _read_block(lines, at, label)
        blocks.append(block)
    return blocks


def _skip_blank(lines: list[bytes], at: int) -> int:
    while at < len(lines) and not lines[at]:
        at += 1
    return at


def _read_block(lines: list[bytes], at: int, label: bytes) -> tuple[bytes, int]:
    """Read the block whose BEGIN line is lines[at]; return its content and the line after it."""
    _check_begin(lines[at], label)
    at = _skip_headers(lines, at + 1)
    end = _DASHES + b"END " + label + _DASHES
    start = at
    while at < len(lines) and not lines[at].startswith(_DASHES):
        at += 1
    if at == len(lines) or lines[at] != end:
        raise KeyInvalid("armor has no END line that fits its BEGIN line")
    return _decode(lines[start:at]), at + 1


def _check_begin(line: bytes, label: bytes) -> None:
    wanted = _WANTED[label]
    if line == _DASHES + b"BEGIN " + label + _DASHES:
        return
    for other, text in _OTHER.items():
        if line == _DASHES + b"BEGIN " + other + _DASHES:
            raise KeyInvalid(f"{wanted} was expected, this is {text}")
    if line.lstrip().startswith(b"<"):
        raise KeyInvalid(f"{wanted} was expected, this looks like an HTML or XML page")
    raise KeyInvalid(f"{wanted} was expected, this is no OpenPGP data")


def _skip_headers(lines: list[bytes], at: int) -> int:
    """Armor headers (Version, Comment, ...) are not protected by anything: they are ignored."""
    for line in range(at, min(at + _MAX_HEADERS, len(lines))):
        if not lines[line]:
            return line + 1
        if b":" not in lines[line]:
            break
    raise KeyInvalid("armor headers are not followed by an empty line")


def _decode(lines: list[bytes]) -> bytes:
    checksum = lines.pop() if lines and lines[-1].startswith(b"=") else None
    text = b"".join(lines)
    try:
        content = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise KeyInvalid("armor holds bytes that are not base64") from None
    if not content or binascii.b2a_base64(content, newline=False) != text:
        raise KeyInvalid("armor is empty or its base64 is not canonical")
    if checksum is not None and checksum != _encoded_crc24(content):
        raise KeyInvalid("armor checksum does not fit its content")
    return content


def _encoded_crc24(content: bytes) -> bytes:
    return b"=" + binascii.b2a_base64(crc24(content).to_bytes(3, "big"), newline=False)


def crc24(content: bytes) -> int:
    """Return the checksum of RFC 9580 section 6.1; it finds accidents, never attacks."""
    table = _crc24_table()
    crc = _CRC24_INIT
    for octet in content:
        crc = (crc << 8) & 0xFFFFFF ^ table[(crc >> 16) ^ octet]
    return crc


_table: list[int] = []


def _crc24_table() -> list[int]:
    if not _table:
        for octet in range(256):
            crc = octet << 16
            for _ in range(8):
                crc <<= 1
                if crc & 0x1000000:
                    crc ^= _CRC24_POLYNOMIAL
            _table.append(crc)
    return _table
