"""Many commands at once on images that share layers (rows L7, L8, R18), and how much they need."""

from __future__ import annotations

import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from crowd import FLY, Crowd, check_end
from small import busybox

from podctl.testing.ociimages import image
from podctl.testing.ocilayers import Layer, directory, file, layer

if TYPE_CHECKING:
    from clean_home import Clean

    from podctl.testing.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

MIB = 1 << 20


def publish(registry: Registry, *letters: str) -> dict[str, str]:
    """Images that have all but one layer in common; reference -> what the app prints."""
    shared = [layer(file(f"shared/{number}", b"%d" % number * 10_000)) for number in range(3)]
    for letter in letters:
        own = layer(file("content", f"content of {letter}\n"))
        made = image(busybox(), *shared, own, config={"Cmd": ["/bin/cat", "/content"]})
        registry.put(letter, made, "latest")
    return {f"docker://registry.example/{x}:latest": f"content of {x}\n" for x in letters}


def test_l7_everything_at_once(registry: Registry, home: Clean) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    Crowd(home, publish(registry, "a", "b", "c")).work()
    check_end(home)
    assert home.leftovers() == []
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_l8_no_layer_is_removed_under_an_image_that_comes(registry: Registry, home: Clean) -> None:
    """One of two images with common layers is removed again and again while the other is pulled."""
    outputs = publish(registry, "a", "b")
    first, second = outputs
    home.must("fetch", first)

    def remove_and_fetch() -> None:
        for _ in range(6):
            home.podctl("image", "rm", first.removeprefix("docker://"))
            home.must("fetch", first)

    def run_other() -> None:
        for _ in range(6):
            home.podctl("image", "gc", "--grace-period=0s")
            assert home.must("run", FLY, second) == outputs[second]

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(one) for one in [remove_and_fetch, run_other] * 2]
        for one in work:
            one.result()
    check_end(home)


def test_r18_a_hundred_pulls_are_one(registry: Registry, home: Clean) -> None:
    outputs = publish(registry, "a")
    (name,) = outputs
    with ThreadPoolExecutor(10) as pool:
        ids = set(pool.map(lambda number: home.must("fetch", name), range(100)))
    assert len(ids) == 1
    blobs = [visit.place.name for visit in registry.asked("blob")]
    layers = {digest for digest in blobs if blobs.count(digest) > 1}
    # The configuration is a document; each who asks for the image reads it.
    assert len(layers) <= 1
    assert home.leftovers() == []


def noise(size: int) -> Layer:
    """A layer that cannot be compressed."""
    return layer(file("noise", random.Random(size).randbytes(size)), compression="none")


def sparse(size: int) -> bytes:
    """Bytes of which a sixteenth is not zero."""
    choice = random.Random(size)
    return b"".join(choice.randbytes(4096) + bytes(61440) for _ in range(size >> 16))


def many_files(count: int) -> Layer:
    """A layer of many small files in many directories."""
    entries = [directory(f"d{number}") for number in range(count // 100)]
    return layer(*entries, *(file(f"d{n % (count // 100)}/{n}", b"x" * 40) for n in range(count)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: [noise(220 * MIB)],
        lambda: [noise((60 + number) * MIB) for number in range(3)],
        lambda: [layer(file("sparse", sparse(400 * MIB)), compression="zstd")],
        lambda: [many_files(30_000)],
    ],
    ids=["one large layer", "several at once", "well compressed", "many files"],
)
def test_a_pull_needs_at_most_150_mib(make: object, registry: Registry, home: Clean) -> None:
    """All its processes together; what they share is counted once (proportional set size)."""
    registry.put("large", image(*make(), config={"Cmd": ["/x"]}), "1")  # type: ignore[operator]
    pull = home.start("fetch", "docker://registry.example/large:1", stdout=subprocess.PIPE)
    peak = 0
    while pull.poll() is None:
        peak = max(peak, sum(resident(line) for line in home.processes()))
    pull.communicate()
    assert pull.returncode == 0
    assert 10 * MIB < peak < 150 * MIB


def resident(process: str) -> int:
    """Proportional set size of one process, in bytes; nothing of one that has ended."""
    try:
        text = Path(f"/proc/{process.partition(':')[0]}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = [line.split()[1] for line in text.splitlines() if line.startswith("Pss:")]
    return int(found[0]) << 10 if found else 0


def test_a_pull_works_with_few_descriptors(registry: Registry, home: Clean) -> None:
    outputs = publish(registry, "a")
    (name,) = outputs
    home.prefix += ["prlimit", "--nofile=64"]
    assert home.must("run", FLY, name) == outputs[name]
