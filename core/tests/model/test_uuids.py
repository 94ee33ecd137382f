"""Pod UUIDs and their prefixes (row M20: traversal)."""

from __future__ import annotations

import uuid

import pytest

from podctl.errors import Ambiguous, InvalidInput, NotFound
from podctl.model import uuids

ONE = "6733c088-a507-4694-aabf-edbe4fc5266f"
TWO = "6733c0aa-a507-4694-aabf-edbe4fc5266f"


def test_new_uuids_are_random_and_of_version_4() -> None:
    made = {uuids.new_uuid() for _ in range(200)}
    assert len(made) == 200
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)
        assert uuids.is_uuid(text)


def test_uuids_are_lower_cased() -> None:
    assert uuids.check_uuid(ONE.upper()) == ONE


HOSTILE = [
    "../" + ONE[3:], "..", ".", "/", f"{ONE}/..", f"{ONE}\n", f"{ONE}\0", ONE[:-1], ONE + "0",
    ONE.replace("-", ""), ONE.replace("-", "/"), "g" + ONE[1:], "-" + ONE[1:], "{" + ONE + "}",
    "6733c088-a507-4694-aabf-../../../..", "\uff16" + ONE[1:], "urn:uuid:" + ONE,
]  # fmt: skip


@pytest.mark.parametrize("text", ["", *HOSTILE])
def test_what_is_no_uuid(text: str) -> None:
    with pytest.raises(InvalidInput):
        uuids.check_uuid(text)


@pytest.mark.parametrize("text", [h for h in HOSTILE if h.strip() not in (ONE, ONE[:-1])])
def test_what_is_no_prefix(text: str) -> None:
    with pytest.raises(InvalidInput):
        uuids.check_prefix(text)


@pytest.mark.parametrize("text", ["6", "6733C088", " 6733c088-\n", "6733c088-a507", ONE])
def test_prefixes_find_their_uuid(text: str) -> None:
    found = uuids.match_uuid(text, [ONE, "ffffffff-a507-4694-aabf-edbe4fc5266f"])
    assert found == ONE


def test_no_match_empty_and_ambiguous() -> None:
    with pytest.raises(NotFound, match='no matches found for "ab"'):
        uuids.match_uuid("ab", [ONE, TWO])
    with pytest.raises(InvalidInput, match="UUID cannot be empty"):
        uuids.match_uuid("  ", [ONE, TWO])
    with pytest.raises(Ambiguous, match="ambiguous uuid, 2 matches"):
        uuids.match_uuid("6733c0", [ONE, TWO])
    assert uuids.match_uuid("6733c0", [ONE, ONE]) == ONE
