"""JSON from outside, read strictly: one document has one meaning, in bounded time and memory."""

from __future__ import annotations

import json
import re
from typing import Any

from podctl.errors import ManifestInvalid

#: a string (also an unterminated one, so that the scan stays linear) or one bracket.
_TOKEN = rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]'

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1


def loads(data: bytes, *, what: str, max_bytes: int = 4 << 20, max_depth: int = 64) -> Any:
    """Parse one JSON document (RFC 8259) in UTF-8.

    Beyond the RFC's grammar it refuses what parsers disagree about: duplicate keys, a byte order
    mark, lone surrogates, NUL in strings, integers beyond 64 bits, numbers that overflow.

    Args:
        what: names the document in messages.
        max_bytes: longest document that is read.
        max_depth: deepest nesting of arrays and objects.

    Raises:
        ManifestInvalid: the document breaks one of these rules.
    """
    if len(data) > max_bytes:
        raise ManifestInvalid(f"{what}: {len(data)} bytes are more than the {max_bytes} allowed")
    text = _decode(data, what)
    if data.count(b"[") + data.count(b"{") > max_depth:
        _check_depth(data, what, max_depth)

    def refuse(rule: str) -> ManifestInvalid:
        return ManifestInvalid(f"{what}: {rule}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            seen: set[str] = set()
            double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise refuse(f"key {double!r} appears twice in one object")
        return value

    def integer(digits: str) -> int:
        # The length comes first: int() is quadratic in it.
        if len(digits) > 20 or not _INT_MIN <= int(digits) <= _INT_MAX:
            raise refuse(f"integer {_shortened(digits)} does not fit in 64 bits")
        return int(digits)

    def real(digits: str) -> float:
        value = float(digits)
        if value in (float("inf"), float("-inf")):
            raise refuse(f"number {_shortened(digits)} is too large")
        return value

    def constant(name: str) -> None:
        raise refuse(f"{name} is not JSON")

    try:
        value = json.loads(
            text,
            object_pairs_hook=unique,
            parse_int=integer,
            parse_float=real,
            parse_constant=constant,
        )
    except json.JSONDecodeError as error:
        raise refuse(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise refuse("nested too deeply") from None
    if "\\u" in text:
        _check_strings(value, what)
    return value


def dumps(value: object, *, pretty: bool = False) -> bytes:
    """Write `value` as JSON in UTF-8, keys in their order; one line, or indented with tabs.

    Raises:
        ValueError: NaN, infinity or a lone surrogate is in it.
    """
    if pretty:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent="\t")
    else:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def _decode(data: bytes, what: str) -> str:
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ManifestInvalid(f"{what}: begins with a byte order mark, JSON has none")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ManifestInvalid(f"{what}: byte {error.start} is not UTF-8") from None


def _check_depth(data: bytes, what: str, max_depth: int) -> None:
    """Count brackets outside strings; json's own scanner recurses, so this must come before it."""
    depth = 0
    for match in re.finditer(_TOKEN, data, re.DOTALL):
        first = match.group()[:1]
        if first in b"[{":
            depth += 1
            if depth > max_depth:
                raise ManifestInvalid(f"{what}: nested deeper than {max_depth} levels")
        elif first in b"]}":
            depth -= 1


def _check_strings(value: object, what: str) -> None:
    """Refuse what only an escape can bring in: lone surrogates and NUL."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise ManifestInvalid(f"{what}: a string holds NUL")
            if not item.isascii() and any("\ud800" <= char <= "\udfff" for char in item):
                raise ManifestInvalid(f"{what}: a string holds a lone surrogate")
        elif isinstance(item, dict):
            pending += item
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def _shortened(digits: str) -> str:
    return digits if len(digits) <= 24 else f"{digits[:20]}..."
