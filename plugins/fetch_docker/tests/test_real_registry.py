"""Debian's docker-registry, filled by skopeo: TLS, htpasswd, ranges, as they really are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import FetchFailed
from podctl.model.fetching import CacheState, Credential, FetchRequest, Resume
from podctl.model.imagedocument import parse_document
from podctl.model.reference import parse
from podctl.testing.dockerregistry import PASSWORD, USER, DockerRegistry
from podctl.testing.ociimages import image, index, write_layout
from podctl.testing.ocilayers import file, layer
from podctl.testing.transport import MemorySink
from podctl_fetch_docker.configure import configure
from podctl_fetch_docker.format import oci
from podctl_fetch_docker.hooks import DockerTransport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from podctl.testing.certs import Authority

BIG = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def made() -> Any:
    """An index of one image of two layers."""
    return index(image(layer(file("hello", "world")), layer(file("big", BIG))))


@pytest.fixture(scope="module")
def registry(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory, made: Any
) -> Iterator[DockerRegistry]:
    """The registry, with the index in it."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    top = tmp_path_factory.mktemp("registry")
    layout = write_layout(top / "layout", {"1.0": made})
    with DockerRegistry(top / "registry", authority, "127.0.0.1", port=port) as running:
        running.push(f"oci:{layout}:1.0", "library/app:1.0", "--all")
        yield running


class Reach:
    """A transport, and a request with or without credentials."""

    def __init__(self, registry: DockerRegistry, host: Any, ca_file: str, limits: Any) -> None:
        self.registry, self.host = registry, host
        self.transport = DockerTransport(limits)
        self._ca_file = ca_file

    def request(self, password: str | None = PASSWORD, **fields: Any) -> FetchRequest:
        from dataclasses import replace

        entry = Credential(self.registry.name, "basic", {"user": USER, "password": password or ""})
        request = FetchRequest(
            ca_file=self._ca_file,
            registry_credentials=(entry,) if password else (),
            **fields,
        )
        reference = parse(f"docker://{self.registry.name}/library/app:1.0")
        return replace(request, settings=configure(reference, request, self.host.around))

    def resolve(self, version: str = ":1.0", **fields: Any) -> Any:
        reference = parse(f"docker://{self.registry.name}/library/app{version}")
        return self.transport.transport_resolve(reference, self.request(**fields))


@pytest.fixture
def reach(registry: DockerRegistry, host: Any, ca_file: str, quick: Any) -> Reach:
    return Reach(registry, host, ca_file, quick)


def test_an_index_is_resolved_and_its_layers_fetched(reach: Reach, made: Any) -> None:
    resolution = reach.resolve()
    document = parse_document(resolution.document)
    assert document.image_index == made.document.data
    assert document.manifest == made.images[0].manifest.data
    assert resolution.etag == made.digest
    assert resolution.signature is None
    for one, original in zip(
        oci.format_image(resolution.document).layers, made.images[0].layers, strict=True
    ):
        sink = MemorySink()
        reach.transport.transport_layer(resolution, one, None, reach.request(), sink)
        assert sink.data == original.blob


@pytest.mark.parametrize("share", [0, 1, 2, 3])
def test_a_partial_layer_is_continued(reach: Reach, made: Any, share: int) -> None:
    blob = made.images[0].layers[1].blob
    resolution = reach.resolve()
    one = oci.format_image(resolution.document).layers[1]
    kept = blob[: len(blob) * share // 3]
    sink = MemorySink(kept)
    resume = Resume(len(kept), CacheState()) if kept else None
    reach.transport.transport_layer(resolution, one, resume, reach.request(), sink)
    assert sink.data == blob
    assert sink.begun[0][0] == len(kept)


def test_an_unchanged_tag_is_told_by_its_digest(reach: Reach, made: Any) -> None:
    assert reach.resolve(cached=CacheState(etag=made.digest)).not_modified


def test_a_digest_leads_to_the_image_as_well(reach: Reach, made: Any) -> None:
    for digest in (made.digest, made.images[0].digest):
        assert reach.resolve(f"@{digest}").etag == digest


@pytest.mark.parametrize(
    ("password", "says"), [(None, "kind dockerAuth"), ("wrong", "were not accepted")]
)
def test_without_the_right_password_nothing_is_had(
    reach: Reach, password: str | None, says: str
) -> None:
    with pytest.raises(FetchFailed, match="bad HTTP status code: 401") as caught:
        reach.resolve(password=password)
    assert says in str(caught.value.hint)


@pytest.mark.parametrize("version", [":none", "@sha256:" + "0" * 64])
def test_what_is_not_there_is_said(reach: Reach, version: str) -> None:
    with pytest.raises(FetchFailed, match="no image"):
        reach.resolve(version)


#: Run in a fresh process: what it imports, it imports for this.
FRESH = """
import json, sys
from dataclasses import replace
from podctl.model.fetching import FetchRequest, Credential
from podctl.model.reference import parse
from podctl.sys.child import Privileges, spawn
from podctl.testing.transport import MemorySink
from podctl_fetch_docker.hooks import docker
from podctl_fetch_docker.format import oci

name, ca_file, user, password = sys.argv[1:]
reference = parse(f"docker://{name}/library/app:1.0")
reference.search_labels()
entry = Credential(name, "basic", {"user": user, "password": password})
request = FetchRequest(ca_file=ca_file, registry_credentials=(entry,))
request = replace(request, settings=docker.transport_configure(reference, request))
docker.transport_preload()

def resolve():
    before = set(sys.modules)
    found = docker.transport_resolve(reference, request)
    return [found.location, found.context, found.document.decode(),
            sorted(set(sys.modules) - before)]

with spawn(resolve, privileges=Privileges.NONE, name="resolve") as child:
    location, context, document, late = child.wait()
from podctl.model.fetching import Resolution
resolution = Resolution("oci", location, context=context, document=document.encode())
layers = oci.format_image(resolution.document).layers
# What reading the documents took is no transport's business.
for module in [one for one in sys.modules if one.startswith("podctl_fetch_docker.image")]:
    del sys.modules[module]

def fetch():
    before = set(sys.modules)
    sink = MemorySink()
    docker.transport_layer(resolution, layers[1], None, request, sink)
    return [len(sink.data), sorted(set(sys.modules) - before)]

with spawn(fetch, privileges=Privileges.NONE, name="layer") as child:
    size, more = child.wait()
print(json.dumps([size, late, more]))
"""


def test_nothing_is_imported_after_preload(
    registry: DockerRegistry, ca_file: str, tmp_path: Path, made: Any
) -> None:
    """The child has other rights than its parent, and has read bytes from outside."""
    done = subprocess.run(
        [sys.executable, "-c", FRESH, registry.name, ca_file, USER, PASSWORD],
        capture_output=True,
        check=False,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.stderr == b""
    size, *late = json.loads(done.stdout)
    assert size == len(made.images[0].layers[1].blob)
    assert late == [[], []], f"imported after preload: {late}"
