"""This host's configuration for one image: the places to ask, and how each is spoken to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import InvalidInput, Refused, UsageError
from podctl.model.reference import parse as parse_reference
from podctl_fetch_docker.authfiles import secret_from_files, secret_from_helper
from podctl_fetch_docker.certificates import certificates_for
from podctl_fetch_docker.endpoints import (
    Endpoint,
    Settings,
    familiar,
    served_by,
    split_name,
)
from podctl_fetch_docker.registriesconf import AUTH_FILES, Mirror, covered, load_registries
from podctl_fetch_docker.secret import Secret
from podctl_fetch_docker.trusted import surroundings

if TYPE_CHECKING:
    import ssl

    from podctl.model.fetching import FetchRequest
    from podctl.model.reference import Reference
    from podctl_fetch_docker.registriesconf import RegistriesConf, Registry
    from podctl_fetch_docker.trusted import Surroundings


def configure(
    reference: Reference, request: FetchRequest, around: Surroundings | None = None
) -> Settings:
    """Read registries.conf, certificates and credentials for a reference of kind `docker`.

    Raises:
        Refused: the registry is blocked.
        UsageError: a file that decides where to go or whom to believe is malformed.
    """
    around = around or surroundings()
    conf = load_registries(around)
    endpoints = []
    for place in places(reference, conf):
        host, _, repository = place.location.partition("/")
        context, own_context = _tls(host, place.insecure, request, around)
        endpoints.append(
            Endpoint(
                host=served_by(host),
                repository=repository,
                insecure=place.insecure,
                secret=find_secret(host, repository, request, conf, around),
                context=context,
                own_context=own_context,
            )
        )
    return Settings(tuple(endpoints))


def places(reference: Reference, conf: RegistriesConf) -> list[Mirror]:
    """Where a reference is to be looked for: mirrors first, then the registry itself.

    Raises:
        Refused: registries.conf blocks it.
    """
    host, repository = split_name(reference)
    name = f"{familiar(host)}/{repository}"
    registry = conf.find(name)
    if registry is None:
        return [Mirror(name)]
    if registry.blocked:
        raise Refused(
            f'registry of "{name}" is blocked',
            hint=f'by prefix "{registry.prefix}" in {registry.source}',
        )
    kind = "digest-only" if ":" in (reference.version or "") else "tag-only"
    mirrors = [one for one in registry.mirrors if one.pull in ("all", kind)]
    own = Mirror(registry.location, registry.insecure)
    return [one._replace(location=_moved(name, registry, one.location)) for one in (*mirrors, own)]


def _moved(name: str, registry: Registry, location: str) -> str:
    """Put a location in the place of the prefix."""
    if not location:
        return name
    moved = location + name[covered(registry.prefix, name) :]
    try:
        parse_reference(f"docker://{moved}")
    except InvalidInput:
        raise UsageError(
            f'{registry.source}: "{registry.prefix}" makes "{moved}" of "{name}", no repository'
        ) from None
    host, _, repository = moved.partition("/")
    if not repository:
        raise UsageError(f'{registry.source}: "{location}" leaves no repository of "{name}"')
    return moved


def find_secret(
    host: str,
    repository: str,
    request: FetchRequest,
    conf: RegistriesConf,
    around: Surroundings,
) -> Secret | None:
    """The credentials for one place, from the first source that has some: podctl's configuration
    (kind dockerAuth), then those of `credential-helpers`, by default the files of podman and
    docker alone."""
    for entry in request.registry_credentials:
        if familiar(entry.domain.lower()) == familiar(host):
            fields = entry.fields
            return Secret("kind dockerAuth", fields.get("user", ""), fields.get("password", ""))
    for source in conf.helpers:
        if source == AUTH_FILES:
            found = secret_from_files(host, repository, around, request.say)
        else:
            found = secret_from_helper(source, host, around, request.say)
        if found is not None:
            return found
    return None


def _tls(
    host: str, insecure: bool, request: FetchRequest, around: Surroundings
) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """TLS settings for a place, and for its host alone. Made here: the key may be root's only."""
    found = certificates_for(familiar(host), around, request.say)
    if not found.authorities and found.client is None:
        return None, None
    from podctl_fetch_docker.preload import preload

    # Not urllib3 by itself: see podctl.http.preload.
    preload()
    from podctl.http.wire import tls_context

    verify = not insecure and "tls" not in request.insecure
    more = found.authorities or None
    context = tls_context(request.ca_file, verify=verify, more=more)
    if found.client is None:
        return context, None
    own = tls_context(request.ca_file, verify=verify, more=more, client=found.client)
    return context, own
