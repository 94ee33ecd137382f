"""Layers: continued where they broke off, also elsewhere; never more than they should be (rows M1,
R7, R9)."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import FetchFailed
from podctl.model.fetching import CacheState, Downloaded, Resume
from podctl.testing.httpserver import Reply
from podctl.testing.ociimages import Image, image
from podctl.testing.ocilayers import file, layer
from podctl.testing.registryfaults import (
    answered,
    changed,
    corrupted,
    endless,
    in_turn,
    longer,
    refused,
    reset_at,
    served,
    shorter,
    whole,
    without_ranges,
    wrong_range,
)
from podctl.testing.transport import MemorySink
from podctl_fetch_docker.format import oci

if TYPE_CHECKING:
    from collections.abc import Callable

APP = "library/app"


@pytest.fixture(scope="module")
def big() -> Image:
    """An image of one layer that does not compress."""
    return image(layer(file("data", random.Random(1).randbytes(300_000))))


@pytest.fixture
def blob(big: Image) -> bytes:
    return big.layers[0].blob


@pytest.fixture
def published(site: Any, big: Image) -> Any:
    """The image at a registry, resolved."""
    site.registry.put(APP, big, "1.0")
    resolution = site.resolve(want_signature=False)
    site.registry.log.clear()
    return site, resolution


def fetch(
    site: Any, resolution: Any, kept: bytes = b"", sink: MemorySink | None = None, **fields: Any
) -> tuple[MemorySink, Downloaded]:
    """Fetch the one layer."""
    sink = sink or MemorySink(kept)
    resume = Resume(len(kept), CacheState()) if kept else None
    (one,) = oci.format_image(resolution.document).layers
    done = site.transport.transport_layer(resolution, one, resume, site.asked(**fields), sink)
    return sink, done


def starts(site: Any) -> list[int]:
    return [visit.start for visit in site.registry.asked("blob")]


@pytest.mark.parametrize("tenth", range(11))
def test_a_layer_reset_at_any_tenth_is_continued(published: Any, blob: bytes, tenth: int) -> None:
    site, resolution = published
    site.registry.spoil("blob", in_turn(reset_at(tenth / 10)))
    sink, done = fetch(site, resolution)
    assert (sink.data, done.size) == (blob, len(blob))
    cut = len(blob) * tenth // 10
    assert starts(site)[0] == 0
    assert all(start in (0, cut) for start in starts(site))


def test_a_partial_of_an_earlier_run_is_continued(published: Any, blob: bytes) -> None:
    site, resolution = published
    sink, _ = fetch(site, resolution, blob[:100_000])
    assert sink.data == blob
    assert starts(site) == [100_000]
    assert sink.begun[0][0] == 100_000


def test_what_is_complete_is_not_asked_for(published: Any, blob: bytes) -> None:
    site, resolution = published
    sink, _ = fetch(site, resolution, blob)
    assert sink.data == blob
    assert starts(site) == []


@pytest.mark.parametrize(
    "fault", [without_ranges, whole, wrong_range(), wrong_range("bytes 0-9/10")]
)
def test_a_server_without_true_ranges_costs_only_time(
    published: Any, blob: bytes, fault: Any
) -> None:
    site, resolution = published
    site.registry.spoil("blob", fault)
    assert fetch(site, resolution, blob[:100_000])[0].data == blob
    site.registry.spoil("blob", in_turn(reset_at(0.5)))
    assert fetch(site, resolution)[0].data == blob


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (longer(1), "is larger than"),
        (longer(1_000_000, told=False), "is larger than"),
        (changed(endless), "is larger than"),
        (served(b""), "has 0 bytes instead of"),
        (shorter(1), "bytes instead of"),
        (answered(Reply(length=1 << 40)), "is larger than"),
    ],
)
def test_a_body_of_another_size_is_refused_at_the_first_byte_too_many(
    published: Any, blob: bytes, fault: Any, says: str
) -> None:
    site, resolution = published
    site.registry.spoil("blob", fault)
    sink = MemorySink()
    with pytest.raises(FetchFailed, match=says) as caught:
        fetch(site, resolution, sink=sink)
    assert len(sink.data) <= len(blob)
    assert "layer sha256:" in caught.value.message


def test_other_bytes_are_for_the_reader_to_notice(published: Any, blob: bytes) -> None:
    """It hashes what it reads anyway; the transport delivers."""
    site, resolution = published
    site.registry.spoil("blob", corrupted())
    assert fetch(site, resolution)[0].data != blob


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_layer_that_is_not_there_is_said(published: Any, status: int) -> None:
    site, resolution = published
    site.registry.spoil("blob", refused(status))
    with pytest.raises(FetchFailed, match=f"bad HTTP status code: {status}") as caught:
        fetch(site, resolution)
    assert "\n" not in str(caught.value)


# -- several places --------------------------------------------------------------------------------


@pytest.fixture
def mirrored(at: Callable[..., Any], host: Any, big: Image) -> Callable[..., Any]:
    """Registries that mirror the first one given, in the order of registries.conf."""

    def make(count: int = 1, **mirror: object) -> tuple[Any, list[Any]]:
        own = at()
        mirrors = [at() for _ in range(count)]
        lines = [f'[[registry]]\nlocation = "{own.name}"']
        for one in mirrors:
            lines.append(f'[[registry.mirror]]\nlocation = "{one.name}/cache"')
            lines += [f"{key} = {value}" for key, value in mirror.items()]
            one.registry.put(f"cache/{APP}", big, "1.0")
        own.registry.put(APP, big, "1.0")
        host.write("etc/containers/registries.conf", "\n".join(lines))
        return own, mirrors

    return make


def test_a_mirror_is_asked_first_and_the_name_stays(mirrored: Any, blob: bytes) -> None:
    own, (mirror,) = mirrored()
    resolution = own.resolve(want_signature=False)
    assert resolution.location.startswith(f"docker://{own.name}/{APP}@")
    assert oci.format_image(resolution.document).name.endswith(APP)
    assert resolution.context == f"https://{mirror.name}/v2/cache/{APP}"
    assert fetch(own, resolution)[0].data == blob
    assert own.registry.log == []


@pytest.mark.parametrize("fault", ["missing", "refused", "down", "another"])
def test_a_mirror_that_has_it_not_is_passed_by(
    mirrored: Any, big: Image, blob: bytes, fault: str
) -> None:
    own, (mirror,) = mirrored()
    if fault == "missing":
        mirror.registry.repositories.clear()
    elif fault == "refused":
        mirror.registry.spoil("any", refused(403))
    elif fault == "down":
        mirror.server.close()
    else:
        mirror.registry.spoil("manifest", corrupted(), name=big.digest)
        resolution = own.resolve(f"@{big.digest}", want_signature=False)
        assert resolution.context == f"https://{own.name}/v2/{APP}"
        return
    resolution = own.resolve(want_signature=False)
    assert fetch(own, resolution)[0].data == blob
    assert len(own.registry.log) == 3


def test_a_layer_goes_on_at_the_next_place_where_it_broke_off(mirrored: Any, blob: bytes) -> None:
    own, (first, second) = mirrored(2)
    resolution = own.resolve(want_signature=False)
    half = len(blob) // 2
    first.registry.spoil("blob", in_turn(reset_at(0.5), *[refused(404)] * 9))
    sink, _ = fetch(own, resolution)
    assert sink.data == blob
    assert starts(second) == [half]
    assert len(sink.begun) == 1
    assert own.registry.log == []


def test_a_layer_goes_on_where_no_ranges_are_known(mirrored: Any, blob: bytes) -> None:
    own, (mirror,) = mirrored()
    resolution = own.resolve(want_signature=False)
    mirror.registry.spoil("blob", in_turn(reset_at(0.5), *[refused(404)] * 9))
    own.registry.spoil("blob", without_ranges)
    assert fetch(own, resolution)[0].data == blob


def test_nowhere_to_be_had_names_every_place(mirrored: Any) -> None:
    own, (mirror,) = mirrored()
    resolution = own.resolve(want_signature=False)
    for one in (own, mirror):
        one.registry.spoil("any", refused(404))
    for failing in (lambda: fetch(own, resolution), lambda: own.resolve(":2.0")):
        with pytest.raises(FetchFailed) as caught:
            failing()
        assert own.name in caught.value.message
        assert mirror.name in caught.value.message


@pytest.mark.parametrize(
    ("pull", "tag", "digest"),
    [("all", True, True), ("digest-only", False, True), ("tag-only", True, False)],
)
def test_a_mirror_is_asked_for_what_it_is_for(
    mirrored: Any, big: Image, pull: str, tag: bool, digest: bool
) -> None:
    own, (mirror,) = mirrored(**{"pull-from-mirror": f'"{pull}"'})
    for version, asked in ((":1.0", tag), (f"@{big.digest}", digest)):
        mirror.registry.log.clear()
        assert own.resolve(version, want_signature=False).document
        assert bool(mirror.registry.log) is asked


def test_what_an_image_is_does_not_depend_on_where_it_came_from(mirrored: Any) -> None:
    own, (mirror,) = mirrored()
    by_mirror = own.resolve(want_signature=False)
    mirror.server.close()
    direct = own.resolve(want_signature=False)
    assert (by_mirror.document, by_mirror.location) == (direct.document, direct.location)


def test_a_note_that_nobody_made_leads_nowhere(published: Any, serve: Any, blob: bytes) -> None:
    """The note comes back from a child that had read bytes from outside."""
    from dataclasses import replace

    site, resolution = published
    evil = serve({"": Reply(body=blob)})
    noted = replace(resolution, context=f"{evil.url()}v2/{APP}")
    assert fetch(site, noted)[0].data == blob
    assert evil.log == []


def test_layers_are_fetched_side_by_side_in_children(at: Any, app: Image) -> None:
    from podctl.sys.child import Privileges, spawn

    site = at()
    site.registry.put(APP, app, "1.0")
    site.transport.transport_preload()
    resolution = site.resolve()
    request = site.asked()
    layers = oci.format_image(resolution.document).layers

    def work(one: Any) -> Any:
        sink = MemorySink()
        site.transport.transport_layer(resolution, one, None, request, sink)
        return [os.getpid(), sink.data.hex()]

    children = [
        spawn(lambda one=one: work(one), privileges=Privileges.NONE, name="layer") for one in layers
    ]
    done = []
    for child in children:
        with child:
            done.append(child.wait())
    assert [bytes.fromhex(data) for _, data in done] == [one.blob for one in app.layers]
