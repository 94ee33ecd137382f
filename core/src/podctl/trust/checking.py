"""Parsing keys and signatures where it cannot hurt: in children without privileges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podctl.errors import Ambiguous, KeyInvalid, TrustRefused
from podctl.model.trusting import KeyDescription
from podctl.sys.child import Privileges, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from podctl.trust.keystore import TrustedKey

    KeyParser = Callable[[bytes], KeyDescription]
    SignerParser = Callable[[bytes], Sequence[str]]
    Recogniser = Callable[[bytes], bool]

#: A detached signature by several keys stays far below this.
MAX_SIGNATURE_BYTES = 1 << 20


def describe(parse: KeyParser, data: bytes) -> KeyDescription:
    """Parse one public key file in a child.

    Args:
        parse: the `trust_key` call of the scheme, its modules already imported.

    Raises:
        KeyInvalid: not exactly one public key.
    """

    def work() -> Any:
        return _description_to_json(parse(data))

    return _description_from_json(_in_child(work, "key parser"))


def scheme_of(data: bytes, recognisers: Mapping[str, Recogniser | None]) -> str:
    """Return the signature scheme that a public key file is of, found in a child.

    Args:
        recognisers: the `trust_recognises` call of each scheme by its name, modules already
            imported; None for a scheme that does not say what its keys look like. One that says
            so goes before those.

    Raises:
        KeyInvalid: it is of none of them.
        Ambiguous: it can be of several.
    """

    def work() -> Any:
        sure = [name for name, call in recognisers.items() if call is not None and call(data)]
        return sure or [name for name, call in recognisers.items() if call is None]

    answer = _in_child(work, "key parser")
    found = [name for name in recognisers if name in answer]
    if not found:
        raise KeyInvalid(
            f"no public key of a signature scheme that is installed ({', '.join(recognisers)})"
        )
    if len(found) > 1:
        raise Ambiguous(f"public key may be of several signature schemes: {', '.join(found)}")
    return found[0]


def usable_keys(
    parse: KeyParser,
    signers: SignerParser,
    signature: bytes,
    keys: Sequence[TrustedKey],
    *,
    recognises: Recogniser = lambda _data: True,
) -> list[TrustedKey]:
    """Return the trusted keys that one of the signature's issuers can be.

    Called before an image is downloaded, so that a signature nobody trusted could have made costs
    no download. Issuer ids are only a filter here: the signature itself decides later. Keys of
    other schemes, which lie in the same directories, are left out.

    Raises:
        TrustRefused: a key file's name is not its key's fingerprint.
        KeyInvalid: the signature cannot be parsed.
    """

    def work() -> Any:
        issuers = [issuer.lower() for issuer in signers(signature)]
        fitting = []
        for index, key in enumerate(keys):
            if not recognises(key.data):
                continue
            description = _parse_named(parse, key)
            ids = (description.fingerprint, *description.subkeys)
            if not issuers or any(_same_key(i, known) for i in issuers for known in ids):
                fitting.append(index)
        return fitting

    found = _in_child(work, "signature parser")
    return [keys[int(index)] for index in found]


def _parse_named(parse: KeyParser, key: TrustedKey) -> KeyDescription:
    try:
        description = parse(key.data)
    except KeyInvalid as error:
        raise TrustRefused(
            f'key file "{key.path}" is no public key: {error.message}', hint="remove or replace it"
        ) from error
    if description.fingerprint != key.fingerprint:
        raise TrustRefused(
            f'fingerprint mismatch: "{key.fingerprint}:{description.fingerprint}"',
            hint=f"the key in {key.path} is not the one its name says",
        )
    return description


def _same_key(issuer: str, fingerprint: str) -> bool:
    return fingerprint == issuer or (len(issuer) == 16 and fingerprint.endswith(issuer))


def _in_child(work: Callable[[], object], name: str) -> Any:
    with spawn(work, privileges=Privileges.NONE, name=name) as child:
        return child.wait()


def _description_to_json(key: KeyDescription) -> dict[str, Any]:
    return {
        "scheme": key.scheme,
        "fingerprint": key.fingerprint,
        "identities": list(key.identities),
        "subkeys": list(key.subkeys),
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
    }


def _description_from_json(value: Any) -> KeyDescription:
    expires = value["expires"]
    return KeyDescription(
        scheme=str(value["scheme"]),
        fingerprint=_hex(value["fingerprint"]),
        identities=tuple(str(identity) for identity in value["identities"]),
        subkeys=tuple(_hex(subkey) for subkey in value["subkeys"]),
        created=int(value["created"]),
        expires=None if expires is None else int(expires),
        revoked=bool(value["revoked"]),
    )


def _hex(value: object) -> str:
    """A fingerprint becomes a file name: nothing but hexadecimal digits may come back."""
    text = str(value).lower()
    if len(text) not in (40, 64) or not set(text) <= set("0123456789abcdef"):
        raise KeyInvalid("key parser reported a fingerprint that is none")
    return text
