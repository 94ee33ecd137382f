"""What the kinds `auth`, `dockerAuth`, `paths` and `stage1` hold, in and out of files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podctl.errors import ManifestInvalid
from podctl.model.fetching import Credential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podctl.config import Stage1
    from podctl.config.files import Document

#: An item's name: ("auth", domain), ("dockerAuth", registry), or the name of a single setting.
Key = tuple[str, str] | str

# Fields of `credentials` for each type: required, optional.
_CREDENTIALS = {
    "basic": (("user", "password"), ()),
    "oauth": (("token",), ()),
    "aws": (("accessKeyID", "secretAccessKey"), ("awsRegion",)),
}

_LOCATION_SCHEMES = ("file", "http", "https", "docker")


def parse(document: Document, warn: Callable[[str], None]) -> Iterator[tuple[Key, Any]]:
    """Yield the items a document sets.

    Raises:
        ManifestInvalid: a field is missing or of the wrong form; values are never quoted.
    """
    fields = _Fields(document, warn)
    yield from _PARSERS[document.kind](fields)
    fields.finish()


def describe(key: Key) -> str:
    """Name an item in a message."""
    if isinstance(key, str):
        return f'"{key}"'
    what = "domain" if key[0] == "auth" else "registry"
    return f'the credential for {what} "{key[1]}"'


class _Fields:
    """The fields of one object, taken one by one so that unknown ones are noticed."""

    def __init__(
        self, document: Document, warn: Callable[[str], None], inside: str | None = None
    ) -> None:
        self.document = document
        self.path = document.path if inside is None else f"{document.path}: {inside}"
        self._warn = warn
        content = document.content if inside is None else document.content.pop(inside, None)
        if not isinstance(content, dict):
            raise ManifestInvalid(f"{self.path} is missing or not an object")
        self._left = content

    def text(self, name: str) -> str | None:
        """A text, None where it is absent or empty."""
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, str):
            raise ManifestInvalid(f"{self.path}: {name} is not a text")
        return value or None

    def required(self, name: str) -> str:
        """A text that must be there."""
        value = self.text(name)
        if value is None:
            raise ManifestInvalid(f"{self.path}: {name} is missing or empty")
        return value

    def names(self, name: str) -> list[str]:
        """A list of texts with at least one element."""
        value = self._left.pop(name, None)
        if not isinstance(value, list) or not value:
            raise ManifestInvalid(f"{self.path}: {name} is missing or empty")
        if not all(isinstance(element, str) and element for element in value):
            raise ManifestInvalid(f"{self.path}: {name} holds something else than texts")
        return value

    def nested(self, name: str) -> _Fields:
        """The fields of an object in this one."""
        return _Fields(self.document, self._warn, name)

    def finish(self) -> None:
        """Warn of fields nobody asked for."""
        for name in self._left:
            self._warn(f'{self.path}: unknown field "{name}" has no effect')


def _parse_auth(fields: _Fields) -> Iterator[tuple[Key, Credential]]:
    domains = fields.names("domains")
    kind = fields.required("type")
    if kind not in _CREDENTIALS:
        known = ", ".join(_CREDENTIALS)
        raise ManifestInvalid(f'{fields.path}: unknown type "{kind}"', hint=f"known: {known}")
    secrets = _secrets(fields.nested("credentials"), kind)
    for domain in domains:
        yield ("auth", domain), Credential(domain, kind, secrets)


def _parse_registries(fields: _Fields) -> Iterator[tuple[Key, Credential]]:
    registries = fields.names("registries")
    secrets = _secrets(fields.nested("credentials"), "basic")
    for registry in registries:
        yield ("dockerAuth", registry), Credential(registry, "basic", secrets)


def _secrets(fields: _Fields, kind: str) -> dict[str, str]:
    required, optional = _CREDENTIALS[kind]
    secrets = {name: fields.required(name) for name in required}
    for name in optional:
        value = fields.text(name)
        if value is not None:
            secrets[name] = value
    fields.finish()
    return secrets


def _parse_paths(fields: _Fields) -> Iterator[tuple[Key, str]]:
    for name in ("data", "stage1-images"):
        path = fields.text(name)
        if path is None:
            continue
        if not path.startswith("/"):
            raise ManifestInvalid(f'{fields.path}: {name} "{path}" is not an absolute path')
        yield name, path


def _parse_stage1(fields: _Fields) -> Iterator[tuple[Key, Any]]:
    name, version, location = (fields.text(field) for field in ("name", "version", "location"))
    if (name is None) != (version is None):
        raise ManifestInvalid(f"{fields.path}: name and version stand together or not at all")
    if name is not None:
        yield "name", (name, version)
    if location is not None:
        scheme, separator, _ = location.partition(":")
        if not location.startswith("/") and not (separator and scheme in _LOCATION_SCHEMES):
            raise ManifestInvalid(
                f'{fields.path}: location "{location}" is neither an absolute path nor a URL',
                hint=f"known schemes: {', '.join(_LOCATION_SCHEMES)}",
            )
        yield "location", location


_PARSERS: dict[str, Callable[[_Fields], Iterator[tuple[Key, Any]]]] = {
    "auth": _parse_auth,
    "dockerAuth": _parse_registries,
    "paths": _parse_paths,
    "stage1": _parse_stage1,
}


def _entry(kind: str, **fields: object) -> dict[str, object]:
    return {"rktVersion": "v1", "rktKind": kind, **fields}


def auth_entry(credential: Credential) -> dict[str, object]:
    """The `auth` document for one domain."""
    return _entry(
        "auth",
        domains=[credential.domain],
        type=credential.kind,
        credentials=dict(credential.fields),
    )


def registry_entry(credential: Credential) -> dict[str, object]:
    """The `dockerAuth` document for one registry."""
    return _entry("dockerAuth", registries=[credential.domain], credentials=dict(credential.fields))


def paths_entry(paths: dict[str, str]) -> dict[str, object]:
    """The `paths` document of the paths that are set."""
    return _entry("paths", **paths)


def stage1_entry(stage1: Stage1) -> dict[str, object]:
    """The `stage1` document of what is set."""
    return _entry("stage1", **{k: v for k, v in stage1._asdict().items() if v is not None})
