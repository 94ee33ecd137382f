"""Which pod a user means: its UUID or a unique beginning, its name, or a file with its UUID."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podctl.errors import Ambiguous, NotFound, UsageError
from podctl.pods.directories import NAMEABLE, RUN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podctl.pods.directories import Pod, PodDirectories

_MAX_FILE = 256
#: characters of a UUID
_WHOLE = 36
_LETTERS = frozenset("0123456789abcdef-")


def find(pods: PodDirectories, text: str) -> Pod:
    """Return the pod whose name is `text`, or whose UUID begins with it (in any case).

    Raises:
        UsageError: the text is empty.
        NotFound: no pod fits.
        Ambiguous: several do.
        PermissionError: the caller may not see which pods there are.
    """
    beginning = text.strip().lower()
    if not beginning:
        raise UsageError("UUID cannot be empty")
    if len(beginning) != _WHOLE:
        from podctl.pods.podnames import find_by_name

        chosen = find_by_name(pods, text.strip())
        if chosen is not None:
            return chosen
    fitting = _fitting(pods, beginning)
    if len(fitting) > 1:
        raise Ambiguous(f"ambiguous uuid, {len(fitting)} matches", hint="give more of its digits")
    pod = pods.locate(fitting[0], NAMEABLE) if fitting else None
    if pod is None:
        # Who may not look cannot say that there is none: this raises.
        pods.names(RUN)
        raise NotFound(f'no matches found for "{text}"', hint="podctl list shows the pods")
    return pod


def _fitting(pods: PodDirectories, beginning: str) -> list[str]:
    """UUIDs that begin so. The whole of one is not searched for but looked at."""
    if not _LETTERS.issuperset(beginning):
        return []
    if len(beginning) == _WHOLE:
        return [beginning]
    found = {uuid for place in NAMEABLE for uuid in pods.names(place) if uuid.startswith(beginning)}
    return sorted(found)


def named(uuids: Sequence[str], uuid_file: str | None) -> list[str]:
    """The UUIDs a command was given: as arguments, or in one file.

    Raises:
        UsageError: neither or both.
    """
    if bool(uuids) == (uuid_file is not None):
        raise UsageError("give either UUIDs or --uuid-file")
    return list(uuids) if uuid_file is None else [read_uuid_file(uuid_file)]


def named_once(uuid: str | None, uuid_file: str | None) -> str:
    """The one UUID a command was given; errors as for `named`."""
    return named(() if uuid is None else (uuid,), uuid_file)[0]


def read_uuid_file(path: str) -> str:
    """Return the UUID in a file written by --uuid-file-save.

    Raises:
        UsageError: the file cannot be read, or is no such file.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"unable to read UUID file {path}: {error.strerror}") from None
    if len(text) > _MAX_FILE:
        raise UsageError(f"{path} does not hold a UUID: it is longer than {_MAX_FILE} bytes")
    return text.decode("utf-8", "replace").strip()


def write_uuid_file(path: str, uuid: str) -> None:
    """Write the UUID to a file others may read (0644).

    Raises:
        UsageError: the file cannot be written.
    """
    from podctl.sys.files import write_atomic

    try:
        write_atomic(path, uuid.encode(), mode=0o644, durable=False)
    except OSError as error:
        raise UsageError(f"unable to write UUID file {path}: {error.strerror}") from None
