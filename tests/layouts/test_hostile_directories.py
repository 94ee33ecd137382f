"""Layouts in directories that lie, lead out, or ask for too much: one line, and nothing stays.

Rows of the catalogue: T10, T11, Z1, Z8, M1, M2, M5, M6, M7. Each is tried in an archive as well.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import tarfile
from typing import TYPE_CHECKING

import pytest
from made import IMAGE_NAME, REF_NAME, files_of, keep, saved, tar_of
from scene import MADE, SECRET, little_memory
from small import runnable

from podctl.testing.ociimages import chained, image, write_layout
from podctl.testing.ocilayers import Layer, archive, digest_of, file, layer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from home import Home
    from scene import Scene

pytestmark = pytest.mark.root


def test_the_control_is_taken_in(home: Home, scene: Scene) -> None:
    home.must("fetch", f"oci:{scene.top}", preexec_fn=little_memory)
    archive = tar_of(scene.top.parent / "x.tar", files_of(scene.top))
    home.must("fetch", f"oci-archive:{archive}", preexec_fn=little_memory)
    docker = tar_of(scene.top.parent / "d.tar", saved(MADE, "a:1"))
    home.must("fetch", f"docker-archive:{docker}", preexec_fn=little_memory)


def linked(path: Path) -> None:
    """Put a link in a file's place; the file itself is where it leads to."""
    real = path.parent.parent / f"{path.name}.real"
    path.rename(real)
    path.symlink_to(real)


def manifest_is_a_link(scene: Scene) -> str:
    linked(scene.manifest)
    return "symbolic link"


def layer_is_a_link(scene: Scene) -> str:
    linked(scene.layer)
    return "symbolic link"


def blobs_is_a_link(scene: Scene) -> str:
    (scene.top / "blobs").rename(scene.top / "real")
    (scene.top / "blobs").symlink_to("real")
    return "symbolic link"


def index_is_a_link_out(scene: Scene) -> str:
    scene.index.unlink()
    scene.index.symlink_to(scene.outside / "secret")
    return "symbolic link"


def index_is_somebodys_secret(scene: Scene) -> str:
    scene.index.unlink()
    os.link(scene.outside / "secret", scene.index)
    return "index.json"


def layer_is_somebodys_secret(scene: Scene) -> str:
    scene.layer.unlink()
    os.link(scene.outside / "secret", scene.layer)
    return f"{len(SECRET)} bytes, its manifest says"


def marker_is_a_fifo(scene: Scene) -> str:
    (scene.top / "oci-layout").unlink()
    os.mkfifo(scene.top / "oci-layout")
    return "no regular file"


def layer_is_a_fifo(scene: Scene) -> str:
    scene.layer.unlink()
    os.mkfifo(scene.layer)
    return "no regular file"


def config_is_a_directory(scene: Scene) -> str:
    scene.config.unlink()
    scene.config.mkdir()
    return "no regular file"


def layer_is_a_device(scene: Scene) -> str:
    scene.layer.unlink()
    os.mknod(scene.layer, 0o20600, os.makedev(1, 5))
    return "no regular file"


def index_is_huge(scene: Scene) -> str:
    os.truncate(scene.index, 1 << 32)
    return "over 4194304 bytes"


def index_has_many_entries(scene: Scene) -> str:
    value = json.loads(scene.index.read_text())
    value["manifests"] *= 10_000
    scene.index.write_text(json.dumps(value))
    return "more than"


def index_is_deep(scene: Scene) -> str:
    scene.index.write_text("[" * 100_000)
    return "nested deeper"


def index_says_things_twice(scene: Scene) -> str:
    scene.index.write_text(scene.index.read_text().replace("{", '{"manifests": [], ', 1))
    return "appears twice"


def index_is_none(scene: Scene) -> str:
    scene.index.unlink()
    return "'index.json' is missing"


def marker_is_missing(scene: Scene) -> str:
    (scene.top / "oci-layout").unlink()
    return "'oci-layout' is missing"


def marker_is_of_another_version(scene: Scene) -> str:
    (scene.top / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    return "version '2.0.0'"


def index_leads_to_an_index_of_an_index(scene: Scene) -> str:
    outer, *inner = chained(MADE, 3)
    for one in (outer, *inner):
        keep(scene.top, one.data)
    scene.index.write_text(json.dumps({"schemaVersion": 2, "manifests": [outer.descriptor()]}))
    return "further indexes"


def digest_leads_out(scene: Scene) -> str:
    scene.entry(digest="sha256:../../../outside/secret")
    return "hexadecimal digits"


def digest_is_in_capitals(scene: Scene) -> str:
    scene.entry(digest=MADE.manifest.digest.upper().replace("SHA", "sha"))
    return "hexadecimal digits"


def digest_is_md5(scene: Scene) -> str:
    scene.entry(digest=f"md5:{'0' * 32}")
    return "no algorithm that is supported"


def manifest_is_missing(scene: Scene) -> str:
    scene.manifest.unlink()
    return "is missing"


def config_is_missing(scene: Scene) -> str:
    scene.config.unlink()
    return "image configuration: the file .* is missing"


def layer_is_missing(scene: Scene) -> str:
    scene.layer.unlink()
    return "layer .* is missing"


def manifest_is_changed(scene: Scene) -> str:
    scene.manifest.write_bytes(scene.manifest.read_bytes().replace(b'"schema', b'"sch\\u0065ma'))
    return "bytes where its descriptor says"


def config_is_changed(scene: Scene) -> str:
    scene.config.write_bytes(scene.config.read_bytes().replace(b"words", b"sword"))
    return "its digest is not"


def layer_is_changed(scene: Scene) -> str:
    data = bytearray(scene.layer.read_bytes())
    data[len(data) // 2] ^= 1
    scene.layer.write_bytes(data)
    return "digest|stream"


def layer_is_cut(scene: Scene) -> str:
    os.truncate(scene.layer, scene.layer.stat().st_size - 1)
    return "its manifest says"


def layer_is_longer(scene: Scene) -> str:
    with scene.layer.open("ab") as out:
        out.write(b"x")
    return "its manifest says"


def layer_unpacks_to_another(scene: Scene) -> str:
    one = MADE.layers[0]
    other = image(one, layer(file("other", "x")))
    spoilt = json.loads(MADE.manifest.data)
    described = json.loads(other.manifest.data)["layers"][1]
    spoilt["layers"][1] = described
    keep(scene.top, other.layers[1].blob)
    scene.describe(json.dumps(spoilt).encode())
    return "unpacks to"


def layer_is_a_bomb(scene: Scene) -> str:
    tar = archive(file("zeros", bytes(200 << 20)))
    bomb = Layer(tar, gzip.compress(tar, 9))
    made = image(bomb)
    for data in (made.manifest.data, made.config.data, bomb.blob):
        keep(scene.top, data)
    scene.describe(made.manifest.data)
    return "expands more than 1000 times"


DIRECTORIES = [
    manifest_is_a_link,
    layer_is_a_link,
    blobs_is_a_link,
    index_is_a_link_out,
    index_is_somebodys_secret,
    layer_is_somebodys_secret,
    marker_is_a_fifo,
    layer_is_a_fifo,
    config_is_a_directory,
    layer_is_a_device,
    index_is_huge,
    index_has_many_entries,
    index_is_deep,
    index_says_things_twice,
    index_is_none,
    marker_is_missing,
    marker_is_of_another_version,
    index_leads_to_an_index_of_an_index,
    digest_leads_out,
    digest_is_in_capitals,
    digest_is_md5,
    manifest_is_missing,
    config_is_missing,
    layer_is_missing,
    manifest_is_changed,
    config_is_changed,
    layer_is_changed,
    layer_is_cut,
    layer_is_longer,
    layer_unpacks_to_another,
    layer_is_a_bomb,
]
#: what an archive of the directory cannot be
NOT_PACKED = {index_is_huge}


@pytest.mark.parametrize("spoil", DIRECTORIES, ids=lambda case: case.__name__)
def test_a_bad_directory_is_refused(
    scene: Scene, refuse: Callable[..., str], spoil: Callable[[Scene], str]
) -> None:
    rule = spoil(scene)
    line = refuse(f"oci:{scene.top}")
    assert re.search(rule, line), line


@pytest.mark.parametrize(
    "spoil",
    [case for case in DIRECTORIES if "link" not in case.__name__ and case not in NOT_PACKED],
    ids=lambda case: case.__name__,
)
def test_an_archive_of_a_bad_directory_is_refused(
    scene: Scene, refuse: Callable[..., str], spoil: Callable[[Scene], str]
) -> None:
    spoil(scene)
    path = scene.top.parent / "packed.tar"
    with tarfile.open(path, "w") as opened:
        for name in sorted(os.listdir(scene.top)):
            opened.add(scene.top / name, name)
    for form in ("oci-archive", "docker-archive"):
        refuse(f"{form}:{path}")
    refuse(str(path))


def test_the_directory_itself_may_be_a_link(home: Home, scene: Scene) -> None:
    """The path is the user's own word; what it leads to is not."""
    place = scene.top.parent / "here"
    place.symlink_to(scene.top)
    home.must("fetch", f"oci:{place}")


def test_names_from_a_layout_are_never_paths_nor_lines(
    home: Home, scene: Scene, refuse: Callable[..., str]
) -> None:
    del refuse
    far = "registry.example/" + "a/" * 200
    for name in ("../../x", "a\x1b[31m\nb", "-rf", "x" * 5000, far):
        said = dict.fromkeys((REF_NAME, IMAGE_NAME), name)
        scene.entry(annotations=said)
        done = home.podctl("fetch", str(scene.top))
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stderr and len(done.stderr.splitlines()) == 2
        (listed,) = [
            one["name"]
            for one in json.loads(home.must("image", "list", "--format=json"))
            if "bystander" not in one["name"]
        ]
        assert listed == f"localhost/layout:{MADE.digest}"


def test_a_layer_that_changes_while_it_is_read_is_refused(
    home: Home, scene: Scene, tmp_path: Path
) -> None:
    """What was found and what is taken in are two looks at one file: the digest decides."""
    big = layer(file("big", os.urandom(30 << 20)), compression="none")
    made = image(big, config={"Cmd": ["/big"]})
    place = write_layout(tmp_path / "big", {"1": made})
    path = place / "blobs" / made.layers[0].digest.replace(":", "/")
    running = home.start("fetch", str(place))
    with path.open("r+b") as out:
        while running.poll() is None:
            out.seek(20 << 20)
            out.write(os.urandom(16))
            out.flush()
    assert running.returncode == 254
    assert digest_of(path.read_bytes()) != made.layers[0].digest
    assert home.images() == []


def test_the_reference_is_one_of_the_layout(home: Home, tmp_path: Path) -> None:
    place = write_layout(tmp_path / "one", {"1": runnable(shell="echo")})
    for name in ("2", "docker.io/library/one:1", f"@sha256:{'0' * 64}"):
        assert "has no image" in home.refused("fetch", f"oci:{place}:{name}")
