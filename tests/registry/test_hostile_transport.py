"""Registries that answer as they should not (rows R1-R17), asked by the podctl command."""

from __future__ import annotations

import datetime
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from logins import PASSWORD, USER, log_in, shapes
from refusals import BAD, assert_refused
from registry_world import HOSTS
from small import runnable

from podctl.testing import registryfaults as faults
from podctl.testing.certs import DAY, Authority
from podctl.testing.httpserver import Reply, Request
from podctl.testing.ociimages import DOCKER, OCI, image, index, layer_descriptor
from podctl.testing.ocilayers import directory, file, layer
from podctl.testing.registry import Registry
from podctl.testing.registryauth import Basic, Challenge, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from clean_home import Clean
    from registry_world import World

    from podctl.testing.httpserver import Server

pytestmark = pytest.mark.root

NAME = "bad"
BASE = layer(directory("bin"), file("bin/app", "app", mode=0o755))
TOP = layer(file("etc/motd", b"".join(b"%d\n" % (n * n) for n in range(20_000))))
MADE = image(BASE, TOP, config={"Cmd": ["/bin/app"]})


@pytest.fixture
def served(registry: Registry) -> Registry:
    """A registry that has an image of two layers."""
    registry.put(NAME, MADE, "1")
    return registry


@pytest.fixture
def evil(serve: Callable[..., Server]) -> Server:
    """Another host, which has all of it too: whoever is sent there is served."""
    other = Registry()
    other.put(NAME, MADE, "1")
    return serve(other, "evil.example")


def assert_no_secret(server: Server) -> None:
    """No header and no target a server has seen holds a credential or somebody's cookie."""
    for request in server.log:
        names = {name.lower() for name, _ in request.headers}
        assert not names & {"authorization", "cookie", "proxy-authorization"}, request
        for shape in shapes():
            assert shape not in repr(request)


# -- R1: loops of challenges -------------------------------------------------------------------

CHALLENGES = {
    "basic": 'Basic realm="x"',
    "bearer": 'Bearer realm="https://registry.example/token",service="x",scope="repository:bad:pull"',
    "both": 'Basic realm="x", Bearer realm="https://registry.example/token"',
    "unknown": 'Negotiate, Digest realm="x"',
}


@pytest.mark.parametrize("header", CHALLENGES.values(), ids=CHALLENGES)
@pytest.mark.parametrize("known", [True, False], ids=["with a password", "anonymous"])
def test_r1_a_registry_that_is_never_content_is_given_up(
    header: str, known: bool, served: Registry, home: Clean
) -> None:
    if known:
        log_in(home)
    served.guard = Challenge(header)
    line = assert_refused(home, "401|authentic|credentials|challenge")
    assert len(served.asked("manifest")) <= 3
    assert len(served.asked("token")) <= 2
    for shape in shapes():
        assert shape not in line


# -- R2: redirects -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", ["blob", "manifest"])
@pytest.mark.parametrize("guard", ["basic", "bearer"])
def test_r2_a_redirect_takes_no_credentials_along(
    status: int, kind: str, guard: str, served: Registry, evil: Server, home: Clean
) -> None:
    """As registries send to the store of their blobs; what arrives is right, so it is taken."""
    log_in(home)
    tokens = Tokens("https://registry.example/token", users={USER: PASSWORD})
    served.guard = Basic({USER: PASSWORD}) if guard == "basic" else tokens
    served.spoil(
        kind, faults.elsewhere(lambda request: evil.url(request.target, "evil.example"), status)
    )
    home.must("fetch", BAD)
    assert evil.log != []
    assert_no_secret(evil)
    # The control: the registry itself was told.
    assert any(visit.request.header("Authorization") for visit in served.log)


@pytest.mark.parametrize(
    "location",
    [
        "https://alice:password@evil.example/v2/bad/blobs/x",
        "https://registry.example@evil.example/",
        "https://evil.example:70000/",
        "https://evil.example/\r\nX-Injected: yes",
        "ftp://evil.example/",
        "file:///etc/passwd",
        "unix:///run/podctl.sock",
        "//",
        "",
    ],
)
def test_r2_a_redirect_that_is_no_https_url_is_refused(
    location: str, served: Registry, evil: Server, home: Clean
) -> None:
    served.spoil("blob", faults.elsewhere(location))
    assert_refused(home, "fetch: ", broken=True)
    assert_no_secret(evil)


# -- R3: where a token is to be had ------------------------------------------------------------

REALMS = {
    "plain_http": 'Bearer realm="http://evil.example/token"',
    "file": 'Bearer realm="file:///etc/passwd"',
    "no_url": 'Bearer realm="evil"',
    "no_realm": 'Bearer service="x"',
    "userinfo": 'Bearer realm="https://registry.example@evil.example/token"',
    "loopback": 'Bearer realm="https://127.0.0.1/token"',
    "metadata": 'Bearer realm="https://169.254.169.254/token"',
    "huge": 'Bearer realm="https://evil.example/token",scope="' + "x" * 60_000 + '"',
    "control": 'Bearer realm="https://evil.example/token\x01"',
    "unclosed": 'Bearer realm="https://evil.example/token',
    "twice": 'Bearer realm="https://registry.example/token",realm="https://evil.example/token"',
}


@pytest.mark.parametrize("header", REALMS.values(), ids=REALMS)
def test_r3_a_realm_that_is_a_trap_gets_no_credentials(
    header: str, served: Registry, evil: Server, home: Clean
) -> None:
    log_in(home)
    served.guard = Challenge(header)
    line = assert_refused(home, "fetch: ")
    assert len(line) < 600
    assert_no_secret(evil)


def test_r3_headers_are_not_split(served: Registry, home: Clean) -> None:
    raw = (
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n"
        b'WWW-Authenticate: Bearer realm="https://registry.example/to\r\n ken"\r\n\r\n'
    )
    served.spoil("manifest", faults.answered(Reply(raw=raw)))
    assert_refused(home, "fetch: ")


def test_r3_control_a_token_service_elsewhere_is_asked_by_https(
    served: Registry, serve: Callable[..., Server], home: Clean
) -> None:
    log_in(home)
    tokens = Tokens("https://tokens.example/token", users={USER: PASSWORD})
    serve(tokens.service, "tokens.example")
    served.guard = tokens
    home.must("fetch", BAD)
    assert tokens.asked[0].query["scope"] == ["repository:bad:pull"]
    # The registry itself never sees the password, only what the service gave for it.
    sent = {visit.request.header("Authorization") for visit in served.log} - {None}
    assert sent and all(str(value).startswith("Bearer ") for value in sent)


def test_a_token_that_expires_on_the_way_is_renewed(served: Registry, home: Clean) -> None:
    tokens = Tokens("https://registry.example/token", uses=1)
    served.guard = tokens
    home.must("fetch", BAD)
    assert len(tokens.asked) > 2


# -- R4: layers that are said to be somewhere else ----------------------------------------------


@pytest.mark.parametrize("kind", [OCI, DOCKER], ids=["oci", "docker"])
def test_r4_urls_of_layers_are_not_followed(
    kind: Any, registry: Registry, evil: Server, home: Clean
) -> None:
    log_in(home)
    name = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    if kind is OCI:
        name = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    made = image(BASE, TOP, kind=kind, config={"Cmd": ["/bin/app"]})
    url = evil.url(f"/v2/{NAME}/blobs/{TOP.digest}", "evil.example")
    foreign = layer_descriptor(TOP, kind, mediaType=name, urls=[url])
    made = made.amended(layers=[layer_descriptor(BASE, kind), foreign])
    registry.put(NAME, made, "1")
    del registry.at(NAME).blobs[TOP.digest]
    assert_refused(home, "fetch: ", broken=True)
    assert evil.log == []


# -- R5: where redirects lead -------------------------------------------------------------------


NEAR = ["169.254.169.254", "127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433",
        "100.100.100.200", "[::ffff:127.0.0.1]"]  # fmt: skip


def test_r5_a_redirect_to_itself_ends(served: Registry, home: Clean) -> None:
    served.spoil("blob", faults.elsewhere(lambda request: request.target), name=TOP.digest)
    assert_refused(home, "redirect", broken=True)
    assert len(served.asked("blob", TOP.digest)) <= 6


def test_r5_thirty_hops_are_too_many(served: Registry, home: Clean) -> None:
    def hop(request: Request) -> str:
        return f"{request.path}?hop={int(request.query.get('hop', ['0'])[0]) + 1}"

    served.spoil("manifest", faults.elsewhere(hop))
    assert_refused(home, "redirect")
    assert len(served.log) <= 6


@pytest.mark.parametrize("host", NEAR)
@pytest.mark.parametrize("kind", ["manifest", "blob"])
def test_r5_a_registry_elsewhere_sends_nobody_to_this_host(
    host: str, kind: str, served: Registry, home: Clean
) -> None:
    served.spoil(kind, faults.elsewhere(f"https://{host}/latest/meta-data"))
    assert_refused(home, "address: refused|refused", broken=kind == "blob")


# -- R6: busy servers ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("kind", ["manifest", "blob"])
def test_r6_a_busy_registry_is_asked_again(
    status: int, kind: str, served: Registry, home: Clean
) -> None:
    served.spoil(kind, faults.first(1, faults.refused(status, Retry_After="0")))
    home.must("fetch", BAD)


@pytest.mark.parametrize("wait", ["1000000000", "Fri, 31 Dec 2066 23:59:59 GMT"])
def test_r6_nobody_waits_for_ever(wait: str, served: Registry, home: Clean) -> None:
    served.spoil("manifest", faults.refused(503, Retry_After=wait))
    assert_refused(home, "503")
    assert len(served.log) == 1


def test_r6_attempts_are_counted(served: Registry, home: Clean) -> None:
    served.spoil("manifest", faults.refused(503, Retry_After="0"))
    assert_refused(home, "503")
    assert 1 < len(served.log) <= 6


# -- R7, R9: connections that break -------------------------------------------------------------


@pytest.mark.parametrize("tenth", range(10))
def test_r7_a_reset_at_any_place_is_continued_there(
    tenth: int, served: Registry, home: Clean
) -> None:
    served.spoil("blob", faults.first(1, faults.reset_at(tenth / 10)), name=TOP.digest)
    home.must("fetch", BAD)
    assert home.leftovers() == []
    first, second = served.asked("blob", TOP.digest)
    assert (first.start, second.start) == (0, int(len(TOP.blob) * tenth / 10))
    assert_whole(home)


def assert_whole(home: Clean) -> None:
    """What was fetched is the image."""
    out = home.top / "out"
    home.must("image", "render", "--rootfs-only", "registry.example/bad:1", str(out))
    assert (out / "etc/motd").read_bytes().count(b"\n") == 20_000
    home.must("image", "verify", "registry.example/bad:1")


CONTINUED: dict[str, Any] = {
    "no_ranges": faults.without_ranges,
    "whole_body": faults.whole,
    "no_content_range": faults.wrong_range(),
    "another_place": faults.wrong_range(f"bytes 5-{len(TOP.blob) - 1}/{len(TOP.blob)}"),
    "another_total": faults.wrong_range(f"bytes {len(TOP.blob) // 2}-{len(TOP.blob) - 1}/999999"),
    "junk": faults.wrong_range("bytes half of it"),
    "other_bytes": faults.other_part(),
    "range_not_satisfiable": faults.refused(416),
    "another_etag": faults.headed(ETag='"changed"'),
}


@pytest.mark.parametrize("how", CONTINUED)
def test_r7_whatever_answers_a_range_the_image_is_right(
    how: str, served: Registry, home: Clean
) -> None:
    """Resumed exactly, or begun again where the server leaves a doubt; never mixed up."""
    turns = faults.in_turn(faults.reset_at(0.5), CONTINUED[how], None, None)
    served.spoil("blob", turns, name=TOP.digest)
    done = home.podctl("fetch", BAD)
    if done.returncode != 0:
        # Bytes that are not those of the digest are refused; the next attempt begins anew.
        assert done.returncode == 254
        served.mend()
        home.must("fetch", BAD)
    assert_whole(home)


def test_r7_a_hundred_interruptions_do_no_harm(served: Registry, home: Clean) -> None:
    served.spoil("blob", faults.first(30, faults.reset_at(0.2)), name=TOP.digest)
    home.must("fetch", BAD)
    starts = [visit.start for visit in served.asked("blob", TOP.digest)]
    assert starts == sorted(set(starts))
    assert_whole(home)


@pytest.mark.parametrize("kind", ["manifest", "blob"])
def test_r9_a_body_that_ends_early_is_noticed(kind: str, served: Registry, home: Clean) -> None:
    served.spoil(kind, faults.first(1, faults.shorter(20, told=False)))
    done = home.podctl("fetch", BAD)
    assert done.returncode in (0, 254), done
    if done.returncode:
        served.mend()
        home.must("fetch", BAD)
    assert_whole(home)


BODIES: dict[str, Any] = {
    "endless": faults.changed(faults.endless),
    "huge_length": faults.changed(lambda reply: setattr(reply, "length", 1 << 50)),
    "negative_length": faults.headed(Content_Length="-1"),
    "gzip_bomb": faults.answered(
        Reply(
            200,
            {"Content-Type": OCI.manifest, "Content-Encoding": "gzip"},
            gzip.compress(bytes(1 << 24)),
        )
    ),
    "compressed": faults.answered(
        Reply(
            200,
            {"Content-Type": OCI.manifest, "Content-Encoding": "gzip"},
            gzip.compress(MADE.manifest.data),
        )
    ),
    "bad_chunks": faults.answered(
        Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n{}")
    ),
    "no_http": faults.answered(Reply(raw=b"SSH-2.0-OpenSSH_9.2p1\r\n")),
    "many_headers": faults.answered(
        Reply(200, {f"X-{number}": "x" * 100 for number in range(5000)}, MADE.manifest.data)
    ),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", BODIES)
def test_r9_a_manifest_in_a_bad_body_is_refused(how: str, served: Registry, home: Clean) -> None:
    served.spoil("manifest", BODIES[how])
    line = assert_refused(home, "fetch: ")
    assert len(line) < 500


@pytest.mark.parametrize("how", ["compressed", "bad_chunks", "no_http"])
def test_r9_a_layer_in_a_bad_body_is_refused(how: str, served: Registry, home: Clean) -> None:
    served.spoil("blob", BODIES[how], name=TOP.digest)
    assert_refused(home, "fetch: ", broken=True)


# -- R10, R11: TLS ------------------------------------------------------------------------------

HOUR = datetime.timedelta(hours=1)
CERTIFICATES: dict[str, Callable[[Authority], Any]] = {
    "expired": lambda ca: ca.issue("registry.example", start=-2 * DAY, end=-HOUR),
    "not_yet_valid": lambda ca: ca.issue("registry.example", start=HOUR, end=2 * DAY),
    "self_signed": lambda ca: ca.issue("registry.example", self_signed=True),
    "of_a_stranger": lambda ca: Authority("stranger").issue("registry.example"),
    "for_another_name": lambda ca: ca.issue("evil.example"),
    "for_an_address": lambda ca: ca.issue(HOSTS["registry.example"]),
    "wildcard_at_the_top": lambda ca: ca.issue("*.example.org"),
}


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_r10_a_bad_certificate_is_refused(
    kind: str, world: World, serve: Callable[..., Server], home: Clean
) -> None:
    log_in(home)
    registry = Registry()
    registry.put(NAME, MADE, "1")
    serve(registry, identity=CERTIFICATES[kind](world.authority))
    assert_refused(home, "TLS certificate is not valid")
    assert registry.log == []
    for option in ("http", "pubkey", "image"):
        assert_refused(home, "certificate", f"--insecure-options=image,{option}", "fetch", BAD)
    assert registry.log == []
    home.must("--insecure-options=image,tls", "fetch", BAD)


def test_r11_plain_http_needs_to_be_asked_for(serve: Callable[..., Server], home: Clean) -> None:
    registry = Registry()
    registry.put(NAME, MADE, "1")
    log_in(home)
    serve(registry, tls=False)
    assert_refused(home, "fetch: ")
    assert_refused(home, "fetch: ", "--insecure-options=image,tls", "fetch", BAD)
    assert registry.log == []
    home.must("--insecure-options=image,http", "fetch", BAD)


@pytest.mark.parametrize("kind", ["manifest", "blob", "token"])
def test_r11_no_redirect_leads_from_https_to_http(
    kind: str, served: Registry, serve: Callable[..., Server], home: Clean
) -> None:
    other = Registry()
    other.put(NAME, MADE, "1")
    plain = serve(other, "evil.example", tls=False)
    log_in(home)
    served.guard = Tokens("https://registry.example/token", users={USER: PASSWORD})
    served.spoil(kind, faults.elsewhere(lambda request: plain.url(request.target, "evil.example")))
    assert_refused(home, "http", broken=kind == "blob")
    assert plain.log == []


# -- R13: tags that move ------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["manifest", "blob"])
def test_r13_a_tag_that_moves_meanwhile_moves_nothing(
    after: str, registry: Registry, home: Clean
) -> None:
    first, second = (runnable(file("which", name), shell="cat /which") for name in ("one", "two"))
    registry.put(NAME, index(first), "1")
    registry.put(NAME, index(second))
    registry.spoil(after, faults.then(lambda: move(registry, index(second).digest)))
    assert home.must("run", "--stage1=fly", BAD) == "one"
    assert home.must("run", "--pull-policy=update", "--stage1=fly", BAD) == "two"


def move(registry: Registry, digest: str) -> None:
    registry.at(NAME).tags["1"] = digest


def test_r13_a_tag_that_flaps_between_index_and_manifest(registry: Registry, home: Clean) -> None:
    one = runnable(file("which", "one"), shell="cat /which")
    digests = [registry.put(NAME, index(one), "1"), registry.put(NAME, one)]

    def flap() -> None:
        digests.append(digests.pop(0))
        move(registry, digests[0])

    registry.spoil("any", faults.then(flap, count=99))
    assert home.must("run", "--stage1=fly", BAD) == "one"


def test_by_digest_no_other_image_is_taken(registry: Registry, home: Clean) -> None:
    one, two = runnable(file("which", "one")), runnable(file("which", "two"))
    registry.put(NAME, one)
    registry.spoil("manifest", faults.document(two.manifest))
    assert_refused(home, "digest|not those", "fetch", f"docker://registry.example/bad@{one.digest}")


# -- R16, R17 -----------------------------------------------------------------------------------


def test_r16_a_netrc_is_not_read(served: Registry, home: Clean) -> None:
    served.guard = Basic({USER: PASSWORD})
    netrc = home.user_home / ".netrc"
    netrc.write_text(f"machine registry.example login {USER} password {PASSWORD}\n")
    netrc.chmod(0o600)
    done = home.podctl("fetch", BAD)
    netrc.unlink()
    assert done.returncode == 254
    assert [visit for visit in served.log if visit.request.header("Authorization")] == []


def test_r16_a_proxy_is_used_if_the_environment_says_so_and_told_nothing(
    served: Registry, home: Clean
) -> None:
    log_in(home)
    environment = ["env", "https_proxy=http://proxy-user:proxy-secret@192.0.2.77:3128"]
    home.prefix += environment
    line = assert_refused(home, "proxy|192.0.2.77|unreachable|connect")
    assert "proxy-secret" not in line
    assert served.log == []
    home.prefix += ["no_proxy=registry.example"]
    home.must("fetch", BAD)


def test_r17_a_name_nobody_has_is_named(served: Registry, home: Clean) -> None:
    line = assert_refused(home, "nowhere.example", "fetch", "docker://nowhere.example/bad:1")
    assert "resolve" in line


def test_r17_one_dead_address_of_two_does_no_harm(
    served: Registry, home: Clean, world: World
) -> None:
    hosts = (world.top / "hosts").read_text()
    try:
        (world.top / "hosts").write_text(f"192.0.2.250 registry.example\n{hosts}")
        home.must("fetch", BAD)
    finally:
        (world.top / "hosts").write_text(hosts)


def test_a_registry_that_is_not_there_is_named(home: Clean) -> None:
    assert_refused(home, "registry.example.*(refused|connect)")


def test_credentials_are_for_the_registry_they_name(
    served: Registry, evil: Server, home: Clean
) -> None:
    """Only whole host names count, and the port is part of it."""
    log_in(home, "registry.example:5000", "evil.example.registry.example", "example")
    served.guard = Basic({USER: PASSWORD})
    assert_refused(home, "401")
    assert [visit for visit in served.log if visit.request.header("Authorization")] == []
    assert json.loads((home.local / "auth.d/registry.json").read_text())["registries"]
