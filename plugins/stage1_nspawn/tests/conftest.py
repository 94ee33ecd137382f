"""The contract's assertions show their values like those of the tests themselves."""

from __future__ import annotations

import sys

import pytest

if "podctl.testing.stage1" not in sys.modules:
    pytest.register_assert_rewrite("podctl.testing.stage1")
