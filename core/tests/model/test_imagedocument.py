"""The documents of a layered image as one value, and signatures: read as written, or refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podctl.errors import ManifestInvalid
from podctl.model import imagedocument
from podctl.model.imagedocument import (
    DOCUMENT_START,
    MAX_DOCUMENT,
    MAX_PART,
    MAX_SIGNATURE_SET,
    MAX_SIGNATURES,
    ImageDocument,
    RegistrySignature,
    digest_of,
    dump_signatures,
    parse_document,
    parse_signatures,
)

REFERENCE = "registry.example/team/app:1"
MANIFEST = b'{\n "schemaVersion": 2,\t"x": "\xc3\xbc\\u00fc"}'
CONFIG = b'{"architecture": "amd64", "config": {"Cmd": ["/bin/true"]}}'
INDEX = b'{"manifests": []}'
DOCUMENT = ImageDocument(REFERENCE, None, MANIFEST, CONFIG)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(reference=texts, index=st.none() | texts, manifest=texts, config=texts)
def test_documents_come_back_byte_for_byte(
    reference: str, index: str | None, manifest: str, config: str
) -> None:
    document = ImageDocument(
        reference, None if index is None else index.encode(), manifest.encode(), config.encode()
    )
    data = document.dump()
    assert parse_document(data) == document
    assert data.startswith(DOCUMENT_START)
    assert document.dump() == data


def test_equal_documents_are_equal_bytes_and_others_are_not() -> None:
    """So that their digest may be an image's ID."""
    same = ImageDocument(REFERENCE, None, bytes(MANIFEST), bytes(CONFIG))
    assert same.dump() == DOCUMENT.dump()
    others = [
        DOCUMENT._replace(reference=REFERENCE + "0"),
        DOCUMENT._replace(image_index=b""),
        DOCUMENT._replace(image_index=INDEX),
        DOCUMENT._replace(manifest=MANIFEST + b" "),
        DOCUMENT._replace(config=CONFIG + b" "),
        DOCUMENT._replace(manifest=CONFIG, config=MANIFEST),
    ]
    found = {hashlib.sha512(one.dump()).hexdigest() for one in [DOCUMENT, *others]}
    assert len(found) == 1 + len(others)


def test_signatures_may_be_over_index_and_manifest() -> None:
    assert DOCUMENT.digests() == {digest_of(MANIFEST): MANIFEST}
    both = DOCUMENT._replace(image_index=INDEX).digests()
    # The index first: it is what a tag leads to.
    assert list(both) == [digest_of(INDEX), digest_of(MANIFEST)]
    assert digest_of(b"") == f"sha256:{hashlib.sha256().hexdigest()}"


def changed(**fields: Any) -> bytes:
    """The document with members of its JSON replaced, written as it is written."""
    value = {**json.loads(DOCUMENT.dump()), **fields}
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def test_control_the_document_unchanged_is_read() -> None:
    assert parse_document(changed()) == DOCUMENT


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (changed(kind="podctl.image/2"), "another kind"),
        (changed(kind=None), "kind"),
        (changed(manifest=None), "manifest"),
        (changed(config={}), "config"),
        (changed(reference=1), "reference"),
        (changed(image_index=[]), "image_index"),
        (changed(more="x"), "more"),
        (changed() + b"\n", "canonical"),
        (b" " + changed(), "canonical"),
        (changed().replace(b'","', b'", "', 1), "canonical"),
        (json.dumps(json.loads(changed()), sort_keys=True).encode(), "canonical"),
        (changed().replace(b'"kind"', b'"kind":"x","kind"', 1), "kind"),
        (changed().replace(b"registry", b"r\\u0065gistry", 1), "canonical"),
        (changed().replace(b"registry", b"r\\ud800gistry", 1), "document"),
        (changed().replace(b"registry", b"r\xffgistry", 1), "document"),
        (b"", "document"),
        (b"{}", "document"),
        (b"null", "document"),
        (b"[" * 10_000, "document"),
        (DOCUMENT_START, "document"),
    ],
)
def test_what_dump_could_not_have_written_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(ManifestInvalid, match=told):
        parse_document(data)


def test_no_flipped_bit_gives_the_same_document() -> None:
    data = DOCUMENT.dump()
    for at in range(len(data)):
        for bit in (1, 4, 0x20, 0x80):
            other = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            try:
                found = parse_document(other)
            except ManifestInvalid:
                continue
            assert found != DOCUMENT
            assert found.dump() == other


@pytest.mark.parametrize("field", ["manifest", "config", "image_index"])
def test_parts_are_text_and_not_too_large(field: str) -> None:
    def document(part: bytes) -> ImageDocument:
        parts: dict[str, Any] = {field: part}
        return DOCUMENT._replace(**parts)

    largest = document(b"x" * MAX_PART)
    assert parse_document(largest.dump()) == largest
    with pytest.raises(ManifestInvalid, match=f"over {MAX_PART} bytes"):
        document(b"x" * (MAX_PART + 1)).dump()
    with pytest.raises(ManifestInvalid, match="is no UTF-8"):
        document(b"\xff").dump()


def test_the_whole_is_not_too_large() -> None:
    """Quotes take two bytes: three parts that may be so large each may not be so together."""
    part = b'"' * MAX_PART
    with pytest.raises(ManifestInvalid, match=f"over {MAX_DOCUMENT} bytes"):
        ImageDocument(REFERENCE, part, part, part).dump()
    with pytest.raises(ManifestInvalid):
        parse_document(changed(reference="x" * MAX_DOCUMENT))


# -- signatures ------------------------------------------------------------------------------------

SIMPLE = RegistrySignature("simple", b'{"critical": {}}', "MEUCIQ==")
BUNDLE = RegistrySignature("bundle", b'{"mediaType": "x"}')


@given(
    found=st.lists(
        st.builds(
            RegistrySignature,
            kind=st.sampled_from(["simple", "bundle", "other"]),
            content=texts.map(str.encode),
            signature=texts,
        ),
        max_size=5,
    )
)
def test_signatures_come_back_in_their_order(found: list[RegistrySignature]) -> None:
    assert parse_signatures(dump_signatures(found)) == found


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"signatures": {}}',
        b'{"signatures": [1]}',
        b'{"signatures": [["simple", "x"]]}',
        b'{"signatures": [["simple", "x", null]]}',
        b'{"signatures": [["simple", "x", "y", "z"]]}',
        b'{"signatures": [{"kind": "simple"}]}',
        b'{"signatures": [], "more": 1}',
        b'{"signatures": [], "signatures": []}',
        b'{"signatures": [["simple", "\\ud800", "y"]]}',
        b'{"signatures": ' + b"[" * 10_000,
    ],
)
def test_what_are_no_signatures_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        parse_signatures(data)


def test_k14_there_cannot_be_too_many_signatures() -> None:
    most = [SIMPLE] * MAX_SIGNATURES
    data = dump_signatures(most)
    assert parse_signatures(data) == most
    with pytest.raises(ManifestInvalid, match=f"more than {MAX_SIGNATURES}"):
        dump_signatures([*most, BUNDLE])
    entry = b'["bundle","x",""],'
    with pytest.raises(ManifestInvalid, match=f"more than {MAX_SIGNATURES}"):
        parse_signatures(data.replace(b'{"signatures":[', b'{"signatures":[' + entry))


def test_k14_signatures_cannot_be_too_large() -> None:
    part = RegistrySignature("bundle", b"x" * (MAX_SIGNATURE_SET - 1000))
    assert parse_signatures(dump_signatures([part])) == [part]
    with pytest.raises(ManifestInvalid, match="bytes of signatures"):
        dump_signatures([part, part])
    with pytest.raises(ManifestInvalid):
        parse_signatures(b'{"signatures": [' + b" " * MAX_SIGNATURE_SET + b"]}")


@pytest.mark.parametrize("content", [b"a\0b", b"\xff"])
def test_content_that_could_not_be_read_again_is_not_written(content: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        dump_signatures([RegistrySignature("simple", content, "x")])


def test_the_cap_is_what_a_store_can_read() -> None:
    """What may be dumped may be read from the store."""
    from podctl.store import store

    assert imagedocument.MAX_DOCUMENT <= store.MAX_DOCUMENT
    assert imagedocument.MAX_SIGNATURE_SET <= store.MAX_SIGNATURE
