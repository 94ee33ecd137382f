"""Whiteouts of OCI layers (catalogue T15-T19), against umoci and the kernel's overlayfs."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
from typing import TYPE_CHECKING, Any

import pytest
from archive_lab import (
    ACI,
    OCI,
    Snapshot,
    aci,
    archive,
    directory,
    hardlink,
    member,
    overlay_snapshot,
    pax,
    run,
    symlink,
    unpack_to,
)

from podctl.errors import ArchiveInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

INVALID = [
    [member(".wh.")],
    [member(".wh..")],
    [member(".wh...")],
    [directory("d"), member("d/.wh.")],
    [directory("d"), member("d/.wh...")],
    [member(".wh./../../canary/x")],
    [member("../.wh.x")],
    [member("a/../.wh.x")],
    [member(".wh.a/b")],
    [directory(".wh.a"), member(".wh.a/b")],
    [directory(".wh.a")],
    [symlink(".wh.a", "x")],
    [member(".wh.a", b"6")],
    [directory("d/.wh..wh..opq")],
    [symlink("s", "d"), member("s/.wh..wh..opq")],
    [member("f"), member("f/.wh..wh..opq")],
]


@pytest.mark.parametrize("members", INVALID)
@pytest.mark.parametrize("scan", [False, True])
def test_t15_t16_invalid_whiteouts_are_refused(
    members: list[bytes], scan: bool, tmp_path: Path
) -> None:
    with pytest.raises(ArchiveInvalid):
        unpack_to(None if scan else tmp_path / "target", archive(*members))


def whiteouts_of(target: Path) -> list[str]:
    return sorted(
        os.path.relpath(path, target)
        for path in target.rglob("*")
        if stat.S_ISCHR((status := path.lstat()).st_mode) and status.st_rdev == 0
    )


def test_whiteout_becomes_a_device_and_opaque_is_reported(tmp_path: Path) -> None:
    data = archive(
        directory("d"), member("d/.wh.gone"), member(".wh.top"), member("e/f/.wh..wh..opq"),
        directory("g"), member("g/.wh..wh..opq"), member("g/new"), hardlink(".wh.hard", "x"),
    )  # fmt: skip
    done = unpack_to(tmp_path / "target", data)
    assert whiteouts_of(tmp_path / "target") == ["d/gone", "hard", "top"]
    assert done.opaque == ("e/f", "g")
    assert unpack_to(None, data).opaque == done.opaque


def test_a_whiteout_below_what_is_no_directory_hides_nothing(tmp_path: Path) -> None:
    """umoci writes them where a directory became a file or a link; no link is followed."""
    data = archive(
        directory("d"), member("d/x"), symlink("s", "d"), member("s/.wh.x"), member("f"),
        member("f/.wh.x"), member("f/y/.wh.x"), member("d/z"),
    )  # fmt: skip
    done = unpack_to(tmp_path / "target", data)
    assert whiteouts_of(tmp_path / "target") == []
    assert sorted(os.listdir(tmp_path / "target/d")) == ["x", "z"]
    assert unpack_to(None, data).opaque == done.opaque == ()


def test_a_whiteout_may_hide_the_longest_name(tmp_path: Path) -> None:
    longest = "n" * 255
    path = (b"path", f".wh.{longest}".encode())
    unpack_to(tmp_path / "target", archive(pax(path), member("x")))
    assert whiteouts_of(tmp_path / "target") == [longest]
    for name in (f".wh.{longest}n", f"{longest}n", f"{longest}n/.wh.x"):
        with pytest.raises(ArchiveInvalid, match="over 255 bytes"):
            unpack_to(None, archive(pax((b"path", name.encode())), member("x")))


def test_opaque_root_is_reported_as_a_dot(tmp_path: Path) -> None:
    data = archive(member(".wh..wh..opq"))
    assert unpack_to(tmp_path / "target", data).opaque == (".",)
    assert unpack_to(None, data).opaque == (".",)


def test_t17_aufs_metadata_is_ignored(tmp_path: Path) -> None:
    data = archive(
        member(".wh..wh.aufs"), directory(".wh..wh.plnk"), member(".wh..wh.plnk/1.2", data=b"x"),
        directory(".wh..wh.orph"), member("d/.wh..wh.aufs"), member("kept"),
    )  # fmt: skip
    done = unpack_to(tmp_path / "target", data)
    assert os.listdir(tmp_path / "target") == ["kept"]
    assert done.opaque == ()


@pytest.mark.parametrize("layout", [OCI, ACI])
def test_t19_whiteout_device_in_an_archive_is_refused(layout: Any, tmp_path: Path) -> None:
    entry = member("rootfs/x" if layout is ACI else "x", b"3", device=(0, 0))
    for target in (tmp_path / "target", None):
        with pytest.raises(ArchiveInvalid, match="0/0"):
            unpack_to(target, (aci if layout is ACI else archive)(entry), layout)
    assert whiteouts_of(tmp_path / "target") == []


def test_aci_takes_whiteout_names_as_plain_names(tmp_path: Path) -> None:
    unpack_to(tmp_path / "target", aci(member("rootfs/.wh.x", data=b"plain")), ACI)
    assert (tmp_path / "target/.wh.x").read_bytes() == b"plain"


def test_too_many_opaque_directories_are_refused(tmp_path: Path) -> None:
    def entries() -> bytes:
        return b"".join(member(f"{n}/.wh..wh..opq") for n in range(65_537)) + bytes(1024)

    with pytest.raises(ArchiveInvalid, match="opaque"):
        unpack_to(None, entries())


# --- merged trees, compared with umoci ---

BASE = archive(
    directory("."), directory("d"), member("d/a", data=b"base a"), member("d/b", data=b"base b"),
    directory("d/sub"), member("d/sub/x", data=b"x"), member("f", data=b"base f"),
    directory("e"), member("e/one"), symlink("l", "d"), directory("z"), directory("z/y"),
    member("z/y/deep", data=b"deep"),
)  # fmt: skip

#: second layers whose meaning does not depend on the order of their entries
STACKS: dict[str, list[bytes]] = {
    "remove file": [member(".wh.f")],
    "remove directory": [member(".wh.d")],
    "remove inside": [directory("d"), member("d/.wh.a")],
    "remove symlink": [member(".wh.l")],
    "remove nothing": [member(".wh.nothing")],
    "opaque": [directory("d"), member("d/.wh..wh..opq"), member("d/new", data=b"new")],
    "opaque before its directory": [member("d/.wh..wh..opq"), directory("d"), member("d/new")],
    "opaque after entries": [directory("d"), member("d/new"), member("d/.wh..wh..opq")],
    "whiteout then file": [member(".wh.f"), member("f", data=b"again")],
    "file then whiteout": [member("f", data=b"again"), member(".wh.f")],
    "whiteout then directory": [member(".wh.d"), directory("d"), member("d/n")],
    "directory then whiteout": [directory("d"), member("d/n"), member(".wh.d")],
    "whiteout then implied directory": [member(".wh.d"), member("d/n")],
    "whiteout between": [directory("d"), member(".wh.d"), member("d/n")],
    "directory to file": [member("d", data=b"now a file")],
    "file to directory": [directory("f"), member("f/in")],
    "symlink to directory": [directory("l"), member("l/in")],
    "file to symlink": [symlink("f", "e")],
    "nested": [directory("z"), directory("z/y"), member("z/y/.wh.deep"), member("z/y/n")],
    "opaque keeps a nested directory": [
        directory("z"), member("z/.wh..wh..opq"), directory("z/y"), member("z/y/n")
    ],
    "whiteout and opaque": [member("d/.wh.sub"), directory("d"), member("d/.wh..wh..opq")],
    "hard link": [member("n", data=b"n"), hardlink("m", "n")],
    "aufs": [member(".wh..wh.aufs"), directory(".wh..wh.plnk"), member(".wh.f")],
}  # fmt: skip


def oci_layout(path: Path, layers: Sequence[bytes]) -> None:
    """Write an OCI image layout with uncompressed layers and the tag `t`."""
    (path / "blobs/sha256").mkdir(parents=True)

    def blob(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (path / "blobs/sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def document(kind: str, value: dict[str, Any]) -> dict[str, object]:
        media = f"application/vnd.oci.image.{kind}.v1+json"
        return {"mediaType": media, **blob(json.dumps(value).encode())}

    tar = "application/vnd.oci.image.layer.v1.tar"
    descriptors = [{"mediaType": tar, **blob(layer)} for layer in layers]
    config = document(
        "config",
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in descriptors]},
            "history": [{} for _ in layers],
        },
    )
    manifest = document("manifest", {"schemaVersion": 2, "config": config, "layers": descriptors})
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "t"}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def umoci_tree(layers: Sequence[bytes], work: Path) -> Snapshot:
    from archive_lab import snapshot

    oci_layout(work / "layout", layers)
    run(["umoci", "unpack", "--image", f"{work / 'layout'}:t", work / "bundle"])
    return snapshot(work / "bundle/rootfs")


def our_tree(layers: Sequence[bytes], work: Path) -> Snapshot:
    """Unpack each layer by itself, mark what is opaque, and let the kernel merge."""
    targets = []
    for number, layer in enumerate(layers):
        target = work / f"layer{number}"
        for path in unpack_to(target, layer).opaque:
            os.setxattr(target / path, "trusted.overlay.opaque", b"y")
        targets.append(target)
    return overlay_snapshot(targets[::-1], work)


def essence(tree: Snapshot, *, implied: bool) -> dict[str, tuple[Any, ...]]:
    """Kind, mode, owner, content and link group; directories no entry describes lose their mode,
    which layers leave open. Overlayfs shows its own attributes to root: not compared."""
    result: dict[str, tuple[Any, ...]] = {}
    for path, (mode, uid, gid, mtime, content, _, group) in tree.items():
        if mode[0] == "d":
            result[path] = ("d",) if implied else (mode, uid, gid)
        else:
            result[path] = (mode, uid, gid, mtime, content, group)
    return result


@pytest.mark.parametrize("name", STACKS)
def test_t16_t18_merged_layers_equal_umocis(name: str, tmp_path: Path) -> None:
    layers = [BASE, archive(*STACKS[name])]
    ours, theirs = our_tree(layers, tmp_path), umoci_tree(layers, tmp_path)
    assert essence(ours, implied=True) == essence(theirs, implied=True)


@pytest.mark.parametrize("name", [name for name in STACKS if name != "hard link"])
def test_t18_order_of_entries_does_not_matter(name: str, tmp_path: Path) -> None:
    trees = []
    for number, members in enumerate((STACKS[name], STACKS[name][::-1])):
        work = tmp_path / str(number)
        work.mkdir()
        trees.append(essence(our_tree([BASE, archive(*members)], work), implied=True))
    assert trees[0] == trees[1]


def test_t19_control_smuggled_device_would_delete(tmp_path: Path) -> None:
    """What the refusal is for: the device on disk, taken from an archive, hides a lower file."""
    unpack_to(tmp_path / "layer0", BASE)
    (tmp_path / "layer1").mkdir()
    os.mknod(tmp_path / "layer1/f", stat.S_IFCHR, 0)
    assert "f" not in overlay_snapshot([tmp_path / "layer1", tmp_path / "layer0"], tmp_path)


def random_layer(choice: random.Random, above: bool) -> bytes:
    """A layer over few names, so that its entries meet those of others; parents come first."""
    members: list[bytes] = []
    kinds: dict[str, str] = {"": "d"}
    for _ in range(choice.randrange(2, 10)):
        parent = choice.choice([path for path, kind in kinds.items() if kind == "d"])
        if parent.count("/") > 2:
            continue
        name = choice.choice("abc")
        path = f"{parent}{name}"
        if above and choice.random() < 0.3:
            if path not in kinds and path + "/" not in kinds:
                members.append(member(f"{parent}.wh.{name}"))
                kinds[path] = "w"
            continue
        if above and parent and choice.random() < 0.15:
            members.append(member(f"{parent}.wh..wh..opq"))
            continue
        if path in kinds or path + "/" in kinds:
            continue
        kind = choice.choice("fds")
        if kind == "d":
            members.append(directory(path, mode=0o750))
            kinds[path + "/"] = "d"
        else:
            content = b"%d" % choice.randrange(1000)
            members.append(member(path, data=content) if kind == "f" else symlink(path, content))
            kinds[path] = kind
    return archive(*members)


@pytest.mark.parametrize("seed", range(60))
def test_random_layers_merge_as_umocis(seed: int, tmp_path: Path) -> None:
    choice = random.Random(seed)
    layers = [random_layer(choice, number > 0) for number in range(3)]
    ours, theirs = our_tree(layers, tmp_path), umoci_tree(layers, tmp_path)
    assert essence(ours, implied=True) == essence(theirs, implied=True)
