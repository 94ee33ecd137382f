"""Where a repository can be had, and how it is spoken to there: what a child without privileges
needs of this host's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from podctl.model.reference import DEFAULT_REGISTRY

if TYPE_CHECKING:
    import ssl

    from podctl.model.reference import Reference
    from podctl_fetch_docker.secret import Secret

#: Docker Hub's names in configuration files. One host serves it.
HUB = "docker.io"
_HUB_HOSTS = (HUB, "index.docker.io", DEFAULT_REGISTRY)


class Endpoint(NamedTuple):
    """One place of a repository.

    Args:
        host: host[:port].
        repository: its name there.
        insecure: plain HTTP will do, and certificates nobody vouches for.
        secret: None for anonymous.
        context: TLS settings (further authorities); None: the usual ones.
        own_context: TLS settings for the host itself (a client certificate); None: as `context`.
    """

    host: str
    repository: str
    insecure: bool = False
    secret: Secret | None = None
    context: ssl.SSLContext | None = None
    own_context: ssl.SSLContext | None = None

    def contexts(self) -> dict[tuple[str, str, int], ssl.SSLContext]:
        """TLS settings by origin: a client certificate is shown to the registry alone, not to
        whom it redirects."""
        if self.own_context is None:
            return {}
        from podctl.http.urls import parse

        return {parse(f"https://{self.host}/").origin: self.own_context}


class Settings(NamedTuple):
    """What transport_configure found out for one reference.

    Args:
        endpoints: to be tried in this order.
    """

    endpoints: tuple[Endpoint, ...]


def split_name(reference: Reference) -> tuple[str, str]:
    """The registry and the repository of a reference of kind `docker`."""
    registry, _, repository = (reference.name or "").partition("/")
    return registry, repository


def familiar(host: str) -> str:
    """A registry's name as configuration files have it."""
    return HUB if host in _HUB_HOSTS else host


def served_by(host: str) -> str:
    """The host that serves a registry."""
    return DEFAULT_REGISTRY if host in _HUB_HOSTS else host


def plain_settings(reference: Reference) -> Settings:
    """Without any configuration, a repository is where its name says."""
    registry, repository = split_name(reference)
    return Settings((Endpoint(served_by(registry), repository),))
