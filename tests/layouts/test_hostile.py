"""Layouts and archives that lie, lead out, or ask for too much: one line, and nothing stays.

Rows of the catalogue: T1, T2, T7, T10, T11, T29, Z1, Z8, M1, M2, M5, M6, M7.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from made import IMAGE_NAME, REF_NAME, entry, files_of, keep, saved, tar_of
from small import runnable

from podctl.testing.ociimages import chained, image, write_layout
from podctl.testing.ocilayers import Layer, archive, digest_of, file, layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from home import Home

pytestmark = pytest.mark.root

MADE = image(
    layer(file("srv/words", "words"), compression="none"),
    layer(file("srv/more", "x" * 5000)),
    config={"Cmd": ["/srv/words"]},
)
SECRET = "the-secret-of-somebody-else"


class Scene:
    """A good layout that is about to be spoilt, and files that nothing may touch.

    Attributes:
        top: the layout's directory.
        outside: a directory with a file that only root can read.
    """

    def __init__(self, tmp_path: Path) -> None:
        self.top = write_layout(tmp_path / "layout", {"1": MADE})
        self.outside = tmp_path / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_text(SECRET)
        (self.outside / "secret").chmod(0o600)

    def blob(self, digest: str) -> Path:
        return self.top / "blobs" / digest.replace(":", "/")

    @property
    def manifest(self) -> Path:
        return self.blob(MADE.manifest.digest)

    @property
    def config(self) -> Path:
        return self.blob(MADE.config.digest)

    @property
    def layer(self) -> Path:
        return self.blob(MADE.layers[1].digest)

    @property
    def index(self) -> Path:
        return self.top / "index.json"

    def entry(self, **fields: Any) -> None:
        """Change members of the image's descriptor."""
        value = json.loads(self.index.read_text())
        value["manifests"][0].update(fields)
        self.index.write_text(json.dumps(value))

    def describe(self, manifest: bytes) -> None:
        """Let the index lead to another manifest."""
        self.entry(digest=keep(self.top, manifest), size=len(manifest))

    def canary(self) -> dict[str, Any]:
        """The files outside: content, mode, owner, time."""
        found = {}
        for path in [self.outside, *self.outside.rglob("*")]:
            status = path.stat()
            owner = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
            found[str(path)] = (path.read_bytes() if path.is_file() else None, owner)
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def refuse(
    home: Home, scene: Scene, contents: Callable[[Path], dict[str, str]]
) -> Iterator[Callable[..., str]]:
    """Fetch what must be refused: one line, 254, and all is as before."""
    home.install("example.com/bystander")
    canary = scene.canary()

    def fetch(*words: str) -> str:
        before = contents(home.data)
        done = home.podctl("fetch", *words, preexec_fn=_little_memory)
        assert done.returncode == 254, done
        assert done.stdout == ""
        *said, line = done.stderr.splitlines()
        assert all(one.startswith("image: using image from ") for one in said), done.stderr
        assert SECRET not in done.stderr
        assert contents(home.data) == before
        assert not list((home.data / "cas/tmp").iterdir())
        assert not [path for path in (home.data / "layers").iterdir() if path.name[0] == "."]
        return line

    yield fetch
    assert scene.canary() == canary
    home.must("fsck")


def _little_memory() -> None:
    """What any input may take, with the interpreter and its libraries."""
    resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, 256 << 20))


def test_the_control_is_taken_in(home: Home, scene: Scene) -> None:
    home.must("fetch", f"oci:{scene.top}", preexec_fn=_little_memory)
    archive = tar_of(scene.top.parent / "x.tar", files_of(scene.top))
    home.must("fetch", f"oci-archive:{archive}", preexec_fn=_little_memory)
    docker = tar_of(scene.top.parent / "d.tar", saved(MADE, "a:1"))
    home.must("fetch", f"docker-archive:{docker}", preexec_fn=_little_memory)


# -- directories -----------------------------------------------------------------------------------


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
    import re

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


# -- archives --------------------------------------------------------------------------------------


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
    import re

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
