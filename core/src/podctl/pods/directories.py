"""Where pods live: one directory each, whose place and lock are its state.

A pod is created in `embryo`, locked, and from then on moves forward only: every step is one
rename(2), and the lock, which belongs to a file inside, moves along. Places are searched in the
order in which pods pass through them, so a search never misses a pod that moves meanwhile.

The lock is an flock(2) on the regular file `lock` of the pod and not on the directory itself: the
app inherits the descriptor, and a directory's descriptor would lead it out of its chroot.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from podctl.errors import PodStateError
from podctl.pods.probe import LockProbe, Survivors, read_record
from podctl.sys.locks import lock, unlock

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

EMBRYO, PREPARE, PREPARED, RUN = "embryo", "prepare", "prepared", "run"
EXITED_GARBAGE, GARBAGE = "exited-garbage", "garbage"
#: in the order pods pass through them
PLACES = (EMBRYO, PREPARE, PREPARED, RUN, EXITED_GARBAGE, GARBAGE)
#: those whose pods commands name and list
NAMEABLE = (PREPARE, PREPARED, RUN, EXITED_GARBAGE)

LOCK = "lock"
MANIFEST = "pod"
INSTANCE = "instance"
#: BASE:SIZE, the users it has claimed (podctl.pods.userns); rkt's name for it
USERS = "private-users-prepared"

#: place -> (state while nobody holds the lock, state while somebody does)
_STATES = {
    EMBRYO: ("embryo", "embryo"),
    PREPARE: ("aborted prepare", "preparing"),
    PREPARED: ("prepared", "prepared"),
    RUN: ("exited", "running"),
    EXITED_GARBAGE: ("exited garbage", "exited deleting"),
    GARBAGE: ("garbage", "deleting"),
}
AFTER_RUN = frozenset({"exited", "exited garbage", "exited deleting", "garbage", "deleting"})
_DIRECTORY_MODE = 0o750
_MASK = 0o027
_ATTEMPTS = 200
_PAUSE = 0.002


class Pod:
    """A pod as it was when looked at.

    Attributes:
        uuid: lower-case UUIDv4.
        place: one of PLACES.
        directory: host path.
        held: whether somebody held its lock.
        state: rkt's name of the state.
        created: when it was made, in seconds since the epoch; None when it lost its lock file.
    """

    __slots__ = ("_started", "created", "directory", "held", "place", "state", "uuid")

    def __init__(
        self, uuid: str, place: str, directory: str, *, held: bool, created: float | None
    ) -> None:
        self.uuid = uuid
        self.place = place
        self.directory = directory
        self.held = held
        self.created = created
        self.state = _STATES[place][held]
        self._started: float | None = None

    def path(self, name: str) -> str:
        """Host path of a file in the pod's directory."""
        return f"{self.directory}/{name}"

    def started(self) -> float | None:
        """When it was started, in seconds since the epoch; None when it was not."""
        if self._started is None and self.place in (RUN, EXITED_GARBAGE):
            try:
                self._started = os.stat(f"{self.directory}/{INSTANCE}").st_mtime
            except FileNotFoundError:
                return None
        return self._started

    def judge(self, probe: LockProbe, survivors: Survivors) -> None:
        """Call it running if a process of it lives on without the lock."""
        record = read_record(f"{self.directory}/{INSTANCE}")
        if record is None:
            return
        self._started = record[4]
        if probe.lives(self.directory, record, survivors):
            self.state = _STATES[RUN][True]


class LockedPod:
    """A pod whose exclusive lock this process holds, until `close` or the end of the process."""

    __slots__ = ("directory", "lock_fd", "place", "uuid")

    def __init__(self, uuid: str, place: str, directory: str, lock_fd: int) -> None:
        self.uuid = uuid
        self.place = place
        self.directory = directory
        self.lock_fd = lock_fd

    def path(self, name: str) -> str:
        """Host path of a file in the pod's directory."""
        return f"{self.directory}/{name}"

    def close(self) -> None:
        """Give the lock up (copies of the descriptor in other processes keep it)."""
        if self.lock_fd != -1:
            os.close(self.lock_fd)
            self.lock_fd = -1

    def __enter__(self) -> LockedPod:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class CreationMask:
    """A umask for what is made in the data directory: the group may read, others nothing."""

    def __enter__(self) -> None:
        self._before = os.umask(_MASK)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.umask(self._before)


class PodDirectories:
    """The pods below one data directory."""

    def __init__(self, data_dir: str) -> None:
        #: links are resolved once: a pod's paths stay true when the link is turned elsewhere
        self.data_dir = os.path.realpath(data_dir)
        self.root = f"{self.data_dir}/pods"
        self._probe = LockProbe(self.root)

    def path(self, place: str, uuid: str) -> str:
        """Host path of a pod's directory in a place."""
        return f"{self.root}/{place}/{uuid}"

    def create(self) -> LockedPod:
        """Make an empty pod, locked before it is visible in `prepare`."""
        from podctl.model.uuids import new_uuid

        with CreationMask():
            self._make_places()
            while True:
                made = self._conceive(new_uuid())
                if made is not None:
                    return made

    def locate(self, uuid: str, places: Iterable[str] = PLACES) -> Pod | None:
        """Look at the pod with exactly this UUID; None when it is in none of `places`."""
        pod = self._search(uuid, places)
        if pod is not None and pod.state == "exited":
            pod.judge(self._probe, Survivors())
        return pod

    def walk(self, places: Iterable[str] = NAMEABLE) -> list[Pod]:
        """Look at every pod in `places`, each once, also when it moves meanwhile."""
        found: dict[str, Pod] = {}
        for place in places:
            base = f"{self.root}/{place}"
            for uuid in self.names(place):
                if uuid in found:
                    continue
                pod = self._look(uuid, place, f"{base}/{uuid}") or self._search(uuid, places)
                if pod is not None:
                    found[uuid] = pod
        survivors = Survivors()
        for pod in found.values():
            if pod.state == "exited":
                pod.judge(self._probe, survivors)
        return list(found.values())

    def names(self, place: str) -> list[str]:
        """UUIDs of the pods in a place, sorted; a place that was never made is empty."""
        try:
            found = os.listdir(f"{self.root}/{place}")
        except FileNotFoundError:
            return []
        return sorted(name for name in found if len(name) == 36 and name[8] == "-")

    def take(self, pod: Pod) -> LockedPod | None:
        """Take the exclusive lock of a pod; None when another process holds it or the pod moved.

        A pod whose removal was cut short may have lost its lock file: it is made again.
        """
        flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        path = pod.path(LOCK)
        try:
            fd = os.open(path, flags, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if take_exclusive(fd) and _still(fd, path):
            return LockedPod(pod.uuid, pod.place, pod.directory, fd)
        os.close(fd)
        return None

    def move(self, pod: Pod | LockedPod, place: str, *, durable: bool) -> None:
        """Rename a pod's directory into another place; updates `pod`.

        Args:
            durable: fsync both parents, where a power cut must not undo the step.

        Raises:
            PodStateError: somebody else moved or removed it.
        """
        target = self.path(place, pod.uuid)
        try:
            if durable:
                from podctl.sys.files import rename_durable

                rename_durable(pod.directory, target)
            else:
                os.rename(pod.directory, target)
        except FileNotFoundError:
            raise PodStateError(
                f'pod "{pod.uuid}" was moved or removed by another process'
            ) from None
        pod.place, pod.directory = place, target

    def _make_places(self) -> None:
        for place in PLACES:
            try:
                os.mkdir(f"{self.root}/{place}", _DIRECTORY_MODE)
            except FileExistsError:
                continue
            except FileNotFoundError:
                os.makedirs(f"{self.root}/{place}", _DIRECTORY_MODE, exist_ok=True)

    def _conceive(self, uuid: str) -> LockedPod | None:
        """Make and lock an embryo and move it to `prepare`; None when gc got between."""
        directory = self.path(EMBRYO, uuid)
        os.mkdir(directory, _DIRECTORY_MODE)
        fd = -1
        try:
            flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(f"{directory}/{LOCK}", flags, 0o600)
            if take_exclusive(fd):
                pod = LockedPod(uuid, EMBRYO, directory, fd)
                self.move(pod, PREPARE, durable=False)
                fd = -1
                return pod
        except (FileNotFoundError, FileExistsError, PodStateError):
            return None
        finally:
            if fd != -1:
                os.close(fd)
        return None

    def _search(self, uuid: str, places: Iterable[str]) -> Pod | None:
        while True:
            for place in places:
                directory = self.path(place, uuid)
                if os.path.isdir(directory):
                    break
            else:
                return None
            pod = self._look(uuid, place, directory)
            if pod is not None:
                return pod

    def _look(self, uuid: str, place: str, directory: str) -> Pod | None:
        """Look at a pod seen in `place`; None when it moved meanwhile."""
        seen = self._probe.look(f"{directory}/{LOCK}")
        # A free lock in `prepare` may have been given up by an owner who had moved the pod on.
        doubtful = seen is None or (place == PREPARE and not seen[0])
        if doubtful and not os.path.isdir(directory):
            return None
        held, created = seen or (False, None)
        return Pod(uuid, place, directory, held=held, created=created)


def take_exclusive(fd: int) -> bool:
    """Take the exclusive lock unless another process holds one.

    Whoever looks at a pod's state holds a shared lock for an instant; that is waited out. One who
    holds it longer (export) counts as a holder.
    """
    for _ in range(_ATTEMPTS):
        if lock(fd, exclusive=True, blocking=False):
            return True
        if not lock(fd, exclusive=False, blocking=False):
            return False
        unlock(fd)
        time.sleep(_PAUSE)
    return False


def _still(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
