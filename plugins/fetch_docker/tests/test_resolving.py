"""From a tag to documents: digests pinned, one request for what is held, nothing believed (rows
M1, M3, M4, R4, R13)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import FetchFailed, InvalidInput, PodctlError, Refused
from podctl.model.fetching import CacheState, FetchRequest
from podctl.model.imagedocument import MAX_PART, parse_document
from podctl.model.reference import parse
from podctl.testing.httpserver import Reply
from podctl.testing.ociimages import DOCKER, OCI, document, image, index, index_entry
from podctl.testing.ocilayers import file, layer
from podctl.testing.registryfaults import (
    changed,
    corrupted,
    elsewhere,
    endless,
    first,
    headed,
    longer,
    refused,
    served,
    then,
)
from podctl.testing.registryfaults import document as answered_with
from podctl_fetch_docker.format import oci
from podctl_fetch_docker.hooks import docker

if TYPE_CHECKING:
    from podctl.testing.ociimages import Image

APP = "library/app"


def other() -> Image:
    """Another image than `app`."""
    return image(layer(file("other", "y")), config={"Cmd": ["/other"]})


def blobs(*images: Image) -> list[bytes]:
    return [one.blob for made in images for one in made.layers]


@pytest.mark.parametrize("kind", [OCI, DOCKER], ids=["oci", "docker"])
@pytest.mark.parametrize("indexed", [True, False])
def test_an_image_is_found_with_its_documents(site: Any, kind: Any, indexed: bool) -> None:
    app = image(layer(file("hello", "world")), kind=kind)
    foreign = image(layer(file("a", "b")), kind=kind, platform="linux/s390x")
    made = index(foreign, app, kind=kind) if indexed else app
    digest = site.registry.put(APP, made, "1.0")
    resolution = site.resolve()
    found = parse_document(resolution.document)
    assert found.reference == f"{site.name}/{APP}:1.0"
    assert (found.manifest, found.config) == (app.manifest.data, app.config.data)
    assert found.image_index == (made.document.data if indexed else None)
    assert resolution.etag == digest
    assert resolution.location == f"docker://{site.name}/{APP}@{digest}"
    assert resolution.format == "oci"
    assert oci.format_image(resolution.document).layers[0].size == len(app.layers[0].blob)
    assert site.layers(resolution) == blobs(app)


def test_an_image_is_found_by_digest(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app)
    resolution = site.resolve(f"@{digest}")
    assert resolution.etag == digest
    assert parse_document(resolution.document).reference == f"{site.name}/{APP}@{digest}"


def test_an_image_is_found_by_sha512(site: Any, app: Any) -> None:
    digest = "sha512:" + hashlib.sha512(app.manifest.data).hexdigest()
    site.registry.put(APP, app)
    site.registry.at(APP).manifests[digest] = app.manifest
    site.registry.spoil("manifest", headed(Docker_Content_Digest=digest))
    assert site.resolve(f"@{digest}", want_signature=False).etag == digest
    # The control: another one of that kind is not the image.
    wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    site.registry.at(APP).manifests[wrong] = app.manifest
    with pytest.raises(FetchFailed, match="bytes are not those of sha512:"):
        site.resolve(f"@{wrong}")


def test_the_platform_is_the_hosts_or_the_one_asked_for(site: Any) -> None:
    arm = image(layer(file("a", "arm")), platform="linux/arm64/v8")
    amd = image(layer(file("a", "amd")), platform="linux/amd64")
    site.registry.put(APP, index(arm, amd), "1.0")
    reference = site.reference()._replace(labels={"os": "linux", "arch": "aarch64"})
    resolution = site.transport.transport_resolve(reference, site.asked(reference))
    assert parse_document(resolution.document).manifest == arm.manifest.data


def test_a_missing_platform_is_refused_with_those_that_exist(site: Any) -> None:
    site.registry.put(APP, index(image(layer(file("a", "b")), platform="windows/amd64")), "1.0")
    with pytest.raises(Refused, match=f"{APP}:1.0 has no image for linux/") as caught:
        site.resolve()
    assert "windows/amd64" in str(caught.value.hint)


# -- what is held ----------------------------------------------------------------------------------


def test_an_unchanged_tag_costs_one_request(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, index(app), "1.0")
    resolution = site.resolve(cached=CacheState(etag=digest))
    assert resolution.not_modified
    assert resolution.etag == digest
    assert site.log() == ["HEAD manifest 1.0"]


def test_a_digest_that_is_held_costs_none(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app, "1.0")
    assert site.resolve(f"@{digest}", cached=CacheState(etag=digest)).not_modified
    assert site.log() == []


def test_a_moved_tag_is_fetched(site: Any, app: Any) -> None:
    held = site.registry.put(APP, app, "1.0")
    now = site.registry.put(APP, other(), "1.0")
    resolution = site.resolve(cached=CacheState(etag=held))
    assert (resolution.not_modified, resolution.etag) == (False, now)


@pytest.mark.parametrize(
    "fault",
    [headed(Docker_Content_Digest=None), headed(Docker_Content_Digest="sha256:x"), refused(405)],
)
def test_a_registry_that_says_no_digest_is_asked_for_the_manifest(
    site: Any, app: Any, fault: Any
) -> None:
    digest = site.registry.put(APP, app, "1.0")
    site.registry.spoil("manifest", first(1, fault))
    resolution = site.resolve(cached=CacheState(etag=digest), want_signature=False)
    assert resolution.document
    assert site.log()[:2] == ["HEAD manifest 1.0", "GET manifest 1.0"]


def test_nothing_but_documents_is_asked_for(site: Any, app: Any) -> None:
    site.registry.put(APP, app, "1.0")
    site.resolve(want_signature=False)
    assert site.log() == ["GET manifest 1.0", f"GET blob {app.config.digest}"]


# -- a tag that moves (R13) ------------------------------------------------------------------------


def test_a_tag_that_moves_meanwhile_moves_nothing(site: Any) -> None:
    old, new = index(image(layer(file("a", "old")))), index(image(layer(file("a", "new"))))
    for one in (new, old):
        site.registry.put(APP, one, "1.0")
    site.registry.spoil("manifest", then(lambda: site.registry.put(APP, new, "1.0")), name="1.0")
    resolution = site.resolve()
    assert resolution.etag == old.digest
    assert site.layers(resolution) == blobs(*old.images)
    assert [line for line in site.log() if line.endswith(" 1.0")] == ["GET manifest 1.0"]
    # The control: it did move.
    assert site.resolve().etag == new.digest


# -- other bytes than those (M1) -------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoilt", ["tag", "digest", "entry", "config", "config-longer", "config-shorter"]
)
def test_bytes_of_another_digest_are_refused(site: Any, app: Any, spoilt: str) -> None:
    made = index(app)
    digest = site.registry.put(APP, made, "1.0")
    kind, name, fault = {
        "tag": ("manifest", "1.0", corrupted()),
        "digest": ("manifest", digest, corrupted()),
        "entry": ("manifest", app.digest, corrupted()),
        "config": ("blob", app.config.digest, corrupted()),
        "config-longer": ("blob", app.config.digest, longer(1)),
        "config-shorter": ("blob", app.config.digest, served(app.config.data[:-1])),
    }[spoilt]
    version = f"@{digest}" if spoilt == "digest" else ":1.0"
    assert site.resolve(version).document, "the control"
    site.registry.spoil(kind, fault, name=name)
    with pytest.raises(PodctlError, match=f"/v2/{APP}/.*(bytes are not those of|larger than)"):
        site.resolve(version)


def test_another_document_for_a_digest_is_refused(site: Any, app: Any) -> None:
    digest = site.registry.put(APP, app)
    site.registry.spoil("manifest", answered_with(other().manifest), name=digest)
    with pytest.raises(FetchFailed, match="bytes are not those of sha256:"):
        site.resolve(f"@{digest}")


def test_an_entry_of_another_size_than_the_index_says_is_refused(site: Any, app: Any) -> None:
    made = index(app)
    entry = index_entry(app, size=len(app.manifest.data) + 1)
    site.registry.put(APP, app)
    site.registry.put_document(APP, made.document.amended(manifests=[entry]), "1.0")
    with pytest.raises(InvalidInput, match="bytes where its descriptor says"):
        site.resolve()


# -- documents that are none -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        served(b"x" * (MAX_PART + 1)),
        changed(endless),
        lambda request, honest: Reply(length=1 << 40),
    ],
    ids=["large", "endless", "claims-to-be-large"],
)
def test_a_manifest_over_the_cap_is_not_read(site: Any, app: Any, fault: Any) -> None:
    site.registry.put(APP, app, "1.0")
    site.registry.spoil("manifest", fault)
    with pytest.raises(FetchFailed, match=f"manifest.*larger than {MAX_PART} bytes"):
        site.resolve()


def test_schema_1_is_refused_by_name(site: Any) -> None:
    """Row M4, signed or not."""
    old = document(
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        {"schemaVersion": 1, "name": "x", "tag": "1.0", "fsLayers": [], "signatures": []},
    )
    site.registry.put_document(APP, old, "1.0")
    with pytest.raises(Refused, match="schema 1") as caught:
        site.resolve()
    assert "push the image again" in str(caught.value.hint)


def test_schema_1_is_not_asked_for(site: Any, app: Any) -> None:
    site.registry.put(APP, app, "1.0")
    site.resolve()
    accept = str(site.registry.log[0].request.header("Accept"))
    assert "manifest.v1" not in accept.replace("oci.image.manifest.v1", "")
    assert {OCI.index, OCI.manifest, DOCKER.index, DOCKER.manifest} == set(accept.split(", "))


@pytest.mark.parametrize(
    "content_type", ["text/html", DOCKER.manifest, OCI.index, "application/vnd.oci.empty.v1+json"]
)
def test_a_content_type_that_contradicts_is_refused(site: Any, app: Any, content_type: str) -> None:
    """Row M3."""
    site.registry.put(APP, app, "1.0")
    site.registry.spoil("manifest", headed(Content_Type=content_type))
    with pytest.raises(InvalidInput):
        site.resolve()


@pytest.mark.parametrize("status", [400, 403, 404, 410, 418])
def test_no_image_is_said_in_one_line(site: Any, status: int) -> None:
    site.registry.spoil("manifest", refused(status))
    with pytest.raises(FetchFailed) as caught:
        site.resolve()
    assert "\n" not in str(caught.value)
    assert f"{site.name}/v2/{APP}" in caught.value.message


def test_a_registry_that_is_nobody_is_said(site: Any, app: Any) -> None:
    site.server.close()
    with pytest.raises(FetchFailed, match="Connection refused"):
        site.resolve()


def test_urls_in_a_manifest_are_never_asked(site: Any, serve: Any, app: Any) -> None:
    """Row R4 (CVE-2020-15157): what the registry does not have is not to be had."""
    evil = serve({"": Reply(body=app.layers[0].blob)})
    foreign = app.layers[0]
    entry = {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": foreign.digest,
        "size": len(foreign.blob),
        "urls": [evil.url("/layer")],
    }
    made = image(foreign).amended(layers=[entry])
    site.registry.put(APP, made, "1.0")
    resolution = site.resolve()
    # The control: what the registry has is taken from it.
    assert site.layers(resolution) == [foreign.blob]
    del site.registry.at(APP).blobs[foreign.digest]
    with pytest.raises(FetchFailed, match="is not to be had from the registry") as caught:
        site.layers(resolution)
    assert "licence" in str(caught.value.hint)
    assert evil.log == []


def test_embedded_documents_are_not_asked_for(site: Any, app: Any) -> None:
    import base64

    config = app.config.descriptor(data=base64.b64encode(app.config.data).decode())
    made = app.amended(config=config)
    site.registry.put(APP, made, "1.0")
    assert site.resolve(want_signature=False).document
    assert site.log() == ["GET manifest 1.0"]


# -- where it is allowed to come from --------------------------------------------------------------


def test_plain_http_takes_an_option(at: Any, app: Any) -> None:
    site = at(tls=False)
    site.registry.put(APP, app, "1.0")
    with pytest.raises(FetchFailed, match="TLS failed"):
        site.resolve()
    assert site.registry.log == []
    resolution = site.resolve(insecure={"http"})
    assert resolution.context == f"http://{site.name}/v2/{APP}"
    request = site.asked(insecure={"http"})
    site.registry.log.clear()
    assert site.layers(resolution, request) == blobs(app)
    assert {visit.place.kind for visit in site.registry.log} == {"blob"}
    with pytest.raises(FetchFailed, match="by plain http: refused"):
        site.layers(resolution)


def test_https_comes_before_plain_http_where_both_are_allowed(site: Any, app: Any) -> None:
    site.registry.put(APP, app, "1.0")
    assert site.resolve(insecure={"http"}).context.startswith("https://")


def test_no_secret_is_sent_to_find_out_which(at: Any) -> None:
    site = at(tls=False)
    with pytest.raises(FetchFailed):
        site.resolve(insecure={"http"})
    assert site.log()[0] == "GET base "


def test_a_bad_certificate_takes_an_option(at: Any, app: Any) -> None:
    site = at(ca_file=None)
    site.registry.put(APP, app, "1.0")
    with pytest.raises(FetchFailed, match="TLS certificate is not valid") as caught:
        site.resolve()
    assert "--insecure-options=tls" in str(caught.value.hint)
    assert site.resolve(insecure={"tls"}).document


@pytest.mark.parametrize(
    "location",
    [
        "http://localhost:1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/",
        "file:///etc/shadow",
        "//",
        "https://a b/",
    ],
)
def test_a_redirect_to_where_nobody_should_go_is_refused(
    site: Any, app: Any, location: str
) -> None:
    """Rows R5, R11."""
    site.registry.put(APP, app, "1.0")
    site.registry.spoil("blob", elsewhere(location), name=app.config.digest)
    with pytest.raises(FetchFailed, match="redirects|link-local"):
        site.resolve()


def test_redirects_without_an_end_end(site: Any, app: Any) -> None:
    site.registry.put(APP, app, "1.0")
    site.registry.spoil("manifest", elsewhere(lambda request: request.target))
    with pytest.raises(FetchFailed, match="redirects more than 5 times"):
        site.resolve()


def test_passing_trouble_is_waited_out(site: Any, app: Any) -> None:
    """Row R6."""
    site.registry.put(APP, app, "1.0")
    site.registry.spoil("manifest", first(2, refused(429, Retry_After="0")), name="1.0")
    site.registry.spoil("blob", first(2, refused(503)))
    assert site.resolve().document


def test_without_configuration_a_name_is_where_it_is() -> None:
    """Docker Hub's name is that of the host that serves it."""
    from podctl_fetch_docker.resolving import settings_of

    reference = parse("docker://docker.io/library/busybox:1.36")
    (endpoint,) = settings_of(reference, FetchRequest()).endpoints
    assert (endpoint.host, endpoint.repository) == ("registry-1.docker.io", "library/busybox")


def test_the_provider_matches_the_hook_specs() -> None:
    import pluggy

    from podctl.api.hookspecs import FormatSpec, TransportSpec

    for spec, provider in ((TransportSpec, docker), (FormatSpec, oci)):
        manager = pluggy.PluginManager("podctl")
        manager.add_hookspecs(spec)
        manager.register(provider)
        manager.check_pending()
