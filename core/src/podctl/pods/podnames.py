"""Names of pods, beside their UUIDs: one living pod has a name, and hands it on when it ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.errors import Refused, UsageError
from podctl.pods.directories import EXITED_GARBAGE, PREPARE, PREPARED, RUN

if TYPE_CHECKING:
    from podctl.pods.directories import LockedPod, Pod, PodDirectories

#: the file of a pod that holds its name
FILE = "name"
_LOCK = "locks/nameLock"
_MAX = 64
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_LETTERS = _FIRST | frozenset("_.-")
_UUID_LETTERS = frozenset("0123456789abcdef-")
#: as many digits of a UUID as `list` shows
_SHORT_UUID = 8
_LIVING = frozenset({"preparing", "prepared", "running"})


def check_pod_name(text: str) -> str:
    """Return `text` if it can name a pod: a letter or digit, then letters, digits, `_`, `.`, `-`.

    Raises:
        UsageError: it cannot, or reads like the beginning of a UUID.
    """
    if not text or len(text) > _MAX or text[0] not in _FIRST or not _LETTERS.issuperset(text):
        raise UsageError(
            f"{text[: _MAX + 1]!r} is no name for a pod",
            hint=f"a letter or digit, then letters, digits, _, . and -, at most {_MAX}",
        )
    if len(text) >= _SHORT_UUID and _UUID_LETTERS.issuperset(text.lower()):
        raise UsageError(f"{text!r} is no name for a pod: it reads like a UUID")
    return text


def name_of(directory: str) -> str | None:
    """The name of the pod in a directory; None when it has none."""
    try:
        fd = os.open(f"{directory}/{FILE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, _MAX + 2).decode("ascii", "replace").rstrip("\n")
    finally:
        os.close(fd)
    return text if text and _LETTERS.issuperset(text) else None


def refuse_taken(pods: PodDirectories, name: str) -> None:
    """Refuse a name that a living pod has.

    Raises:
        Refused: names the pod.
    """
    for pod in _named(pods, name):
        if pod.state in _LIVING:
            raise Refused(
                f'the name "{name}" is in use by pod "{pod.uuid}", which is {pod.state}',
                hint="choose another one, or end that pod",
            )


def reserve(pods: PodDirectories, pod: LockedPod, name: str) -> None:
    """Give a new pod its name, for as long as it lives. Raises Refused as refuse_taken."""
    from podctl.sys.files import write_atomic
    from podctl.sys.locks import LockedFile

    with LockedFile(f"{pods.data_dir}/{_LOCK}", mode=0o600):
        refuse_taken(pods, name)
        write_atomic(pod.path(FILE), f"{name}\n".encode(), mode=0o640, durable=False)


def find_by_name(pods: PodDirectories, name: str) -> Pod | None:
    """The living pod of that name; where there is none, the one that was started last."""
    if not name or name[0] not in _FIRST or not _LETTERS.issuperset(name):
        return None
    found = _named(pods, name)
    return max(found, key=_rank) if found else None


def _named(pods: PodDirectories, name: str) -> list[Pod]:
    """All pods of that name, living or not."""
    places = (PREPARE, PREPARED, RUN, EXITED_GARBAGE)
    uuids = {
        uuid
        for place in places
        for uuid in pods.names(place)
        if name_of(pods.path(place, uuid)) == name
    }
    found = [pods.locate(uuid, places) for uuid in sorted(uuids)]
    return [pod for pod in found if pod is not None]


def _rank(pod: Pod) -> tuple[bool, float]:
    return pod.state in _LIVING, pod.started() or pod.created or 0.0
