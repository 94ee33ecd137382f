"""Claims about hosts with systemd, by their ids: D5, R5, L6, N4, M1, M5. The modules beside this
one have the details."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from systemd_world import GRACEFUL, IMAGE, PODCTL

if TYPE_CHECKING:
    from systemd_world import SystemdWorld

pytestmark = pytest.mark.root

UNIT = "claim.service"
_LINES = ("KillMode=mixed", "Restart=on-failure", "RestartSec=0")


def _start(world: SystemdWorld, way: str) -> int:
    """Start a unit whose pod is run, or run after it was prepared; its main process, seen here."""
    if way == "run":
        world.shell_unit(UNIT, GRACEFUL, *_LINES)
    else:
        world.host.write("/srv/claim.sh", GRACEFUL)
        uuid = world.podctl(
            "prepare", "--quiet", "--volume=script,kind=host,source=/srv/claim.sh", IMAGE,
            "--mount=volume=script,target=/script", "--exec=/bin/sh", "--", "/script",
        )  # fmt: skip
        world.unit(UNIT, f"ExecStart={PODCTL} run-prepared {uuid}", *_LINES)
    pid = world.host.host_pid(world.start(UNIT))
    world.wait_for_message(UNIT, "up")
    return pid


def _below(pid: int) -> set[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in children}.union(*(_below(int(child)) for child in children))


@pytest.mark.parametrize("way", ["run", "run-prepared"])
def test_d5_r5_l6_n4_systemd_has_the_app_below_its_main_process(
    world: SystemdWorld, way: str
) -> None:
    """With docker's client in the same place it has not: test_units.py, the control."""
    pid = _start(world, way)
    app = [one for one in _below(pid) if b"/script" in Path(f"/proc/{one}/cmdline").read_bytes()]
    assert app
    assert set(app) <= set(world.processes(UNIT))
    world.host.must("systemctl", "stop", UNIT)
    assert world.journal(UNIT)[-1] == "graceful"
    assert world.host.show(UNIT, "Result") == "success"
    assert world.processes(UNIT) == {}


def test_d5_l6_n4_a_crash_fails_the_unit_with_the_app_s_code(world: SystemdWorld) -> None:
    world.shell_unit(UNIT, "exit 7", "KillMode=mixed")
    world.host.run("systemctl", "start", UNIT)
    world.host.wait_for(UNIT, "ActiveState", "failed")
    assert world.host.show(UNIT, "ExecMainStatus") == "7"


def test_d5_l6_n4_a_crashed_pod_is_restarted(world: SystemdWorld) -> None:
    world.shell_unit(UNIT, "exit 9", "KillMode=mixed", "Restart=on-failure", "RestartSec=0")
    world.host.run("systemctl", "start", UNIT)
    # systemd gives up after some starts in a row: each was one.
    world.host.wait_for(UNIT, "ActiveState", "failed")
    assert int(world.host.show(UNIT, "NRestarts")) >= 2
    assert len(world.pods()) >= 3


def test_m5_systemd_nspawn_is_executed_and_no_unit_is_made(world: SystemdWorld) -> None:
    world.host.must("systemctl", "start", "systemd-machined.service")

    def units() -> set[str]:
        words = ("systemctl", "list-units", "--output=json", "--type=service,scope")
        return {unit["unit"] for unit in json.loads(world.host.must(*words))}

    before = units()
    pid = _start(world, "run")
    assert Path(f"/proc/{pid}/comm").read_text() == "systemd-nspawn\n"
    assert units() - before == {UNIT}
    programs = [os.readlink(f"/proc/{one}/exe") for one in (pid, *_below(pid))]
    assert not [program for program in programs if "python" in program]


def test_m1_machinectl_knows_a_pod_and_its_commands_work(world: SystemdWorld) -> None:
    pid = _start(world, "run")
    uuid = world.running()
    machine = f"podctl-{uuid}"
    assert world.machines() == [machine]
    shown = dict(line.split("=", 1) for line in
                 world.host.must("machinectl", "show", machine).splitlines())  # fmt: skip
    assert (shown["Class"], shown["Unit"]) == ("container", UNIT)
    assert world.host.host_pid(shown["Leader"]) in _below(pid)
    assert shown["RootDirectory"].endswith(f"/{uuid}/stage1")
    assert UNIT in world.host.must("machinectl", "--no-pager", "status", machine)
    assert world.status(uuid)["registered"] == "yes"
    world.host.must("machinectl", "kill", "--kill-whom=leader", "--signal=TERM", machine)
    world.host.wait_for(UNIT, "ActiveState", "inactive")
    assert world.journal(UNIT)[-1] == "graceful"
    assert world.machines() == []


def test_m1_machinectl_terminate_ends_a_pod(world: SystemdWorld) -> None:
    _start(world, "run")
    world.host.must("machinectl", "terminate", f"podctl-{world.running()}")
    world.host.wait_for(UNIT, "ActiveState", "inactive")
    assert world.machines() == []
