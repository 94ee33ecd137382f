"""Records: what is accepted, and that damage to any of their bytes shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import Refused, StoreCorrupt
from podctl.store.records import (
    MAX_LAYERS,
    ImageRecord,
    RemoteRecord,
    Verification,
    check_image,
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


# -- layered images --------------------------------------------------------------------------------

LAYER, BLOB = f"sha256-{DIGITS[:64]}", f"sha256:{DIGITS[64:]}"
LAYERED = RECORD._replace(
    format="oci", layers=(LAYER, LAYER), blobs=(BLOB, BLOB), document=f"sha256:{'d' * 64}"
)


def test_a_layered_image_is_its_layers_and_its_document() -> None:
    assert read_image(dump(LAYERED)) == LAYERED
    assert LAYERED.layered
    assert not RECORD.layered
    assert LAYERED.needs == (BLOB, BLOB, LAYERED.document)
    most = LAYERED._replace(layers=(LAYER,) * MAX_LAYERS, blobs=(BLOB,) * MAX_LAYERS)
    assert read_image(dump(most)) == most
    check_image(most)


WRONG = [
    RECORD._replace(document=LAYERED.document),
    LAYERED._replace(document=""),
    LAYERED._replace(document="sha256:../../etc"),
    LAYERED._replace(document=LAYER),
    LAYERED._replace(blobs=(BLOB,)),
    LAYERED._replace(blobs=()),
    LAYERED._replace(layers=()),
    LAYERED._replace(layers=(LAYER, RECORD.layers[0])),
    LAYERED._replace(layers=(RECORD.layers[0], LAYER)),
    LAYERED._replace(layers=(LAYER, "sha256-../../etc")),
    LAYERED._replace(layers=(LAYER, BLOB)),
    LAYERED._replace(layers=(LAYER,) * (MAX_LAYERS + 1), blobs=(BLOB,) * (MAX_LAYERS + 1)),
    LAYERED._replace(name="x" * (1 << 20)),
]


@pytest.mark.parametrize("record", WRONG)
def test_what_no_record_may_say_is_neither_read_nor_written(record: ImageRecord) -> None:
    """A record that was written and cannot be read would keep everything from being collected."""
    if len(dump(record)) < 1 << 20:
        with pytest.raises(StoreCorrupt):
            read_image(dump(record))
    with pytest.raises(Refused, match="cannot be recorded"):
        check_image(record)


def test_roots_note_holds_for_the_layers_root_has_read() -> None:
    note = NOTE._replace(name=LAYERED.name, labels=LAYERED.labels, layers=LAYERED.layers)
    assert parse_verification(dump(note), "v") == note
    assert note.agrees(LAYERED)
    other = f"sha256-{'e' * 64}"
    for changed in (
        LAYERED._replace(layers=(LAYER, other)),
        LAYERED._replace(layers=(LAYER,)),
        LAYERED._replace(layers=(LAYER, LAYER, LAYER)),
        LAYERED._replace(name="example.com/other"),
        LAYERED._replace(labels={}),
    ):
        assert not note.agrees(changed)
