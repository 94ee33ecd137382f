"""What a committed image consists of on disk, and what is left when a commit does not happen."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from podctl.errors import NotFound
from podctl.model.fetching import CacheState
from podctl.store import Store, Verification

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.store import ImageRecord

    Put = Callable[..., ImageRecord]

pytestmark = pytest.mark.root
URL = "https://example.com/app.aci"


def files(top: Path) -> set[str]:
    """Every file below a directory, relative."""
    return {str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir()}


def test_an_image_is_its_blob_its_layer_and_its_record(
    store: Store, put: Put, data_dir: Path
) -> None:
    record = put(store, "example.com/app", b"tree", signature=b"signature")
    digest = record.blob.removeprefix("sha256:")
    assert files(data_dir) == {
        f"cas/blobs/sha256/{digest[:2]}/{digest}",
        f"cas/images/{record.key}/manifest",
        f"cas/images/{record.key}/record.json",
        f"cas/images/{record.key}/signature",
        f"layers/{record.layers[0]}/done.json",
        f"layers/{record.layers[0]}/manifest",
        f"layers/{record.layers[0]}/rootfs/file",
        "locks/prepareLock",
    }
    layer = store.layer(record.layers[0])
    assert layer is not None
    with open(f"{layer}/file", "rb") as file:
        assert file.read() == b"tree"
    assert store.manifest(record.key) == store.trusted_manifest(record)
    assert store.signature(record.key) == b"signature"
    with os.fdopen(store.open_blob(record.blob), "rb") as blob:
        assert len(blob.read()) == record.blob_size


def test_modes_do_not_depend_on_the_umask(store: Store, put: Put, data_dir: Path) -> None:
    old = os.umask(0)
    try:
        put(store, "example.com/open", b"1")
        os.umask(0o777)
        put(store, "example.com/closed", b"2")
    finally:
        os.umask(old)
    for path in data_dir.rglob("*"):
        if "rootfs" in path.parts:
            continue
        private = path.parts[len(data_dir.parts)] in ("layers", "trees", "verified", "locks")
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_dir():
            assert mode == (0o700 if private and path.name != "locks" else 0o750), path
        else:
            assert mode == (0o600 if private else 0o640), path


def test_a_shared_store_stays_shared(store: Store, put: Put, data_dir: Path) -> None:
    store.layout.create(privileged=True)
    for place in ("cas", "cas/blobs", "cas/blobs/sha256", "cas/images", "cas/remotes", "cas/tmp"):
        os.chown(data_dir / place, 0, 12345)
        os.chmod(data_dir / place, 0o2770)
    record = put(store, "example.com/app")
    store.put_remote(URL, record.key, etag=None, max_age=0)
    for path in (data_dir / "cas").rglob("*"):
        status = path.lstat()
        assert status.st_gid == 12345, path
        assert stat.S_IMODE(status.st_mode) == (0o2770 if path.is_dir() else 0o660), path


def test_a_commit_that_fails_leaves_nothing(store: Store, put: Put, data_dir: Path) -> None:
    kept = put(store, "example.com/kept")
    before = files(data_dir)
    with pytest.raises(RuntimeError), store.staging() as staging:
        piece = staging.piece()
        os.write(piece.blob_fd, b"x" * 100)
        assert piece.directory is not None
        os.mkdir(f"{piece.directory}/etc")
        raise RuntimeError
    assert files(data_dir) == before
    assert [path.name for path in (data_dir / "layers").iterdir()] == [kept.layers[0]]


def test_removing_leaves_what_others_need(store: Store, put: Put, data_dir: Path) -> None:
    record = put(store, "example.com/app", b"1")
    store.mark_verified(record.key, Verification.unverified(record.name, record.labels))
    store.put_remote(URL, record.key, etag="e", max_age=5)
    other = put(store, "example.com/other", b"2")
    store.put_remote(URL + "2", other.key, etag="e", max_age=5)
    assert store.remove(record.key) == []
    left = files(data_dir)
    assert not [path for path in left if record.key in path or record.blob[7:] in path]
    assert [image.key for image in store.images()] == [other.key]
    assert store.remote(URL) is None
    remote = store.remote(URL + "2")
    assert remote is not None
    assert remote.key == other.key
    with pytest.raises(NotFound, match="cannot find image with key"):
        store.remove(record.key)


def test_a_damaged_image_can_be_removed(store: Store, put: Put, data_dir: Path) -> None:
    record = put(store, "example.com/app")
    (data_dir / f"cas/images/{record.key}/record.json").write_bytes(b"garbage")
    assert store.remove(record.key) == []
    assert store.keys() == []


def test_without_a_layer_the_image_is_there_but_not_unpacked(
    store: Store, put: Put, data_dir: Path
) -> None:
    record = put(store, "example.com/app")
    os.unlink(data_dir / f"layers/{record.layers[0]}/done.json")
    assert store.layer(record.layers[0]) is None
    # Importing it again puts a whole layer in the place of the one without its mark.
    again = put(store, "example.com/app")
    assert again.key == record.key
    assert store.layer(record.layers[0]) is not None


def test_what_a_url_delivered_is_remembered(store: Store, put: Put) -> None:
    record = put(store, "example.com/app")
    assert store.remote(URL) is None
    store.put_remote(URL, record.key, etag='"1"', max_age=60)
    remote = store.remote(URL)
    assert remote is not None
    assert (remote.url, remote.key, remote.etag, remote.max_age) == (URL, record.key, '"1"', 60)


def test_a_download_is_continued_by_the_next_process(store: Store) -> None:
    with store.partial(URL) as partial:
        assert partial.size == 0
        partial.save_state(CacheState(etag='"1"'))
        os.write(partial.fd, b"first")
        partial.keep()
    with store.partial(URL) as partial:
        assert (partial.size, partial.state.etag) == (5, '"1"')
    # Not kept this time.
    with store.partial(URL) as partial:
        assert (partial.size, partial.state.etag) == (0, None)


def test_without_a_validator_a_download_starts_over(store: Store) -> None:
    with store.partial(URL) as partial:
        os.write(partial.fd, b"first")
        partial.keep()
    with store.partial(URL) as partial:
        assert partial.size == 0


def test_one_url_is_downloaded_by_one_process(
    store: Store, in_child: Callable[[Callable[[], object]], int]
) -> None:
    waited: list[int] = []
    read, write = os.pipe()
    with store.partial(URL) as partial:
        os.write(partial.fd, b"x")
        pid = os.fork()
        if pid == 0:
            os.close(read)
            # The inherited descriptor must not be what keeps the lock.
            os.close(partial.fd)
            code = 1
            try:
                with store.partial(URL, on_wait=lambda: os.write(write, b"waiting") and None):
                    code = 0
            finally:
                os._exit(code)
        os.close(write)
        waited.append(len(os.read(read, 100)))
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.close(read)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert waited == [len(b"waiting")]


def test_a_committed_layer_is_not_locked_by_its_maker(store: Store, put: Put) -> None:
    """Whoever wants it next may lock it, in the same process and while staging still lasts."""
    import hashlib

    from podctl.store import StagedImage, StagedLayer
    from podctl.sys.locks import held

    diff_id = f"sha512-{hashlib.sha512(b'data').hexdigest()}"
    blob = f"sha256:{hashlib.sha256(b'data').hexdigest()}"
    with store.staging() as staging:
        piece = staging.piece()
        os.write(piece.blob_fd, b"data")
        assert piece.directory is not None
        assert held(os.path.dirname(piece.directory))
        layer = StagedLayer(diff_id, blob, 4, piece)
        key = store.key_of(diff_id)
        staged = StagedImage(
            key, "aci", "example.com/app", {}, (layer,), 4, b"{}", None, "", latest=False
        )
        store.commit(staging, staged)
        assert not held(store.layout.layer(diff_id))
