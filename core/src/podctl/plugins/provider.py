"""One entry point: what it is called, what it names, and which distribution brought it."""

from __future__ import annotations

from typing import NamedTuple

from podctl.plugins.families import BY_GROUP


class Provider(NamedTuple):
    """An installed entry point of one of podctl's groups, not imported yet."""

    group: str
    name: str
    module: str
    attribute: str
    distribution: str
    version: str

    @property
    def target(self) -> str:
        """The entry point's value, `module:attribute`."""
        return f"{self.module}:{self.attribute}" if self.attribute else self.module

    @property
    def label(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}"

    def __str__(self) -> str:
        """Name the provider so that its user knows what to remove and its author what to mend."""
        noun = BY_GROUP[self.group].noun
        return f'{noun} "{self.name}" of {self.label} (entry point {self.group}: {self.target})'

    @classmethod
    def parse(cls, fields: object) -> Provider:
        """Read a provider from JSON.

        Raises:
            ValueError: it is no list of texts, or names something that cannot be imported.
        """
        if not isinstance(fields, list) or len(fields) != len(cls._fields):
            raise ValueError("a provider is a list of six texts")
        if not all(isinstance(field, str) for field in fields):
            raise ValueError("a provider is a list of six texts")
        provider = cls(*fields)
        if provider.group not in BY_GROUP or not provider.name:
            raise ValueError(f"unknown group {provider.group!r}")
        if not _dotted(provider.module) or not (
            provider.attribute == "" or _dotted(provider.attribute)
        ):
            raise ValueError(f"{provider.target!r} is no module and attribute")
        return provider


def _dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
