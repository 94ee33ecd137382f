"""The scripted registry is one: other tools read what podctl's tests put into it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from podctl.testing import registryfaults as faults
from podctl.testing.dockerregistry import PASSWORD, USER
from podctl.testing.ociimages import DOCKER, OCI, image, index, write_layout
from podctl.testing.ocilayers import directory, file, layer, whiteout
from podctl.testing.registryauth import Basic, Tokens

if TYPE_CHECKING:
    from pathlib import Path

    from registry_world import World

    from podctl.testing.ociimages import Image
    from podctl.testing.registry import Registry

pytestmark = pytest.mark.root
NAME = "registry.example/team/app"


def made(kind: str = "oci") -> Image:
    below = layer(directory("etc"), file("etc/motd", "hello"))
    return image(below, layer(whiteout("etc/motd")), kind=OCI if kind == "oci" else DOCKER)


def skopeo(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    line = world.inside("skopeo", *words)
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", ["oci", "docker"])
@pytest.mark.parametrize("guard", ["nobody", "basic", "tokens"])
def test_skopeo_copies_from_it(
    kind: str, guard: str, registry: Registry, world: World, tmp_path: Path
) -> None:
    registry.put("team/app", index(made(kind), kind=OCI if kind == "oci" else DOCKER), "1.0")
    users = {USER: PASSWORD}
    guards = {"basic": Basic(users), "tokens": Tokens("https://registry.example/token", users)}
    registry.guard = guards.get(guard)
    copy = ["copy", "--insecure-policy", f"docker://{NAME}:1.0", f"dir:{tmp_path}/copy"]
    if guard != "nobody":
        assert skopeo(world, *copy).returncode == 1
        copy[1:1] = [f"--src-creds={USER}:{PASSWORD}"]
    done = skopeo(world, *copy)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "copy/manifest.json").read_text())
    assert manifest == made(kind).manifest.value


def test_skopeo_lists_its_tags_and_sees_its_faults(
    registry: Registry, world: World, tmp_path: Path
) -> None:
    registry.put("team/app", made(), "1.0", "latest")
    done = skopeo(world, "list-tags", f"docker://{NAME}")
    assert json.loads(done.stdout)["Tags"] == ["1.0", "latest"]
    copy = ["copy", "--insecure-policy", f"docker://{NAME}:1.0", f"dir:{tmp_path}/copy"]
    registry.spoil("blob", faults.corrupted())
    assert skopeo(world, *copy).returncode == 1
    registry.mend()
    assert skopeo(world, *copy).returncode == 0


def test_umoci_reads_its_layouts(tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"one": made(), "two": index(made())})
    words = ["umoci", "list", "--layout", str(tmp_path / "layout")]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert sorted(done.stdout.split()) == ["one", "two"]


def test_a_layout_is_served_as_it_is(registry: Registry, world: World, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"1.0": index(made())})
    registry.put_layout("team/app", tmp_path / "layout")
    done = skopeo(world, "inspect", f"docker://{NAME}:1.0")
    assert json.loads(done.stdout)["Layers"] == [one.digest for one in made().layers]
