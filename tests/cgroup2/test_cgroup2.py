"""Limits bite on a host with cgroup v2 alone: a Debian guest (N1, X10, X11)."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cgroup2_guest import Guest

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

FLAVORS = ("nspawn", "fly")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the guest saw; one boot for all tests."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="g") as directory:
        guest = Guest(Path(directory))
        script = Path(__file__).parent / "inside.py"
        answer = guest.run([sys.executable, str(script), "/var/tmp/work"])
        lines = answer.splitlines()
        assert lines, guest.console[-2000:]
        assert lines[-1] == "status 0", answer + guest.console[-2000:]
    value: dict[str, Any] = json.loads(lines[0])
    assert "error" not in value, value["error"]
    return value


def test_it_is_version_2_alone(found: dict[str, Any]) -> None:
    assert {"memory", "cpu", "pids", "devices"} <= set(found["controllers"])


@pytest.mark.parametrize("flavor", FLAVORS)
def test_memory_is_limited(found: dict[str, Any], flavor: str) -> None:
    limited = found[f"{flavor} memory"]
    assert limited["code"] == 137, limited
    assert limited["seen"] >= 1
    assert not limited["left"]
    assert found[f"{flavor} no memory limit"]["out"] == "33554432\n"


@pytest.mark.parametrize("flavor", FLAVORS)
def test_cpu_time_is_limited(found: dict[str, Any], flavor: str) -> None:
    assert found[f"{flavor} cpu 50m"]["seen"] > 0
    assert found[f"{flavor} cpu 64"]["seen"] == 0


@pytest.mark.parametrize("flavor", FLAVORS)
def test_limits_stand_where_version_2_has_them(found: dict[str, Any], flavor: str) -> None:
    seen = found[f"{flavor} files"]["seen"]
    assert seen[:4] == ["3", str(64 << 20), str(32 << 20), "50000 100000"]
    assert seen[4] == "0"


@pytest.mark.parametrize("flavor", FLAVORS)
def test_who_enters_is_in_the_app_s_group(found: dict[str, Any], flavor: str) -> None:
    # Under nspawn the one who waits for it is there too.
    assert found[f"{flavor} entered"]["seen"] == {"nspawn": 3, "fly": 2}[flavor]


def test_the_app_sees_its_own_group_alone_and_cannot_change_it(found: dict[str, Any]) -> None:
    inside = found["inside"]
    assert inside["out"] == "0::/\n4096\nrefused\n"
    assert "Read-only" in inside["err"]


def test_devices_are_the_few(found: dict[str, Any]) -> None:
    assert found["devices"]["out"] == "null\n"
    assert "Operation not permitted" in found["devices"]["err"]
    assert found["pids"]["seen"] == ["4096"]
