"""What podctl prints: results on stdout, messages on stderr, nothing a terminal would obey.

Text from outside (names, user ids, server messages) reaches these functions as it is. Whatever a
terminal could interpret is made visible here and nowhere else: control characters, and the
bidirectional controls that let text read differently from what it says (CVE-2021-42574).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO

_RED = "\x1b[31m"
_RESET = "\x1b[0m"

# Bidirectional marks, embeddings, overrides and isolates, line and paragraph separators, and
# invisible characters that make two different names look the same.
_HIDDEN = (0x061C, *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF)


def _build_escapes() -> dict[int, str]:
    escapes = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
    escapes.update({code: f"\\u{code:04x}" for code in _HIDDEN})
    escapes.update({ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"})
    return escapes


_ESCAPES = _build_escapes()


def escape(text: str) -> str:
    """Make control, bidirectional and invisible characters visible; the result is one line."""
    if text.isascii() and text.isprintable():
        return text
    text = text.translate(_ESCAPES)
    # Lone surrogates stand for bytes that are not UTF-8 (file names).
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal; a closed one is not."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def colours(stream: TextIO) -> bool:
    """Whether colour is welcome: a capable terminal, and no NO_COLOR (https://no-color.org)."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and is_terminal(stream)


def out(text: str, *, end: str = "\n") -> None:
    """Write a result to stdout; on a terminal each of its lines is escaped.

    Raises:
        OSError: stdout is closed, full, or nobody reads it any more.
    """
    stream = sys.stdout
    if is_terminal(stream):
        text = "\n".join(map(escape, text.split("\n")))
    text += end
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def say(command: str, text: str, *, error: bool = False) -> None:
    """Write one message line `command: text` to stderr.

    A message that cannot be written is lost: it must not change what the command does.
    """
    stream = sys.stderr
    head = f"{escape(command)}:"
    if error and colours(stream):
        head = f"{_RED}{head}{_RESET}"
    try:
        stream.write(f"{head} {escape(text)}\n")
        stream.flush()
    except (OSError, ValueError):
        return


def table(rows: Iterable[Sequence[str]], header: Sequence[str] | None = None) -> None:
    """Write rows in columns, two spaces apart; every cell is escaped, tabs and newlines too."""
    lines = [[escape(cell) for cell in row] for row in rows]
    if header is not None:
        lines.insert(0, list(header))
    if not lines:
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = "  ".join(f"{{:{width}}}" for width in widths).format
    out("\n".join(form(*line).rstrip() for line in lines))


def emit_json(value: object, pretty: bool = False) -> None:
    """Write a JSON document and a newline; ASCII only, so nothing in it reaches the terminal."""
    import json

    if pretty:
        out(json.dumps(value, indent=2))
    else:
        out(json.dumps(value, separators=(",", ":")))


def show_text(text: str) -> None:
    """Write text of our own (help) to stderr as it stands."""
    sys.stderr.write(f"{text}\n")
