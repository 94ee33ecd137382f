"""WWW-Authenticate, read strictly: what a registry wants before it answers (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import FetchFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

#: bytes of one header, all challenges together.
MAX_HEADER = 8192
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
#: The beginning of a challenge, or of a further parameter. Each part can match in one way only.
_SCHEME = re.compile(rf"[ \t,]*({_TOKEN})(?:[ \t]+|[ \t]*(?=,|$))")
_PARAMETER = re.compile(
    rf'[ \t,]*({_TOKEN})[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")[ \t]*(?=,|$)'
)
_ESCAPE = re.compile(r"\\(.)")


class Challenge(NamedTuple):
    """One way to authenticate.

    Args:
        scheme: `bearer`, `basic` or another, in lower case.
        parameters: names in lower case -> values.
    """

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(value: str, where: str) -> list[Challenge]:
    """Read a WWW-Authenticate header; several of them arrive joined by commas.

    Args:
        where: who sent it, for messages.

    Raises:
        FetchFailed: it is too long, holds control characters (what is left of CR LF), is
            malformed, or says one thing twice.
    """
    if len(value) > MAX_HEADER:
        raise FetchFailed(f"{where}: WWW-Authenticate is longer than {MAX_HEADER} bytes")
    if not value.replace("\t", " ").isprintable():
        raise _malformed(where)
    challenges: list[Challenge] = []
    position = 0
    while value[position:].strip(" \t,"):
        position = _read(value, position, challenges, where)
    return challenges


def _read(value: str, position: int, challenges: list[Challenge], where: str) -> int:
    """Read one parameter or the beginning of one challenge; return where the next begins."""
    found = _PARAMETER.match(value, position)
    if found is not None:
        name, word, quoted = found.groups()
        text = word if word is not None else _ESCAPE.sub(r"\1", quoted)
        if not challenges or name.lower() in challenges[-1].parameters:
            raise _malformed(where)
        parameters = {**challenges[-1].parameters, name.lower(): text}
        challenges[-1] = challenges[-1]._replace(parameters=parameters)
        return found.end()
    found = _SCHEME.match(value, position)
    if found is None:
        raise _malformed(where)
    challenges.append(Challenge(found.group(1).lower(), {}))
    return found.end()


def _malformed(where: str) -> FetchFailed:
    return FetchFailed(f"{where}: WWW-Authenticate is malformed")
