"""Output of pods in units: the unit's journal, as of any service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from systemd_world import IMAGE, PODCTL

from podctl.testing.pods import wait_until

if TYPE_CHECKING:
    from systemd_world import SystemdWorld

pytestmark = pytest.mark.root


def _entries(world: SystemdWorld, *match: str) -> list[dict[str, str]]:
    world.host.must("journalctl", "--sync")
    printed = world.host.must("journalctl", "--no-pager", "--quiet", "--output=json", *match)
    return [json.loads(line) for line in printed.splitlines()]


def test_an_app_writes_to_its_unit_s_journal(world: SystemdWorld) -> None:
    script = "echo '<3>an error'; echo plain; echo to-stderr >&2"
    world.shell_unit("said.service", script, "SyslogIdentifier=web", "SyslogLevel=notice")
    world.host.must("systemctl", "start", "said.service")
    world.host.wait_for("said.service", "ActiveState", "inactive")
    said = {
        entry["MESSAGE"]: entry
        for entry in _entries(world, "_SYSTEMD_UNIT=said.service", "SYSLOG_IDENTIFIER=web")
    }
    assert said["an error"]["PRIORITY"] == "3"
    assert said["plain"]["PRIORITY"] == "5"
    assert said["to-stderr"]["_TRANSPORT"] == "stdout"
    assert {entry["_SYSTEMD_UNIT"] for entry in said.values()} == {"said.service"}


def test_a_detached_pod_s_output_is_read_back_from_the_journal(world: SystemdWorld) -> None:
    uuid = world.podctl(
        "run", "--detach", IMAGE, "--exec=/bin/sh", "--", "-c", "echo out; echo err >&2"
    ).splitlines()[-1]
    wait_until(lambda: world.pods()[uuid] == "exited", "the end of the pod")
    world.host.must("journalctl", "--sync")
    done = world.host.run("podctl", "logs", uuid)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_machinectl_s_journal_of_a_pod_is_empty(world: SystemdWorld) -> None:
    """Pods have no journald: what journalctl -M looks for, a journal below the machine's root, is
    not there, and it says so."""
    world.unit(
        "said.service",
        f"ExecStart={PODCTL} run {IMAGE} --exec=/bin/sh -- -c 'echo up; exec sleep 600'",
        "KillMode=mixed",
    )
    world.start("said.service")
    world.wait_for_message("said.service", "up")
    done = world.host.run("journalctl", "--no-pager", "--machine", f"podctl-{world.running()}")
    assert "up" not in done.stdout.splitlines()
