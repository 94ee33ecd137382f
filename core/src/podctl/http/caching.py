"""Validators and ages of HTTP answers (RFC 9110, RFC 9111)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.model.fetching import CacheState

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Longer makes no sense, and large numbers are for breaking things: a year, in seconds.
LONGEST = 365 * 86400
_MAX_VALIDATOR = 1024


def state_of(headers: Mapping[str, str]) -> CacheState:
    """Return what an answer says of its body's version."""
    return CacheState(_kept(headers.get("ETag")), _kept(headers.get("Last-Modified")))


def strong_validator(state: CacheState) -> str | None:
    """Return what identifies a body byte for byte, fit for If-Range; None: nothing does.

    A weak ETag (`W/...`) stands for equal meaning, not equal bytes; where there is one, the date
    beside it is no better.
    """
    if state.etag is not None:
        etag = state.etag
        strong = len(etag) >= 2 and etag.startswith('"') and etag.endswith('"')
        return etag if strong else None
    return state.last_modified


def conditions(state: CacheState) -> dict[str, str]:
    """Return the headers that ask for a body only if it is another than the one held."""
    if state.etag is not None:
        return {"If-None-Match": state.etag}
    if state.last_modified is not None:
        return {"If-Modified-Since": state.last_modified}
    return {}


def max_age(value: str | None) -> int:
    """Return for how many seconds an answer need not be asked for again (Cache-Control)."""
    age = 0
    for directive in (value or "").lower().split(","):
        name, _, argument = directive.strip().partition("=")
        if name in ("no-store", "no-cache"):
            return 0
        argument = argument.strip().strip('"')
        if name == "max-age" and argument.isascii() and argument.isdigit():
            age = min(int(argument[:12]), LONGEST)
    return age


def _kept(value: str | None) -> str | None:
    """A header's value, fit to be stored and sent back; None otherwise."""
    if value is None:
        return None
    text = value.strip()
    return text if text.isascii() and text.isprintable() and len(text) <= _MAX_VALIDATOR else None
