"""What the store knows of an image, a URL and a verification, as JSON files.

Records below `cas` can be written by every member of the group: they are parsed as input from a
stranger, and root holds them against its own notes before it acts on them.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import Refused, StoreCorrupt

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RECORD = 1 << 20
#: Layers of one image, those that stand in it several times included.
MAX_LAYERS = 1000
#: bytes before what the checksum covers
_SEAL = len(b'{"crc32": "00000000", ')
_HEX = frozenset("0123456789abcdef")
#: Seconds since the epoch beyond which a time stamp is damage (the year 9999).
_END_OF_TIME = 253_402_300_799
_MAX_SIZE = 1 << 62


class ImageRecord(NamedTuple):
    """One image of the store.

    Args:
        key: `sha512-` and 64 digits, the image ID.
        format: name of its format, e.g. `aci`.
        name, labels: from its manifest.
        layers: digests of the uncompressed layers, lowest first: one of `sha512-` and 128 digits
            for an archive, any number of `sha256-` and 64 digits for a layered image.
        blobs: `sha256:` digests of the layers' bytes as published, in the same order.
        blob_size: the number of these bytes in all.
        size: bytes of the uncompressed layers.
        imported_at: seconds since the epoch.
        last_used: the same; from the record's time stamp, 0 when it was not read.
        latest: whether it was fetched without asking for a version.
        source: where it came from (URL or path).
        signed: whether its detached signature is kept.
        signature_digest: SHA-256 of that signature, empty without one.
        tree_size: bytes of rendered trees that exist for this image alone.
        document: `sha256:` digest of the blob that is a layered image's document; else empty.
    """

    key: str
    format: str
    name: str
    labels: Mapping[str, str]
    layers: tuple[str, ...]
    blobs: tuple[str, ...]
    blob_size: int
    size: int
    imported_at: float
    last_used: float
    latest: bool
    source: str
    signed: bool
    signature_digest: str = ""
    tree_size: int = 0
    document: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """All blobs that belong to the image."""
        return (*self.blobs, self.document) if self.document else self.blobs

    @property
    def blob(self) -> str:
        """The bytes of an image that is one archive."""
        return self.blobs[0]

    @property
    def layered(self) -> bool:
        """Whether it is documents and layers, not one archive."""
        return not self.layers[0].startswith("sha512-")


class RemoteRecord(NamedTuple):
    """What a URL last delivered, and how long it said that would hold.

    Args:
        max_age: seconds after `downloaded_at` without asking again.
    """

    url: str
    key: str
    etag: str | None
    max_age: int
    downloaded_at: float


class Verification(NamedTuple):
    """Root's note: why an image may be used. Lies where only root can write.

    Args:
        scheme, fingerprint: which key's signature was good; empty when `insecure`.
        name, labels, layers: of the image, as root read them from its manifest.
        key_path, key_digest: the key file that counted then, and its SHA-256.
        expires: when signature or key expire, seconds since the epoch; None for never.
        insecure: nothing was verified, the user waived it.
    """

    scheme: str
    fingerprint: str
    name: str
    labels: Mapping[str, str]
    key_path: str
    key_digest: str
    expires: int | None
    verified_at: int
    insecure: bool
    layers: tuple[str, ...] = ()

    @classmethod
    def unverified(
        cls, name: str, labels: Mapping[str, str], layers: tuple[str, ...] = ()
    ) -> Verification:
        """The note for an image taken in with --insecure-options=image."""
        return cls("", "", name, dict(labels), "", "", None, 0, insecure=True, layers=layers)

    def agrees(self, record: ImageRecord) -> bool:
        """Whether a record, which the group can write, says what root read."""
        return (
            record.name == self.name
            and dict(record.labels) == dict(self.labels)
            and (not record.layered or record.layers == self.layers)
        )


def dump(record: NamedTuple) -> bytes:
    """Serialise any of the records; `last_used` is not part of a file's content."""
    value = record._asdict()
    value.pop("last_used", None)
    return seal(value)


def seal(value: dict[str, Any], *, ordered: bool = False) -> bytes:
    """A JSON object that begins with the CRC-32 of all that follows, so that damage shows.

    It is no protection against a person: who may write the file may write the sum.

    Args:
        ordered: whether the order of members says something; else it is the alphabet's.
    """
    rest = json.dumps(value, sort_keys=not ordered).encode()[1:] + b"\n"
    return b'{"crc32": "%08x", %b' % (zlib.crc32(rest), rest)


def unseal(data: bytes) -> dict[str, Any]:
    """Read what `seal` wrote.

    Raises:
        ValueError: it is damaged, or something else.
    """
    head, rest = data[:_SEAL], data[_SEAL:]
    if head != b'{"crc32": "%08x", ' % zlib.crc32(rest):
        raise ValueError("its checksum is wrong")
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def parse_image(data: bytes, what: str, key: str, last_used: float) -> ImageRecord:
    """Read the record of image `key`.

    Args:
        what: its path, for the message.

    Raises:
        StoreCorrupt: it is no valid record, or that of another image.
    """
    try:
        record = _parse_image(_object(data, what), last_used)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _corrupt(what, error) from error
    if record.key != key:
        raise _corrupt(what, "it is the record of another image")
    return record


def _parse_image(value: dict[str, Any], last_used: float) -> ImageRecord:
    record = ImageRecord(
        key=_digest(value["key"], "sha512-", 64),
        format=_word(value["format"]),
        name=_text(value["name"]),
        labels=_text_map(value["labels"]),
        layers=_layers(value["layers"], value["key"]),
        blobs=tuple(_digest(blob, "sha256:", 64) for blob in value["blobs"]),
        blob_size=_count(value["blob_size"]),
        size=_count(value["size"]),
        imported_at=_time(value["imported_at"]),
        last_used=last_used,
        latest=_flag(value["latest"]),
        source=_text(value["source"]),
        signed=_flag(value["signed"]),
        signature_digest=_text(value["signature_digest"]),
        tree_size=_count(value.get("tree_size", 0)),
        document=value["document"] and _digest(value["document"], "sha256:", 64),
    )
    if len(record.blobs) != len(record.layers):
        raise ValueError("it has not one blob for each layer")
    if record.layered != bool(record.document):
        raise ValueError("it has no document, or one too many")
    return record


def check_image(record: ImageRecord) -> None:
    """Refuse to write a record that could not be read again.

    Raises:
        Refused: there is something in it, or too much, that no record may hold.
    """
    data = dump(record)
    try:
        if len(data) > MAX_RECORD:
            raise ValueError(f"it has more than {MAX_RECORD} bytes")
        _parse_image(_object(data, record.key), record.last_used)
    except (StoreCorrupt, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(f'image "{record.name}" cannot be recorded: {error}') from None


def _layers(value: Any, key: Any) -> tuple[str, ...]:
    """An archive is known by the digest of its one layer, so that a record cannot pass off
    another's; the layers of a layered image are in its document, whose digest is its key."""
    if not value or len(value) > MAX_LAYERS:
        raise ValueError("it has no layers, or too many")
    if str(value[0]).startswith("sha512-"):
        if len(value) != 1 or not _digest(value[0], "sha512-", 128).startswith(str(key)):
            raise ValueError("its layer is not the image")
        return (str(value[0]),)
    return tuple(_digest(layer, "sha256-", 64) for layer in value)


def parse_remote(data: bytes, what: str) -> RemoteRecord:
    """Read what was last fetched from a URL.

    Raises:
        StoreCorrupt: it is no valid record.
    """
    value = _object(data, what)
    try:
        return RemoteRecord(
            url=_text(value["url"]),
            key=_digest(value["key"], "sha512-", 64),
            etag=None if value["etag"] is None else _text(value["etag"]),
            max_age=_count(value["max_age"]),
            downloaded_at=_time(value["downloaded_at"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt(what, error) from error


def parse_verification(data: bytes, what: str) -> Verification:
    """Read root's note.

    Raises:
        StoreCorrupt: it is damaged.
    """
    value = _object(data, what)
    try:
        return Verification(
            scheme=_text(value["scheme"]),
            fingerprint=_text(value["fingerprint"]),
            name=_text(value["name"]),
            labels=_text_map(value["labels"]),
            key_path=_text(value["key_path"]),
            key_digest=_text(value["key_digest"]),
            expires=None if value["expires"] is None else int(_time(value["expires"])),
            verified_at=int(_time(value["verified_at"])),
            insecure=_flag(value["insecure"]),
            layers=tuple(_text(layer) for layer in value.get("layers", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _corrupt(what, error) from error


def check_key(key: str) -> str:
    """Refuse what is no full image ID, before it becomes part of a path.

    Raises:
        StoreCorrupt: it is none.
    """
    try:
        return _digest(key, "sha512-", 64)
    except ValueError as error:
        raise StoreCorrupt(f'"{key}" is no image ID') from error


def is_layer(text: str) -> bool:
    """Whether `text` names a layer."""
    return is_digest(text, "sha512-", 128) or is_digest(text, "sha256-", 64)


def is_digest(text: str, prefix: str, digits: int) -> bool:
    """Whether `text` is `prefix` and exactly so many lower-case hexadecimal digits."""
    digest = text.removeprefix(prefix)
    return text.startswith(prefix) and len(digest) == digits and _HEX.issuperset(digest)


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        return unseal(data)
    except ValueError as error:
        raise _corrupt(what, error) from error


def _corrupt(what: str, reason: object) -> StoreCorrupt:
    if isinstance(reason, KeyError):
        reason = f"{reason} is missing"
    return StoreCorrupt(f'record "{what}" is damaged: {reason}', hint="run podctl fsck --repair")


def _digest(value: object, prefix: str, digits: int) -> str:
    if not isinstance(value, str) or not is_digest(value, prefix, digits):
        raise ValueError(f"{str(value)[:80]!r} is no {prefix} digest")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:80]!r} is no string")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{str(value)[:80]!r} is neither true nor false")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_SIZE:
        raise ValueError(f"{str(value)[:80]!r} is no size")
    return value


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:80]!r} is no time")
    # Also false for NaN, which Python's JSON accepts.
    if not 0 <= value <= _END_OF_TIME:
        raise ValueError(f"{str(value)[:80]!r} is no time")
    return value


def _word(value: object) -> str:
    text = _text(value)
    if not text or len(text) > 64 or not text.replace("-", "a").isalnum():
        raise ValueError(f"{text[:80]!r} is no format name")
    return text


def _text_map(value: Any) -> dict[str, str]:
    return {_text(name): _text(text) for name, text in value.items()}
