"""rkt command lines with the name changed: where images come from."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import image_files
import pytest
from image_files import ARCH, File, manifest, pack

from podctl.testing.httpserver import Content, Protected, Reply, Request, Sequence

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from home import Home
    from live_world import Discovery
    from site_world import Site

    from podctl.testing.httpserver import Server

pytestmark = pytest.mark.root

NAME = "live.example/app"
FLY = "--stage1=fly"
FROM_FILE = "image: using image from file"
FROM_STORE = "image: using image from local store for image"
RANDOM = bytes(range(256)) * 4


def image(name: str = NAME, *, size: int = 0, **fields: Any) -> bytes:
    """A small image; with `size` it holds so many bytes that do not compress well."""
    import random

    fields.setdefault("app", {})
    files = image_files.busybox()
    if size:
        files["payload"] = File(random.Random(7).randbytes(size))
    return pack(manifest(name, **fields), files)


def path_of(name: str = NAME, version: str = "latest", suffix: str = "") -> str:
    """Where discovery says an image lies."""
    return f"/{name}-{version}-linux-{ARCH}.aci{suffix}"


def url_of(name: str = NAME, version: str = "latest") -> str:
    return f"https://live.example{path_of(name, version)}"


@pytest.fixture
def gets(live: Discovery, live_server: Server) -> Any:
    """How often a path was asked for its body."""

    def count(path: str) -> int:
        return sum(request.method == "GET" and request.path == path for request in live_server.log)

    return count


@pytest.mark.parametrize("command", ["fetch", "run", "prepare"])
@pytest.mark.parametrize("option", ["", "--store-only", "--no-store", "--pull-policy=never"])
def test_a_file_is_always_read(home: Home, tmp_path: Path, command: str, option: str) -> None:
    file = tmp_path / "app.aci"
    file.write_bytes(image())
    words = [option] if option else []
    if command != "fetch":
        words.insert(0, FLY)
    for spelling in (str(file), f"file://{file}"):
        done = home.podctl(command, *words, spelling)
        assert done.returncode == 0, done
        assert done.stderr.startswith(FROM_FILE)
        assert FROM_STORE not in done.stderr


@pytest.mark.parametrize("spelling", ["name", "name and version", "url"])
def test_pull_policies(home: Home, live: Discovery, gets: Any, spelling: str) -> None:
    version = "1" if spelling == "name and version" else "latest"
    text = {"name": NAME, "name and version": f"{NAME}:1", "url": url_of()}[spelling]
    path = path_of(version=version)
    live.files[path] = Content(image(), etag=None)

    never = ["run", FLY, "--pull-policy=never", text]
    assert f'image "{text}" is not in the store' in home.refused(*never)
    assert gets(path) == 0
    first = home.podctl("run", FLY, text)
    assert first.returncode == 0, first
    assert FROM_STORE not in first.stderr
    assert gets(path) == 1
    for words in (["run", FLY, text], never, ["run", FLY, "--store-only", text]):
        again = home.podctl(*words)
        assert again.returncode == 0, again
        assert again.stderr.startswith(FROM_STORE)
    assert gets(path) == 1
    for words in (
        ["run", FLY, "--pull-policy=update", text],
        ["run", FLY, "--no-store", text],
        ["fetch", text],
    ):
        before = gets(path)
        remote = home.podctl(*words)
        assert remote.returncode == 0, remote
        assert FROM_STORE not in remote.stderr
        assert gets(path) == before + 1


def test_store_only_and_no_store_exclude_each_other(home: Home) -> None:
    for command in (["fetch"], ["run", FLY], ["prepare", FLY]):
        assert "exclude" in home.refused(*command, "--store-only", "--no-store", NAME)


def test_hash_of_a_fetched_image(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "app.aci"
    file.write_bytes(image())
    short = home.must("fetch", str(file)).strip()
    whole = home.must("fetch", "--full", str(file)).strip()
    assert (len(short), len(whole)) == (len("sha512-") + 32, len("sha512-") + 64)
    for prefix in (whole, short, whole[:19], whole[:9]):
        done = home.podctl("run", FLY, prefix)
        assert done.returncode == 0, done
        assert f"using image from the store with hash {prefix}" in done.stderr
    assert "2 to 128 hexadecimal digits" in home.refused("run", FLY, whole[:8])
    assert "no image IDs found" in home.refused("run", FLY, f"sha512-{'0' * 20}")


@pytest.mark.parametrize("text", [NAME, url_of()])
def test_max_age_saves_asking(home: Home, live: Discovery, gets: Any, text: str) -> None:
    live.add(path_of(), image(), cache_control="max-age=600")
    home.must("fetch", text)
    done = home.podctl("fetch", text)
    assert f"image: image for {url_of()} isn't expired, not fetching" in done.stderr
    assert gets(path_of()) == 1


@pytest.mark.parametrize("control", ["max-age=0", "no-cache", "no-store", "max-age=0, private"])
def test_an_etag_saves_downloading(
    home: Home, live: Discovery, gets: Any, live_server: Server, control: str
) -> None:
    content = live.add(path_of(), image(), cache_control=control)
    first = home.must("fetch", url_of())
    done = home.podctl("fetch", url_of())
    assert (done.returncode, done.stdout) == (0, first)
    assert f"image: image for {url_of()} is unchanged, not fetching" in done.stderr
    content.data, content.etag = image(labels={"version": "2"}), '"v2"'
    assert home.must("fetch", url_of()) != first


def test_a_304_renews_the_max_age(home: Home, live: Discovery, live_server: Server) -> None:
    content = live.add(path_of(), image(), cache_control="max-age=0")
    home.must("fetch", url_of())
    content.cache_control = "max-age=600"
    home.must("fetch", url_of())
    asked = len(live_server.log)
    home.must("fetch", url_of())
    assert len(live_server.log) == asked


BIG = 600_000


def cut(home: Home, live: Discovery, content: Content) -> None:
    """A fetch that loses its connection and finds the door closed when it tries again."""
    content.cuts = [300_000]

    def route(request: Request) -> Reply:
        if not content.cuts:
            return Reply(403)
        return content(request)

    live.files[path_of()] = route
    home.refused("fetch", url_of())
    live.files[path_of()] = content


def test_an_interrupted_download_resumes(home: Home, live: Discovery, live_server: Server) -> None:
    content = Content(image(size=BIG))
    cut(home, live, content)
    live_server.log.clear()
    home.must("fetch", url_of())
    (got,) = [r for r in live_server.log if r.path == path_of() and r.method == "GET"]
    asked = got.header("Range")
    assert asked is not None
    assert int(asked.removeprefix("bytes=").rstrip("-")) >= 300_000
    home.must("image", "verify", NAME)


CHANGED = {
    "changed": lambda data: Content(data, etag='"v2"'),
    "no ranges": lambda data: Content(data, ranges=False),
    "no validators": lambda data: Content(data, etag=None),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_download_that_cannot_be_resumed_starts_over(
    home: Home, live: Discovery, case: str
) -> None:
    cut(home, live, Content(image(size=BIG)))
    live.files[path_of()] = CHANGED[case](image(size=BIG + 1))
    home.must("fetch", url_of())
    home.must("image", "verify", NAME)
    home.must("fsck")


def test_a_resource_that_changes_without_saying_so_is_noticed(
    home: Home, live: Discovery, tmp_path: Path
) -> None:
    """Two halves of different images under one entity tag: no image, nothing stored."""
    cut(home, live, Content(image(size=BIG)))
    other = image(size=BIG, labels={"version": "other"})
    live.files[path_of()] = Content(bytes(len(other)))
    home.refused("fetch", url_of())
    assert home.images() == []


LABELS = {
    "version": (f"{NAME}:2.0", "2.0",
                'label "version": "2.0" differs from fetched aci label value: "1"'),
    "explicit latest": (f"{NAME}:latest", "latest",
                        '"version": "latest" differs from fetched aci label value: "1"'),
    "unknown label": (f"{NAME},colour=red", "latest",
                      'requested label "colour" not provided by the image manifest'),
}  # fmt: skip


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_differ_from_the_requested(home: Home, live: Discovery, case: str) -> None:
    text, version, reason = LABELS[case]
    live.add(path_of(version=version), image())
    assert reason in home.refused("run", FLY, text)
    assert home.images() == []
    assert home.pods() == {}


def test_requested_architecture_that_differs(home: Home, live: Discovery) -> None:
    live.add(f"/{NAME}-latest-linux-s390x.aci", image())
    line = home.refused("fetch", f"{NAME},arch=s390x")
    assert f'"arch": "s390x" differs from fetched aci label value: "{ARCH}"' in line


def test_another_name_than_the_requested(home: Home, live: Discovery) -> None:
    live.add(path_of(), image("live.example/other"))
    line = home.refused("fetch", NAME)
    assert 'name "live.example/other" differs from the requested "live.example/app"' in line


def test_who_waits_for_a_download_checks_what_it_gets(
    home: Home, live: Discovery, live_server: Server
) -> None:
    """By URL any image will do; who asked for a name at the same time must not get another one."""
    hold = threading.Event()
    live.files[path_of()] = Reply(200, {"ETag": '"v1"'}, image("live.example/other"), hold=hold)
    first = home.start("fetch", url_of(), stdout=-1, stderr=-1)
    try:
        _until_asked(live_server, path_of())
        second = home.start("fetch", NAME, stdout=-1, stderr=-1)
        try:
            assert second.stderr is not None
            for line in second.stderr:
                if "waiting" in line:
                    break
        finally:
            hold.set()
            _, said = second.communicate()
    finally:
        hold.set()
        first.communicate()
    assert first.returncode == 0
    assert second.returncode == 254
    assert "differs from the requested" in said


def _until_asked(server: Server, path: str) -> None:
    import time

    while not any(r.path == path and r.method == "GET" for r in server.log):
        time.sleep(0.01)


PLATFORMS: dict[str, tuple[Mapping[str, str], str | None]] = {
    "good": ({"os": "linux", "arch": ARCH}, None),
    "no os": ({"version": "1"}, "missing os label in the image manifest"),
    "no arch": ({"os": "linux"}, "missing arch label in the image manifest"),
    "other os": ({"os": "freebsd", "arch": "amd64"}, 'bad os "freebsd"'),
    "unknown os": ({"os": "plan9", "arch": "amd64"}, 'bad os "plan9"'),
    "unknown arch": ({"os": "linux", "arch": "armv5l"}, 'bad arch "armv5l"'),
}


@pytest.mark.parametrize("case", PLATFORMS)
@pytest.mark.parametrize("fetched", [False, True], ids=["direct", "fetched"])
def test_platform(home: Home, tmp_path: Path, case: str, fetched: bool) -> None:
    labels, reason = PLATFORMS[case]
    file = tmp_path / "app.aci"
    file.write_bytes(image(labels=labels))
    text = str(file)
    if fetched and not case.startswith("unknown"):
        text = home.must("fetch", "--full", str(file)).strip()
    done = home.podctl("run", FLY, text)
    assert (done.returncode == 0) == (reason is None), done
    if reason:
        assert reason in done.stderr
        assert home.pods() == {}


# -- signatures ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signer(published: Site) -> str:
    return published.keyring.make("lines <lines@example.com>")


@pytest.fixture
def signed(home: Home, published: Site, signer: str, tmp_path: Path) -> tuple[bytes, bytes]:
    """An image and its signature; its key is trusted, and signatures are asked for."""
    file = tmp_path / "signed.aci"
    file.write_bytes(image())
    published.keyring.sign(signer, file)
    key = published.keyring.export(signer, tmp_path / "key.asc")
    home.options.remove("--insecure-options=image")
    home.must("trust", "--prefix", NAME, "--skip-fingerprint-review", str(key))
    return file.read_bytes(), (tmp_path / "signed.aci.asc").read_bytes()


def test_a_deferred_signature_is_asked_for_again(
    home: Home, live: Discovery, live_server: Server, signed: tuple[bytes, bytes]
) -> None:
    data, signature = signed
    live.add(path_of(), data)
    live.files[path_of(suffix=".asc")] = Sequence(Reply(202), Reply(200, body=signature))
    done = home.podctl("fetch", NAME)
    assert done.returncode == 0, done
    assert "signature verified: lines <lines@example.com>" in done.stderr
    paths = [
        r.path for r in live_server.log if r.method == "GET" and r.path.endswith((".aci", "c"))
    ]
    assert paths == [path_of(suffix=".asc"), path_of(), path_of(suffix=".asc")]
    assert home.podctl("run", FLY, NAME).returncode == 0


def test_a_signature_deferred_for_ever_is_refused(
    home: Home, live: Discovery, signed: tuple[bytes, bytes]
) -> None:
    live.add(path_of(), signed[0])
    live.files[path_of(suffix=".asc")] = Reply(202)
    line = home.refused("fetch", NAME)
    assert "signature" in line
    assert home.images() == []


def test_a_wrong_signature_that_comes_late_is_refused(
    home: Home, live: Discovery, signed: tuple[bytes, bytes]
) -> None:
    live.add(path_of(), image(labels={"version": "2", "os": "linux", "arch": ARCH}))
    live.files[path_of(suffix=".asc")] = Sequence(Reply(202), Reply(200, body=signed[1]))
    home.refused("fetch", NAME)
    assert home.images() == []


def test_an_image_may_not_be_deferred(home: Home, live: Discovery) -> None:
    live.files[path_of()] = Reply(202)
    assert "202" in home.refused("fetch", NAME)


def test_a_signature_file_of_ones_own(
    home: Home, live: Discovery, signed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    data, signature = signed
    (tmp_path / "elsewhere.asc").write_bytes(signature)
    given = f"--signature={tmp_path}/elsewhere.asc"
    live.add(path_of(), data)
    bare = tmp_path / "bare.aci"
    bare.write_bytes(data)
    assert "error opening signature file" in home.refused("fetch", str(bare))
    assert "error opening signature file" in home.refused("fetch", url_of())
    for text in (str(bare), url_of()):
        assert "signature verified" in home.podctl("fetch", given, text).stderr
    assert home.podctl("run", FLY, str(bare), given).returncode == 0
    home.refused("fetch", given, NAME)
    home.refused("fetch", given, url_of(), str(bare))


# -- credentials in rkt's own files ----------------------------------------------------------

GOOD = "Basic YmFyOmJheg=="  # bar:baz


def auth(user: str, password: str) -> str:
    return json.dumps(
        {
            "rktKind": "auth",
            "rktVersion": "v1",
            "domains": ["live.example"],
            "type": "basic",
            "credentials": {"user": user, "password": password},
        }
    )


def configure(directory: Path, text: str, name: str = "auth.d/test.json") -> None:
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(text)
    (directory / name).chmod(0o600)


def test_credentials(home: Home, live: Discovery) -> None:
    live.files[path_of()] = Protected(GOOD, Content(image()))
    local, system = home.local, home.top / "usr"
    configure(local, "no json at all", "auth.d/bogus.txt")
    configure(local, auth("bar", "baz"), "auth.d/below/test.json")
    assert "401" in home.refused("fetch", url_of())
    configure(system, auth("bar", "baz"))
    home.must("fetch", url_of())
    configure(local, auth("bar", "bad"))
    assert "401" in home.refused("fetch", url_of())
    configure(local, auth("bar", "baz"))
    configure(system, auth("bar", "bad"))
    home.must("fetch", url_of())


def test_bearer_token(home: Home, live: Discovery) -> None:
    live.files[path_of()] = Protected("Bearer sometoken", Content(image()))
    assert "401" in home.refused("fetch", NAME)
    oauth = json.loads(auth("", "")) | {"type": "oauth", "credentials": {"token": "sometoken"}}
    configure(home.local, json.dumps(oauth))
    home.must("fetch", NAME)


def test_authorised_but_unsigned_is_still_refused(home: Home, live: Discovery) -> None:
    live.files[path_of()] = Protected(GOOD, Content(image()))
    configure(home.local, auth("bar", "baz"))
    home.options.remove("--insecure-options=image")
    line = home.refused("fetch", NAME)
    assert "signature" in line
    assert home.images() == []
