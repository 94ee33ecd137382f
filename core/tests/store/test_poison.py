"""A member of the group writes what it likes below `cas`: root believes none of it.

The member is a throwaway user in a throwaway group, in a forked child. Each attack has a control:
the naive way to do what root does would have fallen for it.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podctl.errors import NotFound, PodctlError
from podctl.model.fetching import CacheState
from podctl.store import Store, Verification
from podctl.store.fsck import Structure
from podctl.store.gc import collect
from podctl.store.leftovers import clear_leftovers
from podctl.store.records import dump, seal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.store import ImageRecord

    Put = Callable[..., ImageRecord]

pytestmark = pytest.mark.root
MEMBER, GROUP = 54321, 54322
URL = "https://example.com/app.aci"
PLACES = ("cas", "cas/blobs", "cas/blobs/sha256", "cas/images", "cas/remotes", "cas/tmp")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory a group shares; its parents let everybody through."""
    top = Path(tempfile.mkdtemp(prefix="podctl-poison."))
    top.chmod(0o755)
    data = top / "data"
    Store(str(data)).layout.create(privileged=True)
    os.chown(data, 0, GROUP)
    data.chmod(0o2750)
    for place in PLACES:
        os.chown(data / place, 0, GROUP)
        (data / place).chmod(0o2770)
    yield data
    shutil.rmtree(top)


@pytest.fixture
def canary(data_dir: Path) -> Path:
    """A directory of root's that nothing may touch."""
    place = data_dir.parent / "canary"
    place.mkdir(mode=0o755)
    (place / "file").write_text("untouched")
    (place / "file").chmod(0o600)
    return place


def state(place: Path) -> list[tuple[str, int, int, bytes]]:
    return [
        (str(path), path.lstat().st_mode, path.lstat().st_uid, path.read_bytes())
        for path in sorted(place.rglob("*"))
        if path.is_file()
    ]


@pytest.fixture
def member(in_child: Callable[[Callable[[], object]], int]) -> Callable[..., None]:
    """Do something as the member; it must work, or the attack is none."""

    def act(function: Callable[[], object]) -> None:
        def work() -> None:
            os.setgroups([])
            os.setresgid(GROUP, GROUP, GROUP)
            os.setresuid(MEMBER, MEMBER, MEMBER)
            function()

        assert in_child(work) == 0

    return act


def test_a_member_fetches_and_root_does_not_use_it_unseen(
    store: Store, put: Put, member: Callable[..., None], data_dir: Path
) -> None:
    member(lambda: put(Store(str(data_dir)), "example.com/app", b"by a member"))
    (record,) = store.images()
    # There, but not unpacked, not verified, and its manifest not root's own.
    assert store.layer(record.layers[0]) is None
    assert store.verification(record.key) is None
    assert store.trusted_manifest(record) is None
    assert list(Structure(store).check()) == []


def test_a_member_may_remove_what_root_fetched(
    store: Store, put: Put, member: Callable[..., None], data_dir: Path
) -> None:
    record = put(store, "example.com/app", signature=b"s")
    member(lambda: Store(str(data_dir)).remove(record.key))
    assert store.keys() == []
    assert store.layer(record.layers[0]) is not None
    collect(store, 3600, lambda line: None)
    assert store.layer(record.layers[0]) is None


def test_root_only_places_are_closed(
    store: Store, put: Put, member: Callable[..., None], data_dir: Path
) -> None:
    record = put(store, "example.com/app")
    store.mark_verified(record.key, Verification.unverified(record.name, record.labels))

    def look() -> None:
        for place in ("layers", "verified", "trees"):
            for attempt in (os.listdir, lambda path: os.mkdir(f"{path}/x")):
                with pytest.raises(PermissionError):
                    attempt(data_dir / place)
        mine = Store(str(data_dir))
        assert not mine.privileged
        assert mine.layer(record.layers[0]) is None
        assert mine.verification(record.key) is None
        with pytest.raises(PermissionError):
            mine.mark_verified(record.key, Verification.unverified("x", {}))

    member(look)


def test_k18_a_manifest_exchanged_by_a_member_is_not_the_one_root_reads(
    store: Store, put: Put, member: Callable[..., None], data_dir: Path
) -> None:
    record = put(store, "example.com/app")
    path = data_dir / "cas/images" / record.key / "manifest"

    def poison() -> None:
        path.unlink()
        path.write_text('{"name": "evil"}')

    member(poison)
    assert b"evil" in path.read_bytes()  # the control: the shared copy is poisoned
    assert b"evil" not in store.manifest(record.key)


def test_k18_a_record_cannot_pass_off_another_image(
    store: Store, put: Put, member: Callable[..., None], data_dir: Path
) -> None:
    """Another layer, another name, another version: each under a verified image's ID."""
    good = put(store, "example.com/good", b"good")
    evil = put(store, "example.com/evil", b"evil")
    for record in (good, evil):
        store.mark_verified(record.key, Verification.unverified(record.name, record.labels))
    path = data_dir / "cas/images" / evil.key / "record.json"

    def write(record: ImageRecord) -> None:
        def work() -> None:
            path.unlink()
            path.write_bytes(dump(record))

        member(work)

    write(evil._replace(name="example.com/good", imported_at=good.imported_at + 1000))
    assert json.loads(path.read_bytes())["name"] == "example.com/good"
    naive = max(
        (r for r in store.images() if r.name == "example.com/good"), key=lambda r: r.imported_at
    )
    assert naive.key == evil.key  # the control: the record alone would win
    found = store.find("example.com/good", {})
    assert found is not None
    assert found.key == good.key
    write(evil._replace(name="example.com/good", labels={"version": "9"}))
    assert store.find("example.com/good", {"version": "9"}) is None
    write(evil._replace(layers=good.layers))
    with pytest.raises(PodctlError, match="its layer is not the image"):
        store.image(evil.key)


def test_k18_what_a_url_delivered_to_a_member_is_nothing_to_root(
    store: Store, put: Put, member: Callable[..., None], data_dir: Path
) -> None:
    good = put(store, "example.com/good", b"good")
    evil = put(store, "example.com/evil", b"evil")
    member(lambda: Store(str(data_dir)).put_remote(URL, evil.key, etag=None, max_age=10**6))
    assert store.remote(URL) is None
    store.put_remote(URL, good.key, etag=None, max_age=10**6)
    member(lambda: Store(str(data_dir)).put_remote(URL, evil.key, etag=None, max_age=10**6))
    remote = store.remote(URL)
    assert remote is not None
    assert remote.key == good.key


@pytest.mark.parametrize("place", ["cas/images", "cas/tmp", "cas/remotes", "cas/blobs/sha256"])
def test_s2_a_directory_exchanged_for_a_link_leads_nowhere(
    store: Store,
    put: Put,
    member: Callable[..., None],
    data_dir: Path,
    canary: Path,
    place: str,
) -> None:
    record = put(store, "example.com/app")

    def poison() -> None:
        os.rename(data_dir / place, data_dir / "cas/aside")
        os.symlink(canary, data_dir / place)

    member(poison)
    # The control: a path through it leads to the canary.
    assert (data_dir / place / "file").read_text() == "untouched"
    before = state(canary)
    root_does_everything(store, put, record)
    assert state(canary) == before
    assert list(Structure(store).check()) != []


def root_does_everything(store: Store, put: Put, record: ImageRecord) -> None:
    """Whatever root may do with a store; refusals are fine."""

    def partial() -> None:
        with store.partial(URL) as download:
            download.save_state(CacheState(etag="x"))
            os.write(download.fd, b"data")
            download.keep()

    actions: list[Callable[[], object]] = [
        store.images,
        lambda: store.find("example.com/app", {}),
        lambda: store.manifest(record.key),
        lambda: store.signature(record.key),
        lambda: os.close(store.open_blob(record.blob)),
        lambda: store.touch(record.key),
        lambda: store.set_tree_size(record.key, 5),
        lambda: store.put_remote(URL, record.key, etag=None, max_age=0),
        partial,
        lambda: put(store, "example.com/new", b"new"),
        lambda: put(store, "example.com/app"),
        lambda: list(Structure(store).check()),
        lambda: clear_leftovers(store),
        lambda: store.remove(record.key),
        lambda: collect(store, 0, lambda line: None),
    ]
    for action in actions:
        try:
            action()
        except (PodctlError, OSError):
            continue


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "directory", "device name", "huge"])
@pytest.mark.parametrize("leaf", ["record.json", "manifest", "signature"])
def test_s2_a_planted_file_is_neither_followed_nor_waited_for(
    store: Store,
    put: Put,
    member: Callable[..., None],
    data_dir: Path,
    canary: Path,
    leaf: str,
    kind: str,
) -> None:
    record = put(store, "example.com/app", signature=b"s")
    other = put(store, "example.com/other")
    path = data_dir / "cas/images" / record.key / leaf
    if kind == "hard link":
        # What protected_hardlinks would not allow a member; an older kernel may.
        path.unlink()
        os.link(canary / "file", path)
    else:
        member(lambda: plant(path, kind, canary))
    before = state(canary)
    assert other.key in {found.key for found in store.images()}
    root_does_everything(store, put, record)
    assert state(canary) == before


def plant(path: Path, kind: str, canary: Path) -> None:
    path.unlink()
    if kind == "link":
        path.symlink_to(canary / "file")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
        (path / "x").touch()
    elif kind == "device name":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "foreign", "hard link"])
def test_s2_a_planted_download_is_not_continued_by_root(
    store: Store,
    member: Callable[..., None],
    data_dir: Path,
    canary: Path,
    kind: str,
) -> None:
    from podctl.store.layout import name_of

    path = data_dir / f"cas/tmp/{name_of(URL)}.part"
    sidecar = data_dir / f"cas/tmp/{name_of(URL)}.state"

    def poison() -> None:
        if kind == "link":
            path.symlink_to(canary / "file")
        elif kind == "fifo":
            os.mkfifo(path, 0o666)
        elif kind == "directory":
            path.mkdir()
        elif kind == "foreign":
            path.write_bytes(b"half of something else")
            path.chmod(0o666)
        sidecar.write_text('["tag", null]')

    member(poison)
    if kind == "hard link":
        os.link(canary / "file", path)
    with store.partial(URL) as partial:
        assert partial.size == 0
        status = os.fstat(partial.fd)
        assert stat.S_ISREG(status.st_mode)
        assert (status.st_uid, status.st_nlink) == (0, 1)
        os.write(partial.fd, b"root's")
    assert (canary / "file").read_text() == "untouched"


def test_a_member_continues_what_another_member_began(
    store: Store, member: Callable[..., None], data_dir: Path
) -> None:
    with store.partial(URL) as partial:
        partial.save_state(CacheState(etag="e"))
        os.write(partial.fd, b"half")
        partial.keep()

    def work() -> None:
        with Store(str(data_dir)).partial(URL) as mine:
            assert mine.size == 4

    member(work)


def test_a_swapped_download_is_not_committed(store: Store, data_dir: Path) -> None:
    """Between the last byte and the rename."""
    from podctl.errors import StoreCorrupt

    with store.staging() as staging, store.partial(URL) as partial:
        os.write(partial.fd, b"data")
        piece = staging.piece()
        piece.adopt_blob(partial)
        (path,) = (data_dir / "cas/tmp").glob("*.part")
        path.unlink()
        path.write_bytes(b"evil")
        with pytest.raises(StoreCorrupt, match="exchanged"):
            piece.keep_blob("sha256:" + "0" * 64)
        path.unlink()


def test_garbage_everywhere_is_no_reason_to_crash(
    store: Store, put: Put, member: Callable[..., None], data_dir: Path
) -> None:
    record = put(store, "example.com/app")

    def litter() -> None:
        for place in ("images", "remotes", "tmp", "blobs/sha256"):
            top = data_dir / "cas" / place
            (top / "x\n\x1b[31m").write_bytes(b"\xff\xfe")
            (top / ("sha512-" + "0" * 64)).symlink_to("/")
            (top / "a.stage").mkdir()
            (top / "b.removed").write_text("x")
            (top / "c.json").write_bytes(seal({"key": [], "url": {}, "name": 1}))
            (top / "deep").mkdir()
            os.mkfifo(top / "d.json")

    member(litter)
    assert [found.key for found in store.images()] == [record.key]
    with pytest.raises(NotFound):
        store.resolve_key("sha512-ffffffff")
    clear_leftovers(store)
    assert len(list(Structure(store).check())) > 10
    put(store, "example.com/app")
    collect(store, 3600, lambda line: None)
    assert [found.key for found in store.images()] == [record.key]
