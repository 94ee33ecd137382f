"""A place for tests that mount: a child with a mount namespace of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from podctl.sys import constants as c
from podctl.sys.child import Privileges, spawn
from podctl.sys.mounts import make_tree_slave
from podctl.sys.namespaces import unshare

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def in_own_mounts() -> Callable[[Callable[[], object]], object]:
    """Run a function in a child whose mounts reach nobody; returns what it returns."""

    def run(function: Callable[[], object]) -> object:
        def inside() -> object:
            unshare(c.CLONE_NEWNS)
            make_tree_slave()
            return function()

        with spawn(inside, privileges=Privileges.SAME, name="test") as child:
            return child.wait()

    assert os.geteuid() == 0, "these tests need root"
    return run
