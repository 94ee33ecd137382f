"""Reading a public key file: packets sorted by what they belong to, nothing believed yet."""

from __future__ import annotations

from podctl.errors import KeyInvalid
from podctl_trust_openpgp import armor, packets
from podctl_trust_openpgp import signature as sig
from podctl_trust_openpgp.publickey import PublicKey

MAX_KEY_BYTES = 1 << 20

_MAX_PACKETS = 8192
_MAX_USER_ID = 2048
_PADDING = 21
_SKIPPED = frozenset((packets.MARKER, packets.TRUST, _PADDING))


class Component:
    """A user id or subkey with every signature that stood behind a copy of it."""

    __slots__ = ("content", "key", "signatures")

    def __init__(self, content: bytes, key: PublicKey | None) -> None:
        self.content = content
        self.key = key
        self.signatures: list[sig.Signature] = []


class KeyFile:
    """What a key file holds; copies of one user id, subkey or key are one.

    Args:
        data: the file, armored or binary.

    Attributes:
        uids: user ids by content.
        subkeys: by fingerprint.
        direct: direct-key signatures.
        revocations: of the primary key, wherever they stand.
        subkey_revocations: of any subkey: which one, only the check can tell.
        unreadable_revocations: of versions that cannot be checked.

    Raises:
        KeyInvalid: anything but one well-formed public key.
    """

    def __init__(self, data: bytes) -> None:
        self._primary: PublicKey | None = None
        self.uids: dict[bytes, Component] = {}
        self.subkeys: dict[str, Component] = {}
        self.direct: list[sig.Signature] = []
        self.revocations: list[sig.Signature] = []
        self.subkey_revocations: list[sig.Signature] = []
        self.unreadable_revocations: list[sig.UnsupportedVersion] = []
        self.add(data)

    @property
    def primary(self) -> PublicKey:
        """The key that everything else in the file is signed by."""
        assert self._primary is not None
        return self._primary

    def add(self, data: bytes) -> None:
        """Read a file; a second one must be another copy of the same key."""
        here: Component | None = None
        seen_primary = False
        for piece in armor.unwrap(data, armor.PUBLIC_KEY, max_bytes=MAX_KEY_BYTES):
            for tag, body in packets.packets(piece, what="public key file", limit=_MAX_PACKETS):
                if tag == packets.PUBLIC_KEY:
                    if seen_primary:
                        raise KeyInvalid("file holds more than one public key")
                    seen_primary = True
                    self._add_primary(body)
                elif not seen_primary:
                    raise KeyInvalid(f"no public key: file starts with {packets.packet_name(tag)}")
                elif tag == packets.SIGNATURE:
                    self._add_signature(body, here)
                elif (component := self._component(tag, body)) is not None:
                    here = component

    def _add_primary(self, body: bytes) -> None:
        key = PublicKey(body)
        if self._primary is not None and self._primary.fingerprint != key.fingerprint:
            raise KeyInvalid("two different public keys where one was expected")
        self._primary = key

    def _component(self, tag: int, body: bytes) -> Component | None:
        """Return the component that the signatures after this packet belong to."""
        if tag == packets.USER_ID:
            if len(body) > _MAX_USER_ID:
                raise KeyInvalid(f"public key file has a user id of more than {_MAX_USER_ID} bytes")
            return self.uids.setdefault(body, Component(body, None))
        if tag == packets.USER_ATTRIBUTE:
            # A photo says nothing here; its signatures are kept away from the user ids.
            return Component(body, None)
        if tag == packets.PUBLIC_SUBKEY:
            key = PublicKey(body)
            return self.subkeys.setdefault(key.fingerprint, Component(body, key))
        if tag in _SKIPPED or tag >= packets.FIRST_NONCRITICAL:
            return None
        raise KeyInvalid(f"public key file holds {packets.packet_name(tag)}")

    def _add_signature(self, body: bytes, here: Component | None) -> None:
        try:
            signature = sig.parse_signature(body)
        except sig.UnsupportedVersion as other:
            # Kept only if it may be a revocation: what cannot be checked cannot be overlooked.
            if other.kind in (sig.KEY_REVOCATION, sig.SUBKEY_REVOCATION):
                self.unreadable_revocations.append(other)
            return
        except KeyInvalid as error:
            raise KeyInvalid(
                f"public key file: {error.message}",
                hint="gpg --export --export-options export-minimal leaves foreign signatures out",
            ) from None
        if signature.kind == sig.KEY_REVOCATION:
            self.revocations.append(signature)
        elif signature.kind == sig.SUBKEY_REVOCATION:
            self.subkey_revocations.append(signature)
        elif signature.kind == sig.DIRECT_KEY:
            self.direct.append(signature)
        elif here is not None:
            here.signatures.append(signature)
