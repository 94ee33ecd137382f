"""kill -9 before every mutating system call of what is done with layered images.

As in test_kill_everywhere; two images here share a layer, so that there is something to keep when
one of them goes, and one of them takes a rendered tree.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sweeping import ON_X86_64, sweep

from podctl.testing.ociimages import image, write_layout
from podctl.testing.ocilayers import Layer, directory, file, layer, whiteout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import World

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800), ON_X86_64]

ANY = "--insecure-options=image,http"
APP, OTHER = "localhost/app:1", "localhost/other:1"


@cache
def base() -> Layer:
    program = Path("/bin/busybox").read_bytes()
    return layer(
        directory("bin"),
        file("bin/busybox", program, mode=0o755),
        directory("etc"),
        file("etc/old"),
        directory("srv", mode=0o750),
    )


@pytest.fixture(scope="module")
def layouts(world: World) -> dict[str, Path]:
    """Two images on one layer; a directory of the first looks as the one below it."""
    above = layer(whiteout("etc"), file("srv/data", "data"), compression="none")
    command = {"Cmd": ["/bin/busybox", "true"]}
    made = {
        "app": image(base(), above, config=command),
        "other": image(base(), layer(file("other")), config=command),
    }
    return {name: write_layout(world.top / name, {"1": one}) for name, one in made.items()}


@pytest.fixture(scope="module")
def with_images(world: World, layouts: dict[str, Path]) -> Path:
    world.reset(None)
    for layout in layouts.values():
        world.must(ANY, "fetch", f"oci:{layout}")
    return world.template("with-layered-images")


@pytest.fixture
def registry(layouts: dict[str, Path]) -> Iterator[str]:
    """A reference to the first image, in a registry of its own process."""
    server = subprocess.Popen(
        [sys.executable, "-I", "-m", "podctl.testing.registry", f"app={layouts['app']}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    yield f"docker://127.0.0.1:{server.stdout.readline().strip()}/app:1"
    server.terminate()
    server.wait()
    server.stdout.close()


def test_fetch_from_a_registry(world: World, registry: str) -> None:
    """Two layers side by side, each by two children, one of which has threads."""
    arguments = [ANY, "fetch", registry]
    assert sweep(world, None, arguments, lambda: world.must(*arguments)) > 60


def test_fetch_of_what_is_there_in_part(
    world: World, with_images: Path, layouts: dict[str, Path]
) -> None:
    """The other image is there, and a shared layer with it."""
    world.reset(with_images)
    world.must("image", "rm", APP)
    template = world.template("with-one-layered-image")
    arguments = [ANY, "fetch", f"oci:{layouts['app']}"]

    def after() -> None:
        world.must(*arguments)
        for name in (APP, OTHER):
            assert "successfully verified" in world.must("image", "verify", name)

    assert sweep(world, template, arguments, after) > 40


def test_run_of_a_layered_image(world: World, with_images: Path) -> None:
    """With the tree it takes rendered on the way."""
    arguments = [ANY, "run", "--stage1=fly", APP]
    sweep(world, with_images, arguments, lambda: world.must(*arguments))


def test_run_of_a_layered_image_that_is_converted_anew(world: World, with_images: Path) -> None:
    """Root's views are made by the run."""
    world.reset(with_images)
    views = list((world.data / "verified").glob("*.image"))
    assert len(views) == 2
    for view in views:
        view.unlink()
    arguments = [ANY, "run", "--stage1=fly", OTHER]

    def after() -> None:
        world.must(*arguments)
        assert "successfully verified" in world.must("image", "verify", OTHER)

    template = world.template("without-views")
    sweep(world, template, arguments, after)


def test_image_rm_of_what_shares_layers(world: World, with_images: Path) -> None:
    def after() -> None:
        if APP in world.must("image", "list"):
            world.must("image", "rm", APP)
        assert APP not in world.must("image", "list")
        check_other(world)

    sweep(world, with_images, ["image", "rm", APP], after)


def test_image_gc_of_what_shares_layers(world: World, with_images: Path) -> None:
    """The first image has not been used for long."""
    world.reset(with_images)
    key = next(line for line in world.must("image", "list", "--full").splitlines() if APP in line)
    record = world.data / "cas/images" / key.split()[0] / "record.json"
    subprocess.run(["touch", "-d", "@1", str(record)], check=True)
    template = world.template("with-an-old-layered-image")
    arguments = ["image", "gc", "--grace-period=1h"]

    def after() -> None:
        world.must(*arguments)
        assert APP not in world.must("image", "list")
        check_other(world)

    sweep(world, template, arguments, after)


def check_other(world: World) -> None:
    """The image that stays is whole."""
    assert "successfully verified" in world.must("image", "verify", OTHER)
