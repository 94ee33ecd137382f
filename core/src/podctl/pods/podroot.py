"""The root of an app, running or not, worked on by a child that is confined to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.errors import NotFound, PodStateError, UsageError
from podctl.pods.directories import LOCK
from podctl.sys import procs
from podctl.sys.calls import set_filesystem_ids
from podctl.sys.child import Privileges, spawn
from podctl.sys.locks import lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podctl.model.plan import PreparedApp, PreparedPod
    from podctl.pods.directories import Pod
    from podctl.sys.child import Child

_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_STATES = ("running", "prepared", "exited", "exited garbage")


class IdMap:
    """What ids of the pod are for the host (user_namespaces(7)).

    Args:
        lines: (first inside, first outside, how many); empty where both are the same.
    """

    def __init__(self, lines: Sequence[tuple[int, int, int]] = ()) -> None:
        self._lines = lines

    @classmethod
    def of(cls, pid: int, file: str) -> IdMap:
        """Read `uid_map` or `gid_map` of a process."""
        with open(f"/proc/{pid}/{file}") as lines:
            found = [tuple(map(int, line.split())) for line in lines]
        return cls([(inside, outside, count) for inside, outside, count in found])

    def inside(self, number: int) -> int:
        """An id of the host in the pod; one that it does not have is nobody's (65534)."""
        for inside, outside, count in self._lines:
            if outside <= number < outside + count:
                return inside + number - outside
        return 65534 if self._lines else number

    def outside(self, number: int) -> int:
        """An id of the pod on the host. Raises UsageError when the pod does not have it."""
        for inside, outside, count in self._lines:
            if inside <= number < inside + count:
                return outside + number - inside
        if self._lines:
            raise UsageError(f"the pod has no user or group {number}")
        return number


class PodRoot:
    """One app's root; a context in which it stays.

    Raises (on entry):
        PodStateError: the pod has no root that could be looked into, or has just ended.
        UsageError, NotFound: which app is not said, or there is no such app.
    """

    def __init__(self, pod: Pod, app: str | None) -> None:
        if pod.state not in _STATES:
            raise PodStateError(f'pod "{pod.uuid}" is {pod.state}')
        self._pod = pod
        self._wanted = app
        self._fds: list[int] = []
        self.uids = IdMap()
        self.gids = IdMap()

    def __enter__(self) -> PodRoot:
        from podctl.pods.prepared import load_prepared

        self._prepared: PreparedPod = load_prepared(self._pod.directory)
        self._app = _choose(self._prepared, self._wanted)
        self._root = -1
        if self._pod.state == "running":
            self._root = self._open_running()
        else:
            self._hold()
        return self

    def __exit__(self, *_exception: object) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def spawn(self, work: Callable[[], object], keep: Sequence[int], name: str) -> Child:
        """Start a child whose root is the app's, with rights on its files and no others.

        Args:
            work: everything it needs is imported.
            keep, name: as of podctl.sys.child.spawn.
        """
        if self._root >= 0:
            return self._in_running(work, keep, name)
        if self._app.rootfs.directory is not None:
            return _confined(work, self._app.root, keep, name)

        def mounted() -> object:
            from podctl.pods.export import mount_app

            root = mount_app(self._prepared, self._app)
            with _confined(work, root, keep, name) as child:
                return child.wait()

        return spawn(mounted, privileges=Privileges.SAME, keep=keep, name=name)

    def _in_running(self, work: Callable[[], object], keep: Sequence[int], name: str) -> Child:
        user, group = self.uids.outside(0), self.gids.outside(0)
        if (user, group) == (0, 0):
            return _confined(work, self._root, keep, name)

        def as_its_root() -> object:
            # Who makes a file must be somebody the pod's mounts have an id for.
            set_filesystem_ids(user, group)
            with _confined(work, self._root, keep, name) as child:
                return child.wait()

        return spawn(as_its_root, privileges=Privileges.SAME, keep=(self._root, *keep), name=name)

    def _open_running(self) -> int:
        """Root of the app's first process, as it is seen by it: with its volumes."""
        from podctl.pods.signalling import RunningPod

        running = RunningPod(self._pod)
        for process in running.flavor.processes(running.prepared, self._app.name)[:1]:
            try:
                root = os.open(f"/proc/{process.pid}/root", _ROOT)
                self._fds.append(root)
                self.uids = IdMap.of(process.pid, "uid_map")
                self.gids = IdMap.of(process.pid, "gid_map")
            except OSError:
                break
            # What was read above is that process's, and no later one's of its number.
            if procs.start_time(process.pid) == process.start_time:
                return root
        raise PodStateError(
            f'app "{self._app.name}" of pod "{self._pod.uuid}" isn\'t currently running'
        )

    def _hold(self) -> None:
        """Keep the pod from being run or deleted meanwhile; it still counts as what it is."""
        fd = os.open(self._pod.path(LOCK), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._fds.append(fd)
        if not lock(fd, exclusive=False, blocking=False):
            raise PodStateError(f'pod "{self._pod.uuid}" is being started or removed')


def _confined(work: Callable[[], object], root: str | int, keep: Sequence[int], name: str) -> Child:
    return spawn(work, privileges=Privileges.EXTRACT, keep=keep, name=name, chroot_to=root)


def _choose(pod: PreparedPod, name: str | None) -> PreparedApp:
    names = [app.name for app in pod.apps]
    if name is None and len(names) != 1:
        raise UsageError(
            f"pod contains multiple apps: {', '.join(names)}", hint="write POD:APP:PATH"
        )
    for app in pod.apps:
        if name in (None, app.name):
            return app
    raise NotFound(f'the pod has no app "{name}"', hint=f"it has {', '.join(names)}")
