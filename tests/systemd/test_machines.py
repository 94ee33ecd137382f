"""M1: pods are machines of machined's, where it runs."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from systemd_world import GRACEFUL, IMAGE, PODCTL

if TYPE_CHECKING:
    from systemd_world import SystemdWorld

pytestmark = pytest.mark.root


@pytest.fixture
def machine(world: SystemdWorld) -> str:
    """The machine name of a pod in pod.service."""
    world.shell_unit("pod.service", GRACEFUL, "KillMode=mixed")
    world.start("pod.service")
    world.wait_for_message("pod.service", "up")
    return f"podctl-{world.running()}"


def _properties(world: SystemdWorld, machine: str) -> dict[str, str]:
    lines = world.host.must("machinectl", "show", machine).splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_a_pod_in_a_unit_is_a_machine_of_that_unit(world: SystemdWorld, machine: str) -> None:
    assert world.machines() == [machine]
    shown = _properties(world, machine)
    uuid = machine.removeprefix("podctl-")
    assert shown["Class"] == "container"
    assert shown["Service"] == "podctl"
    assert shown["Unit"] == "pod.service"
    assert shown["Id"] == uuid.replace("-", "")
    assert shown["RootDirectory"] == f"/var/lib/podctl/pods/run/{uuid}/stage1"
    leader = world.host.host_pid(shown["Leader"])
    assert leader in world.processes("pod.service")
    assert "pod.service" in world.host.must("machinectl", "--no-pager", "status", machine)


def test_status_says_that_it_is_registered(world: SystemdWorld, machine: str) -> None:
    uuid = machine.removeprefix("podctl-")
    assert world.status(uuid)["registered"] == "yes"
    assert '"registered": true' in world.podctl("status", "--format=json-pretty", uuid)
    world.host.must("systemctl", "stop", "pod.service")
    assert "registered" not in world.status(uuid)


def test_it_is_gone_when_the_pod_has_ended(world: SystemdWorld, machine: str) -> None:
    assert world.machines() == [machine]
    world.podctl("stop", machine.removeprefix("podctl-"))
    world.host.wait_for("pod.service", "ActiveState", "inactive")
    assert world.machines() == []


@pytest.mark.parametrize("command", ["terminate", "poweroff", "stop"])
def test_machinectl_ends_a_pod_as_podctl_would(
    world: SystemdWorld, machine: str, command: str
) -> None:
    world.host.must("machinectl", command, machine)
    world.host.wait_for("pod.service", "ActiveState", "inactive")
    assert world.journal("pod.service")[-1] == "graceful"
    assert world.host.show("pod.service", "Result") == "success"
    assert world.status(machine.removeprefix("podctl-"))["app-box"] == "0"


def test_machinectl_kill_signals_the_pod(world: SystemdWorld, machine: str) -> None:
    world.host.must("machinectl", "kill", "--kill-whom=leader", "--signal=TERM", machine)
    world.host.wait_for("pod.service", "ActiveState", "inactive")
    assert world.journal("pod.service")[-1] == "graceful"


def test_machinectl_kill_ends_a_pod_for_good(world: SystemdWorld, machine: str) -> None:
    world.host.must("machinectl", "kill", "--signal=KILL", machine)
    world.host.wait_for("pod.service", "ActiveState", "failed")
    assert world.machines() == []
    assert world.processes("pod.service") == {}


class TestFromALoginSession:
    """There nspawn refuses to register a pod in the session's scope: machined makes another."""

    def _line(self, world: SystemdWorld, *argv: str) -> list[str]:
        session = ("systemd-run", "--quiet", "--scope", "--slice=user-0.slice")
        command = (*PODCTL.split(), "run", IMAGE, "--exec=/bin/sh", "--", "-c", *argv)
        return world.host.enter(*session, *command)

    def test_a_pod_gets_a_scope_of_its_own(self, world: SystemdWorld) -> None:
        with subprocess.Popen(
            self._line(world, GRACEFUL), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            uuid = world.running()
            unit = _properties(world, f"podctl-{uuid}")["Unit"]
            assert unit.startswith("machine-podctl")
            assert unit.endswith(".scope")
            assert world.status(uuid)["registered"] == "yes"
            world.podctl("stop", uuid)
            assert process.stdout.read() == "graceful\n"
        assert process.returncode == 0
        assert world.machines() == []
        assert world.host.run("systemctl", "is-active", unit).stdout.strip() == "inactive"

    def test_the_exit_code_is_the_app_s(self, world: SystemdWorld) -> None:
        done = subprocess.run(
            self._line(world, "exit 5"), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert done.returncode == 5

    def test_the_unit_of_a_session_cannot_be_kept(self, world: SystemdWorld) -> None:
        """The control: what nspawn says when it is told to."""
        done = world.host.run(
            "systemd-run", "--quiet", "--scope", "--slice=user-0.slice", "systemd-nspawn",
            "--register=yes", "--keep-unit", "--volatile=yes", "--directory=/", "true",
        )  # fmt: skip
        assert done.returncode != 0
        assert "--keep-unit" in done.stderr


class TestWithoutMachined:
    """A host where it cannot be had runs pods all the same, and says nothing."""

    @pytest.fixture
    def masked(self, world: SystemdWorld) -> SystemdWorld:
        """The host, machined neither running nor to be started."""
        world.host.must("systemctl", "stop", "systemd-machined.service")
        world.host.path("/etc/systemd/system/systemd-machined.service").symlink_to("/dev/null")
        world.host.path("/etc/systemd/system/dbus-org.freedesktop.machine1.service").symlink_to(
            "/dev/null"
        )
        world.host.must("systemctl", "daemon-reload")
        return world

    @pytest.fixture(autouse=True)
    def unmask(self, world: SystemdWorld) -> object:
        """Leave the host as it was."""
        yield
        for unit in ("systemd-machined", "dbus-org.freedesktop.machine1"):
            world.host.path(f"/etc/systemd/system/{unit}.service").unlink(missing_ok=True)
        world.host.must("systemctl", "daemon-reload")

    def test_a_pod_runs_unregistered(self, masked: SystemdWorld) -> None:
        masked.shell_unit("pod.service", GRACEFUL, "KillMode=mixed")
        masked.start("pod.service")
        masked.wait_for_message("pod.service", "up")
        assert masked.status(masked.running())["registered"] == "no"
        masked.host.must("systemctl", "stop", "pod.service")
        assert masked.journal("pod.service") == ["up", "graceful"]

    def test_nspawn_alone_fails_there(self, masked: SystemdWorld) -> None:
        """The control: to register blindly would be to fail."""
        line = masked.host.in_unit(
            "systemd-nspawn", "--register=yes", "--keep-unit", "--volatile=yes", "--directory=/",
            "--console=pipe", "true",
        )  # fmt: skip
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "egister" in done.stderr
