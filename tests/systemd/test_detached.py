"""Detached pods on a host with a journal: that is where their output goes."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING

import pytest
from systemd_world import IMAGE

if TYPE_CHECKING:
    from systemd_world import SystemdWorld

pytestmark = pytest.mark.root
SCRIPT = "echo out; echo err >&2; printf '\\303\\050\\n'; printf end; exit 5"


def detach(world: SystemdWorld, *words: str) -> str:
    return world.podctl("run", "--detach", *words).splitlines()[-1]


def shell(script: str) -> list[str]:
    return [IMAGE, "--exec=/bin/sh", "--", "-c", script]


def keepers(world: SystemdWorld, uuid: str) -> list[str]:
    lines = world.host.must("ps", "-wweo", "args").splitlines()
    return [line for line in lines if "sys/keeper.py" in line and uuid in line]


@pytest.mark.parametrize("flavor", ["fly", "nspawn"])
def test_output_and_exit_code(world: SystemdWorld, flavor: str) -> None:
    uuid = detach(world, f"--stage1={flavor}", *shell(SCRIPT))
    assert world.podctl("wait", uuid) == "5"
    world.host.must("journalctl", "--sync")
    encoded = world.host.must("sh", "-c", f"podctl logs {uuid} 2>/srv/problems | base64")
    assert b64decode(encoded) == b"out\n\xc3(\nend\n"
    assert world.host.must("cat", "/srv/problems") == "err"
    last = world.host.run("podctl", "logs", "--tail=1", uuid)
    assert last.stdout == "end\n"
    assert world.podctl("logs", "--since=2999-01-01", uuid) == ""
    match = f"PRIORITY=6 SYSLOG_IDENTIFIER=podctl-{uuid}/box"
    found = world.host.must("sh", "-c", f"journalctl -q --no-pager -o cat {match} | head -n 1")
    assert found == "out"


def test_what_records_exit_codes_itself_has_no_keeper(world: SystemdWorld) -> None:
    pods = {flavor: detach(world, f"--stage1={flavor}", *shell("exec sleep 600"))
            for flavor in ("fly", "nspawn")}  # fmt: skip
    assert len(keepers(world, pods["fly"])) == 1
    assert keepers(world, pods["nspawn"]) == []
    world.podctl("kill", *pods.values())
    world.podctl("wait", *pods.values())


def test_several_apps_are_kept_apart_by_a_keeper(world: SystemdWorld) -> None:
    uuid = detach(
        world, IMAGE, "--name=a", "--exec=/bin/sh", "--", "-c", "echo a", "---",
        IMAGE, "--name=b", "--exec=/bin/sh", "--", "-c", "echo b",
    )  # fmt: skip
    assert world.podctl("wait", uuid) == "0"
    assert world.podctl("logs", "--app=a", uuid) == "a"
    assert world.podctl("logs", "--app=b", uuid) == "b"
