"""Pods of a busybox image, and bare plans for them, made by no flavor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from podctl.model.plan import Identity, LaunchPlan, Overlay
from podctl.testing.pods import PATH, PodFactory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from podctl.model.plan import Account, PreparedPod, Step


@pytest.fixture
def factory(tmp_path: Path) -> PodFactory:
    assert os.geteuid() == 0, "these tests need root"
    return PodFactory(str(tmp_path))


@pytest.fixture
def make_plan() -> Callable[..., LaunchPlan]:
    """A plan for the one app of a pod: its overlay, then the steps given."""

    def make(
        pod: PreparedPod,
        *steps: Step,
        identity: Identity | Account | None = None,
        environment: dict[str, str] | None = None,
        inherited: Iterable[int] = (),
        **fields: object,
    ) -> LaunchPlan:
        app = pod.apps[0]
        overlay = Overlay(app.root, app.rootfs.lowers, app.upper, app.work)
        values: dict[str, object] = {
            "flavor": "test",
            "namespaces": ("NS",),
            "root": app.root,
            "steps": (*(() if app.rootfs.directory else (overlay,)), *steps),
            "identity": identity or Identity(0, 0),
            "working_directory": "/",
            "environment": {"PATH": PATH} if environment is None else environment,
            "argv": app.app.exec,  # type: ignore[attr-defined]
            "inherited": {str(fd): "test" for fd in inherited},
            **fields,
        }
        return LaunchPlan(**values)  # type: ignore[arg-type]

    return make
