"""Which key file is in force for which name, and which directories are refused."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from podctl.errors import InvalidInput, Refused, TrustRefused
from podctl.trust.keystore import KeyStore, prefixes

A = "a" * 40
B = "b" * 40


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("system", "local"):
        (tmp_path / name).mkdir(mode=0o755)
    return tmp_path


@pytest.fixture
def store(place: Path) -> KeyStore:
    return KeyStore(str(place / "system"), str(place / "local"))


def put(place: Path, where: str, fingerprint: str, data: bytes = b"key") -> Path:
    path = place / where.replace("/", "/trustedkeys/", 1) / fingerprint
    current = place
    for part in path.relative_to(place).parts[:-1]:
        current = current / part
        current.mkdir(mode=0o755, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)
    return path


def fingerprints(store: KeyStore, name: str) -> list[str]:
    return [key.fingerprint for key in store.keys_for(name)]


def test_prefixes_go_component_by_component() -> None:
    assert list(prefixes("example.com/a/b")) == [
        "example.com",
        "example.com/a",
        "example.com/a/b",
    ]


@pytest.mark.parametrize(
    ("prefix", "name", "covered"),
    [
        ("example.com", "example.com/app", True),
        ("example.com/foo", "example.com/foo", True),
        ("example.com/foo", "example.com/foo/bar", True),
        ("example.com/foo", "example.com/foobar", False),
        ("example.com/foo/bar", "example.com/foo", False),
        ("example.com", "example.co", False),
        ("example.com", "sub.example.com/app", False),
    ],
)
def test_k2_a_prefix_key_covers_whole_components_only(
    place: Path, store: KeyStore, prefix: str, name: str, covered: bool
) -> None:
    put(place, f"local/prefix.d/{prefix}", A)
    assert fingerprints(store, name) == ([A] if covered else [])
    assert (store.find(name, A) is not None) is covered
    assert [key.covers(name) for key in store.every_key()] == [covered]


@pytest.mark.parametrize("name", ["Example.com/app", "example.com/", "../etc", "exämple.com/app"])
def test_k2_names_outside_the_grammar_never_reach_a_path(store: KeyStore, name: str) -> None:
    with pytest.raises(InvalidInput):
        store.keys_for(name)


def test_root_keys_count_for_every_name_and_come_first(place: Path, store: KeyStore) -> None:
    put(place, "system/root.d", B)
    put(place, "local/prefix.d/example.com", A)
    assert fingerprints(store, "example.com/app") == [B, A]
    assert fingerprints(store, "other.example/app") == [B]


def test_local_file_replaces_the_system_one(place: Path, store: KeyStore) -> None:
    put(place, "system/root.d", A, b"old")
    put(place, "local/root.d", A, b"new")
    assert [key.data for key in store.keys_for("example.com")] == [b"new"]


def test_k13_an_empty_local_file_masks_the_system_key(place: Path, store: KeyStore) -> None:
    put(place, "system/prefix.d/example.com", A)
    assert fingerprints(store, "example.com/app") == [A]
    put(place, "local/prefix.d/example.com", A, b"")
    assert fingerprints(store, "example.com/app") == []
    assert store.find("example.com/app", A) is None
    assert store.every_key() == []


def test_k13_a_mask_in_one_place_leaves_another_place_alone(place: Path, store: KeyStore) -> None:
    put(place, "system/root.d", A)
    put(place, "local/prefix.d/example.com", A, b"")
    assert fingerprints(store, "example.com/app") == [A]


def test_names_that_are_no_fingerprints_are_ignored(place: Path, store: KeyStore) -> None:
    put(place, "local/root.d", "README")
    put(place, "local/root.d", "A" * 40)
    assert store.keys_for("example.com") == []


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
@pytest.mark.parametrize(
    "directory", ["local", "local/trustedkeys", "local/trustedkeys/prefix.d/example.com"]
)
def test_k19_directories_others_can_write_are_refused(
    place: Path, store: KeyStore, directory: str, mode: int
) -> None:
    put(place, "local/prefix.d/example.com", A)
    assert fingerprints(store, "example.com/app") == [A]
    (place / directory).chmod(mode)
    with pytest.raises(Refused, match="writable by others"):
        store.keys_for("example.com/app")
    with pytest.raises(Refused):
        store.find("example.com/app", A)


def test_k19_a_key_file_others_can_write_is_refused(place: Path, store: KeyStore) -> None:
    put(place, "local/root.d", A).chmod(0o666)
    with pytest.raises(Refused, match="writable by others"):
        store.keys_for("example.com")


@pytest.mark.root
def test_k19_a_directory_of_another_user_is_refused(place: Path, store: KeyStore) -> None:
    put(place, "local/root.d", A)
    os.chown(place / "local/trustedkeys/root.d", 12345, 0)
    with pytest.raises(Refused, match="belongs to uid 12345"):
        store.keys_for("example.com")


@pytest.fixture
def admins(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The members of group podctl-admin, whose id is 777; user N is called `user-N`."""
    import grp
    import pwd

    members: set[str] = set()

    def group(gid: int) -> SimpleNamespace:
        if gid != 777:
            raise KeyError(gid)
        return SimpleNamespace(gr_name="podctl-admin", gr_mem=sorted(members))

    def user(uid: int) -> SimpleNamespace:
        return SimpleNamespace(pw_name=f"user-{uid}", pw_gid=uid)

    monkeypatch.setattr(grp, "getgrgid", group)
    monkeypatch.setattr(pwd, "getpwuid", user)
    return members


@pytest.mark.root
def test_what_a_member_of_the_admin_group_has_added_counts_for_root(
    place: Path, store: KeyStore, admins: set[str]
) -> None:
    put(place, "local/prefix.d", B).unlink()
    for name in ("local", "local/trustedkeys", "local/trustedkeys/prefix.d"):
        os.chown(place / name, 0, 777)
        (place / name).chmod(0o2775)
    added = Path(store.add("example.com/app", A, b"armored"))
    made = [added, added.parent, added.parent.parent]
    assert all(path.stat().st_gid == 777 for path in made)
    assert all(path.stat().st_mode & 0o7777 == 0o2775 for path in made[1:])
    for path in made:
        os.chown(path, 12345, 777)
    with pytest.raises(Refused, match="belongs to uid 12345"):
        store.keys_for("example.com/app")
    admins.add("user-12345")
    assert fingerprints(store, "example.com/app") == [A]
    # A group of any other name makes nobody an administrator.
    os.chown(added, 12345, 12345)
    with pytest.raises(Refused, match="belongs to uid 12345"):
        store.keys_for("example.com/app")


def test_k19_symbolic_links_are_not_followed(place: Path, store: KeyStore) -> None:
    put(place, "system/root.d", A)
    (place / "local/trustedkeys").mkdir(mode=0o755)
    (place / "local/trustedkeys/root.d").symlink_to(place / "system/trustedkeys/root.d")
    with pytest.raises(Refused, match="not a directory"):
        store.keys_for("example.com")


@pytest.mark.parametrize("kind", ["symlink", "fifo", "large"])
def test_k19_a_key_is_a_small_regular_file(place: Path, store: KeyStore, kind: str) -> None:
    path = put(place, "local/root.d", A)
    if kind == "large":
        path.write_bytes(b"x" * (2 << 20))
    else:
        path.unlink()
        path.symlink_to("/dev/zero") if kind == "symlink" else os.mkfifo(path)
    with pytest.raises(TrustRefused, match="cannot be used"):
        store.keys_for("example.com")


def test_added_keys_are_found_and_readable_by_all(place: Path, store: KeyStore) -> None:
    old = os.umask(0o077)
    try:
        path = store.add("example.com/app", A, b"armored")
    finally:
        os.umask(old)
    assert path == str(place / "local/trustedkeys/prefix.d/example.com/app" / A)
    assert fingerprints(store, "example.com/app") == [A]
    assert Path(path).stat().st_mode & 0o777 == 0o644
    assert all(
        p.stat().st_mode & 0o777 == 0o755 for p in (place / "local").rglob("*") if p.is_dir()
    )
    assert store.add(None, B, b"armored").endswith(f"root.d/{B}")
