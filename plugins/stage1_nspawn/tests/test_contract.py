"""nspawn keeps the contract of every flavor."""

from __future__ import annotations

import pytest

from podctl.testing.stage1 import Stage1Contract
from podctl_stage1_nspawn.hooks import nspawn

pytestmark = pytest.mark.root


class TestNspawn(Stage1Contract):
    provider = nspawn
