"""Reading a directory of configuration files: which files count, and what every file must say."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from podctl.errors import ManifestInvalid, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The kinds a directory may hold.
KINDS = {
    "auth.d": ("auth", "dockerAuth"),
    "paths.d": ("paths",),
    "stage1.d": ("stage1",),
}

_MAX_BYTES = 1 << 20


class Document(NamedTuple):
    """One configuration file: where it is, its kind, its JSON object."""

    path: str
    kind: str
    content: dict[str, object]

    def __repr__(self) -> str:
        """Name the file only: the content may be credentials."""
        return f"Document(path={self.path!r}, kind={self.kind!r})"


def read_kinds(directory: str, warn: Callable[[str], None]) -> Iterator[Document]:
    """Yield the documents of one `<kind>.d` directory in the order of their names.

    Only regular files named `*.json` count; links, other names and directories are passed over.

    Raises:
        ManifestInvalid: a file is no JSON object or lacks `rktKind` or `rktVersion`.
        UsageError: the kind does not belong here, or the version is unknown.
        OSError: a directory or file cannot be read.
    """
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    allowed = KINDS[os.path.basename(directory)]
    for entry in entries:
        if entry.name.endswith(".json") and entry.is_file(follow_symlinks=False):
            document = _read(entry.path, allowed, warn)
            if document is not None:
                yield document


def _read(path: str, allowed: tuple[str, ...], warn: Callable[[str], None]) -> Document | None:
    from podctl.model import jsontext
    from podctl.sys.files import read_small

    secret = "auth" in allowed
    try:
        data = read_small(path, _MAX_BYTES)
    except PermissionError:
        if not secret:
            raise
        # Members of the podctl group fetch without the credentials that only root may read.
        warn(f"{path}: not readable for this user, its credentials are not used")
        return None
    except ValueError as error:
        raise ManifestInvalid(f"{path}: larger than {_MAX_BYTES} bytes") from error
    if secret:
        _warn_when_exposed(path, warn)
    content = jsontext.loads(data, what=path)
    if not isinstance(content, dict):
        raise ManifestInvalid(f"{path}: a configuration file is a JSON object")
    return Document(path, _kind(path, content, allowed), content)


def _kind(path: str, content: dict[str, object], allowed: tuple[str, ...]) -> str:
    kind, version = content.pop("rktKind", None), content.pop("rktVersion", None)
    for name, value in (("rktKind", kind), ("rktVersion", version)):
        if not isinstance(value, str) or not value:
            raise ManifestInvalid(f"{path}: {name} is missing or not a text")
    if kind not in allowed:
        raise UsageError(
            f'{path}: kind "{kind}" does not belong into this directory',
            hint=f"expected {' or '.join(allowed)}",
        )
    if version != "v1":
        raise UsageError(f'{path}: version "{version}" is unknown', hint="the known one is v1")
    return str(kind)


def _warn_when_exposed(path: str, warn: Callable[[str], None]) -> None:
    mode = stat.S_IMODE(os.stat(path, follow_symlinks=False).st_mode)
    if mode & stat.S_IROTH:
        warn(f"{path}: every user can read these credentials (mode {mode:04o}), chmod o-r it")
