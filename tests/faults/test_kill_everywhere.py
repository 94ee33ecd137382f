"""kill -9 before every mutating system call of the commands that change something.

Every point, not a sample: a traced run lists the calls of each process of the command, then the
command is run once for each of them, with that process killed just before that call. Whatever is
left then, the same command must succeed (or find its work done), listings must not complain, gc
must be able to clean up and fsck to find nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podctl.testing.ociimages import image, write_layout
from podctl.testing.ocilayers import directory, file, layer, whiteout
from podctl.testing.tracer import Point, run_traced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import World

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        "x86_64" not in subprocess.check_output(["uname", "-m"], text=True),
        reason="the tracer knows the system call numbers of x86-64 alone",
    ),
]

NAME = "faults.example/busybox"


def sweep(
    world: World, template: Path | None, arguments: list[str], after: Callable[[], None]
) -> int:
    """Kill `arguments` at each of its points, check the aftermath; return how many there were."""
    world.reset(template)
    whole = run_traced(world.podctl(*arguments))
    assert whole.status == 0, world.said()
    assert len(whole.points) > 10
    mounts = Path("/proc/self/mountinfo").read_text()
    for point in whole.points:
        world.reset(template)
        run_traced(world.podctl(*arguments), (point.process, point.ordinal))
        try:
            check_aftermath(world, after)
        except AssertionError as error:
            raise AssertionError(f"killed at {point}: {error}") from error
        assert Path("/proc/self/mountinfo").read_text() == mounts, f"killed at {point}"
    return len(whole.points)


def check_aftermath(world: World, after: Callable[[], None]) -> None:
    """The next commands accept what is left, and nothing stays behind."""
    world.must("list")
    world.must("image", "list")
    after()
    world.must("gc", "--grace-period=0s", "--expire-prepared=0s")
    world.must("image", "gc", "--grace-period=0s")
    world.must("fsck")
    for leftover in ("cas/tmp", "layers"):
        names = [p.name for p in (world.data / leftover).glob("*") if "lock" not in p.name]
        assert not [name for name in names if not name.startswith("sha512-")], names


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
    assert sweep(world, None, arguments, lambda: world.must(*arguments) and None) > 20


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
    assert sweep(world, None, arguments, lambda: world.must(*arguments) and None) > 20


@pytest.fixture
def registry(world: World) -> Iterator[str]:
    """A reference to an image of two layers, in a registry of its own process."""
    layers = [
        layer(directory("bin"), file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)),
        layer(whiteout("etc"), file("srv/data/file", "data"), compression="none"),
    ]
    layout = world.top / "layout"
    if not layout.exists():
        write_layout(layout, {"1": image(*layers, config={"Cmd": ["/bin/busybox", "true"]})})
    server = subprocess.Popen(
        [sys.executable, "-I", "-m", "podctl.testing.registry", f"app={layout}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    yield f"docker://127.0.0.1:{server.stdout.readline().strip()}/app:1"
    server.terminate()
    server.wait()
    server.stdout.close()


def test_fetch_from_a_registry(world: World, registry: str) -> None:
    """Layers come side by side: which process is which differs from run to run a little, so that a
    point may be missed; never is what it leaves inconsistent."""
    arguments = ["--insecure-options=image,http", "fetch", registry]
    assert sweep(world, None, arguments, lambda: world.must(*arguments) and None) > 60


def test_fetch_of_a_compressed_archive(world: World) -> None:
    """An archive of a layout, which is decompressed first."""
    layers = [
        layer(directory("srv"), file("srv/data", "data")),
        layer(whiteout("srv/data"), file("srv/more", "more"), compression="none"),
    ]
    layout = write_layout(world.top / "packed", {"1": image(*layers, config={"Cmd": ["/x"]})})
    archive = world.top / "packed.tar.gz"
    subprocess.run(["tar", "-C", str(layout), "-czf", str(archive), "."], check=True)
    arguments = ["--insecure-options=image", "fetch", str(archive)]
    assert sweep(world, None, arguments, lambda: world.must(*arguments) and None) > 60


def test_prepare(world: World, with_image: Path) -> None:
    arguments = ["prepare", "--stage1=fly", NAME]
    sweep(world, with_image, arguments, lambda: world.must(*arguments) and None)


def test_run(world: World, with_image: Path) -> None:
    arguments = ["run", "--stage1=fly", NAME]
    sweep(world, with_image, arguments, lambda: world.must(*arguments) and None)


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
        run_traced(careless, (point.process, point.ordinal))
        seen.add(target.read_bytes() if target.exists() else None)
    assert b"first half, " in seen
