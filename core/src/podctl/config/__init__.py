"""Configuration kinds read from system, local and user directories.

rkt's files are read as they are (`rktKind`, `rktVersion` "v1"). A later directory overrides an
earlier one item by item; the same item twice in one directory is an error. A kind is read when it
is asked for, so that a broken credentials file does not stop `list`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from podctl.config.files import read_kinds
from podctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from podctl.config.files import Document
    from podctl.model.fetching import Credential

DATA_DIR = "/var/lib/podctl"
STAGE1_IMAGES = "/usr/lib/podctl/stage1-images"


class Stage1(NamedTuple):
    """The configured default flavor, in rkt's terms; each part may be None."""

    name: str | None
    version: str | None
    location: str | None


class Config:
    """Effective configuration.

    Args:
        directories: configuration directories, later ones win.
        warn: called with one line for what is odd but no error.
    """

    def __init__(self, directories: Iterable[str], warn: Callable[[str], None]) -> None:
        self._directories = [directory for directory in directories if directory]
        self._warn = warn
        self._cache: dict[str, dict[Any, Any]] = {}

    @property
    def data_dir(self) -> str:
        """Kind `paths`, item `data`: absolute path of the data directory."""
        return str(self._paths().get("data", DATA_DIR))

    @property
    def stage1_images(self) -> str:
        """Kind `paths`, item `stage1-images`: where --stage1-from-dir looks."""
        return str(self._paths().get("stage1-images", STAGE1_IMAGES))

    @property
    def stage1(self) -> Stage1:
        """Kind `stage1`: what --stage1 falls back to."""
        items = self._items("stage1.d")
        name, version = items.get("name", (None, None))
        return Stage1(name, version, items.get("location"))

    def credentials(self) -> tuple[Credential, ...]:
        """Kind `auth`: one credential for each domain, sorted by domain."""
        return self._credentials("auth")

    def registry_credentials(self) -> tuple[Credential, ...]:
        """Kind `dockerAuth`: one credential of kind `basic` for each registry, sorted."""
        return self._credentials("dockerAuth")

    def entries(self) -> list[dict[str, object]]:
        """All effective items in the form of configuration files, credentials included."""
        from podctl.config import kinds

        paths = self._paths()
        return [
            *map(kinds.auth_entry, self.credentials()),
            *map(kinds.registry_entry, self.registry_credentials()),
            *([kinds.paths_entry(paths)] if paths else []),
            *([kinds.stage1_entry(self.stage1)] if any(self.stage1) else []),
        ]

    def _paths(self) -> dict[Any, Any]:
        return self._items("paths.d")

    def _credentials(self, kind: str) -> tuple[Credential, ...]:
        items = self._items("auth.d")
        return tuple(value for key, value in sorted(items.items()) if key[0] == kind)

    def _items(self, subdirectory: str) -> dict[Any, Any]:
        if subdirectory not in self._cache:
            merged: dict[Any, Any] = {}
            for directory in self._directories:
                documents = read_kinds(f"{directory}/{subdirectory}", self._warn)
                merged.update(_level(documents, self._warn))
            self._cache[subdirectory] = merged
        return self._cache[subdirectory]


def _level(documents: Iterator[Document], warn: Callable[[str], None]) -> dict[Any, Any]:
    """Merge the documents of one directory, where each item may stand once."""
    found: dict[Any, Any] = {}
    origin: dict[Any, str] = {}
    for document in documents:
        from podctl.config import kinds

        for key, value in kinds.parse(document, warn):
            if key in found:
                raise UsageError(
                    f"{document.path}: {kinds.describe(key)} is already set by {origin[key]}",
                    hint="remove one of the two",
                )
            found[key] = value
            origin[key] = document.path
    return found


def load(
    system: str, local: str, user: str, warn: Callable[[str], None] = lambda text: None
) -> Config:
    """Configuration from the three directories; an empty or missing one has no say."""
    return Config((system, local, user), warn)
