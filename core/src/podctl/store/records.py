"""What the store knows of an image, a URL and a verification, as JSON files.

Records below `cas` can be written by every member of the group: they are parsed as input from a
stranger, and root holds them against its own notes before it acts on them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.errors import StoreCorrupt
from podctl.sys.files import read_small

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RECORD = 1 << 20
_HEX = frozenset("0123456789abcdef")


class ImageRecord(NamedTuple):
    """One image of the store.

    Args:
        key: `sha512-` and 64 digits, the image ID.
        format: name of its format, e.g. `aci`.
        name, labels: from its manifest.
        layers: digests of the uncompressed layers, `sha512-` and 128 digits, lowest first.
        blob: `sha256:` digest of the bytes as downloaded.
        blob_size: their number.
        size: bytes of the uncompressed archive.
        imported_at: seconds since the epoch.
        last_used: the same; from the record's time stamp, 0 when it was not read.
        latest: whether it was fetched without asking for a version.
        source: where it came from (URL or path).
        signed: whether its detached signature is kept.
        tree_size: bytes of rendered trees that exist for this image alone.
    """

    key: str
    format: str
    name: str
    labels: Mapping[str, str]
    layers: tuple[str, ...]
    blob: str
    blob_size: int
    size: int
    imported_at: float
    last_used: float
    latest: bool
    source: str
    signed: bool
    tree_size: int = 0


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
        name, labels: of the image, as root read them from its manifest.
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

    @classmethod
    def unverified(cls, name: str, labels: Mapping[str, str]) -> Verification:
        """The note for an image taken in with --insecure-options=image."""
        return cls("", "", name, dict(labels), "", "", None, 0, insecure=True)


def dump(record: NamedTuple) -> bytes:
    """Serialise any of the records; `last_used` is not part of a file's content."""
    value = record._asdict()
    value.pop("last_used", None)
    return json.dumps(value, sort_keys=True).encode() + b"\n"


def load_image(path: str, key: str, last_used: float) -> ImageRecord:
    """Read the record of image `key`.

    Raises:
        StoreCorrupt: it is no valid record, or that of another image.
        FileNotFoundError: there is none.
    """
    value = _load(path)
    try:
        record = ImageRecord(
            key=str(value["key"]),
            format=_word(value["format"]),
            name=str(value["name"]),
            labels=_text_map(value["labels"]),
            layers=tuple(_digest(layer, "sha512-", 128) for layer in value["layers"]),
            blob=_digest(value["blob"], "sha256:", 64),
            blob_size=int(value["blob_size"]),
            size=int(value["size"]),
            imported_at=float(value["imported_at"]),
            last_used=last_used,
            latest=bool(value["latest"]),
            source=str(value["source"]),
            signed=bool(value["signed"]),
            tree_size=int(value.get("tree_size", 0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt(path, error) from error
    if record.key != key or not record.layers:
        raise _corrupt(path, "it is the record of another image")
    return record


def load_remote(path: str, url: str) -> RemoteRecord | None:
    """Read what was last fetched from `url`; None when there is no usable record."""
    try:
        value = _load(path)
        etag = value["etag"]
        record = RemoteRecord(
            url=str(value["url"]),
            key=_digest(value["key"], "sha512-", 64),
            etag=None if etag is None else str(etag),
            max_age=int(value["max_age"]),
            downloaded_at=float(value["downloaded_at"]),
        )
    except (FileNotFoundError, StoreCorrupt, KeyError, TypeError, ValueError):
        # Only a cache: without it the source is asked again.
        return None
    return record if record.url == url else None


def load_verification(path: str) -> Verification | None:
    """Read root's note; None when there is none or it is damaged (it is then made again)."""
    try:
        value = _load(path)
        expires = value["expires"]
        return Verification(
            scheme=str(value["scheme"]),
            fingerprint=str(value["fingerprint"]),
            name=str(value["name"]),
            labels=_text_map(value["labels"]),
            key_path=str(value["key_path"]),
            key_digest=str(value["key_digest"]),
            expires=None if expires is None else int(expires),
            verified_at=int(value["verified_at"]),
            insecure=value["insecure"] is not False,
        )
    except (FileNotFoundError, StoreCorrupt, KeyError, TypeError, ValueError):
        return None


def check_key(key: str) -> str:
    """Refuse what is no full image ID, before it becomes part of a path.

    Raises:
        StoreCorrupt: it is none.
    """
    try:
        return _digest(key, "sha512-", 64)
    except ValueError as error:
        raise StoreCorrupt(f'"{key}" is no image ID') from error


def _load(path: str) -> dict[str, Any]:
    try:
        value = json.loads(read_small(path, MAX_RECORD))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise _corrupt(path, error) from error
    if not isinstance(value, dict):
        raise _corrupt(path, "it is no JSON object")
    return value


def _corrupt(path: str, reason: object) -> StoreCorrupt:
    return StoreCorrupt(f'record "{path}" is damaged: {reason}', hint="run podctl fsck --repair")


def _digest(value: object, prefix: str, digits: int) -> str:
    text = str(value)
    digest = text.removeprefix(prefix)
    if not text.startswith(prefix) or len(digest) != digits or not _HEX.issuperset(digest):
        raise ValueError(f"{text[:80]!r} is no {prefix} digest")
    return text


def _word(value: object) -> str:
    text = str(value)
    if not text or not text.replace("-", "a").isalnum():
        raise ValueError(f"{text[:80]!r} is no format name")
    return text


def _text_map(value: Any) -> dict[str, str]:
    return {str(name): str(text) for name, text in value.items()}
