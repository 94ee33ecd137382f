"""Archives of images that lie, lead out, or ask for too much: one line, and nothing stays.

Rows of the catalogue: T1, T2, T7, T10, T11, T29, Z1, M1, M6, M7.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from made import entry, files_of, saved, tar_of
from scene import MADE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from home import Home
    from scene import Scene

pytestmark = pytest.mark.root


def packed(scene: Scene, **more: bytes | tarfile.TarInfo) -> dict[str, Any]:
    """The files of the good layout, and further entries."""
    return {**files_of(scene.top), **{name.replace("__", "/"): data for name, data in more.items()}}


def twice(scene: Scene, path: Path) -> str:
    with tarfile.open(path, "w") as opened:
        for _ in range(2):
            for name in ("oci-layout", "index.json", "blobs"):
                opened.add(scene.top / name, name)
    return "twice"


def leads_up(scene: Scene, path: Path) -> str:
    tar_of(path, {**packed(scene), "blobs/../../outside/secret": b"x"})
    return "leads out of the archive"


def is_absolute(scene: Scene, path: Path) -> str:
    tar_of(path, packed(scene))
    data = path.read_bytes()
    # tarfile would write no such name.
    path.write_bytes(renamed(data, b"index.json", b"/index.json"))
    return "leads out of the archive"


def has_a_device(scene: Scene, path: Path) -> str:
    tar_of(path, packed(scene, null=entry(tarfile.CHRTYPE)))
    return "is a device"


def has_a_fifo(scene: Scene, path: Path) -> str:
    tar_of(path, packed(scene, pipe=entry(tarfile.FIFOTYPE)))
    return "is a FIFO"


def layer_links_out(scene: Scene, path: Path) -> str:
    name = f"blobs/sha256/{MADE.layers[1].digest[7:]}"
    secret = str(scene.outside / "secret")
    tar_of(path, {**packed(scene), name: entry(tarfile.SYMTYPE, secret)})
    return "no name inside the archive"


def layer_links_up(scene: Scene, path: Path) -> str:
    name = f"blobs/sha256/{MADE.layers[1].digest[7:]}"
    tar_of(path, {**packed(scene), name: entry(tarfile.SYMTYPE, "../../../outside/secret")})
    return "no name inside the archive"


def layer_is_a_hard_link_out(scene: Scene, path: Path) -> str:
    name = f"blobs/sha256/{MADE.layers[1].digest[7:]}"
    tar_of(path, {**packed(scene), name: entry(tarfile.LNKTYPE, "../outside/secret")})
    return "leads out of the archive"


def layer_links_to_itself(scene: Scene, path: Path) -> str:
    digits = MADE.layers[1].digest[7:]
    name = f"blobs/sha256/{digits}"
    tar_of(path, {**packed(scene), name: entry(tarfile.SYMTYPE, digits)})
    return "links lead on"


def is_cut_short(scene: Scene, path: Path) -> str:
    tar_of(path, packed(scene))
    os.truncate(path, path.stat().st_size // 2)
    return "cut short"


def has_bytes_behind_its_end(scene: Scene, path: Path) -> str:
    tar_of(path, packed(scene))
    with path.open("ab") as out:
        out.write(b"x" * 512)
    return "after the end"


def has_a_bad_header(scene: Scene, path: Path) -> str:
    tar_of(path, packed(scene))
    data = bytearray(path.read_bytes())
    data[data.index(b"index.json")] ^= 1
    path.write_bytes(data)
    return "checksum"


def is_empty(scene: Scene, path: Path) -> str:
    path.write_bytes(b"")
    return "empty"


def is_text(scene: Scene, path: Path) -> str:
    path.write_text("hello\n" * 1000)
    return "tar header at byte 0"


def is_compressed_twice(scene: Scene, path: Path) -> str:
    tar_of(path, packed(scene))
    path.write_bytes(gzip.compress(gzip.compress(path.read_bytes())))
    return "tar header at byte 0"


def is_a_bomb(scene: Scene, path: Path) -> str:
    tar_of(path, packed(scene, zeros=bytes(200 << 20)))
    path.write_bytes(gzip.compress(path.read_bytes(), 9))
    return "expands more than 1000 times"


def claims_eight_exabytes(scene: Scene, path: Path) -> str:
    huge = tarfile.TarInfo("blobs/huge")
    huge.size = 1 << 62
    start = tar_of(path, packed(scene)).read_bytes().rstrip(b"\0")
    start += bytes(-len(start) % 512)
    path.write_bytes(start + huge.tobuf(tarfile.GNU_FORMAT))
    return "cut short"


def has_too_many_entries(scene: Scene, path: Path) -> str:
    output = io.BytesIO()
    for name, data in packed(scene).items():
        made = tarfile.TarInfo(name)
        made.size = len(data)
        output.write(made.tobuf() + data + bytes(-len(data) % 512))
    block = tarfile.TarInfo("d")
    block.type = tarfile.DIRTYPE
    output.write(block.tobuf() * 100_001)
    path.write_bytes(output.getvalue())
    return "more than 100000 entries"


ARCHIVES = [
    twice,
    leads_up,
    is_absolute,
    has_a_device,
    has_a_fifo,
    layer_links_out,
    layer_links_up,
    layer_is_a_hard_link_out,
    layer_links_to_itself,
    is_cut_short,
    has_bytes_behind_its_end,
    has_a_bad_header,
    is_empty,
    is_text,
    is_compressed_twice,
    is_a_bomb,
    claims_eight_exabytes,
    has_too_many_entries,
]


def renamed(data: bytes, old: bytes, new: bytes) -> bytes:
    """A tar in which the header of one entry has another name."""
    at = data.index(old)
    block = bytearray(data[at : at + 512])
    block[:100] = new.ljust(100, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return data[:at] + bytes(block) + data[at + 512 :]


@pytest.mark.parametrize("make", ARCHIVES, ids=lambda case: case.__name__)
def test_a_bad_archive_is_refused(
    scene: Scene, refuse: Callable[..., str], make: Callable[[Scene, Path], str]
) -> None:
    path = scene.top.parent / "bad.tar"
    rule = make(scene, path)
    line = refuse(f"oci-archive:{path}")
    assert re.search(rule, line), line
    refuse(f"docker-archive:{path}")
    refuse(str(path))


# -- archives of docker save -----------------------------------------------------------------------


def change(**fields: Any) -> Callable[[dict[str, Any]], None]:
    """Change members of the one image in `manifest.json`."""

    def apply(files: dict[str, Any]) -> None:
        listed = json.loads(files["manifest.json"])
        listed[0].update(fields)
        files["manifest.json"] = json.dumps(listed).encode()

    return apply


def rewrite(data: bytes) -> Callable[[dict[str, Any]], None]:
    return lambda files: files.update({"manifest.json": data})


def drop_layer(files: dict[str, Any]) -> None:
    del files[f"{MADE.layers[0].diff_id[7:]}.tar"]


def swap_layers(files: dict[str, Any]) -> None:
    one, two = (f"{part.diff_id[7:]}.tar" for part in MADE.layers)
    files[one], files[two] = files[two], files[one]


def change_config(files: dict[str, Any]) -> None:
    name = f"{MADE.config.digest[7:]}.json"
    files[name] = files[name].replace(b"words", b"sword")


SAVED = [
    ("not JSON", rewrite(b"{"), "manifest.json"),
    ("no list", rewrite(b"{}"), "must be an array"),
    ("no image", rewrite(b"[]"), "has no image"),
    ("huge", rewrite(b" " * (5 << 20)), "over 4194304 bytes"),
    ("config leads out", change(Config="../outside/secret"), "no name inside the archive"),
    ("config is absolute", change(Config="/etc/passwd"), "no name inside the archive"),
    ("config is missing", change(Config="none.json"), "is missing"),
    ("layer is absolute", change(Layers=["/etc/shadow"] * 2), "no name inside the archive"),
    ("layers are too few", change(Layers=[]), "2 diff_ids"),
    ("layer is missing", drop_layer, "is missing"),
    ("layers are swapped", swap_layers, "digest"),
    ("config is changed", change_config, "its digest is not"),
    ("tag is none", change(RepoTags=["../../x"]), "is no tag"),
]


@pytest.mark.parametrize(
    ("spoil", "rule"), [case[1:] for case in SAVED], ids=[case[0] for case in SAVED]
)
def test_a_bad_archive_of_docker_save_is_refused(
    scene: Scene,
    refuse: Callable[..., str],
    spoil: Callable[[dict[str, Any]], None],
    rule: str,
) -> None:
    files: dict[str, Any] = dict(saved(MADE, "team/app:1"))
    spoil(files)
    path = tar_of(scene.top.parent / "saved.tar", files)
    for form in (f"docker-archive:{path}", str(path)):
        line = refuse(form)
        assert rule in line, line


def test_what_is_no_file_or_directory_is_refused(
    scene: Scene, refuse: Callable[..., str], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refuse(f"docker-archive:{tmp_path}/fifo")
    assert "not a regular file" in refuse(f"oci:{tmp_path}/fifo")
    assert "cannot be opened: No such file" in refuse(f"oci:{tmp_path}/none")
    assert "is a directory (for an OCI layout write oci:" in refuse(f"oci-archive:{scene.top}")
    (tmp_path / "empty").mkdir()
    assert "'oci-layout' is missing" in refuse(f"{tmp_path}/empty")


def test_an_aci_is_no_archive_of_a_layout(home: Home, refuse: Callable[..., str]) -> None:
    made = home.top / "example.com-bystander.aci"
    assert "'oci-layout' is missing" in refuse(f"oci:{made}")
    assert "neither an OCI layout" in refuse(f"docker-archive:{made}")
