"""The mounts and files that make an image a place to live in (appc OS-SPEC, as rkt's fly did)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from podctl.model.plan import Bind, Directory, Overlay
from podctl.model.rootsteps import file_steps, is_below, volume_steps

if TYPE_CHECKING:
    from podctl.model.manifest import App
    from podctl.model.plan import PreparedApp, PreparedPod, Step


def root_steps(pod: PreparedPod, app: PreparedApp) -> tuple[Step, ...]:
    """All steps, in order: the image, its files, the host's /dev, /proc, /sys, then volumes, and
    the working directory where one is to be made.

    Files come before volumes, so that none of them is ever written into a volume.
    """
    mounts = volume_steps(pod, app)
    targets = {mount.target for mount in mounts}
    steps: list[Step] = []
    if app.rootfs.directory is None:
        steps.append(Overlay(app.root, app.rootfs.lowers, app.upper, app.work))
    steps += file_steps(pod, os.uname().nodename)
    steps.append(Directory("/tmp", 0o1777))
    steps += _host_trees(targets)
    steps += mounts
    if app.make_working_directory:
        steps.append(Directory(cast("App", app.app).working_directory))
    return tuple(steps)


def _host_trees(targets: set[str]) -> list[Step]:
    """The host's own, with everything mounted below; slaves, so that mounts and unmounts of the
    host arrive and those of the app stay (rkt's fly left them shared)."""
    steps: list[Step] = []
    if "/dev" not in targets:
        steps.append(Bind("/dev", "/dev"))
    steps.append(Bind("/proc", "/proc"))
    # An app that brings anything of /sys gets none of the host's.
    if not any(is_below(target, "/sys") for target in targets):
        steps.append(Bind("/sys", "/sys"))
    return steps
