"""Removing pods: marked first, then deleted so that a deletion cut short can be done again.

A pod that ran waits in `exited-garbage`, one that never ran in `garbage`. Its lock is held while
it is deleted; its big trees go first, its manifest last, so what is left of it can still be named.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from podctl.errors import InvalidInput, NotFound, PodctlError, PodStateError
from podctl.pods.directories import (
    EMBRYO,
    EXITED_GARBAGE,
    GARBAGE,
    LOCK,
    MANIFEST,
    PREPARE,
    PREPARED,
    RUN,
    USERS,
)
from podctl.pods.release import GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podctl.model.plan import UserRange
    from podctl.pods.directories import LockedPod, Pod, PodDirectories

    Say = Callable[[str], None]

#: deleted first, because they are big and can fail
_TREES = ("rootfs", "overlay", "sharedVolumes")
#: written by core when the flavor's gc hook has something to release
NEEDS_GC = "needs-gc"


class Remover:
    """Deletes pods of one data directory.

    Args:
        pods: where they are.
        say: prints one line of what is going on (standard error).
        release: called with a pod's directory before it is deleted, if the pod left something
            behind on the host that only its flavor can release.
    """

    def __init__(self, pods: PodDirectories, say: Say, release: Callable[[str], None]) -> None:
        self._pods = pods
        self._say = say
        self._release = release
        self.removed: list[str] = []

    def remove(self, pod: Pod) -> None:
        """Delete a pod that does not run, whatever its age.

        Raises:
            PodStateError: it runs, or another process prepares or deletes it.
            NotFound: another process deleted it just now.
            OSError, PodctlError: something of it could not be deleted; the rest can be tried again.
        """
        while True:
            locked = self._mark(pod)
            if locked is not None:
                with locked:
                    self.delete(locked)
                return
            pod = self._look_again(pod)

    def delete(self, pod: LockedPod) -> None:
        """Delete a marked pod whose lock we hold."""
        if os.path.exists(pod.path(NEEDS_GC)):
            self._release(pod.directory)
        _remove_groups(pod)
        delete_tree(pod.directory, self._say)
        self.removed.append(pod.uuid)

    def collect(self, *, grace: float, expire: float, mark_only: bool) -> None:
        """Collect garbage: mark what ended, delete what has been marked long enough.

        A pod that cannot be collected is reported, and the next one is tried.

        Args:
            grace: seconds an exited pod is kept after it was marked.
            expire: seconds a prepared pod may wait to be run.
        """
        self._each(self._pods.walk([RUN]), self._mark_exited)
        self._each(self._pods.walk([PREPARE]), self._mark_aborted)
        if mark_only:
            return
        self._each(self._pods.walk([PREPARED]), lambda pod: self._mark_expired(pod, expire))
        self._each(self._pods.walk([EXITED_GARBAGE]), lambda pod: self._collect_old(pod, grace))
        self._each(self._pods.walk([GARBAGE]), self._collect)
        self._each(self._pods.walk([EMBRYO]), self._collect_silently)
        from podctl.pods.userns import sweep
        from podctl.sys.cgroups import sweep_empty

        sweep()
        sweep_empty()

    def _mark(self, pod: Pod) -> LockedPod | None:
        """Bring a pod to a place of garbage and lock it; None when it moved meanwhile."""
        refusal = _REFUSALS.get(pod.state)
        if refusal is not None:
            raise PodStateError(f'pod "{pod.uuid}" {refusal}')
        try:
            if pod.place == PREPARED:
                # Somebody may be about to run it: only the lock decides who gets it.
                locked = self._pods.take(pod)
                if locked is not None:
                    self._pods.move(locked, GARBAGE, durable=True)
                return locked
            if pod.place in (PREPARE, RUN):
                # Nobody takes the lock of such a pod again, so there is no race to lose here.
                place = GARBAGE if pod.place == PREPARE else EXITED_GARBAGE
                self._pods.move(pod, place, durable=False)
        except PodStateError:
            return None
        return self._pods.take(pod)

    def _look_again(self, pod: Pod) -> Pod:
        found = self._pods.locate(pod.uuid)
        if found is None:
            raise NotFound(f'no matches found for "{pod.uuid}"')
        if found.place == PREPARED and found.held:
            # run-prepared has it, or another rm.
            raise PodStateError(f'pod "{pod.uuid}" is being started or removed')
        return found

    def _each(self, pods: Iterable[Pod], work: Callable[[Pod], None]) -> None:
        for pod in pods:
            try:
                work(pod)
            except (PodctlError, OSError) as error:
                # One that is gone was collected by another gc.
                if os.path.isdir(pod.directory):
                    self._say(f'unable to collect pod "{pod.uuid}": {error}')

    def _mark_exited(self, pod: Pod) -> None:
        if pod.state == "exited":
            self._pods.move(pod, EXITED_GARBAGE, durable=False)
            self._say(f'moving pod "{pod.uuid}" to garbage')

    def _mark_aborted(self, pod: Pod) -> None:
        if pod.state == "aborted prepare":
            self._pods.move(pod, GARBAGE, durable=False)
            self._say(f'moving failed prepare "{pod.uuid}" to garbage')

    def _mark_expired(self, pod: Pod, expire: float) -> None:
        if _age(pod) < expire:
            return
        locked = self._pods.take(pod)
        if locked is None:
            return
        with locked:
            self._say(f'moving expired prepared pod "{pod.uuid}" to garbage')
            self._pods.move(locked, GARBAGE, durable=True)

    def _collect_old(self, pod: Pod, grace: float) -> None:
        if _age(pod) >= grace:
            self._collect(pod)
            return
        from podctl.pods.times import duration_text

        self._say(
            f'pod "{pod.uuid}" not removed: still within grace period ({duration_text(grace)})'
        )

    def _collect(self, pod: Pod) -> None:
        locked = self._pods.take(pod)
        if locked is None:
            return
        with locked:
            self._say(f'Garbage collecting pod "{pod.uuid}"')
            self.delete(locked)

    def _collect_silently(self, pod: Pod) -> None:
        """An embryo nobody holds is what is left of a creation cut short."""
        locked = self._pods.take(pod)
        if locked is None:
            return
        with locked:
            delete_tree(locked.directory, self._say)


_REFUSALS = {
    "running": "is currently running",
    "preparing": "is currently being prepared",
    "deleting": "is currently being deleted",
    "exited deleting": "is currently being deleted",
}


def discard(pod: LockedPod, pods: PodDirectories) -> None:
    """Delete a pod of ours that could not be started; what fails is left to gc."""
    try:
        pods.move(pod, GARBAGE, durable=False)
        _remove_groups(pod)
        delete_tree(pod.directory, lambda _line: None)
    except (OSError, PodctlError):
        return


def _remove_groups(pod: LockedPod) -> None:
    if os.path.exists(pod.path(GROUPS)):
        from podctl.pods.grouping import remove_groups

        remove_groups(pod.directory)


def delete_tree(directory: str, say: Say) -> None:
    """Delete a pod's directory: big trees, then the rest, then the manifest, then the lock.

    Mounts that leaked below it are taken away first; those in other mount namespaces do not keep
    a directory from being removed.
    """
    from podctl.sys.mounts import detach_below, mount_points_below

    points = mount_points_below(directory)
    if points:
        detach_below(directory)
        say(f"unmounted {len(points)} leftover mount(s) below {directory}")
    users = _users(directory)
    _delete(directory)
    if users is not None:
        from podctl.pods.userns import release

        release(directory, users)


def _users(directory: str) -> UserRange | None:
    """The users the pod has claimed. A damaged record keeps no pod from being deleted: a claim of
    a pod that is gone counts for nothing."""
    if not os.path.lexists(f"{directory}/{USERS}"):
        return None
    from podctl.pods.userns import recorded

    try:
        return recorded(directory)
    except (InvalidInput, OSError):
        return None


def _delete(directory: str) -> None:
    from podctl.sys.files import remove_tree

    for name in _TREES:
        remove_tree(f"{directory}/{name}")
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        if name not in (MANIFEST, LOCK):
            remove_tree(f"{directory}/{name}")
    remove_tree(f"{directory}/{MANIFEST}")
    remove_tree(f"{directory}/{LOCK}")
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError:
        # Another process made and took a new lock after ours went away: it finishes.
        if os.listdir(directory) != [LOCK]:
            raise


def _age(pod: Pod) -> float:
    """Seconds since the directory was renamed to where it is (its ctime)."""
    return time.time() - os.stat(pod.directory).st_ctime
