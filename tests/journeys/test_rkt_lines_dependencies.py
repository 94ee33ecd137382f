"""rkt command lines with the name changed: images made of images, found by discovery."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import image_files
import pytest
from image_files import ARCH, manifest, pack, shell

if TYPE_CHECKING:
    from pathlib import Path

    from home import Home
    from image_files import Entry
    from live_world import Discovery
    from site_world import Site

    from podctl.testing.httpserver import Server

pytestmark = pytest.mark.root

FLY = "--stage1=fly"
#: image -> what it depends on; `shared` is reached by three ways
GRAPH = {
    "top": ["left", "right"],
    "left": ["deep", "shared"],
    "right": ["shared", "wide"],
    "deep": ["deeper", "one"],
    "deeper": ["shared"],
    "wide": ["one", "two", "three"],
    "shared": ["base"],
    "one": [],
    "two": [],
    "three": [],
    "base": [],
}


def name_of(letter: str) -> str:
    return f"live.example/graph/{letter}"


def path_of(letter: str) -> str:
    return f"/{name_of(letter)}-latest-linux-{ARCH}.aci"


def priority(letter: str) -> list[str]:
    """Highest first: an image, then each dependency with its own, the later listed first."""
    found = [letter]
    for dependency in reversed(GRAPH[letter]):
        found += priority(dependency)
    return found


def expected(pair: tuple[str, str]) -> str:
    order = priority("top")
    return min(pair, key=order.index)


def files_of(letter: str) -> dict[str, Entry]:
    """For each other image a file both have, with its own name in it, and a file of its own."""
    files: dict[str, Entry] = {f"own/{letter}": letter.encode() + b"\n"}
    for pair in combinations(sorted(GRAPH), 2):
        if letter in pair:
            files[f"pairs/{'-'.join(pair)}"] = letter.encode() + b"\n"
    if letter == "base":
        files |= image_files.busybox()
    return files


def pack_image(letter: str, **fields: Any) -> bytes:
    app = shell("cd /pairs; for f in *; do echo $f $(cat $f); done; cd /own; echo own *")
    wanted = [{"imageName": name_of(one)} for one in GRAPH[letter]]
    document = manifest(
        name_of(letter),
        app=app if letter == "top" else None,
        **({"dependencies": wanted} if wanted else {}),
        **fields,
    )
    return pack(document, files_of(letter))


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    return {letter: pack_image(letter) for letter in GRAPH}


@pytest.fixture
def graph(live: Discovery, images: dict[str, bytes]) -> Discovery:
    for letter, data in images.items():
        live.add(path_of(letter), data)
    return live


def gets(server: Server) -> list[str]:
    return [r.path for r in server.log if r.method == "GET" and r.path.endswith(".aci")]


def winners(output: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in output.splitlines())


@pytest.mark.parametrize("flags", [[], ["--no-overlay"]], ids=["overlay", "copy"])
def test_every_image_is_fetched_once_and_overrides_in_order(
    home: Home, graph: Discovery, live_server: Server, flags: list[str]
) -> None:
    done = home.podctl("run", FLY, *flags, name_of("top"))
    assert done.returncode == 0, done
    assert sorted(gets(live_server)) == sorted(path_of(letter) for letter in GRAPH)
    found = winners(done.stdout)
    assert found.pop("own").split() == sorted(GRAPH)
    assert len(found) == len(GRAPH) * (len(GRAPH) - 1) // 2
    for pair in combinations(sorted(GRAPH), 2):
        assert found["-".join(pair)] == expected(pair), pair
    again = home.podctl("run", FLY, *flags, name_of("top"))
    assert again.stdout == done.stdout
    assert len(gets(live_server)) == len(GRAPH)


def test_rendered_tree_is_what_the_app_sees(home: Home, graph: Discovery, tmp_path: Path) -> None:
    home.must("fetch", name_of("top"))
    home.must("image", "render", name_of("top"), str(tmp_path / "rendered"))
    for pair in combinations(sorted(GRAPH), 2):
        path = tmp_path / "rendered/rootfs/pairs" / "-".join(pair)
        assert path.read_text().strip() == expected(pair)
    home.must("image", "extract", name_of("top"), str(tmp_path / "alone"))
    assert [path.name for path in (tmp_path / "alone/rootfs/own").iterdir()] == ["top"]


def test_stored_dependencies_are_reused(
    home: Home, graph: Discovery, live_server: Server, tmp_path: Path, images: dict[str, bytes]
) -> None:
    home.must("fetch", name_of("right"))
    before = set(gets(live_server))
    assert path_of("left") not in before
    file = tmp_path / "left.aci"
    file.write_bytes(images["left"])
    home.must("fetch", str(file))
    live_server.log.clear()
    assert home.podctl("run", FLY, name_of("top")).returncode == 0
    assert set(gets(live_server)) == {path_of("top")}


def test_a_path_whitelist_cuts_an_image_and_what_is_below_it(
    home: Home, graph: Discovery, tmp_path: Path
) -> None:
    """`right` shows two files only: its own, and one of `wide` below it."""
    graph.add(path_of("right"), pack_image("right", pathWhitelist=["/own/right", "/own/two"]))
    done = home.podctl("run", FLY, name_of("top"))
    assert done.returncode == 0, done
    own = winners(done.stdout)["own"].split()
    # What `wide` and `three` have is reached through `right` alone; the rest through `left` too.
    assert own == sorted(set(GRAPH) - {"wide", "three"})
    found = winners(done.stdout)
    assert found["left-right"] == "left"
    assert "right-wide" not in found
    home.must("image", "verify", name_of("top"))


def test_a_missing_dependency_is_named_and_nothing_runs(home: Home, graph: Discovery) -> None:
    del graph.files[path_of("three")]
    line = home.refused("run", FLY, name_of("top"))
    assert name_of("three") in line or path_of("three") in line
    assert home.pods() == {}
    graph.add(path_of("three"), pack_image("three"))
    assert home.podctl("run", FLY, name_of("top")).returncode == 0


def test_dependencies_in_a_circle_are_refused(home: Home, live: Discovery) -> None:
    for letter, other in (("a", "b"), ("b", "a")):
        wanted = [{"imageName": name_of(other)}]
        data = pack(manifest(name_of(letter), app={}, dependencies=wanted), {})
        live.add(path_of(letter), data)
    done = home.podctl("run", FLY, name_of("a"), timeout=30)
    assert done.returncode == 254
    assert home.pods() == {}


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({"labels": [{"name": "version", "value": "1"}]}, True),
        ({"labels": [{"name": "version", "value": "2"}]}, False),
        ({"labels": [{"name": "colour", "value": "red"}]}, False),
        ({"imageID": "sha512-" + "0" * 128}, False),
    ],
    ids=["version", "other version", "unknown label", "other id"],
)
def test_labels_and_ids_of_dependencies_hold(
    home: Home, live: Discovery, wanted: dict[str, Any], fits: bool
) -> None:
    base = pack(manifest(name_of("base"), app={}), image_files.busybox())
    for version in ("1", "2", "latest"):
        live.add(f"/{name_of('base')}-{version}-linux-{ARCH}.aci", base)
    needs = [{"imageName": name_of("base"), **wanted}]
    live.add(path_of("needy"), pack(manifest(name_of("needy"), app={}, dependencies=needs), {}))
    done = home.podctl("run", FLY, name_of("needy"))
    assert (done.returncode == 0) == fits, done
    assert len(home.pods()) == fits


def test_a_dependency_needs_a_signature_like_any_image(
    home: Home, live: Discovery, published: Site, tmp_path: Path, images: dict[str, bytes]
) -> None:
    home.options.remove("--insecure-options=image")
    signer = published.keyring.make("graph <graph@example.com>")
    key = published.keyring.export(signer, tmp_path / "key.asc")
    home.must("trust", "--prefix", "live.example/graph", "--skip-fingerprint-review", str(key))
    for letter, data in images.items():
        file = tmp_path / f"{letter}.aci"
        file.write_bytes(data)
        published.keyring.sign(signer, file)
        live.add(path_of(letter), data)
        live.add(path_of(letter) + ".asc", file.with_name(f"{letter}.aci.asc").read_bytes())
    signature = live.files.pop(path_of("deeper") + ".asc")
    line = home.refused("run", FLY, name_of("top"))
    assert "signature" in line
    assert path_of("deeper") in line
    assert home.pods() == {}
    live.files[path_of("deeper") + ".asc"] = signature
    assert home.podctl("run", FLY, name_of("top")).returncode == 0


def test_keys_for_dependencies_are_discovered_when_told_so(
    home: Home, live: Discovery, published: Site, tmp_path: Path
) -> None:
    home.options.remove("--insecure-options=image")
    signer = published.keyring.make("found <found@example.com>")
    key = published.keyring.export(signer, tmp_path / "key.asc")
    live.tags += (("ac-discovery-pubkeys", "live.example https://live.example/pubkeys.gpg"),)
    live.add("/pubkeys.gpg", key.read_bytes())
    base = pack(manifest(name_of("base"), app={}), image_files.busybox())
    top = pack(manifest(name_of("top"), app={}, dependencies=[{"imageName": name_of("base")}]), {})
    for letter, data in (("base", base), ("top", top)):
        file = tmp_path / f"{letter}.aci"
        file.write_bytes(data)
        published.keyring.sign(signer, file)
        live.add(path_of(letter), data)
        live.add(path_of(letter) + ".asc", file.with_name(f"{letter}.aci.asc").read_bytes())
    assert home.podctl("run", FLY, name_of("top")).returncode == 254
    done = home.podctl("--trust-keys-from-https", "run", FLY, name_of("top"))
    assert done.returncode == 0, done
    assert "signature verified: found <found@example.com>" in done.stderr
