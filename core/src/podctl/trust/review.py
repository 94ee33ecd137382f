"""Taking a public key into the key store, after somebody looked at its fingerprint."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from podctl.errors import Refused
from podctl.trust.checking import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.model.trusting import KeyDescription
    from podctl.trust.checking import KeyParser
    from podctl.trust.keystore import KeyStore

QUESTION = "Are you sure you want to trust this key (yes/no)?"


def grouped(fingerprint: str) -> str:
    """Show a fingerprint in groups of four, with a wider gap in the middle, as gpg does."""
    text = fingerprint.upper()
    groups = [text[i : i + 4] for i in range(0, len(text), 4)]
    half = (len(groups) + 1) // 2
    return " ".join(groups[:half]) + "  " + " ".join(groups[half:])


def describe_lines(prefix: str | None, location: str, key: KeyDescription) -> list[str]:
    """Return what a reviewer sees: where the key is from, its fingerprints and identities."""
    scope = "root key: trusted for every image" if prefix is None else f'prefix: "{prefix}"'
    lines = [scope, f'key: "{location}"', f"key fingerprint is: {grouped(key.fingerprint)}"]
    lines += [f"    subkey fingerprint: {grouped(subkey)}" for subkey in key.subkeys]
    lines += [f"    {identity}" for identity in key.identities]
    if key.revoked:
        lines.append("    this key is revoked: nothing it signed will be accepted")
    return lines


def can_ask() -> bool:
    """Whether a person sits at both ends of the question."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def ask(say: Callable[[str], None]) -> bool:
    """Ask until the answer is exactly yes or no; an end of input is a no."""
    while True:
        say(QUESTION)
        answer = sys.stdin.readline()
        if answer.strip() == "yes" and answer:
            return True
        if answer.strip() == "no" or not answer:
            return False
        say("Please enter 'yes' or 'no'")


def take_key(
    keystore: KeyStore,
    parse: KeyParser,
    data: bytes,
    *,
    prefix: str | None,
    location: str,
    review: bool,
    say: Callable[[str], None],
) -> bool:
    """Show one key, ask if `review`, and store it. Returns whether it was added.

    Raises:
        KeyInvalid: not exactly one public key.
        Refused: review was wanted and nobody is there to answer.
    """
    key = describe(parse, data)
    for line in describe_lines(prefix, location, key):
        say(line)
    if review:
        if not can_ask():
            target = "--root" if prefix is None else f'--prefix "{prefix}"'
            raise Refused(
                "unable to ask user to review fingerprint due to lack of tty",
                hint=f"check the fingerprint, then run: podctl trust {target} "
                "--skip-fingerprint-review, or pass --trust-keys-from-https",
            )
        if not ask(say):
            say(f'not trusting "{location}"')
            return False
    how = "after" if review else "without"
    scope = "every image (root key)" if prefix is None else f'prefix "{prefix}"'
    say(f'Trusting "{location}" for {scope} {how} fingerprint review.')
    path = keystore.add(prefix, key.fingerprint, data)
    if prefix is None:
        say(f'Added root key at "{path}"')
    else:
        say(f'Added key for prefix "{prefix}" at "{path}"')
    return True
