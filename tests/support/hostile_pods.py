"""Pods of the nspawn flavor whose image is an attacker's: static programs beside busybox."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import podctl
from podctl.model.isolators import Isolator
from podctl.model.plan import UserRange
from podctl.pods.enter import enter
from podctl.testing.pods import PodFactory, Process, Result, confined, start
from podctl_stage1_nspawn.hooks import nspawn

if TYPE_CHECKING:
    import pytest

    from podctl.model.plan import PreparedPod

PROGRAMS = Path(__file__).parent.parent / "isolation" / "programs"
USERS = UserRange(0x30030000)
#: what is waived for a control
EVERYTHING = frozenset({"capabilities", "paths", "seccomp"})


def compile_program(name: str, target: str, *flags: str) -> None:
    """Make a static program of tests/isolation/programs/NAME.c."""
    source = str(PROGRAMS / f"{name}.c")
    subprocess.run(["gcc", "-O1", "-static", *flags, "-o", target, source], check=True)


class HostilePods:
    """Makes, starts and enters such pods.

    Args:
        directory: of the test's own, which users of a pod may pass through.
    """

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o755)
        self.factory = PodFactory(str(directory))

    def install(self, name: str, *flags: str, path: str = "") -> None:
        """Compile a program into the image, /bin/NAME unless a path is given."""
        target = f"{self.factory.image}{path or f'/bin/{name}'}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        compile_program(name, target, *flags)

    def pod(
        self,
        *argv: str,
        users: bool = True,
        isolators: dict[str, Any] | None = None,
        **more: Any,
    ) -> PreparedPod:
        """A prepared pod, confined as `podctl run` would.

        Args:
            users: whether it has users of its own, which is the default of podctl.
            more: as PodFactory.pod takes it.
        """
        given = [Isolator(name, value) for name, value in (isolators or {}).items()]
        ids = USERS if users else None
        pod = self.factory.pod(*argv, isolators=given, users=ids, **more)
        held = confined(nspawn.stage1_describe(), pod)
        nspawn.stage1_prepare(pod=held)
        return held

    def start(self, pod: PreparedPod) -> Process:
        """Start a pod beside the test."""
        return start(nspawn.stage1_plan(pod=pod), pod)

    def run(self, *argv: str, **more: Any) -> Result:
        """Run a pod to its end."""
        pod = self.pod(*argv, **more)
        with self.start(pod) as process:
            return process.wait()

    def sh(self, script: str, **more: Any) -> Result:
        """Run a script as a pod."""
        return self.run("/bin/sh", "-c", script, **more)

    def entering(self, pod: PreparedPod, *argv: str) -> Process:
        """A process that enters the pod's app."""
        plan = nspawn.stage1_enter(pod=pod, app="app", argv=argv)
        return Process(lambda: enter(plan))

    def end(self, pod: PreparedPod, process: Process) -> Result:
        """End a pod at once."""
        nspawn.stage1_stop(pod=pod, force=True)
        return process.wait()


def weaken(monkeypatch: pytest.MonkeyPatch, directory: Path, file: str, old: str, new: str) -> None:
    """Have pods started by a launcher of podctl that lacks something: the control of a test.

    Args:
        directory: where the changed copy of the package may lie.
        file: below the package.
        old, new: text that stands there once, and what it becomes.
    """
    package = Path(podctl.__path__[0])
    copy = directory / "weakened"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "testing"))
    text = (copy / file).read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    (copy / file).write_text(text.replace(old, new))
    monkeypatch.setattr("podctl_stage1_nspawn.stage1._package", lambda: str(copy))
