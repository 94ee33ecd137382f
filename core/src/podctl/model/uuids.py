"""Pod UUIDs: random (version 4), lower case, in the canonical form with dashes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.errors import Ambiguous, InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEX = frozenset("0123456789abcdef")
_DASHES = (8, 13, 18, 23)


def new_uuid() -> str:
    """Make a random UUID (RFC 4122, version 4)."""
    data = bytearray(os.urandom(16))
    data[6] = data[6] & 0x0F | 0x40
    data[8] = data[8] & 0x3F | 0x80
    digits = data.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in canonical form: 36 characters, lower case."""
    return len(text) == 36 and _is_prefix(text)


def check_uuid(text: str) -> str:
    """Return a UUID, lower-cased.

    Raises:
        InvalidInput: it is none; nothing else may become the name of a pod's directory.
    """
    uuid = text.lower()
    if not is_uuid(uuid):
        raise InvalidInput(f"{text[:64]!r} is no UUID")
    return uuid


def check_prefix(text: str) -> str:
    """Return the beginning of a UUID, lower-cased, white space around it removed.

    Raises:
        InvalidInput: it is empty or cannot begin a UUID.
    """
    prefix = text.strip().lower()
    if not prefix:
        raise InvalidInput("UUID cannot be empty")
    if len(prefix) > 36 or not _is_prefix(prefix):
        raise InvalidInput(f"{text[:64]!r} is no UUID and no beginning of one")
    return prefix


def match_uuid(text: str, uuids: Iterable[str]) -> str:
    """Return the one of `uuids` that begins with `text`.

    Raises:
        InvalidInput: see check_prefix.
        NotFound: none does.
        Ambiguous: several do.
    """
    prefix = check_prefix(text)
    matches = {uuid for uuid in uuids if uuid.startswith(prefix)}
    if not matches:
        raise NotFound(f'no matches found for "{prefix}"')
    if len(matches) > 1:
        raise Ambiguous(f"ambiguous uuid, {len(matches)} matches", hint="write more of its digits")
    return matches.pop()


def _is_prefix(text: str) -> bool:
    return all(char == "-" if index in _DASHES else char in _HEX for index, char in enumerate(text))
