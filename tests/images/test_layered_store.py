"""Layered images in the store: what they share stays, what is damaged is found and made anew."""

from __future__ import annotations

import json
import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest
from damage import flip

from podctl.errors import StoreCorrupt
from podctl.images.render import resolve, rootfs
from podctl.store import Store
from podctl.testing.ocilayers import directory, file, layer, opaque, packed, whiteout

if TYPE_CHECKING:
    from conftest import Shop

    from podctl.store import ImageRecord
    from podctl.store.locks import Locks

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

BASE = layer(directory("bin"), file("bin/sh", b"x" * 5000, mode=0o755), file("etc/os", "base"))
EMPTY = layer()


def layers_on_disk(shop: Shop) -> set[str]:
    return {path.name for path in (shop.data / "layers").iterdir()}


def blobs_on_disk(shop: Shop) -> set[str]:
    return {f"sha256:{path.name}" for path in (shop.data / "cas/blobs/sha256").glob("*/*")}


def gc(shop: Shop) -> None:
    assert shop.podctl("image", "gc", "--grace-period=0s").code == 0


def check_clean(shop: Shop) -> None:
    """Nothing is wrong, and nothing is there that no image needs."""
    assert shop.podctl("fsck") == (0, "", "")
    records = shop.store.images()
    assert layers_on_disk(shop) == {layer for record in records for layer in record.layers}
    assert blobs_on_disk(shop) == {blob for record in records for blob in record.needs}


# -- what images share ---------------------------------------------------------------------------


@pytest.fixture
def three(shop: Shop) -> list[ImageRecord]:
    """Three images on one base, the last of them on the second as well."""
    middle = layer(file("middle", "m"))
    return [
        shop.layered("one", BASE, layer(file("one", "1"))),
        shop.layered("two", BASE, middle),
        shop.layered("three", BASE, middle, layer(whiteout("middle"), file("three", "3"))),
    ]


def test_removing_one_of_several_keeps_what_the_others_share(
    shop: Shop, three: list[ImageRecord]
) -> None:
    left = list(three)
    while left:
        gone = left.pop(0)
        assert shop.podctl("image", "rm", gone.key).code == 0
        check_clean(shop)
        for record in left:
            assert shop.podctl("image", "verify", record.key).err == ""
    assert layers_on_disk(shop) == set()


@pytest.mark.parametrize("kept", range(3))
def test_collection_keeps_what_a_used_image_shares(
    shop: Shop, three: list[ImageRecord], kept: int
) -> None:
    for number, record in enumerate(three):
        if number != kept:
            path = shop.data / f"cas/images/{record.key}/record.json"
            os.utime(path, (1, 1))
    assert shop.podctl("image", "gc", "--grace-period=1h").code == 0
    assert [record.key for record in shop.store.images()] == [three[kept].key]
    check_clean(shop)
    assert shop.podctl("image", "verify", three[kept].key).err == ""


def test_layers_stay_while_a_pod_has_them(shop: Shop, three: list[ImageRecord]) -> None:
    """Its images are removed by force; what the pod is made of stays until it is gone."""
    prepared = shop.apart("--insecure-options=image", "prepare", "--stage1=fly", three[2].key)
    assert prepared.code == 0, prepared
    uuid = prepared.out.split()[-1]
    for record in three:
        assert shop.podctl("image", "rm", record.key).code == 0
    gc(shop)
    assert layers_on_disk(shop) == set(three[2].layers)
    assert blobs_on_disk(shop) == set()
    assert shop.podctl("rm", uuid).code == 0
    gc(shop)
    check_clean(shop)


def test_an_image_may_name_a_layer_twice(shop: Shop) -> None:
    record = shop.layered("twice", BASE, EMPTY, layer(file("x", "x")), EMPTY)
    assert len(record.layers) == 4
    assert len(layers_on_disk(shop)) == 3
    assert shop.podctl("image", "verify", record.key).err == ""
    check_clean(shop)
    waited: list[int] = []
    shop.store.remove(record.key, lambda: waited.append(1))
    assert waited == []
    check_clean(shop)


def test_an_image_may_have_as_many_layers_as_the_format_takes(shop: Shop) -> None:
    """Old builders wrote the empty layer for each line that changed no file."""
    record = shop.layered("long", BASE, *[EMPTY] * 998, layer(file("x", "x")))
    assert len(record.layers) == 1000
    assert shop.podctl("image", "verify", record.key).err == ""
    check_clean(shop)
    refused = shop.apart(
        "--insecure-options=image", "fetch", f"oci:{shop.layout('longer', BASE, *[EMPTY] * 1000)}"
    )
    assert refused.code == 254
    assert "more than 1000 entries" in refused.err
    check_clean(shop)


def test_one_tree_may_be_published_in_two_compressions(shop: Shop) -> None:
    """One layer on disk, two blobs; neither is taken for the other."""
    plain = layer(file("x", "x"))
    record = shop.layered("two-ways", plain, BASE, packed(plain.tar, "zstd"))
    assert len(set(record.layers)) == 2
    assert len(set(record.blobs)) == 3
    assert shop.podctl("image", "verify", record.key).err == ""
    check_clean(shop)
    (shop.data / f"cas/images/{record.key}/record.json").write_text("lost")
    assert shop.podctl("fsck", "--repair").code == 0
    assert shop.store.image(record.key)[4:8] == record[4:8]
    check_clean(shop)


def test_sizes_are_those_of_all_layers(shop: Shop) -> None:
    tops = [layer(file("a", b"a" * 70_000)), layer(file("b", b"b" * 150_000), compression="none")]
    record = shop.layered("sized", BASE, *tops)
    assert record.size == sum(len(one.tar) for one in (BASE, *tops))
    assert record.blob_size == sum(len(one.blob) for one in (BASE, *tops))
    listed = shop.podctl("image", "list", "--format=json")
    (shown,) = json.loads(listed.out)
    assert shown["size"] == record.size


# -- images whose records cannot be read -----------------------------------------------------------


@pytest.mark.parametrize("remove", ["rm", "gc"])
def test_what_a_damaged_record_may_need_is_not_removed(
    shop: Shop, three: list[ImageRecord], remove: str
) -> None:
    gone, hurt = three[0], three[2]
    (shop.data / f"cas/images/{hurt.key}/record.json").write_text("damaged")
    os.utime(shop.data / f"cas/images/{gone.key}/record.json", (1, 1))
    if remove == "rm":
        assert shop.podctl("image", "rm", gone.key).code == 0
    else:
        assert shop.podctl("image", "gc", "--grace-period=1h").code == 254
    assert not shop.store.holds(gone.key)
    assert shop.podctl("fsck", "--repair").code == 0
    assert {record.key for record in shop.store.images()} == {three[1].key, hurt.key}
    assert shop.store.image(hurt.key)[:8] == hurt[:8]
    assert shop.podctl("image", "verify", hurt.key).err == ""
    gc(shop)


def test_a_pull_that_was_committed_halfway_is_no_damage(shop: Shop) -> None:
    """Layers without an image wait for the next attempt; collection removes them."""
    record = shop.layered("half", BASE, layer(file("x", "x")))
    shutil.rmtree(shop.data / f"cas/images/{record.key}")
    (shop.data / shop.store.layout.blob(record.document)).unlink()
    assert shop.podctl("fsck") == (0, "", "")
    assert shop.podctl("fsck", "--repair") == (0, "", "")
    assert blobs_on_disk(shop) == set(record.blobs)
    flip(shop.blob(record))
    found = shop.podctl("fsck")
    assert "is damaged, and belongs to no image" in found.out
    assert shop.podctl("fsck", "--repair").code == 0
    assert blobs_on_disk(shop) == {record.blobs[1]}
    gc(shop)
    check_clean(shop)


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3))
def test_k17_a_flipped_byte_in_any_layer_is_found_and_repaired(shop: Shop, number: int) -> None:
    tops = [layer(file("data", b"d" * 4000)), layer(opaque("etc"), file("etc/new", b"n" * 300))]
    record = shop.layered("flipped", BASE, *tops)
    path = shop.layer(record, number) / ["bin/sh", "data", "etc/new"][number]
    good = path.read_bytes()
    for at in {0, len(good) // 2, len(good) - 1}:
        flip(path, at)
        ran = shop.podctl("image", "verify", record.key)
        assert ran.code == 0
        assert f"/{path.relative_to(shop.layer(record, number))} has other content" in ran.err
        assert path.read_bytes() == good
    assert shop.podctl("image", "verify", record.key).err == ""
    check_clean(shop)


def test_marks_on_directories_are_part_of_a_layer(shop: Shop) -> None:
    """Without its mark an opaque directory would show what it hides."""
    record = shop.layered("marked", BASE, layer(opaque("etc"), file("etc/new", "new")))
    top = shop.layer(record, 1) / "etc"
    os.removexattr(top, "trusted.overlay.opaque")
    ran = shop.podctl("image", "verify", record.key)
    assert "/etc has another attribute trusted.overlay.opaque" in ran.err
    assert os.getxattr(shop.layer(record, 1) / "etc", "trusted.overlay.opaque") == b"y"
    whiteouts = layer(whiteout("bin/sh"))
    record = shop.layered("whiteouts", BASE, whiteouts)
    (shop.layer(record, 1) / "bin/sh").unlink()
    assert "/bin/sh is missing" in shop.podctl("image", "verify", record.key).err
    made = (shop.layer(record, 1) / "bin/sh").lstat()
    assert stat.S_ISCHR(made.st_mode)
    assert made.st_rdev == 0


def test_a_damaged_blob_is_replaced_by_taking_the_image_in_again(shop: Shop) -> None:
    top = layer(file("x", os.urandom(3000)))
    path = f"oci:{shop.layout('again', BASE, top)}"
    record = shop.fetch(path)
    for number in range(2):
        flip(shop.blob(record, number))
    # Not unpacked, so that the bytes are needed.
    shutil.rmtree(shop.data / "layers")
    assert shop.fetch(path).key == record.key
    assert shop.blob(record, 0).read_bytes() == BASE.blob
    assert shop.blob(record, 1).read_bytes() == top.blob
    check_clean(shop)


def test_a_mark_that_cannot_be_read_is_written_anew(shop: Shop) -> None:
    path = f"oci:{shop.layout('unmarked', BASE, layer(file('bin/tool', 't')))}"
    record = shop.fetch(path)
    assert resolve(shop.store, record.key).tree is not None
    marks = [shop.layer(record, number).parent / "done.json" for number in range(2)]
    for mark, damage in zip(marks, ("garbage", None), strict=True):
        if damage is None:
            mark.unlink()
            mark.mkdir()
        else:
            mark.write_text(damage)
    # Until then a layer is treated as one whose directories look as those below.
    assert resolve(shop.store, record.key).tree is not None
    assert shop.fetch(path).key == record.key
    check_clean(shop)


# -- rendering ------------------------------------------------------------------------------------


#: a base whose directories have modes and owners
IMPLIED_BASE = layer(
    directory("srv", mode=0o750, uid=7, gid=8),
    directory("srv/data", mode=0o2770, uid=9, gid=9),
    file("srv/data/low", "low"),
)


def implied(shop: Shop) -> ImageRecord:
    """That base, and a layer that only leads through its directories."""
    return shop.layered("implied", IMPLIED_BASE, layer(file("srv/data/high", "high")))


def test_directories_no_entry_describes_look_as_those_below(shop: Shop) -> None:
    record = implied(shop)
    resolved = resolve(shop.store, record.key)
    assert resolved.tree is not None
    (lower,) = rootfs(shop.store, resolved).lowers
    for name, mode, owner in (("srv", 0o750, (7, 8)), ("srv/data", 0o2770, (9, 9))):
        status = os.stat(f"{lower}/{name}")
        assert stat.S_IMODE(status.st_mode) == mode
        assert (status.st_uid, status.st_gid) == owner
    assert sorted(os.listdir(f"{lower}/srv/data")) == ["high", "low"]
    # Files are those of the layers, not copies.
    assert os.path.samefile(f"{lower}/srv/data/low", shop.layer(record) / "srv/data/low")
    # The control: in the layer itself they look as directories are made.
    assert stat.S_IMODE((shop.layer(record, 1) / "srv").stat().st_mode) == 0o755


def test_only_what_takes_merging_is_merged(shop: Shop) -> None:
    """An overlay does where each directory is described, or nothing is below."""
    described = shop.layered("described", BASE, layer(directory("bin"), file("bin/tool", "t")))
    alone = shop.layered("alone", layer(file("deep/in/it", "x")))
    for record in (described, alone):
        assert resolve(shop.store, record.key).tree is None


def test_a_merged_tree_that_was_changed_is_rendered_again(shop: Shop) -> None:
    record = implied(shop)
    (lower,) = rootfs(shop.store, record.key).lowers
    os.unlink(f"{lower}/srv/data/low")
    ran = shop.podctl("image", "verify", record.key)
    assert ran.code == 0
    assert "/srv/data/low is missing;  rebuilding" in ran.err
    assert sorted(os.listdir(f"{lower}/srv/data")) == ["high", "low"]
    assert shop.podctl("image", "verify", record.key).err == ""
    os.chmod(f"{lower}/srv/data", 0o777)
    found = shop.podctl("fsck")
    assert found.code == 254
    assert "/srv/data: has mode 40777, not 42770" in found.out
    assert shop.podctl("fsck", "--repair").code == 0
    assert stat.S_IMODE(os.stat(f"{lower}/srv/data").st_mode) == 0o2770
    assert shop.podctl("fsck") == (0, "", "")


def test_trees_of_all_images_follow_a_layer_that_was_replaced(shop: Shop) -> None:
    """Both have links to its files; verifying one must not leave the other damaged unseen."""
    first = implied(shop)
    another = layer(file("srv/data/another", "another"))
    second = shop.layered("implied-too", IMPLIED_BASE, another)
    lowers = [rootfs(shop.store, record.key).lowers[0] for record in (first, second)]
    flip(shop.layer(first) / "srv/data/low")
    for record, lower in zip((first, second), lowers, strict=True):
        with open(f"{lower}/srv/data/low") as damaged:
            assert damaged.read() != "low"
        assert "rebuilding" in shop.podctl("image", "verify", record.key).err
        with open(f"{lower}/srv/data/low") as repaired:
            assert repaired.read() == "low"
    assert shop.podctl("fsck") == (0, "", "")


# -- locks ----------------------------------------------------------------------------------------


def test_who_keeps_images_and_who_removes_one_never_wait_for_each_other(shop: Shop) -> None:
    """An image stands on another: keeping the lower, removing the upper, then keeping that too."""
    lower = shop.layered("lower", BASE)
    upper = shop.layered("upper", BASE, layer(file("x", "x")))
    keeper = Store(str(shop.data))
    keeper.keep(lower)
    locks: Locks = shop.store.locks

    def refuse() -> None:
        raise BlockingIOError

    with locks.removing(upper, refuse):
        pass
    with pytest.raises(BlockingIOError), locks.removing(lower, refuse):
        pass
    keeper.keep(upper)
    with pytest.raises(BlockingIOError), locks.removing(upper, refuse):
        pass
    for fd in keeper._kept.values():
        os.close(fd)


# -- a record that is exchanged while it is used ---------------------------------------------------


def test_k18_layers_are_those_of_the_documents_whenever_the_record_is_read(shop: Shop) -> None:
    """Between root's look at a record and its use, a member of the group may write it again."""
    record = shop.layered("genuine", BASE, layer(file("genuine", "g")))
    evil = shop.layered("evil", BASE, layer(file("evil", "e")))
    changed = (
        record._replace(layers=evil.layers, blobs=evil.blobs),
        record._replace(layers=record.layers[:1], blobs=record.blobs[:1]),
        record._replace(layers=record.layers[::-1], blobs=record.blobs[::-1]),
    )
    for poisoned in changed:
        shop.store.restore_times(poisoned, 1)
        # The control: what is in the store is what the record says.
        assert all(shop.store.layer(layer) for layer in shop.store.image(record.key).layers)
        with pytest.raises(StoreCorrupt, match="does not fit its documents"):
            resolve(shop.store, record.key)
        for command in ("extract", "render"):
            ran = shop.podctl("image", command, record.key, str(shop.data / "output"))
            assert ran.code == 254
            assert "does not fit its documents" in ran.err
            assert not (shop.data / "output").exists()
    shop.store.restore_times(record, 1)
    assert resolve(shop.store, record.key).layers == record.layers[::-1]
