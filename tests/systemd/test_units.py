"""D5, R5, L6, N4, M5: a unit whose main process is a pod, and systemd sees all of it."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from systemd_world import GRACEFUL, IMAGE, PODCTL

from podctl.testing.pods import wait_until

if TYPE_CHECKING:
    from systemd_world import SystemdWorld

pytestmark = pytest.mark.root


def _ancestors(pid: int) -> list[int]:
    """Numbers of the processes a process descends from."""
    found = []
    while pid > 1:
        text = Path(f"/proc/{pid}/stat").read_text()
        pid = int(text.rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def _script(world: SystemdWorld, name: str) -> int:
    """The number, seen from here, of the process that runs a script of the test's."""
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"/bin/sh", name.encode()]:
            return int(entry)
    raise LookupError(name)


def _group(pid: int) -> str:
    """The group of a process in systemd's own hierarchy."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if ":name=systemd:" in line or line.startswith("0::"):
            return line.split(":", 2)[2]
    raise LookupError(pid)


def _units(world: SystemdWorld) -> set[str]:
    listed = world.host.must("systemctl", "list-units", "--output=json", "--type=service,scope")
    return {unit["unit"] for unit in json.loads(listed)}


class TestWhatSystemdSees:
    """D5, M5."""

    def test_the_main_process_is_nspawn_and_the_app_descends_from_it(
        self, world: SystemdWorld
    ) -> None:
        world.shell_unit("pod.service", GRACEFUL, "KillMode=mixed")
        pid = world.host.host_pid(world.start("pod.service"))
        world.wait_for_message("pod.service", "up")
        assert Path(f"/proc/{pid}/comm").read_text() == "systemd-nspawn\n"
        app = _script(world, "/script")
        assert pid in _ancestors(app)
        group = world.host.show("pod.service", "ControlGroup")
        assert f"{group}/" in _group(app) + "/"

    def test_the_main_process_is_the_one_that_was_started(self, world: SystemdWorld) -> None:
        """No fork: the number systemd knew when it executed podctl is nspawn's."""
        world.shell_unit("pod.service", GRACEFUL, "KillMode=mixed", "Type=exec")
        executed = world.start("pod.service")
        world.wait_for_message("pod.service", "up")
        assert int(world.host.show("pod.service", "MainPID")) == executed
        assert world.status(world.running())["pid"] == str(executed)

    def test_no_unit_comes_with_a_pod_and_no_python_stays(self, world: SystemdWorld) -> None:
        # machined itself is started with the first pod.
        world.host.must("systemctl", "start", "systemd-machined.service")
        before = _units(world)
        world.shell_unit("pod.service", GRACEFUL, "KillMode=mixed")
        world.start("pod.service")
        world.wait_for_message("pod.service", "up")
        assert _units(world) - before == {"pod.service"}
        names = set(world.processes("pod.service").values())
        assert "systemd-nspawn" in names
        assert names <= {"systemd-nspawn", "sh", "sleep"}

    def test_a_unit_in_a_slice_has_its_pod_there(self, world: SystemdWorld) -> None:
        world.shell_unit("pod.service", GRACEFUL, "KillMode=mixed", "Slice=pods.slice")
        world.start("pod.service")
        world.wait_for_message("pod.service", "up")
        assert "/pods.slice/pod.service" in _group(_script(world, "/script"))

    def test_a_prepared_pod_is_run_the_same_way(self, world: SystemdWorld) -> None:
        """R5."""
        world.host.write("/srv/prepared.sh", GRACEFUL)
        uuid = world.podctl(
            "prepare", "--quiet", "--volume=script,kind=host,source=/srv/prepared.sh", IMAGE,
            "--mount=volume=script,target=/script", "--exec=/bin/sh", "--", "/script",
        )  # fmt: skip
        start = f"ExecStart={PODCTL} run-prepared {uuid}"
        world.unit("pod.service", start, "KillMode=mixed")
        pid = world.host.host_pid(world.start("pod.service"))
        world.wait_for_message("pod.service", "up")
        assert pid in _ancestors(_script(world, "/script"))
        world.host.must("systemctl", "stop", "pod.service")
        assert world.status(uuid)["app-box"] == "0"
        assert world.host.show("pod.service", "Result") == "success"


class TestHowItEnds:
    """D5: stop, crash, restart."""

    @pytest.mark.parametrize("mode", ["mixed", "control-group", "process"])
    def test_stop_lets_the_app_end_by_itself(self, world: SystemdWorld, mode: str) -> None:
        world.shell_unit("pod.service", GRACEFUL, f"KillMode={mode}")
        world.start("pod.service")
        world.wait_for_message("pod.service", "up")
        uuid = world.running()
        world.host.must("systemctl", "stop", "pod.service")
        assert world.journal("pod.service")[-1] == "graceful"
        assert world.host.show("pod.service", "Result") == "success"
        assert world.status(uuid)["app-box"] == "0"
        assert world.processes("pod.service") == {}

    def test_stop_sends_the_signal_the_image_names(self, world: SystemdWorld) -> None:
        script = "trap 'echo quit; exit 0' QUIT; echo up; while :; do sleep 600 & wait $!; done"
        world.host.write("/srv/quit.sh", script)
        world.unit(
            "pod.service",
            f"ExecStart={PODCTL} run --volume=script,kind=host,source=/srv/quit.sh {IMAGE} "
            "--annotation=appc.io/docker/stopsignal=SIGQUIT "
            "--mount=volume=script,target=/script --exec=/bin/sh -- /script",
            "KillMode=mixed",
        )
        world.start("pod.service")
        world.wait_for_message("pod.service", "up")
        world.host.must("systemctl", "stop", "pod.service")
        assert world.journal("pod.service")[-1] == "quit"

    def test_an_app_that_fails_fails_its_unit_with_its_code(self, world: SystemdWorld) -> None:
        world.shell_unit("pod.service", "exit 7", "KillMode=mixed")
        world.host.run("systemctl", "start", "pod.service")
        world.host.wait_for("pod.service", "ActiveState", "failed")
        assert world.host.show("pod.service", "Result") == "exit-code"
        assert world.host.show("pod.service", "ExecMainStatus") == "7"

    def test_an_app_that_is_killed_fails_its_unit(self, world: SystemdWorld) -> None:
        world.shell_unit("pod.service", "kill -KILL $$", "KillMode=mixed")
        world.host.run("systemctl", "start", "pod.service")
        world.host.wait_for("pod.service", "ActiveState", "failed")
        assert world.host.show("pod.service", "ExecMainStatus") == "137"

    def test_a_failed_pod_is_started_again_where_the_unit_says_so(
        self, world: SystemdWorld
    ) -> None:
        """A volume counts: the third start does not fail."""
        world.host.write("/srv/count/.keep", "")
        world.host.write(
            "/srv/restart.sh",
            "echo start >>/count/starts; [ $(grep -c . /count/starts) -ge 3 ] || exit 9; "
            "echo third; exec sleep 600",
        )
        world.unit(
            "pod.service",
            f"ExecStart={PODCTL} run --volume=script,kind=host,source=/srv/restart.sh "
            f"--volume=count,kind=host,source=/srv/count {IMAGE} "
            "--mount=volume=script,target=/script --mount=volume=count,target=/count "
            "--exec=/bin/sh -- /script",
            "KillMode=mixed", "Restart=on-failure", "RestartSec=0",
        )  # fmt: skip
        world.host.must("systemctl", "start", "pod.service")
        world.wait_for_message("pod.service", "third")
        assert world.host.show("pod.service", "NRestarts") == "2"
        assert world.host.show("pod.service", "ActiveState") == "active"
        assert list(world.pods().values()).count("running") == 1

    def test_a_pod_whose_nspawn_is_killed_leaves_nothing_in_its_unit(
        self, world: SystemdWorld
    ) -> None:
        world.shell_unit("pod.service", GRACEFUL, "KillMode=mixed")
        pid = world.start("pod.service")
        world.wait_for_message("pod.service", "up")
        world.host.must("kill", "-KILL", str(pid))
        world.host.wait_for("pod.service", "ActiveState", "failed")
        assert world.host.show("pod.service", "Result") == "signal"
        assert world.processes("pod.service") == {}


class TestDocker:
    """The failing control: what systemd sees of the same unit with `docker run`."""

    @pytest.fixture
    def docker(self, world: SystemdWorld) -> str:
        """A running dockerd, and an image of the same shell; returns the image's name."""
        world.unit("dockerd.service", "ExecStart=/usr/sbin/dockerd --bridge=none --iptables=false",
                   "Delegate=yes", "Type=notify", "TimeoutStartSec=60")  # fmt: skip
        world.host.must("systemctl", "start", "dockerd.service")
        archive = world.host.shared / "docker.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add("/bin/busybox", "bin/busybox")
            for applet in ("sh", "sleep", "echo"):
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        world.host.must("docker", "import", "/srv/docker.tar", "box")
        return "box"

    def test_systemd_sees_a_client_and_the_app_is_elsewhere(
        self, world: SystemdWorld, docker: str
    ) -> None:
        world.host.write("/srv/docker.sh", GRACEFUL)
        world.unit(
            "client.service",
            "ExecStart=/usr/bin/docker run --network none --volume /srv/docker.sh:/docker-script "
            f"{docker} /bin/sh /docker-script",
        )
        pid = world.host.host_pid(world.start("client.service"))
        world.wait_for_message("client.service", "up")
        app = _script(world, "/docker-script")
        assert Path(f"/proc/{pid}/comm").read_text() == "docker\n"
        assert pid not in _ancestors(app)
        assert world.host.show("client.service", "ControlGroup") not in _group(app)
        # Nor does the end of what systemd supervises end the app.
        world.host.must("kill", "-KILL", world.host.show("client.service", "MainPID"))
        world.host.wait_for("client.service", "ActiveState", "failed")
        assert Path(f"/proc/{app}").exists()
        world.host.must("sh", "-c", "docker kill $(docker ps --quiet)")
        wait_until(lambda: not Path(f"/proc/{app}").exists(), "the end of the app")


def test_a_service_of_the_fly_flavor_is_the_app_itself(world: SystemdWorld) -> None:
    world.shell_unit("pod.service", GRACEFUL, "KillMode=mixed", options="--stage1=fly")
    pid = world.host.host_pid(world.start("pod.service"))
    world.wait_for_message("pod.service", "up")
    assert _script(world, "/script") == pid
    assert world.status(world.running())["registered"] == "no"
    world.host.must("systemctl", "stop", "pod.service")
    assert world.journal("pod.service")[-1] == "graceful"


def test_a_transient_unit_gets_exit_code_and_output(world: SystemdWorld) -> None:
    line = world.host.in_unit(
        *PODCTL.split(),
        "run",
        IMAGE,
        "--exec=/bin/sh",
        "--",
        "-c",
        "echo out; echo err >&2; exit 3",
    )
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "out\n")
    assert done.stderr.endswith("err\n")
