"""Which provider a name means: the check for missing and contested names, before any import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import PluginConflict, PluginMissing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.plugins.families import Family
    from podctl.plugins.provider import Provider


class Installed:
    """A snapshot of the installed providers.

    Args:
        providers: all of them.
        indexed: whether a fresh index knew them, so that stevedore need not be asked.
        state: a text that changes whenever a distribution is installed, upgraded or removed.
    """

    def __init__(self, providers: Sequence[Provider], *, indexed: bool, state: str = "") -> None:
        self.providers = sorted(providers)
        self.indexed = indexed
        self.state = state

    def find(self, family: Family, name: str) -> Provider:
        """The one provider of `name`.

        Raises:
            PluginMissing: no distribution offers it; the hint names one that would.
            PluginConflict: several do; all are named.
        """
        offers = [
            provider
            for provider in self.providers
            if provider.group == family.group and provider.name == name
        ]
        if not offers:
            raise PluginMissing(
                f'{family.noun} "{name}" is not installed', hint=f"install {family.package(name)}"
            )
        refuse_conflict(offers)
        return offers[0]

    def family(self, family: Family) -> list[Provider]:
        """All providers of a family by name.

        Raises:
            PluginConflict: several distributions offer one name.
        """
        members = [provider for provider in self.providers if provider.group == family.group]
        for member in members:
            refuse_conflict([other for other in members if other.name == member.name])
        return members


def refuse_conflict(offers: Sequence[Provider]) -> None:
    """Refuse a name that more than one entry point offers."""
    if len(offers) < 2:
        return
    who = " and ".join(f"{offer.label} ({offer.target})" for offer in offers)
    raise PluginConflict(
        f'{offers[0].group} "{offers[0].name}" is offered by {who}',
        hint="uninstall all but one of them",
    )


def installed() -> Installed:
    """Look at what is installed now, through the index where it is fresh."""
    from podctl.plugins.index import providers
    from podctl.plugins.installed import fingerprint

    state = fingerprint()
    found, indexed = providers(state)
    return Installed(found, indexed=indexed, state=state)
