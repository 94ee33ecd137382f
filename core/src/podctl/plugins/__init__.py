"""Finding, loading and calling providers: the only importer of stevedore and pluggy.

Each function finds one provider by name, imports that one alone and returns a typed handle. All
raise PluginMissing (with the distribution to install), PluginConflict or PluginBroken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from podctl.plugins.families import FORMAT, ISOLATOR, STAGE1, TRANSPORT, TRUST
from podctl.plugins.handles import (
    FlavorHandle,
    FormatHandle,
    IsolatorHandle,
    TransportHandle,
    TrustHandle,
    VerifierHandle,
)
from podctl.plugins.hooks import Events

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.plugins.discovery import Installed
    from podctl.plugins.families import Family
    from podctl.plugins.handles import Handle

    H = TypeVar("H", bound=Handle)

__all__ = [
    "Events",
    "FlavorHandle",
    "FormatHandle",
    "IsolatorHandle",
    "TransportHandle",
    "TrustHandle",
    "VerifierHandle",
    "events",
    "flavor",
    "image_format",
    "isolator",
    "snapshot",
    "transport",
    "trust_scheme",
    "trust_scheme_names",
]

_snapshot: Installed | None = None


def snapshot() -> Installed:
    """The installed providers, looked up once in a process."""
    global _snapshot
    if _snapshot is None:
        from podctl.plugins.discovery import installed

        _snapshot = installed()
    return _snapshot


def transport(scheme: str) -> TransportHandle:
    """The transport for a reference's scheme."""
    return _load(TRANSPORT, scheme, TransportHandle)


def image_format(name: str) -> FormatHandle:
    """The reader of an image format."""
    return _load(FORMAT, name, FormatHandle)


def trust_scheme(name: str) -> TrustHandle:
    """The verifier of a signature scheme."""
    return _load(TRUST, name, TrustHandle)


def trust_scheme_names() -> list[str]:
    """The installed signature schemes, for a key of which only its content can tell the scheme.

    Without any it is the one of App Container Images, so that loading it says what to install.
    """
    names = {found.name for found in snapshot().providers if found.group == TRUST.group}
    return sorted(names) or ["openpgp"]


def flavor(name: str) -> FlavorHandle:
    """The stage1 flavor."""
    return _load(STAGE1, name, FlavorHandle)


def isolator(name: str) -> IsolatorHandle:
    """What enforces an isolator.

    Args:
        name: appc's, or `default`.
    """
    return _load(ISOLATOR, name.replace("/", "."), IsolatorHandle)


def events(warn: Callable[[str], None] = lambda text: None) -> Events:
    """The caller of every installed hook of `podctl.hooks`; imports them when called."""
    return Events(snapshot(), warn)


def _load(family: Family, name: str, kind: type[H]) -> H:
    from podctl.plugins.loading import load

    found = snapshot()
    provider = found.find(family, name)
    return kind(provider, load(provider, indexed=found.indexed))
