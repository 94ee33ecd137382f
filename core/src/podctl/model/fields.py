"""Typed access to a parsed JSON object, so that every schema error names its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from podctl.errors import InvalidInput, ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_KINDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    list: "an array",
    dict: "an object",
}


class Fields:
    """One JSON object and where it stands (`pod manifest: apps[0].app`).

    `null` counts as absent everywhere, because Go writes an empty list as null.

    Args:
        value: the parsed value; anything but an object is refused.
        where: its place, for messages.
        known: the keys its schema has.
        closed: refuse keys beyond `known`; else only those that differ from a known one by
            letter case, which Go's JSON would read as the known one and Python's would not.
    """

    __slots__ = ("_value", "closed", "where")

    def __init__(self, value: object, where: str, known: str, *, closed: bool = False) -> None:
        self.where = where
        self.closed = closed
        self._value: dict[str, Any] = _typed(value, dict, where)
        keys = known.split()
        folded = {key.lower(): key for key in keys}
        for key in self._value.keys() - set(keys):
            meant = folded.get(key.lower())
            if meant is not None:
                raise ManifestInvalid(f"{where}: key {key!r} must be spelt {meant!r}")
            if closed:
                raise ManifestInvalid(f"{where}: unknown key {key!r}", hint=f"known: {known}")

    def get(self, key: str, kind: type[T]) -> T | None:
        """The value of `key` as `kind`, None when absent.

        Raises:
            ManifestInvalid: it has another type (booleans are no integers).
        """
        value = self._value.get(key)
        return None if value is None else _typed(value, kind, f"{self.where}.{key}")

    def need(self, key: str, kind: type[T]) -> T:
        """The value of `key`, which must be there.

        Raises:
            ManifestInvalid: it is absent or of another type.
        """
        value = self.get(key, kind)
        if value is None:
            raise ManifestInvalid(f"{self.where}: {key} is required")
        return value

    def has(self, key: str) -> bool:
        """Whether `key` is written, be it as null."""
        return key in self._value

    def checked(self, key: str, check: Callable[[str, str], T]) -> T:
        """A required string, passed with its place through `check(text, what)`."""
        return self.call(check, self.need(key, str), key)

    def call(self, check: Callable[..., T], *arguments: object, **settings: object) -> T:
        """Run a check of the scalar types and prepend this object's place to its message.

        Raises:
            ManifestInvalid: `check` raised InvalidInput.
        """
        try:
            return check(*arguments, **settings)
        except InvalidInput as error:
            raise ManifestInvalid(f"{self.where}: {error.message}", hint=error.hint) from None

    def items(self, key: str, known: str) -> Iterator[Fields]:
        """The objects of an optional array."""
        for index, value in enumerate(self.get(key, list) or ()):
            yield Fields(value, f"{self.where}.{key}[{index}]", known, closed=self.closed)

    def child(self, key: str, known: str) -> Fields | None:
        """An optional object."""
        value = self.get(key, dict)
        if value is None:
            return None
        return Fields(value, f"{self.where}.{key}", known, closed=self.closed)

    def strings(self, key: str) -> tuple[str, ...]:
        """An optional array of strings."""
        values = self.get(key, list) or ()
        return tuple(
            _typed(value, str, f"{self.where}.{key}[{index}]") for index, value in enumerate(values)
        )

    def integers(self, key: str) -> tuple[int, ...]:
        """An optional array of integers."""
        values = self.get(key, list) or ()
        return tuple(
            _typed(value, int, f"{self.where}.{key}[{index}]") for index, value in enumerate(values)
        )

    def string_map(self, key: str) -> dict[str, str]:
        """An optional object whose values are strings."""
        where = f"{self.where}.{key}"
        return {
            name: _typed(value, str, f"{where}.{name}")
            for name, value in (self.get(key, dict) or {}).items()
        }

    def pairs(self, key: str) -> list[tuple[str, str]]:
        """An optional array of `{"name": ..., "value": ...}`, as pairs in order."""
        return [
            (item.need("name", str), item.get("value", str) or "")
            for item in self.items(key, "name value")
        ]

    def error(self, rule: str) -> ManifestInvalid:
        """An error about this object, to be raised."""
        return ManifestInvalid(f"{self.where}: {rule}")


def _typed(value: object, kind: type[T], where: str) -> T:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ManifestInvalid(f"{where} must be {_KINDS[kind]}")
    return value
