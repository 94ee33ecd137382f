"""Layers on their way into the store: continued, begun anew, shared, broken off."""

from __future__ import annotations

import os
import random
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pulling import PIECE, Asked, Origin, image_of

from podctl.errors import (
    ArchiveInvalid,
    DigestMismatch,
    FetchFailed,
    HostLacks,
    PodctlError,
    StoreCorrupt,
)
from podctl.images.pull import LayerSource
from podctl.store import Store
from podctl.testing.ocilayers import Layer, directory, file, layer, packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulling import Puller

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


def noise(seed: int, size: int = 400_000, compression: str = "gzip") -> Layer:
    """A layer of bytes that cannot be compressed."""
    data = random.Random(seed).randbytes(size)
    return layer(file(f"noise{seed}", data), compression=compression)


BASE, MIDDLE, TOP = noise(1), noise(2, compression="zstd"), noise(3, compression="none")
ALL = (BASE, MIDDLE, TOP)


def children() -> str:
    """Processes of this one that have not been waited for."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def pull(puller: Puller, origin: Origin, *layers: Layer) -> None:
    puller.pull(image_of("app", *layers), LayerSource(fetch=origin.fetch))


def check_whole(puller: Puller, *layers: Layer) -> None:
    """Every layer is there as it was published, and nothing besides."""
    for one in layers:
        assert puller.blob(one).read_bytes() == one.blob
        assert puller.store.layer_note(one.diff_id.replace(":", "-")) is not None
    assert puller.leftovers() == []
    assert children() == ""


def test_every_layer_is_asked_for_once(puller: Puller) -> None:
    origin = Origin(*ALL)
    pull(puller, origin, *ALL)
    assert sorted(origin.asked) == sorted(Asked(one, 0) for one in ALL)
    check_whole(puller, *ALL)
    pull(puller, origin, *ALL)
    assert len(origin.asked) == 3


def test_only_what_is_missing_is_asked_for(puller: Puller) -> None:
    origin = Origin(*ALL)
    pull(puller, origin, BASE, MIDDLE)
    origin.asked.clear()
    puller.pull(image_of("other", BASE, TOP), LayerSource(fetch=origin.fetch))
    assert origin.asked == [Asked(TOP, 0)]
    check_whole(puller, *ALL)


# -- continuing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.compression)
@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, 3 * PIECE + 17])
def test_a_partial_download_is_continued(puller: Puller, one: Layer, size: int) -> None:
    puller.leave(one, one.blob[:size])
    origin = Origin(one)
    pull(puller, origin, one)
    assert origin.asked == [Asked(one, size)]
    check_whole(puller, one)


def test_a_download_that_is_complete_is_not_asked_for(puller: Puller) -> None:
    puller.leave(BASE, BASE.blob)
    origin = Origin(BASE)
    pull(puller, origin, BASE)
    assert origin.asked == []
    check_whole(puller, BASE)


def other(one: Layer, size: int) -> bytes:
    """The beginning of another layer, compressed in the same way."""
    return noise(99, compression=one.compression).blob[:size]


WRONG: dict[str, Callable[[Layer], bytes]] = {
    "of another layer": lambda one: other(one, 200_000),
    "a whole other layer": lambda one: noise(99, compression=one.compression).blob,
    "zeros, as after a power cut": lambda one: bytes(200_000),
    "the beginning, then zeros": lambda one: one.blob[:100_000] + bytes(100_000),
    "as long as it should be": lambda one: bytes(len(one.blob)),
    "one bit off": lambda one: bytes([one.blob[0] ^ 1]) + one.blob[1:150_000],
    "one bit off at its end": lambda one: one.blob[:-1] + bytes([one.blob[-1] ^ 1]),
}


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.compression)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_partial_download_of_other_content_is_begun_anew(
    puller: Puller, one: Layer, wrong: str
) -> None:
    """Once, from the first byte; however its being wrong shows."""
    found = WRONG[wrong](one)
    puller.leave(one, found)
    origin = Origin(one)
    pull(puller, origin, one)
    tries = [] if len(found) >= len(one.blob) else [Asked(one, len(found))]
    assert origin.asked in ([*tries, Asked(one, 0)], [Asked(one, 0)])
    check_whole(puller, one)


def test_a_partial_download_that_is_too_long_is_begun_anew(puller: Puller) -> None:
    puller.leave(BASE, BASE.blob + b"more")
    origin = Origin(BASE)
    pull(puller, origin, BASE)
    assert origin.asked == [Asked(BASE, 0)]
    check_whole(puller, BASE)


def test_a_source_that_is_wrong_is_not_asked_again_and_again(puller: Puller) -> None:
    puller.leave(BASE, BASE.blob[:1000])
    origin = Origin(BASE)
    origin.layers[BASE.digest] = BASE._replace(blob=other(BASE, len(BASE.blob)))
    with pytest.raises((DigestMismatch, ArchiveInvalid)):
        puller.pull(image_of("app", BASE), LayerSource(fetch=lambda _, resume: origin.fetch(
            image_of("app", BASE).layers[0], resume)))  # fmt: skip
    assert [asked.start for asked in origin.asked] == [1000, 0]
    assert puller.leftovers() == []


@pytest.mark.parametrize("damage", ["flipped", "other"])
def test_a_damaged_blob_is_downloaded_anew(puller: Puller, damage: str) -> None:
    """One that is unpacked still need not be."""
    origin = Origin(*ALL)
    pull(puller, origin, *ALL)
    origin.asked.clear()
    for one in ALL:
        data = puller.blob(one).read_bytes()
        middle = len(data) // 2
        wrong = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        puller.blob(one).write_bytes(wrong if damage == "flipped" else bytes(len(data)))
    layers = puller.data / "layers"
    (layers / MIDDLE.diff_id.replace(":", "-")).rename(puller.data / "aside")
    (layers / TOP.diff_id.replace(":", "-")).rename(puller.data / "aside2")
    pull(puller, origin, *ALL)
    assert sorted(origin.asked) == sorted([Asked(MIDDLE, 0), Asked(TOP, 0)])
    check_whole(puller, MIDDLE, TOP)


def test_without_a_source_damaged_bytes_are_told(puller: Puller) -> None:
    pull(puller, Origin(BASE), BASE)
    puller.blob(BASE).write_bytes(bytes(len(BASE.blob)))
    (puller.data / "layers" / BASE.diff_id.replace(":", "-")).rename(puller.data / "aside")
    with pytest.raises((DigestMismatch, ArchiveInvalid)):
        puller.pull(image_of("app", BASE), LayerSource())
    puller.blob(BASE).unlink()
    with pytest.raises(StoreCorrupt, match="is missing or damaged"):
        puller.pull(image_of("app", BASE), LayerSource())


# -- what is refused -------------------------------------------------------------------------------


def test_m1_a_body_that_is_too_long_is_stopped_at_once(puller: Puller) -> None:
    origin = Origin(BASE)
    origin.tail = bytes(1 << 30)
    reached: list[int] = []
    puller.progress = lambda digest, done, size: reached.append(done)
    with pytest.raises(DigestMismatch, match="has more than"):
        pull(puller, origin, BASE)
    assert max(reached) <= len(BASE.blob)
    assert puller.leftovers() == []
    assert children() == ""


def test_one_bad_layer_refuses_the_image_and_nothing_of_it_stays(puller: Puller) -> None:
    bad = noise(5)._replace(tar=b"another")
    with pytest.raises(DigestMismatch, match="its configuration says"):
        pull(puller, Origin(BASE, bad, TOP), BASE, bad, TOP)
    assert puller.store.keys() == []
    assert puller.leftovers() == []
    assert children() == ""


def test_a_layer_that_breaks_a_rule_is_refused(puller: Puller) -> None:
    with pytest.raises(ArchiveInvalid, match=r"'\.\.'"):
        bad = layer(file("../x"))
        pull(puller, Origin(BASE, bad), BASE, bad)
    assert puller.leftovers() == []


# -- what breaks off -------------------------------------------------------------------------------


def when(at: int, act: Callable[[], object]) -> Callable[[str, int], None]:
    """Act in the child when the middle layer is that far."""

    def before(digest: str, position: int) -> None:
        if digest == MIDDLE.digest and position >= at:
            act()

    return before


def lose() -> None:
    raise FetchFailed("the connection broke")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def want_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20),) * 2)
    bytearray(1 << 30)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lose, "^the connection broke$"),
        (die, "^ingest was killed by signal 9$"),
        (want_memory, "^ingest failed: MemoryError"),
    ],
)
def test_what_arrived_of_a_pull_that_failed_is_continued(
    puller: Puller, act: Callable[[], object], told: str
) -> None:
    origin = Origin(*ALL)
    origin.before = when(3 * PIECE, act)
    with pytest.raises(PodctlError, match=told) as caught:
        pull(puller, origin, *ALL)
    assert "\n" not in str(caught.value)
    assert children() == ""
    assert puller.partial(MIDDLE).read_bytes() == MIDDLE.blob[: 3 * PIECE]
    origin.asked.clear()
    origin.before = lambda digest, position: None
    pull(puller, origin, *ALL)
    assert Asked(MIDDLE, 3 * PIECE) in origin.asked
    assert len(origin.asked) <= 3
    check_whole(puller, *ALL)


def test_an_unpacker_that_is_killed_is_named(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does when memory runs out; what was downloaded is kept."""
    from podctl.images import transfer

    monkeypatch.setattr(transfer, "unpack", lambda *_: die())
    with pytest.raises(PodctlError, match="^unpack was killed by signal 9$"):
        pull(puller, Origin(BASE), BASE)
    assert children() == ""
    kept = puller.partial(BASE).read_bytes()
    assert kept
    assert BASE.blob.startswith(kept)


def test_an_interrupt_ends_all_and_keeps_what_arrived(puller: Puller) -> None:
    origin = Origin(*ALL)

    def interrupt(digest: str, done: int, size: int) -> None:
        if digest == MIDDLE.digest and done >= 2 * PIECE:
            raise KeyboardInterrupt

    puller.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        pull(puller, origin, *ALL)
    assert children() == ""
    assert list((puller.data / "layers").iterdir()) == []
    kept = puller.partial(MIDDLE).stat().st_size
    assert kept >= 2 * PIECE
    puller.progress = None
    origin.asked.clear()
    pull(puller, origin, *ALL)
    assert Asked(MIDDLE, kept) in origin.asked or kept == len(MIDDLE.blob)
    check_whole(puller, *ALL)


def test_what_cannot_be_committed_is_not_downloaded_again(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All has arrived; then there is no space for the record, or somebody interrupts."""
    origin = Origin(*ALL)
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt(), HostLacks("x")):

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Store, "commit", fail)
            with pytest.raises(type(error)):
                pull(puller, origin, *ALL)
        assert len(origin.asked) == 3
    pull(puller, origin, *ALL)
    assert len(origin.asked) == 3
    check_whole(puller, *ALL)


# -- side by side ----------------------------------------------------------------------------------


def test_downloads_are_locked_in_one_order_whatever_that_of_the_layers(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[str] = []
    right = Store.partial

    def partial(self: Store, url: str, **named: object) -> object:
        locked.append(url)
        return right(self, url, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "partial", partial)
    pull(puller, Origin(*ALL), *ALL)
    first = list(locked)
    locked.clear()
    (puller.data).rename(puller.data.with_name("aside"))
    pull(puller, Origin(*ALL), *reversed(ALL))
    assert locked == first
    assert len(first) == 3


def test_pulls_of_overlapping_layers_never_wait_for_one_another(puller: Puller) -> None:
    """Two that take the same layers in opposite order, and a third that takes one, 15 times."""
    small = [noise(seed, 3 * PIECE) for seed in range(4)]
    orders = (small, small[::-1], small[1:2])
    for turn in range(15):
        pids = []
        for number, layers in enumerate(orders):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    name = f"app{turn}-{number}"
                    puller.pull(image_of(name, *layers), LayerSource(fetch=Origin(*small).fetch))
                    code = 0
                finally:
                    os._exit(code)
            pids.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
        assert len(puller.store.keys()) == 3
        check_whole(puller, *small)
        for record in puller.store.images():
            puller.store.remove(record.key)
        assert list((puller.data / "layers").iterdir()) == []


def test_a_layer_may_stand_in_an_image_many_times(puller: Puller) -> None:
    empty = packed(b"\0" * 1024)
    origin = Origin(BASE, empty)
    pull(puller, origin, empty, BASE, empty, empty)
    assert len(origin.asked) == 2
    (record,) = puller.store.images()
    assert [blob == empty.digest for blob in record.blobs] == [True, False, True, True]
    check_whole(puller, BASE, empty)


def test_as_many_layers_as_an_image_may_have_need_two_descriptors_each(puller: Puller) -> None:
    """The locks of its directory and its download, which are held to the end."""
    layers = [layer(directory(f"d{number}")) for number in range(256)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, limits[1]))
    try:
        pull(puller, Origin(*layers), *layers)
        check_whole(puller, *layers)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
