"""From a name to an image: pages, templates, endpoints, signatures, keys (rows R11, R12, K1)."""

from __future__ import annotations

from typing import Any

import pytest

from podctl.errors import FetchFailed
from podctl.model.fetching import CacheState, KeyLocation, Resolution
from podctl.model.reference import parse
from podctl.testing.httpserver import Content, Reply, Sequence, page, redirect
from podctl.testing.transport import MemorySink
from podctl_fetch_aci.discovery import SIMPLE, best, tags_for
from podctl_fetch_aci.hooks import DiscoveryTransport, WebTransport

TEMPLATE = "https://example.com/i/{name}-{version}-{os}-{arch}.{ext}"
IMAGE = "/i/example.com/a/b-1.0-linux-amd64.aci"
NAME = "example.com/a/b:1.0,os=linux,arch=amd64"
SIGNED = {IMAGE: Content(b"image"), f"{IMAGE}.asc": Reply(body=b"signature")}


def tag(prefix: str = "example.com", template: str = TEMPLATE) -> tuple[str, str]:
    """A discovery tag for `page`."""
    return ("ac-discovery", f"{prefix} {template}")


@pytest.fixture
def site(serve: Any, named: Any) -> Any:
    """The https server of example.com, still without routes."""
    server = serve({}, "example.com")
    named("example.com", server)
    return server


@pytest.fixture
def resolve(request_for: Any, quick: Any) -> Any:
    """Resolve a name with request fields."""

    def run(name: str = NAME, **fields: Any) -> Resolution:
        return DiscoveryTransport(quick).transport_resolve(parse(name), request_for(**fields))

    return run


@pytest.mark.parametrize("where", ["/a/b", "/a", "/"])
def test_page_or_the_nearest_parent_s_counts(site: Any, resolve: Any, where: str) -> None:
    site.routes |= {where: page(tag()), **SIGNED}
    found = resolve()
    assert found.location == f"https://example.com{IMAGE}"
    assert found.signature == b"signature"
    assert (found.name, found.latest) == ("example.com/a/b", False)
    assert found.labels == {"version": "1.0", "os": "linux", "arch": "amd64"}
    assert site.log[0].target == "/a/b?ac-discovery=1"
    assert [r.path for r in site.log].index(where) == len(site.log) - 2


def test_page_without_tags_for_the_name_moves_up(site: Any, resolve: Any) -> None:
    site.routes |= {"/a/b": page(tag("example.com/other")), "/a": page(), "/": page(tag())}
    site.routes |= SIGNED
    assert resolve().signature == b"signature"


def test_page_behind_a_redirect_counts(site: Any, resolve: Any) -> None:
    site.routes |= {"/a/b": redirect("/moved"), "/moved": page(tag()), **SIGNED}
    assert resolve().signature == b"signature"


def test_giant_page_is_refused(site: Any, resolve: Any) -> None:
    padded = page(tag())
    padded.body += b" " * 1_000_000
    site.routes |= {"/a/b": padded, "/a": page(tag()), **SIGNED}
    assert resolve().signature == b"signature"
    site.routes["/a"] = padded
    site.routes["/"] = Reply(body=b"<head>" + b" " * 4096, framing="chunked", endless=True)
    with pytest.raises(FetchFailed, match="larger than 1000000 bytes"):
        resolve()


@pytest.mark.parametrize(
    "prefix, covers",
    [
        ("example.com", True),
        ("example.com/", True),
        ("example.com/a", True),
        ("example.com/a/b", True),
        ("example.com/a/", True),
        ("example.com/a/b/c", False),
        ("example.com/a/bb", False),
        ("example.co", False),
        ("xample.com", False),
        ("Example.com", False),
        ("evil.example", False),
        ("/", False),
        ("*", False),
    ],
)
def test_prefix_is_whole_components(prefix: str, covers: bool) -> None:
    found = tags_for(page(tag(prefix)).body, "example.com/a/b", "ac-discovery")
    assert bool(found) is covers


def test_prefix_does_not_cover_a_longer_word() -> None:
    """rkt compares text: `example.com/foo` spoke for `example.com/foobar`."""
    body = page(tag("example.com/foo")).body
    assert tags_for(body, "example.com/foo", "ac-discovery")
    assert "example.com/foobar".startswith("example.com/foo"), "the control: what rkt asks"
    assert not tags_for(body, "example.com/foobar", "ac-discovery")


OS_ARCH = {"os": "linux", "arch": "amd64"}


@pytest.mark.parametrize(
    "labels, chosen",
    [
        ({**OS_ARCH, "version": "1.0"}, [0, 1]),
        (OS_ARCH, [2]),
        ({**OS_ARCH, "version": "1.0", "channel": "beta"}, [3]),
        ({}, []),
    ],
)
def test_best_matching_templates(labels: dict[str, str], chosen: list[int]) -> None:
    """Most labels substituted, none left over (discovery.md)."""
    templates = [
        "https://one.example/{os}/{arch}/{name}-{version}.{ext}",
        "https://two.example/{os}/{arch}/{name}-{version}.{ext}",
        "https://one.example/{os}/{arch}/{name}-latest.{ext}",
        "https://one.example/{channel}/{os}/{arch}/{name}-{version}.{ext}",
        "https://one.example/{os}/{arch}/{version}/no-ext.aci",
        "https://one.example/{nonsense}/{name}.{ext}",
    ]
    assert best(templates, labels) == [templates[index] for index in chosen]


def test_without_version_the_template_without_version_is_best(site: Any, resolve: Any) -> None:
    latest = "https://example.com/i/{name}-newest.{ext}"
    site.routes |= {
        "/": page(tag(), tag(template=latest)),
        "/i/example.com/a/b-newest.aci.asc": Reply(body=b"signature"),
    }
    found = resolve("example.com/a/b")
    assert found.location == "https://example.com/i/example.com/a/b-newest.aci"
    assert found.latest
    assert "version" not in found.labels


def test_without_version_latest_is_asked_for_where_a_template_insists(
    site: Any, resolve: Any
) -> None:
    path = "/i/example.com/a/b-latest-linux-amd64.aci"
    site.routes |= {"/": page(tag()), f"{path}.asc": Reply(body=b"signature")}
    found = resolve("example.com/a/b,os=linux,arch=amd64")
    assert found.location == f"https://example.com{path}"
    assert found.latest and "version" not in found.labels


def test_every_endpoint_is_tried_in_order(site: Any, resolve: Any) -> None:
    """rkt stopped at the first."""
    templates = [TEMPLATE.replace("/i/", f"/{n}/") for n in ("gone", "broken", "i", "unused")]
    site.routes |= {"/": page(*(tag(template=t) for t in templates)), **SIGNED}
    site.routes["/broken" + IMAGE[2:] + ".asc"] = Reply(500)
    assert resolve().location == f"https://example.com{IMAGE}"
    assert not [r for r in site.log if r.path.startswith("/unused")]


def test_endpoint_with_a_signature_is_preferred(site: Any, resolve: Any) -> None:
    unsigned = TEMPLATE.replace("/i/", "/u/")
    site.routes |= {"/": page(tag(template=unsigned), tag()), **SIGNED}
    site.routes["/u" + IMAGE[2:]] = Content(b"image")
    assert resolve().location == f"https://example.com{IMAGE}"
    assert resolve(want_signature=False).location == f"https://example.com/u{IMAGE[2:]}"


def test_image_without_signature_resolves_to_none(site: Any, resolve: Any) -> None:
    site.routes |= {"/": page(tag()), IMAGE: Content(b"image")}
    found = resolve()
    assert found.signature is None
    assert found.signature_location == f"https://example.com{IMAGE}.asc"


def test_nothing_found_lists_what_was_tried(site: Any, resolve: Any) -> None:
    site.routes["/"] = page(tag())
    with pytest.raises(FetchFailed) as caught:
        resolve()
    message = caught.value.message
    assert NAME in message
    assert "https://example.com/a/b?ac-discovery=1: bad HTTP status code: 404" in message
    assert f"https://example.com{IMAGE}: bad HTTP status code: 404" in message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "template, says",
    [
        ("http://example.com/{name}.{ext}", "plain http: refused"),
        ("file:///{name}.{ext}", "neither https nor http"),
        ("hdfs://example.com/{name}.{ext}", "neither https nor http"),
        ("https://user:pw@example.com/{name}.{ext}", "user name or password"),
        ("https://169.254.169.254/{name}.{ext}", "link-local address: refused"),
        ("https://example.com/../{name}.{ext}", "path with . or .."),
        ("https://example.com/%2e%2E/{name}.{ext}", "path with . or .."),
        ("https://example.com/{name}", "none of 1 templates"),
        ("https://example.com/{nonsense}/{name}.{ext}", "none of 1 templates"),
        ("https://example.com/{{name}}.{ext}", "no URL may hold"),
        ("/{name}.{ext}", "neither https nor http"),
    ],
)
def test_bad_template_is_refused(site: Any, resolve: Any, template: str, says: str) -> None:
    site.routes["/"] = page(tag(template=template))
    with pytest.raises(FetchFailed, match=says):
        resolve()


@pytest.mark.parametrize(
    "value, asked",
    [
        ("b?c#d@e", "/b%3Fc%23d%40e/example.com/a/b.aci.asc"),
        ("a/b%2e", "/a%2Fb%252e/example.com/a/b.aci.asc"),
        ("\r\nX: y", "/%0D%0AX%3A%20y/example.com/a/b.aci.asc"),
        ("{name}", "/%7Bname%7D/example.com/a/b.aci.asc"),
        ("..", None),
        ("a/../../b", None),
    ],
)
def test_label_cannot_add_to_a_url(
    site: Any, request_for: Any, quick: Any, value: str, asked: str | None
) -> None:
    """References refuse such values already, but a dependency's labels come from an image."""
    site.routes["/"] = page(tag(template="https://example.com/{x}/{name}.{ext}"))
    reference = parse("example.com/a/b,os=linux,arch=amd64")
    reference = reference._replace(labels={**reference.labels, "x": value})
    with pytest.raises(FetchFailed, match="404" if asked else "path with . or .."):
        DiscoveryTransport(quick).transport_resolve(reference, request_for())
    targets = [r.target for r in site.log if "ac-discovery" not in r.target]
    assert targets[:1] == ([asked] if asked else [])


def test_http_is_asked_only_with_leave_and_after_https(
    serve: Any, named: Any, resolve: Any
) -> None:
    template = TEMPLATE.replace("https:", "http:")
    plain = serve({"/a/b": page(tag(template=template)), **SIGNED}, tls=False)
    secure = serve({}, "example.com")
    named("example.com", plain)
    named("example.com", secure)
    with pytest.raises(FetchFailed):
        resolve()
    assert plain.log == []
    assert resolve(insecure={"http"}).location == f"http://example.com{IMAGE}"
    assert secure.requests("/a/b")


class TestSimpleDiscovery:
    """The spec's first form, where a site has no page at all."""

    PATH = "/a/b-1.0-linux-amd64.aci"

    def test_is_asked_when_no_page_has_tags(self, site: Any, resolve: Any) -> None:
        site.routes |= {self.PATH: Content(b"image"), f"{self.PATH}.asc": Reply(body=b"sig")}
        found = resolve()
        assert found.location == f"https://example.com{self.PATH}"
        assert found.signature == b"sig"

    def test_is_not_asked_when_a_page_speaks(self, site: Any, resolve: Any) -> None:
        site.routes |= {"/": page(tag()), f"{self.PATH}.asc": Reply(body=b"sig")}
        with pytest.raises(FetchFailed):
            resolve()
        assert not site.requests(f"{self.PATH}.asc")

    def test_needs_a_path(self, site: Any, resolve: Any) -> None:
        """Else it would ask another host, example.com-1.0-linux-amd64.aci."""
        with pytest.raises(FetchFailed) as caught:
            resolve("example.com:1.0,os=linux,arch=amd64")
        assert "example.com-1.0" not in caught.value.message
        assert SIMPLE.startswith("https://{name}-")


class TestSignatures:
    def test_deferred_signature_comes_later(
        self, site: Any, resolve: Any, request_for: Any, quick: Any
    ) -> None:
        site.routes |= {"/": page(tag()), **SIGNED}
        late = Sequence(Reply(202), Reply(body=b"late"))
        site.routes[f"{IMAGE}.asc"] = late
        found = resolve()
        assert found.signature_deferred and found.signature is None
        transport = DiscoveryTransport(quick)
        assert transport.transport_signature(found, request_for()) == b"late"

    def test_signature_deferred_twice_fails(
        self, site: Any, resolve: Any, request_for: Any, quick: Any
    ) -> None:
        site.routes |= {"/": page(tag()), **SIGNED, f"{IMAGE}.asc": Reply(202)}
        found = resolve()
        with pytest.raises(FetchFailed, match="still deferred"):
            DiscoveryTransport(quick).transport_signature(found, request_for())

    @pytest.mark.parametrize("body", [b"", b"<html>not found</html>", bytes(1 << 20)])
    def test_what_is_no_signature_is_handed_on(self, site: Any, resolve: Any, body: bytes) -> None:
        """Trust refuses it; a transport does not judge."""
        site.routes |= {"/": page(tag()), **SIGNED, f"{IMAGE}.asc": Reply(body=body)}
        assert resolve().signature == body

    def test_giant_signature_is_refused(self, site: Any, resolve: Any) -> None:
        big = Reply(body=bytes((1 << 20) + 1))
        site.routes |= {"/": page(tag()), **SIGNED, f"{IMAGE}.asc": big}
        with pytest.raises(FetchFailed, match="signature at .* larger than 1048576 bytes"):
            resolve()

    def test_refused_signature_is_not_a_missing_one(self, site: Any, resolve: Any) -> None:
        site.routes |= {"/": page(tag()), **SIGNED, f"{IMAGE}.asc": Reply(401)}
        with pytest.raises(FetchFailed, match="bad HTTP status code: 401"):
            resolve()

    def test_url_s_signature_is_beside_it(self, serve: Any, request_for: Any, quick: Any) -> None:
        server = serve({"/x.aci": Content(b""), "/x.aci.asc": Reply(body=b"sig")})
        reference = parse(server.url("/x.aci?token=1"))
        found = WebTransport(quick).transport_resolve(reference, request_for())
        assert found.signature == b"sig"
        assert server.log[0].target == "/x.aci.asc?token=1"


class TestHeldImages:
    """A copy we have is not fetched again while the server says it is the same."""

    @pytest.mark.parametrize("refuses_head", [True, False])
    def test_unchanged_image(
        self, serve: Any, request_for: Any, quick: Any, refuses_head: bool
    ) -> None:
        content = Content(b"image", cache_control="max-age=60")

        def no_head(request: Any) -> Reply:
            refused = refuses_head and request.method == "HEAD"
            return Reply(405) if refused else content(request)

        server = serve({"/x.aci": no_head})
        request = request_for(cached=CacheState('"v1"', None))
        found = WebTransport(quick).transport_resolve(parse(server.url("/x.aci")), request)
        assert found.not_modified
        assert (found.etag, found.max_age) == ('"v1"', 60)
        assert {r.header("If-None-Match") for r in server.log} == {'"v1"'}
        assert not server.requests("/x.aci.asc")

    def test_changed_image(self, serve: Any, request_for: Any, quick: Any) -> None:
        server = serve({"/x.aci": Content(b"image"), "/x.aci.asc": Reply(body=b"sig")})
        request = request_for(cached=CacheState('"v0"', None))
        found = WebTransport(quick).transport_resolve(parse(server.url("/x.aci")), request)
        assert not found.not_modified
        assert found.signature == b"sig"

    def test_unchanged_image_by_name(self, site: Any, resolve: Any) -> None:
        site.routes |= {"/": page(tag()), **SIGNED}
        found = resolve(cached=CacheState('"v1"', None))
        assert found.not_modified
        assert found.name == "example.com/a/b"


class TestKeys:
    PUBKEYS = ("ac-discovery-pubkeys", "example.com https://example.com/keys.gpg")

    def test_announced_keys_are_found(self, site: Any, request_for: Any, quick: Any) -> None:
        site.routes["/"] = page(tag(), self.PUBKEYS, self.PUBKEYS)
        found = DiscoveryTransport(quick).transport_keys("example.com/a", request_for())
        assert found == [KeyLocation("example.com", "https://example.com/keys.gpg")]

    def test_no_keys_fail_with_what_was_tried(
        self, site: Any, request_for: Any, quick: Any
    ) -> None:
        site.routes["/"] = page(tag(), ("ac-discovery-pubkeys", "evil.example https://x/k"))
        with pytest.raises(FetchFailed, match="meta discovery on example.com/a resulted in no"):
            DiscoveryTransport(quick).transport_keys("example.com/a", request_for())

    @pytest.mark.parametrize(
        "url", ["https://169.254.169.254/k", "file:///etc/passwd", "https://u:p@example.com/k"]
    )
    def test_key_location_is_checked(
        self, site: Any, request_for: Any, quick: Any, url: str
    ) -> None:
        site.routes["/"] = page(("ac-discovery-pubkeys", f"example.com {url}"), self.PUBKEYS)
        found = DiscoveryTransport(quick).transport_keys("example.com/a", request_for())
        assert found == [KeyLocation("example.com", "https://example.com/keys.gpg")]

    def test_key_document_is_fetched_and_capped(
        self, serve: Any, request_for: Any, quick: Any
    ) -> None:
        server = serve({"/k": Reply(body=b"x" * 100)})
        transport = WebTransport(quick)
        assert transport.transport_document(server.url("/k"), 100, request_for()) == b"x" * 100
        with pytest.raises(FetchFailed, match="larger than 99 bytes"):
            transport.transport_document(server.url("/k"), 99, request_for())
        with pytest.raises(FetchFailed, match="bad HTTP status code: 404"):
            transport.transport_document(server.url("/none"), 99, request_for())

    def test_key_by_plain_http_needs_leave(self, serve: Any, request_for: Any, quick: Any) -> None:
        server = serve({"/k": Reply(body=b"key")}, tls=False)
        transport = WebTransport(quick)
        with pytest.raises(FetchFailed, match="plain http: refused"):
            transport.transport_document(server.url("/k"), 99, request_for())
        assert server.log == []
        for option in ("pubkey", "http"):
            request = request_for(insecure={option})
            assert transport.transport_document(server.url("/k"), 99, request) == b"key"

    def test_pubkey_option_is_for_keys_alone(
        self, serve: Any, request_for: Any, quick: Any
    ) -> None:
        server = serve({"/k": Reply(body=b"key"), "/x.aci": Content(b"image")})
        request = request_for(insecure={"pubkey"}, ca_file=None)
        transport = WebTransport(quick)
        assert transport.transport_document(server.url("/k"), 99, request) == b"key"
        with pytest.raises(FetchFailed, match="certificate is not valid"):
            transport.transport_resolve(parse(server.url("/x.aci")), request)


def test_discovered_image_downloads(site: Any, resolve: Any, request_for: Any, quick: Any) -> None:
    """Resolve and download are two processes: the second has the first's note alone."""
    site.routes |= {"/": page(tag()), **SIGNED}
    found = resolve()
    sink = MemorySink()
    DiscoveryTransport(quick).transport_download(found, None, request_for(), sink)
    assert sink.data == b"image"


def test_page_from_elsewhere_cannot_send_the_download_here(
    site: Any, resolve: Any, request_for: Any, quick: Any
) -> None:
    from dataclasses import replace

    site.routes |= {"/": page(tag()), **SIGNED}
    found = replace(resolve(), context="elsewhere")
    with pytest.raises(FetchFailed, match="loopback address: refused"):
        DiscoveryTransport(quick).transport_download(found, None, request_for(), MemorySink())
