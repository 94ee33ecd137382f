"""doctor: what it says is what the host shows, and its exit code is about flavors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from podctl.cli import hostchecks, main
from podctl.plugins import probe as probing
from podctl.plugins.provider import Provider
from podctl.testing.reach import as_user

if TYPE_CHECKING:
    from pathlib import Path

FLY = Provider("podctl.stage1", "fly", "m", "a", "podctl-stage1-fly", "1")
KVM = Provider("podctl.stage1", "kvm", "m", "a", "podctl-stage1-kvm", "1")
ACI = Provider("podctl.format", "aci", "m", "a", "podctl-fetch-aci", "1")


def checks(data_dir: str = "/nonexistent") -> dict[str, hostchecks.Check]:
    return {check.name: check for check in hostchecks.host_checks(data_dir)}


def run(
    capsys: pytest.CaptureFixture[str], *states: probing.State
) -> tuple[int, list[dict[str, str]]]:
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(probing, "probe", lambda installed: list(states))
        context.setattr("podctl.plugins._snapshot", type("S", (), {
            "providers": [state.provider for state in states]})())  # fmt: skip
        code = main.run(["doctor", "--format=json"])
    return code, json.loads(capsys.readouterr().out)


def test_each_check_has_a_known_state_and_says_what_is_lost() -> None:
    for check in checks().values():
        assert check.state in (hostchecks.OK, hostchecks.DEGRADED, hostchecks.MISSING)
        assert check.detail
        assert (check.disables == "") is (check.state == hostchecks.OK)


def test_overlay_agrees_with_the_kernel() -> None:
    with open("/proc/filesystems") as file:
        known = "overlay" in file.read()
    found = checks()["overlay"].state
    assert (found == hostchecks.OK) == known


def test_trying_leaves_no_mount() -> None:
    with open("/proc/self/mountinfo") as file:
        before = file.read()
    checks()
    with open("/proc/self/mountinfo") as file:
        assert file.read() == before


def test_programs_are_found_with_their_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "systemd-nspawn"
    tool.write_text("#!/bin/sh\necho 'systemd 999 (fake)'; echo more\n")
    monkeypatch.setattr(hostchecks, "_PATH", str(tmp_path))
    assert checks()["systemd-nspawn"].state == hostchecks.MISSING
    tool.chmod(0o755)
    found = checks()["systemd-nspawn"]
    assert (found.state, found.detail) == (hostchecks.OK, f"{tool}: systemd 999 (fake)")


def test_the_callers_search_path_has_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "qemu-system-x86_64"
    tool.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    checks()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("mode", "owner", "state"),
    [
        (0o2750, 0, hostchecks.OK),
        (0o2770, 0, hostchecks.DEGRADED),
        (0o777, 0, hostchecks.DEGRADED),
        (0o750, 1234, hostchecks.MISSING),
    ],
)
def test_the_data_directorys_owner_and_mode_are_judged(
    tmp_path: Path, mode: int, owner: int, state: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a directory away")
    os.chown(tmp_path, owner, 0)
    tmp_path.chmod(mode)
    assert checks(str(tmp_path))["data directory"].state == state


def test_all_is_well_when_every_flavor_can_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run(capsys, probing.State(FLY, "ok"), probing.State(ACI, "broken", "why"))
    assert code == 0
    named = {check["name"]: check for check in report}
    assert named["flavor fly"]["state"] == "ok"
    assert named["image format aci"]["state"] == "missing"


@pytest.mark.parametrize(
    "states",
    [
        (),
        (probing.State(ACI, "ok"),),
        (probing.State(FLY, "broken", "ImportError"),),
        (probing.State(FLY, "conflict", "two"),),
        (probing.State(FLY, "ok"), probing.State(KVM, "ok", "", ("no qemu",))),
    ],
)
def test_a_flavor_that_cannot_run_is_the_exit_code(
    capsys: pytest.CaptureFixture[str], states: tuple[probing.State, ...]
) -> None:
    code, report = run(capsys, *states)
    assert code == 254
    assert any(c["state"] == "missing" and c["name"].startswith("flavor") for c in report)


def test_it_works_for_everybody() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    done = subprocess.run(
        as_user(12345, 12345, sys.executable, "-I", "-m", "podctl", "doctor"),
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, 254)
    assert "run, prepare" in done.stdout
    assert done.stderr == ""
