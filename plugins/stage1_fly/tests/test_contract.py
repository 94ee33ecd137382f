"""Fly keeps the contract of every flavor."""

from __future__ import annotations

import pytest

from podctl.testing.stage1 import Stage1Contract
from podctl_stage1_fly.hooks import fly


@pytest.mark.root
class TestFly(Stage1Contract):
    provider = fly
