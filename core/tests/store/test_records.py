"""Records: what is accepted, and that damage to any of their bytes shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import StoreCorrupt
from podctl.store.records import (
    ImageRecord,
    RemoteRecord,
    Verification,
    dump,
    parse_image,
    parse_remote,
    parse_verification,
    seal,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DIGITS = "0123456789abcdef" * 8
KEY = f"sha512-{DIGITS[:64]}"
RECORD = ImageRecord(
    key=KEY,
    format="aci",
    name="example.com/app",
    labels={"version": "1.0", "os": "linux"},
    layers=(f"sha512-{DIGITS}",),
    blobs=(f"sha256:{DIGITS[:64]}",),
    blob_size=100,
    size=200,
    imported_at=1700000000.25,
    last_used=1700000001.5,
    latest=True,
    source="https://example.com/app.aci",
    signed=True,
    signature_digest=DIGITS[:64],
    tree_size=7,
)
REMOTE = RemoteRecord("https://example.com/app.aci", KEY, '"tag"', 60, 1700000000.0)
NOTE = Verification(
    "openpgp", "ab" * 20, "example.com/app", {}, "/etc/k", "cd" * 32, 1800000000, 1700000000, False
)


def read_image(data: bytes) -> ImageRecord:
    return parse_image(data, "record.json", KEY, RECORD.last_used)


def test_records_survive_being_written() -> None:
    assert read_image(dump(RECORD)) == RECORD
    assert parse_remote(dump(REMOTE), "r") == REMOTE
    assert parse_verification(dump(NOTE), "v") == NOTE


@pytest.mark.parametrize(
    ("record", "parse"),
    [
        (RECORD, read_image),
        (REMOTE, lambda data: parse_remote(data, "r")),
        (NOTE, lambda data: parse_verification(data, "v")),
    ],
)
def test_a_flip_in_any_byte_is_noticed(record: Any, parse: Callable[[bytes], object]) -> None:
    data = dump(record)
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(StoreCorrupt):
            parse(bytes(flipped))


def test_a_record_cut_short_or_extended_is_noticed() -> None:
    data = dump(RECORD)
    for at in range(len(data)):
        with pytest.raises(StoreCorrupt):
            read_image(data[:at])
    with pytest.raises(StoreCorrupt):
        read_image(data + b" ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", "sha512-" + "f" * 64),
        ("layers", ["sha512-" + "f" * 128]),
        ("layers", []),
        ("layers", RECORD.layers * 2),
        ("layers", ["../../etc"]),
        ("blobs", ["sha256:../../../etc/shadow"]),
        ("blobs", None),
        ("blobs", []),
        ("document", "sha256:../../../etc/shadow"),
        ("document", "sha256:" + "0" * 64),
        ("blob_size", -1),
        ("blob_size", True),
        ("size", 1 << 70),
        ("size", 1.5),
        ("imported_at", float("nan")),
        ("imported_at", float("inf")),
        ("imported_at", "1970"),
        ("imported_at", 1e300),
        ("format", "../aci"),
        ("format", ""),
        ("name", 7),
        ("labels", []),
        ("labels", {"version": 1}),
        ("latest", 1),
        ("source", None),
    ],
)
def test_a_member_cannot_write_a_record_that_is_no_record(field: str, value: object) -> None:
    content = RECORD._asdict()
    del content["last_used"]
    assert read_image(seal(content)) == RECORD
    with pytest.raises(StoreCorrupt, match=r"record\.json.*damaged"):
        read_image(seal({**content, field: value}))
    del content[field]
    with pytest.raises(StoreCorrupt, match=field):
        read_image(seal(content))


@pytest.mark.parametrize("text", ["[]", "null", "7", "{}", "[" * 100_000, '{"a":' * 50_000, ""])
def test_other_json_is_no_record(text: str) -> None:
    with pytest.raises(StoreCorrupt):
        read_image(text.encode())


def test_the_file_is_json_that_anybody_can_read() -> None:
    assert json.loads(dump(RECORD))["name"] == RECORD.name
