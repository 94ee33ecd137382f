"""A member of the group changes what it has pulled from a registry; root believes none of it.

Whatever it is, root's run prints what the signed image prints, or refuses (K17, K18, S2).
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from home import fingerprint
from prey import FILE_KINDS, Prey
from small import busybox

from podctl.store.layout import Layout
from podctl.testing import cosigning
from podctl.testing.cosigning import Signer
from podctl.testing.ociimages import image
from podctl.testing.ocilayers import file, layer
from podctl.testing.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from home import Done
    from registry_world import World

    from podctl.testing.ociimages import Image

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

NAME = "registry.example/team/genuine"
ASKED = f"docker://{NAME}:1"
GENUINE = "genuine\n"
FLY = "--stage1=fly"


class Scene(Prey):
    """The people's world, a registry in it, and a signed image there."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.registry = Registry()
        self.signer = Signer()
        self.server = world.serve(self.registry)
        self.made = self.publish("genuine", GENUINE)
        self.evil = self.publish("evil", "evil\n")

    def publish(self, name: str, words: str) -> Image:
        """Put a signed image of two layers, the upper of which has the words, in the registry."""
        made = image(busybox(), layer(file("words", words)), config={"Cmd": ["/bin/cat", "/words"]})
        digest = self.registry.put(f"team/{name}", made, "1")
        one = self.signer.simple(f"registry.example/team/{name}", digest)
        cosigning.attach_tag(self.registry, f"team/{name}", digest, one)
        return made

    def trust(self, name: str) -> None:
        """Root trusts the signer for one image."""
        key = self.top / "key.pub"
        key.write_bytes(self.signer.public)
        prefix = f"registry.example/team/{name}"
        self.must("trust", "--prefix", prefix, "--skip-fingerprint-review", str(key))

    def write(self, path: Path, data: bytes) -> None:
        """The member writes a file of the store anew."""
        script = f"cat > {path}.new && mv {path}.new {path}"
        subprocess.run(self.as_user("member", "sh", "-euc", script), input=data, check=True)

    def close(self) -> None:
        """End it all."""
        self.server.close()
        super().close()


@pytest.fixture(scope="module")
def scene(world: World) -> Iterator[Scene]:
    scene = Scene(world)
    try:
        scene.make_people()
        scene.trust("genuine")
        yield scene
    finally:
        scene.close()


@pytest.fixture(scope="module")
def fresh(scene: Scene) -> Path:
    """As the member's pull left it: root has not used it yet."""
    done = scene.by("member", "fetch", ASKED)
    assert done.returncode == 0, done
    return keep(scene, "fresh")


@pytest.fixture(scope="module")
def used(scene: Scene, fresh: Path) -> Path:
    """The same after root's first run."""
    scene.put(fresh)
    assert scene.must("run", FLY, ASKED) == GENUINE
    return keep(scene, "used")


def keep(scene: Scene, name: str) -> Path:
    subprocess.run(["cp", "-a", str(scene.data), str(scene.top / name)], check=True)
    return scene.top / name


def run(scene: Scene, *more: str) -> Done:
    """Root's run, which must not hang."""
    return scene.by("root", "run", FLY, *more, ASKED, timeout=30)


def check(done: Done) -> None:
    """Genuine or refused."""
    if done.returncode == 0:
        assert done.stdout == GENUINE, done
    else:
        assert done.returncode == 254, done
        assert done.stdout == "", done
        assert "unexpected" not in done.stderr, done


FILES = {
    "record": "cas/images/*/record.json",
    "document": "cas/images/*/manifest",
    "signatures": "cas/images/*/signature",
    "remote": "cas/remotes/*",
}


def place(scene: Scene, what: str) -> Path:
    if what in FILES:
        return scene.only(FILES[what])
    return scene.data / Layout.blob(scene.made.layers[int(what[-1])].digest)


CASES = [(what, kind) for what in (*FILES, "layer 0", "layer 1") for kind in FILE_KINDS]


@pytest.mark.parametrize(("what", "kind"), CASES, ids=lambda word: word.replace(" ", "-"))
@pytest.mark.parametrize("before", ["fresh", "used"])
def test_k18_whatever_a_member_does_to_a_file(
    scene: Scene, before: str, what: str, kind: str, request: pytest.FixtureRequest
) -> None:
    scene.put(request.getfixturevalue(before))
    canaries = fingerprint(scene.canaries)
    scene.poison(kind, place(scene, what))
    done = run(scene, "--pull-policy=never")
    check(done)
    if before == "fresh" and what in ("layer 0", "layer 1", "document", "signatures"):
        # Nothing genuine is left that could have run.
        assert done.returncode == 254, done
    assert fingerprint(scene.canaries) == canaries
    # And it can be got again.
    again = scene.by("root", "run", FLY, "--pull-policy=update", ASKED, timeout=60)
    check(again)
    scene.by("root", "fsck", "--repair", timeout=60)
    assert scene.must("fetch", "--pull-policy=update", ASKED)
    assert scene.must("run", FLY, ASKED) == GENUINE


def test_k18_layers_are_not_exchanged(scene: Scene, fresh: Path) -> None:
    """Bytes that are a good layer, of another image."""
    scene.put(fresh)
    scene.write(place(scene, "layer 1"), scene.evil.layers[1].blob)
    assert run(scene, "--pull-policy=never").returncode == 254


@pytest.mark.parametrize("before", ["fresh", "used"])
def test_k18_the_order_of_layers_is_the_documents(
    scene: Scene, before: str, request: pytest.FixtureRequest
) -> None:
    scene.put(request.getfixturevalue(before))
    path = place(scene, "record")
    record = json.loads(path.read_text())
    for key, value in record.items():
        if isinstance(value, list):
            record[key] = value[::-1]
    scene.write(path, json.dumps(record).encode())
    check(run(scene, "--pull-policy=never"))


def test_k18_a_configuration_of_the_members_own_is_refused(scene: Scene, fresh: Path) -> None:
    scene.put(fresh)
    path = place(scene, "document")
    changed = path.read_bytes().replace(b"/words", b"/etc/passwd")
    assert changed != path.read_bytes()
    scene.write(path, changed)
    assert run(scene, "--pull-policy=never").returncode == 254


def test_k18_no_other_image_takes_the_place_of_one(scene: Scene, fresh: Path) -> None:
    """Well signed, but for another name, whose prefix is not trusted; then under its files."""
    scene.put(fresh)
    stranger = scene.by("member", "fetch", "docker://registry.example/team/evil:1")
    assert stranger.returncode == 254
    options = (
        "--insecure-options=image",
        "fetch",
        "--full",
        "docker://registry.example/team/evil:1",
    )
    evil = scene.by("member", *options).stdout.strip()
    good = next(path for path in (scene.data / "cas/images").iterdir() if path.name != evil)
    for name in ("manifest", "signature", "record.json"):
        source = scene.data / "cas/images" / evil / name
        if source.exists():
            scene.write(good / name, source.read_bytes())
    check(run(scene, "--pull-policy=never"))
    # A remote note that leads the good name to the other image.
    for remote in (scene.data / "cas/remotes").iterdir():
        text = remote.read_text()
        scene.write(remote, text.replace(good.name, evil).encode())
    check(run(scene))
    check(run(scene, "--pull-policy=never"))


def test_k17_a_changed_byte_of_an_unpacked_layer_is_found(scene: Scene, used: Path) -> None:
    scene.put(used)
    (words,) = (scene.data / "layers").glob("*/rootfs/words")
    words.write_text("changed\n")
    done = scene.by("root", "image", "verify", f"{NAME}:1")
    # It is made anew from the bytes as published, and says so.
    assert "/words has other content" in done.stderr
    assert run(scene).stdout == GENUINE


def test_a_member_pulls_what_root_runs_and_unpacks_nothing(scene: Scene, fresh: Path) -> None:
    scene.put(fresh)
    layers = [path for path in (scene.data / "layers").iterdir() if path.name.startswith("sha")]
    assert layers == []
    assert run(scene, "--pull-policy=never").stdout == GENUINE
    denied = scene.by("other", "fetch", ASKED)
    assert denied.returncode == 254
