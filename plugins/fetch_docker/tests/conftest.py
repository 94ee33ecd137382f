"""Registries on loopback, and a host configured for them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from podctl.model.reference import Reference, parse
from podctl.testing.ociimages import Image, image
from podctl.testing.ocilayers import file, layer
from podctl.testing.registry import Registry
from podctl.testing.transport import MemorySink
from podctl.testing.web import authority, ca_file, client_for, named, quick, request_for, serve
from podctl_fetch_docker.configure import configure
from podctl_fetch_docker.format import oci
from podctl_fetch_docker.hooks import DockerTransport
from podctl_fetch_docker.trusted import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from podctl.http.limits import Limits
    from podctl.model.fetching import FetchRequest, Resolution
    from podctl.testing.httpserver import Server

__all__ = ["authority", "ca_file", "client_for", "named", "quick", "request_for", "serve"]

REPOSITORY = "library/app"


class Host(NamedTuple):
    """A host's configuration: files below a directory, and an environment."""

    top: Path
    said: list[str]
    around: Surroundings

    def write(self, path: str, text: str | bytes, mode: int = 0o600) -> Path:
        """Write a file below the directory."""
        place = self.top / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode() if isinstance(text, str) else text)
        place.chmod(mode)
        return place

    def having(self, **variables: str) -> Host:
        """The host with more in its environment."""
        environment = {**self.around.environment, **variables}
        return self._replace(around=self.around._replace(environment=environment))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host without any configuration."""
    top = tmp_path / "host"
    top.mkdir()
    home = str(top / "home")
    environment = {"HOME": home, "XDG_RUNTIME_DIR": str(top / "run"), "PATH": f"{top}/bin"}
    around = Surroundings(0, home, f"{home}/.config", environment, root=str(top))
    return Host(top, [], around)


class Site(NamedTuple):
    """A scripted registry, and a transport that reaches it.

    Args:
        name: host:port.
    """

    registry: Registry
    server: Server
    host: Host
    limits: Limits
    request: FetchRequest

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def transport(self) -> DockerTransport:
        return DockerTransport(self.limits)

    def reference(self, version: str = ":1.0", repository: str = REPOSITORY) -> Reference:
        """A reference to an image of the registry."""
        return parse(f"docker://{self.name}/{repository}{version}")

    def asked(self, reference: Reference | None = None, **fields: Any) -> FetchRequest:
        """A request as core makes it: this host's configuration read."""
        fields["insecure"] = frozenset(fields.get("insecure", ()))
        request = replace(self.request, **fields)
        settings = configure(reference or self.reference(), request, self.host.around)
        return replace(request, settings=settings)

    def resolve(self, version: str = ":1.0", **fields: Any) -> Resolution:
        """Resolve an image of the registry."""
        reference = self.reference(version)
        return self.transport.transport_resolve(reference, self.asked(reference, **fields))

    def layers(
        self, resolution: Resolution, request: FetchRequest | None = None, kept: bytes = b""
    ) -> list[bytes]:
        """Fetch the layers of a resolved image."""
        from podctl.model.fetching import CacheState, Resume

        assert resolution.document is not None
        resume = Resume(len(kept), CacheState()) if kept else None
        bodies = []
        for one in oci.format_image(resolution.document).layers:
            sink = MemorySink(kept)
            self.transport.transport_layer(resolution, one, resume, request or self.asked(), sink)
            bodies.append(sink.data)
        return bodies

    def log(self) -> list[str]:
        """What was asked so far: method, kind and name."""
        return [f"{v.request.method} {v.place.kind} {v.place.name}" for v in self.registry.log]


@pytest.fixture
def at(
    authority: Any, host: Host, quick: Limits, request_for: Callable[..., FetchRequest]
) -> Iterator[Callable[..., Site]]:
    """Serve a registry on loopback."""
    with ExitStack() as stack:

        def start(registry: Registry | None = None, *, tls: bool = True, **fields: Any) -> Site:
            registry = Registry() if registry is None else registry
            identity = authority.issue("127.0.0.1", "localhost") if tls else None
            server = stack.enter_context(registry.serve(identity))
            fields.setdefault("say", host.said.append)
            return Site(registry, server, host, quick, request_for(**fields))

        yield start


@pytest.fixture
def site(at: Callable[..., Site]) -> Site:
    """An open registry."""
    return at()


@pytest.fixture
def app() -> Image:
    """An image of two layers."""
    layers = (layer(file("hello", "world")), layer(file("more", "x" * 5000)))
    return image(*layers, config={"Cmd": ["/hello"]})
