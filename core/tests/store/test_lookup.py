"""Finding images: by ID prefix, by name and labels, and with neighbours that are damaged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from podctl.errors import Ambiguous, NotFound, StoreCorrupt, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.store import ImageRecord, Store

    Put = Callable[..., ImageRecord]


def found(store: Store, name: str, labels: dict[str, str]) -> str | None:
    """Key of what `find` finds."""
    record = store.find(name, labels)
    return None if record is None else record.key


def test_an_empty_store_has_nothing_and_is_not_created(store: Store) -> None:
    assert store.images() == []
    assert store.find("example.com/app", {}) is None
    with pytest.raises(NotFound, match="no image IDs found"):
        store.resolve_key("sha512-ab")
    assert not os.path.exists(store.layout.top)


def test_a_prefix_of_two_digits_or_more_names_an_image(store: Store, put: Put) -> None:
    record = put(store, "example.com/app")
    assert store.resolve_key(record.key) == record.key
    assert store.resolve_key(record.key[:9]) == record.key
    # A full SHA-512 is cut to what the store keeps.
    assert store.resolve_key(record.layers[0]) == record.key


@pytest.mark.parametrize(
    ("prefix", "error", "text"),
    [
        ("sha512-a", UsageError, "image ID too short"),
        ("sha512-", UsageError, "image ID too short"),
        ("sha256-abcdef", UsageError, "wrong key prefix"),
        ("abcdef", UsageError, "wrong key prefix"),
        ("sha512-zz", NotFound, "no image IDs found"),
        ("sha512-../..", NotFound, "no image IDs found"),
    ],
)
def test_what_is_no_prefix_is_refused(
    store: Store, put: Put, prefix: str, error: type[Exception], text: str
) -> None:
    put(store, "example.com/app")
    with pytest.raises(error, match=text):
        store.resolve_key(prefix)


def test_a_prefix_of_several_images_is_ambiguous(store: Store, put: Put) -> None:
    keys: dict[str, str] = {}
    for count in range(600):
        key = put(store, "example.com/app", str(count).encode()).key
        twin = keys.setdefault(key[:9], key)
        if twin != key:
            with pytest.raises(Ambiguous, match=f'ambiguous image ID: "{key[:9]}"'):
                store.resolve_key(key[:9])
            return
    pytest.fail("no two images share two digits")


def test_every_label_asked_for_must_be_there(store: Store, put: Put) -> None:
    labels = {"version": "1", "os": "linux", "arch": "amd64"}
    record = put(store, "example.com/app", labels=labels)
    assert found(store, "example.com/app", {}) == record.key
    assert found(store, "example.com/app", {"os": "linux", "arch": "amd64"}) == record.key
    assert store.find("example.com/app", {"arch": "aarch64"}) is None
    assert store.find("example.com/app", {"flavour": "x"}) is None
    assert store.find("example.com/ap", {}) is None


def test_without_a_version_the_latest_wins_then_the_newest(store: Store, put: Put) -> None:
    put(store, "example.com/app", b"1", labels={"version": "1"})
    second = put(store, "example.com/app", b"2", labels={"version": "2"})
    assert found(store, "example.com/app", {}) == second.key
    latest = put(store, "example.com/app", b"3", labels={"version": "3"}, latest=True)
    fourth = put(store, "example.com/app", b"4", labels={"version": "4"})
    assert found(store, "example.com/app", {}) == latest.key
    # With a version the flag does not count.
    again = put(store, "example.com/app", b"5", labels={"version": "4"})
    assert found(store, "example.com/app", {"version": "4"}) == again.key
    assert fourth.key != again.key


def test_a_damaged_neighbour_is_told_of_and_hides_nothing(store: Store, put: Put) -> None:
    good = put(store, "example.com/good")
    bad = put(store, "example.com/bad")
    with open(store.layout.path(f"cas/images/{bad.key}/record.json"), "w") as file:
        file.write("{")
    told: list[str] = []
    assert [record.key for record in store.images(told.append)] == [good.key]
    assert len(told) == 1
    assert bad.key in told[0]
    assert found(store, "example.com/good", {}) == good.key
    with pytest.raises(StoreCorrupt, match="fsck"):
        store.image(bad.key)


def test_importing_again_renews_the_record_and_keeps_sizes(store: Store, put: Put) -> None:
    first = put(store, "example.com/app", latest=True, signature=b"one")
    store.set_tree_size(first.key, 12345)
    again = put(store, "example.com/app", signature=b"two")
    assert again.key == first.key
    assert store.image(first.key).tree_size == 12345
    assert store.image(first.key).size == first.size
    assert store.image(first.key).imported_at > first.imported_at
    assert not store.image(first.key).latest
    assert store.signature(first.key) == b"two"
    assert len(store.images()) == 1


def test_using_an_image_is_noted(store: Store, put: Put) -> None:
    record = put(store, "example.com/app")
    path = store.layout.path(f"cas/images/{record.key}/record.json")
    os.utime(path, (1, 1))
    assert store.image(record.key).last_used == 1
    store.touch(record.key)
    assert store.image(record.key).last_used > record.imported_at - 60
    assert store.image(record.key)._replace(last_used=0) == record._replace(last_used=0)
    store.touch("sha512-" + "0" * 64)  # gone meanwhile: no reason to fail
