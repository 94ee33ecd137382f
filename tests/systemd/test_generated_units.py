"""Units that podctl writes, and those it ships, on a host that runs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from systemd_world import GRACEFUL, IMAGE, LISTENER

from podctl.testing.pods import wait_until

if TYPE_CHECKING:
    from systemd_world import SystemdWorld

pytestmark = pytest.mark.root

_SHIPPED = Path(__file__).parents[2] / "core" / "systemd"
#: what a shell, or systemd, would take for something else
_ODD = """100% $HOME ${HOME} ; 'single' "double" back\\slash  two"""


def _generated(world: SystemdWorld, name: str, *arguments: str) -> str:
    """Install what generate-unit prints; returns the text."""
    text = world.podctl("generate-unit", *arguments) + "\n"
    world.unit_file(name, text)
    world.host.must("systemd-analyze", "verify", f"/etc/systemd/system/{name}")
    return text


def _run(world: SystemdWorld, *flags: str, script: str = GRACEFUL) -> tuple[str, ...]:
    world.host.write("/srv/generated.sh", script)
    volume = "--volume=script,kind=host,source=/srv/generated.sh"
    mount = "--mount=volume=script,target=/script"
    return ("--run", volume, *flags, IMAGE, mount, "--exec=/bin/sh", "--", "/script")


def test_a_generated_unit_runs_is_ready_and_stops(world: SystemdWorld) -> None:
    _generated(world, "made.service", *_run(world))
    world.start("made.service")
    world.wait_for_message("made.service", "up")
    assert world.host.show("made.service", "Delegate") == "yes"
    assert world.host.show("made.service", "Slice") == "machine.slice"
    world.host.must("systemctl", "stop", "made.service")
    assert "graceful" in world.journal("made.service")
    assert world.host.show("made.service", "Result") == "success"
    assert world.pods() == {}


def test_it_starts_a_pod_that_failed_again(world: SystemdWorld) -> None:
    _generated(world, "made.service", *_run(world, script="exit 5"))
    world.host.run("systemctl", "start", "made.service")
    wait_until(lambda: int(world.host.show("made.service", "NRestarts")) > 1, "a second restart")
    assert len(world.pods()) <= 1


def test_it_does_not_try_again_what_was_refused(world: SystemdWorld) -> None:
    _generated(world, "made.service", "--run", "--pull-policy=never", "no.example/such")
    world.host.run("systemctl", "start", "made.service")
    world.host.wait_for("made.service", "ActiveState", "failed")
    assert world.host.show("made.service", "ExecMainStatus") == "254"
    assert world.host.show("made.service", "NRestarts") == "0"


def test_arguments_reach_the_app_as_they_were_given(world: SystemdWorld) -> None:
    arguments = ("--run", IMAGE, "--exec=/bin/echo", "--", _ODD, "", ";", "last")
    _generated(world, "made.service", "--restart=no", *arguments)
    world.host.must("systemctl", "start", "made.service")
    world.host.wait_for("made.service", "ActiveState", "inactive")
    said = world.host.must("journalctl", "--no-pager", "--output=cat", "--identifier=podctl")
    assert f"{_ODD}  ; last" in said.splitlines()


def test_limits_of_the_unit_are_limits_of_the_pod(world: SystemdWorld) -> None:
    limits = ("--memory-max=64M", "--cpu-max=500m", "--tasks-max=77", "--slice=small")
    _generated(world, "made.service", *limits, *_run(world))
    world.start("made.service")
    assert world.host.show("made.service", "MemoryMax") == "64000000"
    assert world.host.show("made.service", "TasksMax") == "77"
    assert world.host.show("made.service", "CPUQuotaPerSecUSec") == "500ms"
    assert world.host.show("made.service", "ControlGroup") == "/small.slice/made.service"


def test_a_prepared_pod_has_a_unit_that_runs_it_once(world: SystemdWorld) -> None:
    uuid = world.podctl(
        "prepare", "--quiet", "--pod-name=web", IMAGE, "--exec=/bin/sh", "--", "-c", "echo ran"
    )
    text = _generated(world, "made.service", "web")
    assert f"run-prepared {uuid}" in text
    assert "Restart=no" in text
    world.host.must("systemctl", "start", "made.service")
    wait_until(lambda: world.pods()[uuid] == "exited", "the end of the pod")
    done = world.host.run("podctl", "generate-unit", "web")
    assert (done.returncode, "is not prepared" in done.stderr) == (254, True)


def test_a_unit_for_an_app_that_tells_listens_to_it(world: SystemdWorld) -> None:
    speaks = "--annotation=appc.io/executor/supports-systemd-notify=true"
    text = world.podctl("generate-unit", "--run", LISTENER, speaks)
    assert "Type=notify\nNotifyAccess=all\n" in text


def test_fly_is_not_waited_for(world: SystemdWorld) -> None:
    text = _generated(world, "made.service", *_run(world, "--stage1=fly"))
    assert "Type=exec\n" in text
    world.start("made.service")
    world.wait_for_message("made.service", "up")
    world.host.must("systemctl", "stop", "made.service")
    assert "graceful" in world.journal("made.service")


@pytest.mark.parametrize("flag", ["--rm", "--detach", "--interactive", "--uuid-file-save=/x"])
def test_flags_for_another_supervisor_are_refused(world: SystemdWorld, flag: str) -> None:
    done = world.host.run("podctl", "generate-unit", "--run", flag, IMAGE)
    assert done.returncode == 254
    assert "does not go with a unit" in done.stderr


def test_the_shipped_units_collect_garbage(world: SystemdWorld) -> None:
    for path in sorted(_SHIPPED.iterdir()):
        world.unit_file(path.name, path.read_text())
    names = [f"/etc/systemd/system/{path.name}" for path in sorted(_SHIPPED.iterdir())]
    assert len(names) == 2
    world.host.must("systemd-analyze", "verify", *names)
    world.host.must("systemctl", "start", "podctl-gc.service")
    assert world.host.show("podctl-gc.service", "Result") == "success"
