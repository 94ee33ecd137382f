"""Type=notify: a unit is active when its pod is ready (sd_notify(3))."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from systemd_world import GRACEFUL, IMAGE, PODCTL

if TYPE_CHECKING:
    from systemd_world import SystemdWorld

pytestmark = pytest.mark.root

#: rkt's name of it
_SPEAKS = "--annotation=appc.io/executor/supports-systemd-notify=true"
#: says what it is told to, when it is told to
_SPEAKER = """
echo up
until [ -e /share/go ]; do sleep 0.05; done
exec speaker notify "$(cat /share/go)"
"""


def _speaker(world: SystemdWorld, *lines: str, flags: str = _SPEAKS, app: str = "") -> None:
    world.host.write("/srv/ready/script", _SPEAKER)
    world.host.path("/srv/ready/go").unlink(missing_ok=True)
    world.unit(
        "ready.service",
        f"ExecStart={PODCTL} run --volume=share,kind=host,source=/srv/ready "
        f"{IMAGE} {flags} --mount=volume=share,target=/share --exec=/bin/sh -- /share/script {app}",
        "KillMode=mixed",
        *lines,
    )
    world.host.must("systemctl", "start", "--no-block", "ready.service")


def _say(world: SystemdWorld, text: str) -> None:
    """Have the app say it."""
    world.host.write("/srv/ready/going", text)
    world.host.path("/srv/ready/going").rename(world.host.path("/srv/ready/go"))


def test_a_pod_is_ready_once_its_apps_were_started(world: SystemdWorld) -> None:
    """The main process says so: NotifyAccess=main, the default, will do."""
    world.shell_unit("ready.service", GRACEFUL, "Type=notify", "KillMode=mixed")
    world.start("ready.service")
    assert world.host.show("ready.service", "ActiveState") == "active"
    uuid = world.running()
    assert world.status(uuid)["registered"] == "yes"
    world.host.must("systemctl", "stop", "ready.service")
    assert world.host.show("ready.service", "Result") == "success"


def test_a_pod_that_cannot_start_is_never_ready(world: SystemdWorld) -> None:
    world.unit("ready.service", f"ExecStart={PODCTL} run {IMAGE} --exec=/no/such", "Type=notify")
    done = world.host.run("systemctl", "start", "ready.service")
    assert done.returncode != 0
    assert world.host.show("ready.service", "ExecMainStatus") == "127"


def test_an_app_that_tells_decides_when_its_unit_is_active(world: SystemdWorld) -> None:
    _speaker(world, "Type=notify", "NotifyAccess=all")
    world.running()
    assert world.host.show("ready.service", "ActiveState") == "activating"
    _say(world, "READY=1\nSTATUS=serving\n")
    world.host.wait_for("ready.service", "ActiveState", "active")
    assert world.host.show("ready.service", "StatusText") == "serving"


def test_what_it_says_is_heard_where_the_unit_lets_it(world: SystemdWorld) -> None:
    """The control: with NotifyAccess=main systemd passes over every process but nspawn."""
    _speaker(world, "Type=notify", "NotifyAccess=main")
    world.running()
    _say(world, "READY=1")
    world.host.wait_for("ready.service", "ActiveState", "activating")
    unit = world.host.show("ready.service", "InvocationID")
    world.host.must("journalctl", "--sync")
    said = world.host.must("journalctl", "--no-pager", f"_SYSTEMD_INVOCATION_ID={unit}")
    assert world.host.show("ready.service", "ActiveState") == "activating", said


def test_only_the_app_that_tells_has_the_socket(world: SystemdWorld) -> None:
    _speaker(
        world, "Type=notify", "NotifyAccess=all",
        app=f"--- {IMAGE} --name=other --exec=/bin/speaker -- notify READY=1",
    )  # fmt: skip
    world.running()
    _say(world, "STATUS=not yet")
    world.host.wait_for("ready.service", "StatusText", "not yet")
    assert world.host.show("ready.service", "ActiveState") == "activating"


def test_two_apps_that_tell_are_refused(world: SystemdWorld) -> None:
    _speaker(
        world, "Type=notify", "NotifyAccess=all",
        app=f"--- {IMAGE} --name=other {_SPEAKS} --exec=/bin/true",
    )  # fmt: skip
    world.host.wait_for("ready.service", "ActiveState", "failed")
    assert world.host.show("ready.service", "ExecMainStatus") == "254"


def test_an_app_that_does_not_tell_has_no_socket(world: SystemdWorld) -> None:
    _speaker(world, "Type=notify", "NotifyAccess=all", flags="")
    world.host.wait_for("ready.service", "ActiveState", "active")
    _say(world, "STATUS=never heard")
    world.wait_for_message("ready.service", "said 1")
    assert "never" not in world.host.show("ready.service", "StatusText")


def test_outside_a_unit_that_listens_the_annotation_changes_nothing(world: SystemdWorld) -> None:
    _speaker(world)
    world.host.wait_for("ready.service", "ActiveState", "active")
    _say(world, "READY=1")
    world.wait_for_message("ready.service", "said 1")


@pytest.mark.parametrize("private", [True, False])
def test_an_app_cannot_make_a_stranger_its_unit_s_main_process(
    world: SystemdWorld, *, private: bool
) -> None:
    """systemd takes that from root (systemd.service(5), NotifyAccess=), which the pod's is not.

    The control is a pod whose root is the host's."""
    victim = world.start(world.unit("victim.service", "ExecStart=/bin/sleep 600"))
    world.host.write("/srv/ready/script", _SPEAKER)
    world.host.path("/srv/ready/go").unlink(missing_ok=True)
    users = "yes" if private else "no"
    world.unit(
        "ready.service",
        f"ExecStart={PODCTL} run --private-users={users} "
        f"--volume=share,kind=host,source=/srv/ready "
        f"{IMAGE} {_SPEAKS} --mount=volume=share,target=/share --exec=/bin/sh -- /share/script",
        "KillMode=mixed",
        "Type=notify",
        "NotifyAccess=all",
    )
    world.host.must("systemctl", "start", "--no-block", "ready.service")
    world.running()
    main = int(world.host.show("ready.service", "MainPID"))
    _say(world, f"READY=1\nMAINPID={victim}\nSTATUS=said\n")
    world.host.wait_for("ready.service", "StatusText", "said")
    assert int(world.host.show("ready.service", "MainPID")) == (main if private else victim)
