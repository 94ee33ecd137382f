"""The flavors that must give the same answers, and what each says it lacks."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from podctl.plugins import flavor as load

if TYPE_CHECKING:
    from podctl.model.plan import FlavorDescription


class Flavor:
    """One column of the table.

    Args:
        name: the flavor's.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def description(self) -> FlavorDescription:
        """The flavor's own words."""
        return _describe(self.name)

    @property
    def flag(self) -> str:
        """What chooses it."""
        return f"--stage1={self.name}"

    def lacks(self, what: str) -> bool:
        """Whether it says of itself that it does not do this: `apps`, `network NAME`,
        `option NAME` or `isolator NAME`."""
        kind, _, name = what.partition(" ")
        description = self.description
        if kind == "apps":
            return description.max_apps == 1
        if kind == "network":
            return description.networks != ("*",) and name not in description.networks
        if kind == "option":
            return name not in description.options
        assert kind == "isolator", what
        return name not in description.isolators


@cache
def _describe(name: str) -> FlavorDescription:
    return load(name).describe()
