"""fsck: every file of the store, damaged in every way, is found by name and repaired."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest
from damage import MUTATIONS, flip, remove_elsewhere

from podctl.images.render import resolve, rootfs
from podctl.model.fetching import CacheState
from podctl.store import Verification

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Shop

    from podctl.store import ImageRecord

pytestmark = pytest.mark.root
URL = "https://example.com/app.aci"


class Furnished(NamedTuple):
    """A store with one of everything, and a second image that must not suffer."""

    shop: Shop
    app: ImageRecord
    other: ImageRecord
    tree: str


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a furnished store lies once it was made; tests work on copies of it."""
    return tmp_path_factory.mktemp("template") / "data"


@pytest.fixture
def furnished(shop: Shop, template: Path) -> Furnished:
    if not template.exists():
        furnish(shop)
        shop.data.rename(template)
    subprocess.run(["cp", "-a", template, shop.data], check=True)
    app, other = sorted(shop.store.images(), key=lambda record: record.name)
    (tree,) = (shop.data / "trees").iterdir()
    return Furnished(shop, app, other, f"trees/{tree.name}")


def furnish(shop: Shop) -> None:
    app = shop.image(
        "example.com/app",
        {"bin/app": b"x" * 3000, "etc/conf": "conf"},
        whitelist=["/bin/app"],
        signature=b"signature",
    )
    other = shop.image("example.com/other", {"file": "other"})
    for record in (app, other):
        note = Verification.unverified(record.name, record.labels)
        shop.store.mark_verified(record.key, note)
    rootfs(shop.store, app.key)
    shop.store.put_remote(URL, app.key, etag='"1"', max_age=60)
    with shop.store.partial(URL + "2") as partial:
        partial.save_state(CacheState(etag='"2"'))
        os.write(partial.fd, b"half")
        partial.keep()
    assert shop.podctl("fsck") == (0, "", "")


def parts(world: Furnished) -> dict[str, Path]:
    """Each kind of file of the store, of the image that is to suffer."""
    data, app = world.shop.data, world.app
    (own_remote,) = (data / "verified/remotes").iterdir()
    (remote,) = (data / "cas/remotes").iterdir()
    return {
        "blob": world.shop.blob(app),
        "record": data / "cas/images" / app.key / "record.json",
        "manifest": data / "cas/images" / app.key / "manifest",
        "signature": data / "cas/images" / app.key / "signature",
        "layer mark": data / "layers" / app.layers[0] / "done.json",
        "layer manifest": data / "layers" / app.layers[0] / "manifest",
        "layer file": world.shop.layer(app) / "etc/conf",
        "tree mark": data / world.tree / "done.json",
        "note": data / "verified" / f"{app.key}.json",
        "remote": remote,
        "own remote": own_remote,
    }


#: What nothing refers to may be missing.
MAY_BE_MISSING = {"note", "remote", "own remote"}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("part", [
    "blob", "record", "manifest", "signature", "layer mark", "layer manifest", "layer file",
    "tree mark", "note", "remote", "own remote",
])  # fmt: skip
def test_l10_damage_is_found_by_name_and_repaired(
    furnished: Furnished, part: str, mutation: str
) -> None:
    shop = furnished.shop
    path = parts(furnished)[part]
    try:
        MUTATIONS[mutation](path)
        found = shop.podctl("fsck")
        if mutation == "deleted" and part in MAY_BE_MISSING:
            assert found.code == 0
        else:
            assert found.code == 254
            assert f"{path.relative_to(shop.data)}: " in found.out
        check_neighbour(furnished)
        repaired = shop.podctl("fsck", "--repair")
        assert repaired.code == 0, repaired
        assert shop.podctl("fsck") == (0, "", "")
        if part == "blob" and mutation != "wrong mode":
            assert shop.store.lookup(furnished.app.key) is None
        else:
            check_usable(furnished)
    finally:
        remove_elsewhere(path)


def check_neighbour(world: Furnished) -> None:
    """The image that was not touched is as usable as before."""
    ran = world.shop.podctl("image", "verify", world.other.name)
    assert (ran.code, ran.err) == (0, "")
    listed = world.shop.podctl("image", "list", "--no-legend")
    assert world.other.key[:19] in listed.out


def check_usable(world: Furnished) -> None:
    """The repaired image is what it was."""
    shop = world.shop
    record = shop.store.image(world.app.key)
    assert (record.name, record.labels, record.size) == world.app[2:4] + (world.app.size,)
    assert shop.podctl("image", "verify", record.name).err == ""
    resolved = resolve(shop.store, record.key)
    (lower,) = rootfs(shop.store, resolved).lowers
    with open(f"{lower}/bin/app", "rb") as file:
        assert file.read() == b"x" * 3000


@pytest.mark.parametrize("place", [
    "cas/images", "cas/blobs/sha256", "cas/blobs", "cas/tmp", "cas/remotes",
    "layers", "verified", "trees", "verified/remotes",
])  # fmt: skip
@pytest.mark.parametrize("mutation", ["deleted", "wrong mode", "file", "link"])
def test_l10_a_place_that_is_wrong_is_made_anew(
    furnished: Furnished, place: str, mutation: str, tmp_path: Path
) -> None:
    shop = furnished.shop
    path = shop.data / place
    canary = tmp_path / "canary"
    canary.mkdir()
    if mutation == "wrong mode":
        path.chmod(0o777)
    else:
        shutil.rmtree(path)
    if mutation == "file":
        path.touch()
    elif mutation == "link":
        path.symlink_to(canary)
    found = shop.podctl("fsck")
    assert found.code == 254
    assert f"{place}: " in found.out
    assert shop.podctl("fsck", "--repair").code == 0
    assert shop.podctl("fsck") == (0, "", "")
    assert path.is_dir()
    assert not path.is_symlink()
    assert os.listdir(canary) == []
    record = shop.image("example.com/new", {"f": "x"})
    assert shop.store.image(record.key)


def test_lost_records_are_made_from_the_archives(furnished: Furnished) -> None:
    """All of the index is derived from content."""
    shop = furnished.shop
    before = {record.key: record for record in shop.store.images()}
    shutil.rmtree(shop.data / "cas/images")
    (shop.data / "cas/images").mkdir(mode=0o750)
    found = shop.podctl("fsck")
    assert found.code == 254
    assert found.out.count("belongs to no image") == 2
    assert shop.podctl("fsck", "--repair").code == 0
    after = {record.key: record for record in shop.store.images()}
    assert after.keys() == before.keys()
    for key, record in after.items():
        expected = before[key]
        assert (record.name, record.labels, record.layers) == expected[2:5]
        assert (record.blobs, record.blob_size, record.size) == expected[5:8]
    assert shop.podctl("fsck") == (0, "", "")


@pytest.mark.parametrize(
    "plant",
    [
        "cas/images/stray", "cas/images/sha512-../x", "cas/blobs/sha256/zz", "cas/tmp/stray",
        "layers/stray", "trees/stray", "verified/stray",
    ],
)  # fmt: skip
def test_strangers_are_found_and_moved_aside(furnished: Furnished, plant: str) -> None:
    path = furnished.shop.data / plant.replace("../", "")
    path.write_text("stray") if path.parent.is_dir() else path.parent.mkdir()
    found = furnished.shop.podctl("fsck")
    assert found.code == 254
    assert furnished.shop.podctl("fsck", "--repair").code == 0
    assert not path.exists()
    assert furnished.shop.podctl("fsck") == (0, "", "")


def test_a_hard_link_to_a_stored_file_is_cut(furnished: Furnished, tmp_path: Path) -> None:
    """Whoever holds another name of a file can change it later."""
    blob = furnished.shop.blob(furnished.app)
    os.link(blob, tmp_path / "held")
    assert "other names" in furnished.shop.podctl("fsck").out
    assert furnished.shop.podctl("fsck", "--repair").code == 0
    assert not os.path.samefile(blob, tmp_path / "held")
    assert furnished.shop.podctl("fsck").code == 0


def test_a_layer_of_another_user_is_reported(furnished: Furnished) -> None:
    os.chown(furnished.shop.layer(furnished.app).parent, 1, 1)
    found = furnished.shop.podctl("fsck")
    assert found.code == 254
    assert "belongs to user 1, not to root" in found.out


def test_k17_any_flipped_byte_of_an_archive_is_found(furnished: Furnished) -> None:
    shop, app = furnished.shop, furnished.app
    blob = shop.blob(app)
    good = blob.read_bytes()
    for at in range(0, len(good), max(1, len(good) // 40)):
        blob.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        ran = shop.podctl("image", "verify", app.name)
        assert ran.code == 254, at
        assert "damaged" in ran.err
    blob.write_bytes(good)
    assert shop.podctl("image", "verify", app.name).code == 0


def test_nothing_is_changed_by_looking(furnished: Furnished) -> None:
    def snapshot() -> bytes:
        words = ["find", str(furnished.shop.data), "-printf", "%P %y %m %s %T@ %i\\n"]
        return subprocess.run(words, check=True, capture_output=True).stdout

    flip(furnished.shop.layer(furnished.app) / "bin/app")
    os.chmod(furnished.shop.blob(furnished.app), 0)
    ignored = {b"cas/tmp", b"layers", b"trees"}  # something is unpacked beside and removed again

    def without(lines: bytes) -> list[bytes]:
        return sorted(line for line in lines.splitlines() if line.split(b" ")[0] not in ignored)

    before = without(snapshot())
    assert furnished.shop.podctl("fsck").code == 254
    assert without(snapshot()) == before


def test_a_missing_data_directory_is_clean(shop: Shop) -> None:
    assert shop.podctl("fsck") == (0, "", "")
    assert shop.podctl("fsck", "--repair") == (0, "", "")
    assert not shop.data.exists()


UUID = "2c5a3b9e-4b0d-4f0f-9c53-5f1d0e6b7a11"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda pod: None, "damaged"),
        (lambda pod: (pod / "lock").mkdir(), "lock: is no regular file"),
        (lambda pod: (pod / "images.json").write_text("{}"), "images.json"),
    ],
)
def test_damaged_pods_are_told_of(shop: Shop, damage: Callable[[Path], object], told: str) -> None:
    pod = shop.data / "pods/prepared" / UUID
    pod.mkdir(parents=True, mode=0o750)
    damage(pod)
    found = shop.podctl("fsck")
    assert found.code == 254
    assert told in found.out
    assert UUID in found.out


def test_what_is_no_pod_among_pods_is_told_of(shop: Shop) -> None:
    (shop.data / "pods/run/stray").mkdir(parents=True)
    (shop.data / "pods/prepared").mkdir()
    (shop.data / "pods/prepared" / UUID).touch()
    (shop.data / "pods/embryo").mkdir()
    (shop.data / "pods/embryo" / UUID.replace("2c", "3c")).mkdir(mode=0o777)
    os.chmod(shop.data / "pods/embryo" / UUID.replace("2c", "3c"), 0o777)
    found = shop.podctl("fsck").out
    assert "pods/run/stray: is no pod" in found
    assert f"pods/prepared/{UUID}: is no directory" in found
    assert "may be written by everybody" in found
    assert stat.S_ISDIR((shop.data / "pods/run/stray").stat().st_mode)


@pytest.mark.parametrize("form", ["oci", "none-such"])
def test_a_record_that_names_another_format_is_made_anew(furnished: Furnished, form: str) -> None:
    """The group can write it; it must not keep the rest from being looked at."""
    shop, app = furnished.shop, furnished.app
    shop.store.restore_times(app._replace(format=form), 1)
    found = shop.podctl("fsck")
    assert found.code == 254
    assert f"cas/images/{app.key}/record.json: cannot be used" in found.out
    assert shop.podctl("fsck", "--repair").code == 0
    assert shop.podctl("fsck") == (0, "", "")
    check_usable(furnished)
