"""The `meta` elements of a discovery page's head, and nothing else of it.

Read by our own scanner rather than html.parser, which takes time quadratic in the size of a
malicious page (CVE-2025-6069; 80 kB of `<a =` took it 20 s). Every step here moves forward.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Start tags a head may hold; anything else means that the body has begun (HTML 13.2.6.4.4).
_IN_HEAD = frozenset(
    ("html", "head", "meta", "title", "base", "link", "style", "script", "noscript", "template")
)
#: Elements whose content is text, or is not for us: skipped up to their end tag.
_OPAQUE = frozenset(("title", "style", "script", "noscript", "template"))
_NAME = re.compile(r"[a-zA-Z][^\s/>]*")
# What separates attributes, in one match; or an attribute. Nothing is ever scanned again from the
# next character on.
_ATTRIBUTE = re.compile(
    r"""[\s/]+|([^\s/>=][^\s/>=]*)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'>][^\s>]*)?)?"""
)
#: More of either is no discovery page.
MAX_TAGS = 1000
MAX_TAG = 16384


def meta_tags(page: bytes) -> Iterator[tuple[str, str]]:
    """Yield (name, content) of each `meta` element in the head.

    The page is read as UTF-8 whatever it declares: the tags we look for are ASCII in every
    encoding that deserves a page, and other encodings only make parsers disagree.
    """
    text = page.decode("utf-8", "replace")
    position = 0
    for _ in range(MAX_TAGS):
        start = text.find("<", position)
        if start < 0 or not _may_precede(text[position:start]):
            return
        position = _after(text, start)
        if position < 0:
            return
        name = _tag_name(text, start)
        if name is None:
            continue
        if name == "/head" or (name not in _IN_HEAD and not name.startswith("/")):
            return
        if name == "meta":
            attributes = _attributes(text[start + 1 + len(name) : position - 1])
            yield attributes.get("name", "").lower(), attributes.get("content", "")
        elif name in _OPAQUE:
            position = _end_of(text, name, position)
            if position < 0:
                return


def _may_precede(text: str) -> bool:
    """Text other than white space opens the body."""
    return not text.strip("\ufeff \t\r\n\f")


def _tag_name(text: str, start: int) -> str | None:
    """`meta`, or `/head` for an end tag; None for comments and declarations."""
    slash = text.startswith("/", start + 1)
    match = _NAME.match(text, start + 1 + slash, start + 64)
    if match is None:
        return None
    return ("/" if slash else "") + match.group().lower()


def _after(text: str, start: int) -> int:
    """Return the position after the tag, comment or declaration at `start`; -1: it never ends."""
    if text.startswith("<!--", start):
        if text.startswith(("<!-->", "<!--->"), start):
            return text.index(">", start) + 1
        ends = [text.find("-->", start + 4), text.find("--!>", start + 4)]
        found = min((end for end in ends if end >= 0), default=-1)
        return -1 if found < 0 else text.index(">", found) + 1
    quote = ""
    previous = ""
    for position in range(start + 1, min(len(text), start + MAX_TAG)):
        char = text[position]
        if quote:
            quote = "" if char == quote else quote
        elif char == ">":
            return position + 1
        elif char in "\"'" and previous == "=":
            quote = char
        if not char.isspace():
            previous = char
    return -1


def _end_of(text: str, name: str, position: int) -> int:
    match = re.compile(f"</{name}(?=[\\s/>])", re.IGNORECASE).search(text, position)
    return -1 if match is None else _after(text, match.start())


def _attributes(inside: str) -> dict[str, str]:
    """Attributes of a tag; the first of a name counts (HTML 13.2.5.33)."""
    found: dict[str, str] = {}
    for match in _ATTRIBUTE.finditer(inside):
        if match.group(1) is None:
            continue
        value = match.group(2) or ""
        if value[:1] in ("'", '"'):
            value = value[1:-1]
        found.setdefault(match.group(1).lower(), html.unescape(value))
    return found
