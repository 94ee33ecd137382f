"""What a flavor must do whose description says `mutable`, as tests, beside Stage1Contract's:

    class TestNspawnMutable(MutableStage1Contract):
        provider = nspawn

Root is needed.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import PodStateError
from podctl.model.plan import AppLaunch, PodRoot
from podctl.pods.insertion import app_place, attach, detach
from podctl.sys import procs
from podctl.testing.pods import PodFactory, confined, start, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from podctl.model.plan import PreparedPod
    from podctl.testing.pods import Process

#: hooks that such a flavor has, and no other
MUTABLE_HOOKS = (
    "stage1_root",
    "stage1_app_launch",
    "stage1_app_start",
    "stage1_app_stop",
    "stage1_app_rm",
)


class MutableStage1Contract:
    """Subclass with `provider` set; every test takes a fresh image and pod."""

    provider: Any

    @pytest.fixture
    def factory(self, tmp_path: Path) -> PodFactory:
        """A busybox image and pods of it below a temporary directory."""
        return PodFactory(str(tmp_path))

    def pod(self, factory: PodFactory, *argv: str, **settings: Any) -> PreparedPod:
        """A mutable pod that has one app, which is to be added."""
        pod = factory.pod(*argv, mutable=True, **settings)
        return confined(self.provider.stage1_describe(), pod)

    def start(self, pod: PreparedPod) -> Process:
        """Start it without the app."""
        empty = pod._replace(apps=())
        self.provider.stage1_prepare(pod=empty)
        return start(self.provider.stage1_plan(pod=empty), empty)

    def add(self, pod: PreparedPod) -> AppLaunch:
        """Add the app, as `podctl app add` does."""
        self.provider.stage1_prepare(pod=pod)
        launch: AppLaunch = self.provider.stage1_app_launch(pod=pod, app="app")
        root: PodRoot = self.provider.stage1_root(pod=pod)
        attach(root, launch._replace(confinement=_ungrouped(launch)), pod.uuid, pod.users, ())
        return launch

    def status(self, pod: PreparedPod) -> str:
        """What is written down of the app's end; empty before."""
        try:
            with open(f"{pod.directory}/status/app") as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""

    def ended(self, pod: PreparedPod) -> str:
        """Its exit status, waiting for it."""
        wait_until(lambda: self.status(pod), "the end of the app")
        return self.status(pod)

    def test_says_so_and_has_the_hooks(self) -> None:
        assert self.provider.stage1_describe().mutable
        assert all(hasattr(self.provider, name) for name in MUTABLE_HOOKS)

    def test_a_pod_without_apps_lives_until_it_is_stopped(self, factory: PodFactory) -> None:
        pod = self.pod(factory, "/bin/true")
        with self.start(pod) as process:
            wait_until(lambda: os.path.exists(f"{pod.directory}/instance"), "the pod")
            root = self.provider.stage1_root(pod=pod)
            assert os.path.isdir(root.directory)
            assert procs.start_time(root.pid) == root.start_time
            self.provider.stage1_stop(pod=pod, force=False)
            assert process.wait() == (0, "", "")
        with pytest.raises(PodStateError):
            self.provider.stage1_root(pod=pod)

    def test_planning_an_app_changes_nothing(self, factory: PodFactory) -> None:
        pod = self.pod(factory, "/bin/true")
        before = sorted(os.walk(factory.directory))
        launch = self.provider.stage1_app_launch(pod=pod, app="app")
        assert type(launch) is AppLaunch
        assert launch == self.provider.stage1_app_launch(pod=pod, app="app")
        assert launch.root.endswith(f"/{app_place('app')}")
        assert sorted(os.walk(factory.directory)) == before

    def test_an_added_app_starts_when_it_is_told_to_and_again(self, factory: PodFactory) -> None:
        pod = self.pod(factory, "/bin/sh", "-c", "echo $AC_APP_NAME; exit 5")
        with self.start(pod) as process:
            wait_until(lambda: os.path.exists(f"{pod.directory}/instance"), "the pod")
            self.add(pod)
            times = []
            for _ in range(2):
                self.provider.stage1_app_start(pod=pod, app="app")
                times.append(os.stat(f"{pod.directory}/status/app-started").st_mtime_ns)
                assert self.ended(pod) == "5"
                assert process.read_line() == "app\n"
            assert times[0] < times[1]
            self.provider.stage1_stop(pod=pod, force=False)
            assert process.wait() == (0, "", "")

    def test_stop_sends_the_app_s_signal(self, factory: PodFactory) -> None:
        script = "trap 'exit 3' USR1; trap '' TERM; echo up; while :; do sleep 0.01; done"
        pod = self.pod(factory, "/bin/sh", "-c", script, stop_signal=signal.SIGUSR1)
        with self.start(pod) as process:
            wait_until(lambda: os.path.exists(f"{pod.directory}/instance"), "the pod")
            self.add(pod)
            self.provider.stage1_app_start(pod=pod, app="app")
            assert process.read_line() == "up\n"
            assert self.status(pod) == ""
            self.provider.stage1_app_stop(pod=pod, app="app")
            assert self.ended(pod) == "3"
            assert not self.provider.stage1_processes(pod=pod, app="app")
            self.provider.stage1_stop(pod=pod, force=True)
            process.reap()

    def test_an_app_that_is_removed_leaves_nothing(self, factory: PodFactory) -> None:
        pod = self.pod(factory, "/bin/true")
        with self.start(pod) as process:
            wait_until(lambda: os.path.exists(f"{pod.directory}/instance"), "the pod")
            root = self.provider.stage1_root(pod=pod)
            before = _names(pod.directory), _mounts(root)
            launch = self.add(pod)
            assert any(point.endswith(app_place("app")) for point in _mounts(root))
            for _ in range(2):
                detach(root, "app")
                self.provider.stage1_app_rm(pod=pod, app="app")
            assert not os.path.exists(launch.root)
            assert (_names(pod.directory), _mounts(root)) == before
            self.provider.stage1_stop(pod=pod, force=True)
            process.reap()


def _ungrouped(launch: AppLaunch) -> Any:
    """What an app is held to without control groups, which are core's business."""
    from podctl.model.confinement import NO_LIMITS

    return launch.confinement._replace(cgroup=NO_LIMITS)


def _names(directory: str) -> list[str]:
    """What the flavor has in the pod's directory; not directories that it may keep."""
    own = f"{directory}/app/"
    return sorted(
        os.path.join(parent, name)
        for parent, directories, files in os.walk(directory)
        for name in (*files, *(one for one in directories if one == "app"))
        if not f"{parent}/".startswith(own)
    )


def _mounts(root: PodRoot) -> list[str]:
    with open(f"/proc/{root.pid}/mountinfo") as file:
        return [line.split()[4] for line in file]
