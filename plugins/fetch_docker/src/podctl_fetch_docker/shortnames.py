"""Names without a registry, completed by this host's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import Refused
from podctl.model.reference import parse
from podctl_fetch_docker.registriesconf import load_registries
from podctl_fetch_docker.trusted import surroundings

if TYPE_CHECKING:
    from podctl.model.reference import Reference
    from podctl_fetch_docker.trusted import Surroundings


def complete(reference: Reference, around: Surroundings | None = None) -> Reference:
    """Say which registry a short name means: an alias', else the one search registry's, else
    Docker Hub's.

    Several search registries are no answer: whoever can register the name at an earlier one would
    choose the image. podman asks on a terminal; podctl says what to write.

    Raises:
        Refused: there are several.
    """
    if not reference.short:
        return reference
    conf = load_registries(around or surroundings())
    given, version = _given(reference)
    alias = conf.aliases.get(given)
    if alias is not None:
        return _at(reference, alias, version)
    if len(conf.search) > 1:
        raise Refused(
            f'"{given}" names no registry, and {conf.sources[-1]} has several to search',
            hint="write " + " or ".join(f"docker://{one}/{given}" for one in conf.search),
        )
    if conf.search:
        return _at(reference, f"{conf.search[0]}/{given}", version)
    return reference._replace(short=False)


def _given(reference: Reference) -> tuple[str, str]:
    """The name as it was written, and its tag or digest with the separator."""
    text = reference.text
    for prefix in ("cimd:docker:v=0:", "docker://", "docker:"):
        if text.startswith(prefix):
            text = text[len(prefix) :]
            break
    name, at, _ = text.partition("@")
    head, slash, last = name.rpartition("/")
    separator = "@" if at else ":"
    return head + slash + last.partition(":")[0], f"{separator}{reference.version}"


def _at(reference: Reference, name: str, version: str) -> Reference:
    found = parse(f"docker://{name}{version}")
    return found._replace(text=reference.text, short=False)
