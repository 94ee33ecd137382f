"""Fixtures for tests of what speaks HTTP; a conftest imports those it needs.

Servers with certificates of a test authority, requests that trust it, and quick limits.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from podctl.http.client import Client
from podctl.http.limits import Limits
from podctl.model.fetching import FetchRequest
from podctl.testing.certs import Authority
from podctl.testing.httpserver import Server, names_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from podctl.testing.httpserver import Route

#: As the defaults, but nothing is waited for longer than a test should take.
QUICK = Limits(
    connect=5, header=5, idle=5, window=0.5, small=5, pause=0.001, longest_pause=0.01, patience=2
)


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The authority the tests' requests trust."""
    return Authority()


@pytest.fixture(scope="session")
def ca_file(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its certificate, readable by everybody (transports work as nobody)."""
    import os
    import tempfile

    fd, path = tempfile.mkstemp(prefix="podctl-test-ca.", suffix=".pem")
    os.write(fd, authority.pem)
    os.close(fd)
    os.chmod(path, 0o644)
    yield path
    os.unlink(path)


@pytest.fixture
def request_for(ca_file: str) -> Callable[..., FetchRequest]:
    """Make a request that trusts the test authority."""

    def make(**fields: Any) -> FetchRequest:
        fields.setdefault("ca_file", ca_file)
        fields["insecure"] = frozenset(fields.get("insecure", ()))
        return FetchRequest(**fields)

    return make


@pytest.fixture
def serve(authority: Authority) -> Iterator[Callable[..., Server]]:
    """Start servers; HTTPS for the given names (127.0.0.1 and localhost too) unless tls=False."""
    with ExitStack() as stack:

        def start(
            routes: Mapping[str, Route] | None = None,
            *names: str,
            tls: bool = True,
            identity: Any = None,
            **options: Any,
        ) -> Server:
            if identity is None and tls:
                identity = authority.issue("127.0.0.1", "localhost", "::1", *names)
            return stack.enter_context(Server(routes, identity=identity, **options))

        yield start


@pytest.fixture
def client_for(request_for: Callable[..., FetchRequest]) -> Iterator[Callable[..., Client]]:
    """Make clients with quick limits."""
    with ExitStack() as stack:

        def make(limits: Limits = QUICK, **fields: Any) -> Client:
            return stack.enter_context(Client(request_for(**fields), limits))

        yield make


@pytest.fixture
def quick() -> Limits:
    """Limits no test has to wait for."""
    return QUICK


@pytest.fixture
def named() -> Iterator[Callable[..., None]]:
    """Let a name's https (and http) ports be test servers: named("example.com", server)."""
    with ExitStack() as stack:

        def at(name: str, server: Server) -> None:
            port = 80 if server.scheme == "http" else 443
            stack.enter_context(names_at({(name, port): (server.host, server.port)}))

        yield at
