"""Pulls that are killed, and pulls side by side: the next one completes, with what is missing only.

What the next attempt asks for is compared with what the killed one had left on the disk.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from small import busybox

from podctl.store.layout import Layout
from podctl.testing import registryfaults as faults
from podctl.testing.ociimages import Image, image
from podctl.testing.ocilayers import Layer, file, layer

if TYPE_CHECKING:
    from clean_home import Clean

    from podctl.testing.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

NAME = "docker://registry.example/large:1"
SIZES = (300_000, 1_500_000, 40_000, 900_000)


def large(seed: int = 0) -> Image:
    """Busybox and four layers of bytes that cannot be compressed."""
    choice = random.Random(seed)
    layers = [
        layer(
            file(f"data/{number}", choice.randbytes(size)), compression=("gzip", "none")[number % 2]
        )
        for number, size in enumerate(SIZES)
    ]
    return image(busybox(), *layers, config={"Cmd": ["/bin/true"]})


@pytest.fixture
def made(registry: Registry) -> Image:
    made = large()
    registry.put("large", made, "1")
    return made


class Moment:
    """A place in a layer's bytes at which everything stops, until it is told to go on."""

    def __init__(self, registry: Registry, one: Layer, after: int) -> None:
        self.layer, self.after = one, after
        self.reached = threading.Event()
        self.go_on = threading.Event()
        fault = faults.first(1, faults.held(self.go_on, after, self.reached))
        registry.spoil("blob", fault, name=one.digest)

    def kill(self, pull: subprocess.Popen[str]) -> None:
        """Kill a pull, with all its processes, when the place is reached."""
        assert self.reached.wait(60)
        os.killpg(pull.pid, signal.SIGKILL)
        pull.wait()
        self.go_on.set()


def start(home: Clean) -> subprocess.Popen[str]:
    """Begin a pull, in a process group of its own."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return home.start("fetch", NAME, start_new_session=True, **quiet)


def left(home: Clean, one: Layer) -> int:
    """How many bytes of a layer are on the disk, as a download that was broken off."""
    name = sha256(f"blob:{one.digest}".encode()).hexdigest()
    paths = list((home.data / "cas/tmp").glob(f"{name}*.part"))
    return paths[0].stat().st_size if paths else 0


def complete(registry: Registry, home: Clean, made: Image) -> None:
    """Pull again: only what is missing is asked for, and the image is whole."""
    kept = {one.digest: left(home, one) for one in made.layers}
    stored = {one.digest for one in made.layers if (home.data / Layout.blob(one.digest)).exists()}
    registry.mend()
    asked = len(registry.log)
    home.must("fetch", NAME)
    seen: dict[str, int] = {}
    for visit in registry.log[asked:]:
        if visit.place.kind == "blob" and visit.place.name in kept:
            assert visit.place.name not in seen, "asked for twice"
            seen[visit.place.name] = visit.start
    for one in made.layers:
        if one.digest in stored or kept[one.digest] == len(one.blob):
            assert one.digest not in seen
        else:
            assert seen[one.digest] == kept[one.digest]
    home.must("image", "verify", "registry.example/large:1")
    home.must("fsck")
    assert home.leftovers() == []


@pytest.mark.parametrize("moment", range(20))
def test_killed_at_a_random_moment_it_completes_with_what_is_missing(
    moment: int, registry: Registry, made: Image, home: Clean
) -> None:
    choice = random.Random(moment)
    one = choice.choice(made.layers)
    where = Moment(registry, one, choice.randrange(len(one.blob)))
    where.kill(start(home))
    # What was sent may have been on its way; it is never more.
    assert left(home, one) <= where.after
    complete(registry, home, made)


@pytest.mark.parametrize("number", range(len(SIZES) + 1))
def test_killed_at_the_end_of_a_layer_it_completes_with_the_others(
    number: int, registry: Registry, made: Image, home: Clean
) -> None:
    one = made.layers[number]
    where = Moment(registry, one, len(one.blob))
    where.kill(start(home))
    complete(registry, home, made)


@pytest.mark.parametrize("number", range(5))
def test_killed_between_documents_it_completes(
    number: int, registry: Registry, made: Image, home: Clean
) -> None:
    """Before a byte of a layer: whichever request is answered last."""
    pulls: list[subprocess.Popen[str]] = []
    begun = threading.Event()

    def kill() -> None:
        begun.wait()
        os.killpg(pulls[0].pid, signal.SIGKILL)

    turns = [None] * number + [faults.then(kill)]
    registry.spoil("any", faults.in_turn(*turns))
    pulls.append(start(home))
    begun.set()
    assert pulls[0].wait() == -signal.SIGKILL
    complete(registry, home, made)


def test_killed_again_and_again_it_makes_progress(
    registry: Registry, made: Image, home: Clean
) -> None:
    one = made.layers[2]
    for tenth in range(1, 10):
        registry.mend()
        already = left(home, one)
        size = len(one.blob) * tenth // 10
        where = Moment(registry, one, max(size - already, 1))
        where.kill(start(home))
        assert left(home, one) >= already
    assert len(registry.asked("blob", one.digest)) == 9
    complete(registry, home, made)


def test_only_the_first_process_killed_its_children_end(
    registry: Registry, made: Image, home: Clean
) -> None:
    """What is left of a killed command must not go on by itself."""
    where = Moment(registry, made.layers[2], 10_000)
    pull = start(home)
    assert where.reached.wait(60)
    os.kill(pull.pid, signal.SIGKILL)
    pull.wait()
    where.go_on.set()
    complete(registry, home, made)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ended_by_a_signal_it_leaves_what_can_be_continued(
    number: int, registry: Registry, made: Image, home: Clean
) -> None:
    where = Moment(registry, made.layers[2], 700_000)
    pull = start(home)
    assert where.reached.wait(60)
    os.kill(pull.pid, number)
    assert pull.wait() != 0
    where.go_on.set()
    complete(registry, home, made)


# -- R18: side by side --------------------------------------------------------------------------


def test_r18_two_pulls_of_one_image_share_the_work(
    registry: Registry, made: Image, home: Clean
) -> None:
    where = Moment(registry, made.layers[2], 500_000)
    first = home.start("fetch", NAME, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert where.reached.wait(60)
    second = home.start("fetch", NAME, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert second.stderr is not None
    lines = iter(second.stderr.readline, "")
    assert any("another podctl" in line for line in lines)
    where.go_on.set()
    ids = {pull.communicate()[0] for pull in (first, second)}
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(ids) == 1 and len(home.images()) == 1
    for one in made.layers:
        assert len(registry.asked("blob", one.digest)) == 1
    assert home.leftovers() == []


def test_r18_when_one_of_two_is_killed_the_other_completes(
    registry: Registry, made: Image, home: Clean
) -> None:
    where = Moment(registry, made.layers[2], 500_000)
    first = start(home)
    assert where.reached.wait(60)
    second = home.start("fetch", NAME, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert second.stderr is not None
    assert any("another podctl" in line for line in iter(second.stderr.readline, ""))
    where.kill(first)
    assert second.communicate()[0] != ""
    assert second.returncode == 0
    starts = [visit.start for visit in registry.asked("blob", made.layers[2].digest)]
    assert len(starts) == 2 and starts[0] == 0 and 0 < starts[1] <= 500_000
    # What the killed one was working on is taken away.
    home.must("image", "gc")
    assert home.leftovers() == []


def test_r18_images_that_share_a_layer_download_it_once(
    registry: Registry, made: Image, home: Clean
) -> None:
    other = image(*made.layers[:3], layer(file("other")), config={"Cmd": ["/bin/true"]})
    registry.put("other", other, "1")
    names = (NAME, "docker://registry.example/other:1")
    pulls = [
        home.start("fetch", name, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for name in names
    ]
    for pull in pulls:
        said = pull.communicate()[1]
        assert pull.returncode == 0, said
    for one in made.layers[:3]:
        assert len(registry.asked("blob", one.digest)) == 1
    assert len(home.images()) == 2
    assert home.leftovers() == []


# -- what is there already ------------------------------------------------------------------------


def test_with_everything_present_one_request_is_made_and_nothing_written(
    registry: Registry, made: Image, home: Clean
) -> None:
    home.must("fetch", NAME)
    before, asked = files(home), len(registry.log)
    home.must("fetch", NAME)
    (visit,) = registry.log[asked:]
    assert (visit.place.kind, visit.request.method) == ("manifest", "HEAD")
    assert files(home) == before


def files(home: Clean) -> dict[str, tuple[int, str]]:
    """Inode and content of every file of the data directory."""
    return {
        str(path): (path.lstat().st_ino, sha256(path.read_bytes()).hexdigest())
        for path in home.data.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_a_new_version_downloads_what_is_new(registry: Registry, made: Image, home: Clean) -> None:
    home.must("fetch", NAME)
    newer = image(*made.layers, layer(file("data/new", "new")), config={"Cmd": ["/bin/true"]})
    registry.put("large", newer, "1")
    asked = len(registry.log)
    home.must("fetch", "--pull-policy=update", NAME)
    blobs = {visit.place.name for visit in registry.log[asked:] if visit.place.kind == "blob"}
    assert blobs == {newer.config.digest, newer.layers[-1].digest}
