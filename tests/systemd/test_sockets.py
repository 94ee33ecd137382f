"""Socket activation: a unit's sockets reach the app, and nothing else does (X2)."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from systemd_world import IMAGE, LISTENER, PODCTL

if TYPE_CHECKING:
    from systemd_world import SystemdWorld

pytestmark = pytest.mark.root

_RUN = f"ExecStart={PODCTL} run {IMAGE} --exec=/bin/speaker -- listen"
_CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    print(client.recv(100).decode(), end="")
"""


def _connect(world: SystemdWorld, path: str = "/run/web.sock") -> str:
    return world.host.must("/usr/bin/python3", "-c", _CONNECT, path)


def _activated(world: SystemdWorld, *lines: str, run: str = _RUN) -> list[str]:
    """Connect to a socket unit; what the app that it starts says."""
    world.unit("web.service", run, "KillMode=mixed")
    world.unit("web.socket", "ListenStream=/run/web.sock", *lines, section="Socket")
    world.host.must("systemctl", "start", "web.socket")
    assert _connect(world) == "answer"
    world.host.wait_for("web.service", "ActiveState", "inactive")
    return world.journal("web.service")


def test_the_app_gets_the_socket_as_descriptor_3_and_no_other(world: SystemdWorld) -> None:
    said = _activated(world, "FileDescriptorName=http")
    assert said[:3] == ["count 1", "pid right", "names http"]
    assert sorted(line for line in said if line.startswith("fd ")) == [
        "fd 0",
        "fd 1",
        "fd 2",
        "fd 3",
    ]


def test_as_many_sockets_as_a_pod_can_take(world: SystemdWorld) -> None:
    more = [f"ListenStream=/run/web{number}.sock" for number in range(3)]
    said = _activated(world, *more)
    assert said[0] == "count 4"
    assert [line for line in said if line.startswith("fd ")][-1] == "fd 6"
    assert len([line for line in said if line.startswith("fd ")]) == 7


def test_more_sockets_are_refused(world: SystemdWorld) -> None:
    world.unit("web.service", _RUN, "KillMode=mixed")
    lines = [f"ListenStream=/run/web{number}.sock" for number in range(5)]
    world.unit("web.socket", *lines, section="Socket")
    world.host.must("systemctl", "start", "web.socket")
    world.host.run("systemctl", "start", "web.service")
    world.host.wait_for("web.service", "ActiveState", "failed")
    assert world.host.show("web.service", "ExecMainStatus") == "254"
    assert any("5 sockets were passed" in line for line in world.journal("web.service"))
    assert world.pods() == {}


def test_without_a_socket_nothing_says_that_there_is_one(world: SystemdWorld) -> None:
    """The control: what the app sees when it is started without its socket unit."""
    line = world.host.in_unit(*PODCTL.split(), "run", IMAGE, "--exec=/bin/speaker", "--", "listen")
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    said = done.stdout.splitlines()
    assert said[:3] == ["count none", "pid wrong", "names none"]
    assert sorted(line for line in said if line.startswith("fd ")) == ["fd 0", "fd 1", "fd 2"]


def test_a_stranger_s_variables_are_no_sockets(world: SystemdWorld) -> None:
    """LISTEN_PID names another process: the descriptors are not ours to pass on."""
    line = world.host.in_unit(
        *PODCTL.split(), "run", IMAGE, "--exec=/bin/speaker", "--", "listen",
        options=["--setenv=LISTEN_FDS=2", "--setenv=LISTEN_PID=1", "--setenv=LISTEN_FDNAMES=a:b"],
    )  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[:3] == ["count none", "pid wrong", "names none"]


def test_of_several_apps_one_must_be_made_for_sockets(world: SystemdWorld) -> None:
    world.unit(
        "web.service",
        f"ExecStart={PODCTL} run {IMAGE} --name=a --exec=/bin/speaker -- listen --- "
        f"{IMAGE} --name=b --exec=/bin/true",
        "KillMode=mixed",
    )
    world.unit("web.socket", "ListenStream=/run/web.sock", section="Socket")
    world.host.must("systemctl", "start", "web.socket")
    world.host.run("systemctl", "start", "web.service")
    world.host.wait_for("web.service", "ActiveState", "failed")
    assert any("socketActivated" in line for line in world.journal("web.service"))


def test_the_app_with_a_port_for_it_gets_the_socket(world: SystemdWorld) -> None:
    said = _activated(
        world,
        run=f"ExecStart={PODCTL} run {LISTENER} --name=a {IMAGE} --name=b "
        "--exec=/bin/sh -- -c 'speaker listen || true'",
    )
    assert said.count("count 1") == said.count("count none") == 1
    assert said.count("fd 3") == 1
