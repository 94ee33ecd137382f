"""Words of the command line (and lines of environment files) into values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import InvalidInput, UsageError
from podctl.model.manifest import environment_from_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable


def split_settings(flag: str, text: str, known: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Split `head,key=value,...`; a comma inside a value is written `\\,`.

    Raises:
        UsageError: a part is no `key=value`, or its key unknown or given twice.
    """
    known = tuple(known)
    head, *pairs = _split_commas(text)
    settings: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in known:
            raise UsageError(f"{flag} {text!r}: unknown parameter {key!r}", hint=" ".join(known))
        if key in settings:
            raise UsageError(f"{flag} {text!r}: parameter {key} given twice")
        settings[key] = value
    return head, settings


def _split_commas(text: str) -> list[str]:
    parts = text.replace("\\,", "\0").split(",")
    return [part.replace("\0", ",") for part in parts]


def optional_boolean(text: str | None, key: str) -> bool | None:
    """Read what Go's strconv.ParseBool reads; None stays None.

    Raises:
        InvalidInput: it is neither true nor false.
    """
    if text is None:
        return None
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidInput(f"{key} {text!r} must be true or false")


def parse_boolean(text: str, flag: str) -> bool:
    """Read the value of a boolean flag.

    Raises:
        UsageError: it is neither true nor false.
    """
    try:
        return bool(optional_boolean(text, flag))
    except InvalidInput as error:
        raise UsageError(error.message) from None


def optional_integer(text: str | None, key: str) -> int | None:
    """Read a number without sign; None stays None.

    Raises:
        InvalidInput: it is none.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise InvalidInput(f"{key} {text[:32]!r} must be a number")
    return int(text)


def environment_from_texts(texts: Iterable[str], flag: str = "--set-env") -> dict[str, str]:
    """Read `NAME=VALUE` words.

    Raises:
        UsageError: one has no `=` or a bad name, or a name appears twice.
    """
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{flag} {text!r}: write NAME=VALUE")
        if not _is_text(text):
            # A pod's manifest is JSON.
            raise UsageError(f"{flag} {text!r}: not UTF-8 text")
        pairs.append((name, value))
    try:
        return environment_from_pairs(pairs)
    except InvalidInput as error:
        raise UsageError(f"{flag}: {error.message}") from None


def _is_text(word: str) -> bool:
    """Whether a word of the command line was UTF-8 (os.fsdecode)."""
    return not any("\udc80" <= char <= "\udcff" for char in word)


def environment_from_file(data: bytes, path: str) -> dict[str, str]:
    """Read the text of a file for --set-env-file: `NAME=VALUE` lines; `#` and `;` begin comments.

    Raises:
        UsageError: a line is malformed or repeats a name; the message names file and line.
    """
    environment: dict[str, str] = {}
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text") from None
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise UsageError(f"{path}:{number}: {line[:64]!r} is not NAME=VALUE")
        if name in environment:
            raise UsageError(f"{path}:{number}: {name} appears twice")
        try:
            environment.update(environment_from_pairs([(name, value)]))
        except InvalidInput as error:
            raise UsageError(f"{path}:{number}: {error.message}") from None
    return environment
