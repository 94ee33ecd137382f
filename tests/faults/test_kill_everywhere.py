"""kill -9 before every mutating system call of the commands that change something.

Every point, not a sample: a traced run lists the calls of each process of the command, then the
command is run once for each of them, with that process killed just before that call. Whatever is
left then, the same command must succeed (or find its work done), listings must not complain, gc
must be able to clean up and fsck to find nothing.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sweeping import ON_X86_64, sweep

from podctl.testing.tracer import Point, run_traced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import World

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800), ON_X86_64]

NAME = "faults.example/busybox"


@pytest.fixture(scope="module")
def with_image(world: World) -> Path:
    world.reset(None)
    world.must("fetch", str(world.archive))
    return world.template("with-image")


@pytest.fixture(scope="module")
def with_pods(world: World, with_image: Path) -> Path:
    """An exited and a prepared pod."""
    world.reset(with_image)
    world.must("run", "--stage1=fly", NAME)
    world.must("prepare", "--stage1=fly", NAME)
    return world.template("with-pods")


def uuid_in(data: Path, state: str) -> str:
    (pod,) = (data / "pods" / state).iterdir()
    return pod.name


def test_fetch_of_a_file(world: World) -> None:
    arguments = ["fetch", str(world.archive)]
    assert sweep(world, None, arguments, lambda: world.must(*arguments)) > 20


@pytest.fixture
def served(world: World) -> Iterator[str]:
    """The image's URL, on a server of its own process."""
    server = subprocess.Popen(
        [sys.executable, "-I", "-m", "podctl.testing.httpserver", str(world.top)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    yield f"http://127.0.0.1:{port}/{world.archive.name}"
    server.terminate()
    server.wait()
    server.stdout.close()


def test_fetch_of_a_url(world: World, served: str) -> None:
    """With a partial download and its validators on the way."""
    arguments = ["fetch", served]
    assert sweep(world, None, arguments, lambda: world.must(*arguments)) > 20


def test_prepare(world: World, with_image: Path) -> None:
    arguments = ["prepare", "--stage1=fly", NAME]
    sweep(world, with_image, arguments, lambda: world.must(*arguments))


def test_run(world: World, with_image: Path) -> None:
    arguments = ["run", "--stage1=fly", NAME]
    sweep(world, with_image, arguments, lambda: world.must(*arguments))


def test_run_prepared(world: World, with_pods: Path) -> None:
    uuid = uuid_in(with_pods, "prepared")

    def after() -> None:
        # Either it still is prepared and runs, or it was taken and counts as exited.
        if world.call("run-prepared", uuid) != 0:
            assert "is not prepared" in world.said(), world.said()

    sweep(world, with_pods, ["run-prepared", uuid], after)


def test_rm(world: World, with_pods: Path) -> None:
    uuid = uuid_in(with_pods, "run")

    def after() -> None:
        if world.call("rm", uuid) != 0:
            assert "no matches found" in world.said(), world.said()
        assert uuid not in world.must("list", "--full")

    sweep(world, with_pods, ["rm", uuid], after)


def test_gc(world: World, with_pods: Path) -> None:
    arguments = ["gc", "--grace-period=0s", "--expire-prepared=0s"]

    def after() -> None:
        world.must(*arguments)
        assert world.must("list", "--no-legend").strip() == ""

    sweep(world, with_pods, arguments, after)


def test_image_rm(world: World, with_image: Path) -> None:
    def after() -> None:
        if NAME in world.must("image", "list"):
            world.must("image", "rm", NAME)
        assert NAME not in world.must("image", "list")

    sweep(world, with_image, ["image", "rm", NAME], after)


def test_the_sweep_finds_a_command_that_is_not_safe(world: World, tmp_path: Path) -> None:
    """Control: a writer without rename leaves half a file at some point, and the sweep sees it."""
    target = tmp_path / "record"

    def careless() -> int:
        with open(target, "wb", buffering=0) as file:
            file.write(b"first half, ")
            file.write(b"second half")
        return 0

    points: list[Point] = run_traced(careless).points
    seen = set()
    for point in points:
        target.unlink(missing_ok=True)
        run_traced(careless, point)
        seen.add(target.read_bytes() if target.exists() else None)
    assert b"first half, " in seen
