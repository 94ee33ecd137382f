"""fsck of a layered image: each of its files, damaged in every way, is found and made anew."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest
from damage import MUTATIONS, remove_elsewhere

from podctl.images.render import resolve, rootfs
from podctl.store import Verification, document_key
from podctl.store.records import seal, unseal
from podctl.testing.ocilayers import directory, file, layer, opaque

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Shop

    from podctl.store import ImageRecord

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

BASE = layer(directory("bin", mode=0o711), file("bin/app", b"x" * 3000, mode=0o755))
#: leads through bin, which the base describes: a tree has to be rendered
TOP = layer(file("bin/more", "more"), file("etc/conf", "conf"))
OTHER = layer(opaque("bin"), file("bin/other", "other"))
NAMES = ("localhost/app", "localhost/other")


class Furnished(NamedTuple):
    """A store with a layered image that is to suffer and one on the same base that must not."""

    shop: Shop
    app: ImageRecord
    other: ImageRecord
    tree: str


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a furnished store lies once it was made; tests work on copies of it."""
    return tmp_path_factory.mktemp("layered") / "data"


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
    app, other = shop.layered("app", BASE, TOP), shop.layered("other", BASE, OTHER)
    sign(shop, app)
    for record in (app, other):
        note = Verification.unverified(record.name, record.labels, record.layers)
        shop.store.mark_verified(record.key, note)
    assert (shop.data / f"verified/{app.key}.image").exists()
    rootfs(shop.store, app.key)
    assert shop.podctl("fsck") == (0, "", "")


def sign(shop: Shop, record: ImageRecord) -> None:
    """Give an image a signature, as if it had come with it."""
    import hashlib

    path = shop.data / f"cas/images/{record.key}/signature"
    path.write_bytes(b"signature")
    path.chmod(0o640)
    digest = hashlib.sha256(b"signature").hexdigest()
    shop.store.restore_times(record._replace(signed=True, signature_digest=digest), 1)


def parts(world: Furnished) -> dict[str, Path]:
    """Each kind of file of the store, of the image that is to suffer."""
    shop, app = world.shop, world.app
    image = shop.data / "cas/images" / app.key
    return {
        "shared blob": shop.blob(app, 0),
        "own blob": shop.blob(app, 1),
        "document blob": shop.data / shop.store.layout.blob(app.document),
        "record": image / "record.json",
        "document": image / "manifest",
        "signature": image / "signature",
        "shared mark": shop.layer(app, 0).parent / "done.json",
        "own mark": shop.layer(app, 1).parent / "done.json",
        "shared file": shop.layer(app, 0) / "bin/app",
        "own file": shop.layer(app, 1) / "etc/conf",
        "tree mark": shop.data / world.tree / "done.json",
        "note": shop.data / "verified" / f"{app.key}.json",
        "view": shop.data / "verified" / f"{app.key}.image",
    }


PARTS = [
    "shared blob", "own blob", "document blob", "record", "document", "signature", "shared mark",
    "own mark", "shared file", "own file", "tree mark", "note", "view",
]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("part", PARTS)
def test_l10_damage_is_found_by_name_and_repaired(
    furnished: Furnished, part: str, mutation: str
) -> None:
    shop = furnished.shop
    path = parts(furnished)[part]
    try:
        MUTATIONS[mutation](path)
        found = shop.podctl("fsck")
        if mutation == "deleted" and part in ("note", "view"):
            assert found.code == 0
        else:
            assert found.code == 254
            assert f"{path.relative_to(shop.data)}: " in found.out
            if part in ("note", "view"):
                assert len(found.out.splitlines()) == 1
        repaired = shop.podctl("fsck", "--repair")
        assert repaired.code == 0, repaired
        assert shop.podctl("fsck") == (0, "", "")
        lost = mutation != "wrong mode" and part in ("shared blob", "own blob")
        check(furnished, furnished.app, b"x" * 3000, usable=not lost)
        # It shares what was damaged, or nothing.
        lost = lost and part == "shared blob"
        check(furnished, furnished.other, b"other", usable=not lost)
    finally:
        remove_elsewhere(path)


def check(world: Furnished, record: ImageRecord, content: bytes, *, usable: bool) -> None:
    """An image is what it was; or, its bytes lost, it is gone."""
    store = world.shop.store
    if not usable:
        assert store.lookup(record.key) is None
        return
    found = store.image(record.key)
    assert found[:8] == record[:8]
    assert found.document == record.document
    assert world.shop.podctl("image", "verify", record.key).err == ""
    lowers = rootfs(store, resolve(store, record.key)).lowers
    name = "bin/app" if record == world.app else "bin/other"
    with open(
        next(f"{lower}/{name}" for lower in lowers if os.path.exists(f"{lower}/{name}")), "rb"
    ) as file:
        assert file.read() == content


def test_lost_records_are_made_from_the_documents(furnished: Furnished) -> None:
    shop = furnished.shop
    before = {record.key: record for record in shop.store.images()}
    shutil.rmtree(shop.data / "cas/images")
    (shop.data / "cas/images").mkdir(mode=0o750)
    found = shop.podctl("fsck")
    # Of each image its documents are told; layers are nothing by themselves.
    assert found.out.count("belongs to no image") == 2
    assert shop.podctl("fsck", "--repair").code == 0
    after = {record.key: record for record in shop.store.images()}
    assert after.keys() == before.keys()
    for key, record in after.items():
        assert record[:8] == before[key][:8]
    assert shop.podctl("fsck") == (0, "", "")


def test_without_records_and_layers_an_image_is_unpacked_again(furnished: Furnished) -> None:
    shop = furnished.shop
    for place, mode in (("cas/images", 0o750), ("layers", 0o700), ("verified", 0o700)):
        shutil.rmtree(shop.data / place)
        (shop.data / place).mkdir(mode=mode)
    (shop.data / "verified/remotes").mkdir(mode=0o700)
    assert shop.podctl("fsck", "--repair").code == 0
    check(furnished, furnished.app, b"x" * 3000, usable=True)
    check(furnished, furnished.other, b"other", usable=True)


def test_a_document_without_all_its_layers_is_moved_aside(furnished: Furnished) -> None:
    shop, app = furnished.shop, furnished.app
    shutil.rmtree(shop.data / "cas/images" / app.key)
    shop.blob(app, 1).unlink()
    repaired = shop.podctl("fsck", "--repair")
    assert "moved to cas/quarantine/" in repaired.out
    assert shop.store.lookup(app.key) is None
    assert shop.podctl("fsck") == (0, "", "")
    check(furnished, furnished.other, b"other", usable=True)


@pytest.mark.parametrize("field", ["layers", "blobs", "name", "size", "document", "format"])
def test_a_record_that_says_something_else_is_made_anew(furnished: Furnished, field: str) -> None:
    """Well sealed, but not what the documents say."""
    shop, app, other = furnished.shop, furnished.app, furnished.other
    changed = {
        "layers": app._replace(layers=other.layers),
        "blobs": app._replace(blobs=other.blobs),
        "name": app._replace(name="localhost/elsewhere"),
        "size": app._replace(size=app.size + 1),
        "document": app._replace(document=other.document),
        "format": app._replace(format="aci"),
    }
    shop.store.restore_times(changed[field], 1)
    found = shop.podctl("fsck")
    assert found.code == 254
    assert f"cas/images/{app.key}/" in found.out
    assert shop.podctl("fsck", "--repair").code == 0
    assert shop.podctl("fsck") == (0, "", "")
    check(furnished, app, b"x" * 3000, usable=True)
    check(furnished, other, b"other", usable=True)


def test_documents_of_another_image_are_not_taken(furnished: Furnished) -> None:
    """A document is certain by its digest: whatever is well formed but another is replaced."""
    shop, app, other = furnished.shop, furnished.app, furnished.other
    images = shop.data / "cas/images"
    shutil.copy(images / other.key / "manifest", images / app.key / "manifest")
    assert document_key((images / app.key / "manifest").read_bytes()) == other.key
    ran = shop.podctl("image", "verify", app.key)
    assert ran.code == 254
    assert shop.podctl("fsck", "--repair").code == 0
    assert json.loads((images / app.key / "manifest").read_bytes())["reference"] == (
        "localhost/app:1"
    )
    check(furnished, app, b"x" * 3000, usable=True)


def test_a_view_that_says_something_else_is_made_anew(furnished: Furnished) -> None:
    """Well sealed by root, but not what the documents say: `image verify` and fsck compare."""
    shop, app = furnished.shop, furnished.app
    path = shop.data / f"verified/{app.key}.image"
    content = path.read_bytes()
    value = unseal(content)
    del value["crc32"]
    value["app"]["exec"] = ["/bin/else"]
    for command in (("image", "verify", app.key), ("fsck",)):
        path.write_bytes(seal(value, ordered=True))
        found = shop.podctl(*command)
        assert found.code == (0 if command[0] == "image" else 254)
        assert f"verified/{app.key}.image" in found.out + found.err
        assert "says something else than the image's documents" in found.out + found.err
        if command == ("fsck",):
            assert shop.podctl("fsck", "--repair").code == 0
        assert path.read_bytes() == content
    # The control: of another installation it is no view that anybody would use.
    path.write_bytes(seal({**value, "made_by": "another"}, ordered=True))
    assert shop.podctl("fsck") == (0, "", "")
