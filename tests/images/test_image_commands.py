"""The image commands, on images made by GNU tar."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from podctl.store.usage import dump_needs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Shop

    from podctl.store import ImageRecord

pytestmark = pytest.mark.root
FILES = {"bin/app": b"x" * 5000, "etc/conf": "conf", "bin/link": "-> app", "empty": None}


@pytest.fixture
def app(shop: Shop) -> ImageRecord:
    return shop.image("example.com/app", FILES)


def ways_to_name(record: ImageRecord) -> tuple[str, ...]:
    return record.key, record.key[:19], record.layers[0], record.name, f"{record.name}:1"


# -- list -----------------------------------------------------------------------------------------


def test_list_shows_rkts_columns(shop: Shop, app: ImageRecord) -> None:
    ran = shop.podctl("image", "list")
    assert ran.code == 0
    header, line = ran.out.splitlines()
    assert header.split("  ")[0] == "ID"
    assert [word.strip() for word in header.split("  ") if word.strip()] == [
        "ID", "NAME", "SIZE", "IMPORT TIME", "LAST USED",
    ]  # fmt: skip
    assert line.split()[:2] == [app.key[:19], "example.com/app:1"]
    assert line.split()[2].endswith("KiB")


def test_list_takes_fields_order_and_formats(shop: Shop, app: ImageRecord) -> None:
    other = shop.image("example.com/a-larger-one", {"f": b"y" * 50_000}, labels={})
    ran = shop.podctl("image", "list", "--fields=name,id", "--no-legend", "--full", "--sort=name")
    assert ran.out.splitlines() == [
        f"example.com/a-larger-one  {other.key}",
        f"example.com/app:1         {app.key}",
    ]
    by_size = ["image", "list", "--fields=size", "--full", "--sort=size", "--no-legend"]
    assert shop.podctl(*by_size).out.split() == [str(app.size), str(other.size)]
    assert shop.podctl(*by_size, "--order=desc").out.split() == [str(other.size), str(app.size)]
    listed = json.loads(shop.podctl("image", "list", "--format=json").out)
    assert [entry["id"] for entry in listed] == [app.key, other.key]
    assert listed[0] == {
        "id": app.key,
        "name": "example.com/app:1",
        "import_time": int(app.imported_at * 1e9),
        "last_used_time": listed[0]["last_used_time"],
        "size": app.size,
        "digest": None,
        "format": "aci",
    }
    assert abs(listed[0]["last_used_time"] - time.time() * 1e9) < 3600e9


def test_list_refuses_what_it_does_not_know(shop: Shop) -> None:
    for flag in ("--fields=id,colour", "--sort=colour", "--order=up", "--format=xml"):
        assert shop.podctl("image", "list", flag).code == 254, flag


def test_an_empty_list_is_a_header(shop: Shop) -> None:
    ran = shop.podctl("image", "list")
    assert (ran.code, ran.out.split()[0], len(ran.out.splitlines())) == (0, "ID", 1)
    assert shop.podctl("image", "list", "--format=json").out == "[]\n"


def test_the_size_grows_with_a_rendered_tree_and_shrinks_again(shop: Shop) -> None:
    from podctl.images.render import rootfs

    record = shop.image("example.com/app", FILES, whitelist=["/bin/app"])
    size = ["image", "list", "--fields=size", "--full", "--no-legend"]
    before = int(shop.podctl(*size).out)
    assert before == record.size
    rootfs(shop.store, record.key)
    rendered = int(shop.podctl(*size).out)
    assert rendered > before
    # Importing it again forgets nothing.
    shop.store.touch(record.key)
    assert shop.podctl("image", "gc").code == 0
    assert int(shop.podctl(*size).out) == before


# -- rm -------------------------------------------------------------------------------------------


def test_rm_takes_every_way_to_name_an_image(shop: Shop) -> None:
    for number in range(5):
        record = shop.image("example.com/app", {"f": str(number)})
        ran = shop.podctl("image", "rm", ways_to_name(record)[number])
        assert ran.code == 0, ran
        assert ran.out == f'successfully removed aci for image: "{record.key}"\n'
        assert "1 image(s) successfully removed" in ran.err
    assert not any(path.is_file() for path in (shop.data / "cas").rglob("*"))
    assert os.listdir(shop.data / "layers") == []


def test_rm_removes_an_image_named_twice_once(shop: Shop, app: ImageRecord) -> None:
    ran = shop.podctl("image", "rm", app.name, app.key, app.key[:12])
    assert (ran.code, len(ran.out.splitlines())) == (0, 1)


def test_rm_goes_on_after_one_it_cannot_find(shop: Shop, app: ImageRecord) -> None:
    ran = shop.podctl("image", "rm", "example.com/no", "sha512-a", "sha512-ffff", app.name)
    assert ran.code == 254
    assert app.key in ran.out
    for text in ("not in the store", "image ID too short", "no image IDs found", "3 image(s)"):
        assert text in ran.err
    assert shop.store.keys() == []


def test_rm_spares_the_layer_of_a_pod(shop: Shop, app: ImageRecord) -> None:
    pod = shop.data / "pods/prepared/2c5a3b9e-4b0d-4f0f-9c53-5f1d0e6b7a11"
    pod.mkdir(parents=True)
    (pod / "images.json").write_bytes(dump_needs([app.key], app.layers, []))
    assert shop.podctl("image", "rm", app.name).code == 0
    assert shop.store.keys() == []
    assert shop.layer(app).is_dir()
    (pod / "images.json").unlink()
    ran = shop.podctl("image", "gc")
    assert (ran.code, os.listdir(shop.data / "layers")) == (0, [])


# -- gc -------------------------------------------------------------------------------------------


def test_gc_removes_what_was_unused_for_the_grace_period(shop: Shop, app: ImageRecord) -> None:
    young = shop.image("example.com/young", {"f": "y"})
    day = 86400
    then = time.time() - 2 * day
    os.utime(shop.data / "cas/images" / app.key / "record.json", (then, then))
    assert shop.podctl("image", "gc", "--grace-period=72h").code == 0
    assert len(shop.store.keys()) == 2
    ran = shop.podctl("image", "gc")
    assert ran.code == 0
    assert app.key in ran.err
    assert shop.store.keys() == [young.key]
    assert os.listdir(shop.data / "layers") == [young.layers[0]]
    assert not shop.blob(app).exists()


def test_gc_keeps_what_pods_need(shop: Shop) -> None:
    from podctl.images.render import resolve, rootfs

    record = shop.image("example.com/app", FILES, whitelist=["/bin/app"])
    (tree,) = rootfs(shop.store, record.key).lowers
    pod = shop.data / "pods/exited-garbage/2c5a3b9e-4b0d-4f0f-9c53-5f1d0e6b7a11"
    pod.mkdir(parents=True)
    (pod / "images.json").write_bytes(resolve(shop.store, record.key).needs())
    assert shop.podctl("image", "gc", "--grace-period=0s").code == 0
    assert os.path.isdir(tree)
    assert shop.store.keys() == [record.key]
    (pod / "images.json").unlink()
    ran = shop.podctl("image", "gc", "--grace-period=0s")
    assert f'removed treestore "{os.path.basename(os.path.dirname(tree))}"' in ran.err
    assert (shop.store.keys(), os.listdir(shop.data / "trees")) == ([], [])


def test_gc_removes_nothing_when_a_pod_cannot_say_what_it_needs(
    shop: Shop, app: ImageRecord
) -> None:
    pod = shop.data / "pods/run/2c5a3b9e-4b0d-4f0f-9c53-5f1d0e6b7a11"
    pod.mkdir(parents=True)
    (pod / "images.json").write_text("{}")
    ran = shop.podctl("image", "gc", "--grace-period=0s")
    assert ran.code == 254
    assert "images.json" in ran.err
    assert shop.store.keys() == [app.key]
    assert shop.layer(app).is_dir()


# -- export, extract, render, cat-manifest --------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "gzip", "bzip2", "xz", "zstd"])
def test_export_writes_the_archive_as_published(
    shop: Shop, tmp_path: Path, compression: str
) -> None:
    path = shop.archive("example.com/app", FILES, compression=compression)
    from podctl.testing import aci

    record = aci.bring(shop.store, path)
    words = {"none": "cat", "gzip": "zcat", "bzip2": "bzcat", "xz": "xzcat", "zstd": "zstdcat"}
    tar = subprocess.run([words[compression], path], check=True, capture_output=True).stdout
    for number, name in enumerate(ways_to_name(record)):
        target = tmp_path / f"{number}.aci"
        assert shop.podctl("image", "export", name, str(target)).code == 0
        assert target.read_bytes() == tar


def test_export_does_not_overwrite_unasked(shop: Shop, app: ImageRecord, tmp_path: Path) -> None:
    target = tmp_path / "out.aci"
    target.write_text("mine")
    ran = shop.podctl("image", "export", app.name, str(target))
    assert ran.code == 254
    assert "exists (try --overwrite)" in ran.err
    assert target.read_text() == "mine"
    assert shop.podctl("image", "export", "--overwrite", app.name, str(target)).code == 0
    assert target.stat().st_size == app.size
    assert os.listdir(tmp_path / "data") and sorted(os.listdir(tmp_path)) == [
        "data", "out.aci", "scratch",
    ]  # fmt: skip


def test_export_of_damaged_bytes_leaves_no_file(
    shop: Shop, app: ImageRecord, tmp_path: Path
) -> None:
    data = bytearray(gzip.decompress(shop.blob(app).read_bytes()))
    data[600] ^= 1
    shop.blob(app).write_bytes(gzip.compress(bytes(data)))
    ran = shop.podctl("image", "export", app.name, str(tmp_path / "out.aci"))
    assert ran.code == 254
    assert "damaged" in ran.err
    assert sorted(os.listdir(tmp_path)) == ["data", "scratch"]


@pytest.mark.parametrize("command", ["extract", "render"])
def test_extract_and_render_give_manifest_and_files(
    shop: Shop, tmp_path: Path, command: str, listing: Callable[[Path], list[str]]
) -> None:
    shop.image("example.com/base", {"etc/base": "base"})
    record = shop.image("example.com/app", FILES, dependencies=["example.com/base"])
    for number, name in enumerate(ways_to_name(record)):
        target = tmp_path / f"out{number}"
        assert shop.podctl("image", command, name, str(target)).code == 0
        assert (target / "manifest").read_bytes() == shop.store.manifest(record.key)
        assert (target / "rootfs/etc/base").exists() == (command == "render")
        if command == "extract":
            assert listing(target / "rootfs") == listing(shop.layer(record))
    only = tmp_path / "only"
    assert shop.podctl("image", command, "--rootfs-only", record.name, str(only)).code == 0
    assert (only / "bin/app").read_bytes() == FILES["bin/app"]
    assert not (only / "manifest").exists()


@pytest.mark.parametrize("command", ["extract", "render"])
def test_extract_and_render_overwrite_only_when_asked(
    shop: Shop, app: ImageRecord, tmp_path: Path, command: str
) -> None:
    target = tmp_path / "out"
    (target / "old").mkdir(parents=True)
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "kept").touch()
    (target / "link").symlink_to(canary)
    ran = shop.podctl("image", command, app.name, str(target))
    assert ran.code == 254
    assert "exists (try --overwrite)" in ran.err
    assert (target / "old").is_dir()
    assert shop.podctl("image", command, "--overwrite", app.name, str(target)).code == 0
    assert sorted(os.listdir(target)) == ["manifest", "rootfs"]
    assert (canary / "kept").exists()


@pytest.mark.parametrize("command", ["extract", "render"])
def test_what_must_not_be_overwritten_is_refused(
    shop: Shop, app: ImageRecord, tmp_path: Path, command: str
) -> None:
    (tmp_path / "to-root").symlink_to("/")
    for target in ("/", "//", "/usr/..", str(tmp_path / "to-root")):
        ran = shop.podctl("image", command, "--overwrite", app.name, target)
        assert ran.code == 254
        assert "this would delete your root filesystem. Refusing." in ran.err
    for target in (str(shop.data), str(tmp_path), str(shop.data / "layers/x")):
        ran = shop.podctl("image", command, "--overwrite", app.name, target)
        assert ran.code == 254
        assert "data directory" in ran.err
    assert shop.layer(app).is_dir()


def test_cat_manifest_prints_the_document(shop: Shop, app: ImageRecord) -> None:
    for name in ways_to_name(app):
        ran = shop.podctl("image", "cat-manifest", name)
        assert json.loads(ran.out)["name"] == "example.com/app"
        assert len(ran.out.splitlines()) > 5
    flat = shop.podctl("image", "cat-manifest", "--pretty-print=false", app.name).out
    assert len(flat.splitlines()) == 1
    assert json.loads(flat) == json.loads(shop.store.manifest(app.key))


@pytest.mark.parametrize("command", ["cat-manifest", "export", "extract", "render", "verify"])
def test_an_image_that_is_not_there_is_254(shop: Shop, tmp_path: Path, command: str) -> None:
    shop.image("example.com/app", {})
    more = [str(tmp_path / "out")] if command in ("export", "extract", "render") else []
    for name in ("example.com/no", "example.com/app:7", "sha512-ffff", "sha512-f", "No Name"):
        ran = shop.podctl("image", command, name, *more)
        assert ran.code == 254, name
        assert len(ran.err.strip().splitlines()) in (1, 2)
    assert not (tmp_path / "out").exists()


# -- verify ---------------------------------------------------------------------------------------


def test_verify_finds_a_change_rebuilds_and_is_content(
    shop: Shop, app: ImageRecord, listing: Callable[[Path], list[str]]
) -> None:
    before = listing(shop.layer(app))
    good = f'successfully verified checksum for image: "{app.name}" ("{app.key}")\n'
    assert shop.podctl("image", "verify", app.name) == (0, good, "")
    (shop.layer(app) / "etc/added").write_text("x")
    ran = shop.podctl("image", "verify", app.name)
    assert ran.code == 0
    assert f"tree cache verification failed for image {app.name}: " in ran.err
    assert "/etc/added was added;  rebuilding..." in ran.err
    assert shop.podctl("image", "verify", app.name) == (0, good, "")
    assert listing(shop.layer(app)) == before


def test_verify_looks_at_the_rendered_tree(shop: Shop) -> None:
    from podctl.images.render import rootfs

    record = shop.image("example.com/app", FILES, whitelist=["/bin/app", "/etc/conf"])
    (tree,) = rootfs(shop.store, record.key).lowers
    os.unlink(f"{tree}/etc/conf")
    ran = shop.podctl("image", "verify", record.name)
    assert "/etc/conf is missing;  rebuilding..." in ran.err
    assert sorted(os.listdir(f"{tree}/etc")) == ["conf"]
    assert shop.podctl("image", "verify", record.name).err == ""


def test_verify_of_what_was_not_unpacked(shop: Shop, app: ImageRecord) -> None:
    subprocess.run(["rm", "-r", shop.layer(app).parent], check=True)
    ran = shop.podctl("image", "verify", app.name)
    assert ran == (0, f'image "{app.name}" not rendered; no verification needed\n', "")


def test_verify_refuses_damaged_bytes_and_goes_on(shop: Shop, app: ImageRecord) -> None:
    other = shop.image("example.com/other", {})
    blob = shop.blob(app)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    ran = shop.podctl("image", "verify", app.name, other.name)
    assert ran.code == 254
    assert "damaged" in ran.err
    assert "fetch it again" in ran.err
    assert f'"{other.name}"' in ran.out


def test_verify_does_not_pull_the_floor_from_under_a_running_pod(
    shop: Shop, app: ImageRecord
) -> None:
    from podctl.sys.locks import LockedFile

    pod = shop.data / "pods/run/2c5a3b9e-4b0d-4f0f-9c53-5f1d0e6b7a11"
    pod.mkdir(parents=True)
    (pod / "images.json").write_bytes(dump_needs([app.key], app.layers, []))
    (shop.layer(app) / "added").touch()
    with LockedFile(f"{pod}/lock"):
        ran = shop.podctl("image", "verify", app.name)
        assert ran.code == 254
        assert "while a running pod uses it" in ran.err
        assert (shop.layer(app) / "added").exists()
    assert shop.podctl("image", "verify", app.name).code == 0
    assert not (shop.layer(app) / "added").exists()


# -- members of the group -------------------------------------------------------------------------


def test_a_member_of_the_group_lists_verifies_exports_and_removes(
    shop: Shop, app: ImageRecord, tmp_path: Path
) -> None:
    """All of it with root's image; what is root's alone is refused."""
    group, user = 54322, 54321
    subprocess.run(["chgrp", "-R", str(group), shop.data / "cas"], check=True)
    subprocess.run(["chmod", "-R", "g+rwX", shop.data / "cas"], check=True)
    words = ["find", shop.data / "cas", "-type", "d", "-exec", "chmod", "2770", "{}", "+"]
    subprocess.run(words, check=True)
    words = ["find", shop.data / "cas", "-type", "f", "-exec", "chmod", "0660", "{}", "+"]
    subprocess.run(words, check=True)
    os.chown(shop.data, 0, group)
    for parent in (shop.data, tmp_path, *tmp_path.parents[:-1]):
        parent.chmod(parent.stat().st_mode | (0o055 if parent == shop.data else 0o011))
    out = tmp_path / "out"
    out.mkdir()
    os.chown(out, user, group)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
            assert app.key[:19] in shop.podctl("image", "list").out
            verified = shop.podctl("image", "verify", app.name)
            assert (verified.code, verified.err) == (0, ""), verified
            assert shop.podctl("fsck") == (0, "", "")
            assert shop.podctl("image", "export", app.name, str(out / "app.aci")).code == 0
            assert "example.com" in shop.podctl("image", "cat-manifest", app.name).out
            refused = shop.podctl("image", "gc")
            assert refused.code == 254
            assert "permission denied" in refused.err
            assert shop.podctl("image", "extract", app.name, str(out / "x")).code == 254
            assert shop.podctl("image", "rm", app.name).code == 0
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc(file=open("/dev/stderr", "w"))  # noqa: SIM115 - we exit
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert shop.store.keys() == []
    assert (out / "app.aci").stat().st_size == app.size
