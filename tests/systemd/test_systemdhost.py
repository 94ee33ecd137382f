"""The host that tests of this directory run on: it comes up whole, and leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podctl.testing.pods import host_mounts
from podctl.testing.systemdhost import SystemdHost

pytestmark = pytest.mark.root


def _traces(name: str) -> list[str]:
    """Groups and processes that bear the name of a host."""
    found = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{name}")]
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_text(errors="replace")
        except OSError:
            continue
        found += [words] if f"--machine={name}" in words else []
    return found


def test_it_is_a_running_system_and_leaves_nothing(tmp_path: Path) -> None:
    before = host_mounts()
    with SystemdHost(tmp_path / "host") as host:
        assert host.run("systemctl", "is-system-running").stdout == "running\n"
        assert host.must("podctl", "version").startswith("podctl Version")
        host.must("systemctl", "start", "systemd-machined.service")
        host.write("/etc/only-there", "x")
        assert not Path("/etc/only-there").exists()
        assert _traces(host.name)
        assert host_mounts() == before
        leader = host.leader
    assert not Path(f"/proc/{leader}").exists()
    assert _traces(host.name) == []
    assert list(tmp_path.iterdir()) == []
    assert host_mounts() == before


def test_a_boot_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="did not boot"):
        SystemdHost(tmp_path / "host", binds=["/no/such/path"])
    assert list(tmp_path.iterdir()) == []
    assert not list(Path("/sys/fs/cgroup").glob("*/podctl-test-*/podctl-test-*"))
