"""kill -9 before every mutating system call of a pod's start and end under nspawn: of podctl,
of systemd-nspawn that it becomes, of the pod's first process, of the launcher, of the app.

The rest of the pod has to end by itself; then status tells so, and the pod is removed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sweeping import ON_X86_64, sweep

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import World

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(3600), ON_X86_64]

NAME = "faults.example/busybox"


@pytest.fixture(scope="module")
def with_image(world: World) -> Path:
    world.reset(None)
    world.must("fetch", str(world.archive))
    return world.template("with-image-for-nspawn")


def test_run(world: World, with_image: Path) -> None:
    arguments = ["run", "--stage1=nspawn", NAME]
    found = sweep(world, with_image, arguments, lambda: removed_at_once(world), may_miss=0.25)
    assert found > 100


def removed_at_once(world: World) -> None:
    """Whatever is left of the pod does not run, and goes when told."""
    for pod in [*world.data.glob("pods/run/*"), *world.data.glob("pods/prepared/*")]:
        said = world.must("status", pod.name)
        assert "state=running" not in said, said
        assert "busy" not in world.must("rm", pod.name)
    assert world.must("run", "--stage1=nspawn", NAME) is not None
