"""From an image and its dependencies to one root filesystem."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from podctl.errors import NotFound, Refused
from podctl.images.render import copy_into, resolve, rootfs

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Shop

pytestmark = pytest.mark.root


def names(shop: Shop, key: str) -> list[str]:
    return [
        part.record.name.removeprefix("example.com/") for part in resolve(shop.store, key).parts
    ]


def rendered(shop: Shop, key: str, target: Path) -> dict[str, str]:
    """Content of each file of a copied root filesystem, links by their target."""
    target.mkdir()
    copy_into(shop.store, key, str(target))
    found = {}
    for path in sorted(target.rglob("*")):
        name = str(path.relative_to(target))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_text()
    return found


def test_an_image_alone_is_its_layer(shop: Shop) -> None:
    record = shop.image("example.com/app", {"bin/app": "app"})
    assert rootfs(shop.store, record.key).lowers == (str(shop.layer(record)),)


def test_later_dependencies_come_first_depth_first(shop: Shop, tmp_path: Path) -> None:
    shop.image("example.com/base", {"f": "base", "base": ""})
    shop.image("example.com/a", {"f": "a", "a": ""}, dependencies=["example.com/base"])
    shop.image("example.com/b", {"f": "b", "b": ""}, dependencies=["example.com/base"])
    top = shop.image(
        "example.com/top", {"top": ""}, dependencies=["example.com/a", "example.com/b"]
    )
    # `base` is reached twice and stands once, at its higher priority.
    assert names(shop, top.key) == ["top", "b", "base", "a"]
    layers = rootfs(shop.store, top.key).lowers
    assert len(layers) == 4
    found = rendered(shop, top.key, tmp_path / "out")
    assert found == {"f": "b", "base": "", "a": "", "b": "", "top": ""}


def test_a_higher_entry_of_another_kind_hides_the_lower_subtree(shop: Shop, tmp_path: Path) -> None:
    shop.image("example.com/base", {"x/inner": "1", "y": "file", "z/deep/file": "1"})
    top = shop.image(
        "example.com/top",
        {"x": "file", "y/inner": "2", "z": "-> /etc"},
        dependencies=["example.com/base"],
    )
    found = rendered(shop, top.key, tmp_path / "out")
    assert found == {"x": "file", "y/inner": "2", "z": "-> /etc"}


def test_a_whitelist_limits_an_image_and_what_it_depends_on(shop: Shop, tmp_path: Path) -> None:
    shop.image("example.com/base", {"etc/a": "base", "etc/b": "base", "usr/lib/c": "base"})
    top = shop.image(
        "example.com/top",
        {"etc/a": "top", "bin/app": "top", "bin/other": "top"},
        dependencies=["example.com/base"],
        whitelist=["/etc/a", "/usr/lib/c", "/bin/app", "/missing"],
    )
    found = rendered(shop, top.key, tmp_path / "out")
    assert found == {"etc/a": "top", "usr/lib/c": "base", "bin/app": "top"}


def test_a_listed_directory_does_not_bring_its_content(shop: Shop, tmp_path: Path) -> None:
    top = shop.image(
        "example.com/top",
        {"var/empty/file": "1", "etc/link": "-> target", "etc/target": "1"},
        whitelist=["/var/empty", "/etc/link"],
    )
    assert rendered(shop, top.key, tmp_path / "out") == {"etc/link": "-> target"}
    assert (tmp_path / "out/var/empty").is_dir()


def test_a_dependency_shows_what_any_branch_lets_through(shop: Shop, tmp_path: Path) -> None:
    """Reached under a whitelist and without one, an image counts for both."""
    shop.image("example.com/base", {"a": "base", "b": "base"})
    shop.image(
        "example.com/strict", {"s": ""}, dependencies=["example.com/base"], whitelist=["/a", "/s"]
    )
    shop.image("example.com/open", {"o": ""}, dependencies=["example.com/base"])
    for order in (["strict", "open"], ["open", "strict"]):
        top = shop.image(
            f"example.com/top-{order[0]}",
            {"t": ""},
            dependencies=[f"example.com/{name}" for name in order],
        )
        found = rendered(shop, top.key, tmp_path / order[0])
        assert sorted(found) == ["a", "b", "o", "s", "t"]


def test_with_a_whitelist_a_tree_is_rendered_once(shop: Shop) -> None:
    shop.image("example.com/base", {"a": "base", "b": "base"})
    top = shop.image(
        "example.com/top", {"bin/app": "x"}, dependencies=["example.com/base"], whitelist=["/a"]
    )
    (lower,) = rootfs(shop.store, top.key).lowers
    assert lower.startswith(f"{shop.data}/trees/deps-sha512-")
    assert os.listdir(lower) == ["a"]
    inode = os.stat(lower).st_ino
    assert rootfs(shop.store, top.key).lowers == (lower,)
    assert os.stat(lower).st_ino == inode
    assert shop.store.image(top.key).tree_size > 0
    # Files are shared with the layer: a tree costs its directories alone.
    base = shop.store.find("example.com/base", {})
    assert base is not None
    assert os.path.samefile(f"{lower}/a", shop.layer(base) / "a")


def test_another_whitelist_is_another_tree(shop: Shop) -> None:
    ids = set()
    for number, whitelist in enumerate((["/a"], ["/b"], ["/a", "/b"])):
        record = shop.image(f"example.com/{number}", {"a": "", "b": ""}, whitelist=whitelist)
        ids.add(resolve(shop.store, record.key).tree)
    assert len(ids) == 3


def test_a_loop_is_refused_and_named(shop: Shop) -> None:
    shop.image("example.com/a", {}, dependencies=["example.com/b"])
    shop.image("example.com/b", {}, dependencies=["example.com/c"])
    last = shop.image("example.com/c", {}, dependencies=["example.com/a"])
    with pytest.raises(Refused, match=r"loop: example.com/c -> example.com/a -> example.com/b"):
        resolve(shop.store, last.key)


def test_depth_is_limited_but_a_diamond_is_cheap(shop: Shop) -> None:
    """60 levels of two ways each are 2^60 ways, and 121 images."""
    below: list[str] = []
    record = None
    for level in range(60):
        for side in ("x", "y"):
            record = shop.image(f"example.com/{side}{level}", {}, dependencies=below)
        below = [f"example.com/x{level}", f"example.com/y{level}"]
    assert record is not None
    assert len(resolve(shop.store, record.key).parts) == 119
    for level in range(60, 70):
        record = shop.image(f"example.com/x{level}", {}, dependencies=[f"example.com/x{level - 1}"])
    with pytest.raises(Refused, match="more than 64 levels"):
        resolve(shop.store, record.key)


def test_a_missing_dependency_is_named(shop: Shop) -> None:
    record = shop.image(
        "example.com/top",
        {},
        dependencies=[
            {"imageName": "example.com/no", "labels": [{"name": "version", "value": "7"}]}
        ],
    )
    with pytest.raises(NotFound, match=r'"example.com/top": dependency "example.com/no,version=7"'):
        resolve(shop.store, record.key)


def test_a_dependency_must_be_what_it_is_pinned_to(shop: Shop) -> None:
    base = shop.image("example.com/base", {"a": ""})
    image_id, name = base.layers[0], "example.com/base"
    good = shop.image("example.com/0", {}, dependencies=[{"imageName": name, "imageID": image_id}])
    assert len(resolve(shop.store, good.key).parts) == 2
    wrong_tail = image_id[:-1] + ("0" if image_id[-1] != "0" else "1")
    version = [{"name": "version", "value": "2"}]
    cases = [
        ({"imageName": name, "imageID": wrong_tail}, "is pinned to"),
        ({"imageName": "example.com/other", "imageID": image_id}, "is an image of the name"),
        ({"imageName": name, "imageID": image_id, "labels": version}, 'label version "2"'),
        ({"imageName": name, "imageID": image_id, "size": 1}, "must have 1 bytes"),
        ({"imageName": name, "size": 1}, "must have 1 bytes"),
    ]
    for number, (dependency, message) in enumerate(cases, 1):
        record = shop.image(f"example.com/{number}", {}, dependencies=[dependency])
        with pytest.raises(Refused, match=message):
            resolve(shop.store, record.key)


def test_each_image_is_checked_before_its_manifest_counts(shop: Shop) -> None:
    shop.image("example.com/base", {})
    top = shop.image("example.com/top", {}, dependencies=["example.com/base"])
    checked: list[str] = []

    def check(record: object) -> None:
        checked.append(record.name)  # type: ignore[attr-defined]
        if len(checked) == 2:
            raise Refused("not this one")

    with pytest.raises(Refused, match="not this one"):
        resolve(shop.store, top.key, check=check)
    assert checked == ["example.com/top", "example.com/base"]


def test_copying_does_not_follow_or_open_anything(shop: Shop, tmp_path: Path) -> None:
    """Links lead out, a FIFO would block: the copy holds the same links and FIFOs."""
    canary = tmp_path / "canary"
    canary.write_text("secret")
    record = shop.image("example.com/app", {"link": f"-> {canary}", "up": "-> ../../../etc"})
    os.mkfifo(shop.layer(record) / "fifo")
    target = tmp_path / "out"
    target.mkdir()
    copy_into(shop.store, record.key, str(target))
    assert os.readlink(target / "link") == str(canary)
    assert os.readlink(target / "up") == "../../../etc"
    assert (target / "fifo").is_fifo()
    assert canary.read_text() == "secret"


def test_t34_a_whitelist_cannot_name_anything_outside(tmp_path: Path) -> None:
    """Its entries are compared, never opened; the model refuses most of these already."""
    from podctl.images.render import Whitelist, copy_layers

    layer = tmp_path / "layer"
    (layer / "etc").mkdir(parents=True)
    (layer / "etc/passwd").write_text("layer")
    (tmp_path / "canary").write_text("canary")
    for entry in ("/../canary", "/etc/../../canary", "../canary", "/", ""):
        target = tmp_path / f"out{len(entry)}"
        target.mkdir()
        copy_layers([(str(layer), Whitelist([(entry,)]))], str(target))
        assert os.listdir(target) == []
    target = tmp_path / "control"
    target.mkdir()
    copy_layers([(str(layer), Whitelist([("//etc/./passwd",)]))], str(target))
    assert (target / "etc/passwd").read_text() == "layer"
