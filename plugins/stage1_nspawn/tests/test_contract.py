"""nspawn keeps the contract of every flavor, with the host's users and with users of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from podctl.model.plan import UserRange
from podctl.testing.mutablestage1 import MutableStage1Contract
from podctl.testing.pods import PodFactory
from podctl.testing.stage1 import Stage1Contract
from podctl_stage1_nspawn.hooks import nspawn

if TYPE_CHECKING:
    from pathlib import Path

    from podctl.model.plan import PreparedPod

pytestmark = pytest.mark.root


class _PrivateUsers(PodFactory):
    def pod(self, *argv: str, **settings: Any) -> PreparedPod:
        return super().pod(*argv, users=UserRange(0x30000000), **settings)


class TestNspawn(Stage1Contract):
    provider = nspawn


class TestNspawnWithPrivateUsers(Stage1Contract):
    provider = nspawn

    @pytest.fixture
    def factory(self, tmp_path: Path) -> PodFactory:
        return _PrivateUsers(str(tmp_path))


class TestNspawnMutable(MutableStage1Contract):
    provider = nspawn


class TestNspawnMutableWithPrivateUsers(MutableStage1Contract):
    provider = nspawn

    @pytest.fixture
    def factory(self, tmp_path: Path) -> PodFactory:
        return _PrivateUsers(str(tmp_path))
