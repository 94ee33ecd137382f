"""The contract's assertions show their values like those of the tests themselves."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("podctl.testing.stage1", "podctl.testing.pods")
