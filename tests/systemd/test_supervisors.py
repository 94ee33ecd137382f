"""D7, M6: any other supervisor manages a pod as it manages any child: runit, supervisord, nohup, a
job without a terminal. TERM is a graceful stop, the exit code is the app's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from home import Home
from systemd_world import GRACEFUL

from podctl.testing.pods import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("home")]

IMAGE = "supervised.example/box"


@pytest.fixture(params=["nspawn", "fly"])
def flavor(request: pytest.FixtureRequest) -> str:
    """Each flavor."""
    return str(request.param)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An installation with the image."""
    home = Home(tmp_path_factory.mktemp("supervised"))
    home.install(IMAGE, app={"exec": ["/bin/true"]})
    return home


@pytest.fixture
def home(stored: Home) -> Iterator[Home]:
    """The installation without pods."""
    yield stored
    for uuid, state in stored.pods().items():
        if state == "running":
            stored.podctl("stop", "--force", uuid)
            stored.podctl("status", "--wait", uuid)
    if stored.pods():
        stored.must("rm", *stored.pods())


def _line(home: Home, flavor: str, script: str) -> list[str]:
    return home.line("run", f"--stage1={flavor}", IMAGE, "--exec=/bin/sh", "--", "-c", script)


def _program(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    return path


def _quoted(words: list[str]) -> str:
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)


def _wait_for_line(path: Path, line: str) -> None:
    wait_until(lambda: path.exists() and line in path.read_text().splitlines(), line)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE / 4)
    except BaseException:
        process.kill()
        process.wait()
        raise


class TestRunit:
    """runsv(8): its own child, restarted when it ends."""

    @pytest.fixture
    def service(self, tmp_path: Path) -> Path:
        """A service directory, without its `run`."""
        return tmp_path / "service"

    @contextlib.contextmanager
    def _supervised(self, service: Path, run: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        _program(service / "run", f"exec {_quoted(run)} >>{service}/output")
        _program(
            service / "finish", f'echo "$1 $2" >>{service}/ends', "printf d >supervise/control"
        )
        # A new session: runsv signals nobody but its child.
        process = subprocess.Popen(["runsv", str(service)], start_new_session=True)
        try:
            yield process
        finally:
            _end(process)

    def test_down_is_a_graceful_stop(self, home: Home, flavor: str, service: Path) -> None:
        with self._supervised(service, _line(home, flavor, GRACEFUL)):
            _wait_for_line(service / "output", "up")
            pid = int((service / "supervise" / "pid").read_text())
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            assert name == {"nspawn": "systemd-nspawn", "fly": "sh"}[flavor]
            subprocess.run(["sv", "down", str(service)], check=True, capture_output=True)
            _wait_for_line(service / "ends", "0 0")
        assert (service / "output").read_text() == "up\ngraceful\n"

    def test_the_exit_code_is_the_app_s(self, home: Home, flavor: str, service: Path) -> None:
        with self._supervised(service, _line(home, flavor, "exit 7")):
            _wait_for_line(service / "ends", "7 0")


class TestSupervisord:
    """supervisord(1): TERM to its child, exit codes it is told to expect."""

    @contextlib.contextmanager
    def _supervised(
        self, top: Path, run: list[str], *lines: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        program = _program(top / "run", f"exec {_quoted(run)}")
        config = top / "supervisord.conf"
        config.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile={top}/log\npidfile={top}/pid\n"
            f"childlogdir={top}\nuser=root\n"
            f"[program:pod]\ncommand={program}\nstdout_logfile={top}/output\nstartsecs=0\n"
            + "\n".join(lines)
            + "\n"
        )
        process = subprocess.Popen(
            ["/usr/bin/supervisord", "--configuration", str(config)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield process
        finally:
            _end(process)

    def test_its_end_is_a_graceful_stop(self, home: Home, flavor: str, tmp_path: Path) -> None:
        with self._supervised(tmp_path, _line(home, flavor, GRACEFUL)) as process:
            _wait_for_line(tmp_path / "output", "up")
            process.terminate()
            process.wait(PATIENCE)
        assert (tmp_path / "output").read_text() == "up\ngraceful\n"
        assert "running" not in home.pods().values()

    def test_the_exit_code_is_the_app_s(self, home: Home, flavor: str, tmp_path: Path) -> None:
        with self._supervised(tmp_path, _line(home, flavor, "exit 7"), "autorestart=false"):
            log = tmp_path / "log"
            wait_until(lambda: log.exists() and "exited: pod" in log.read_text(), "the end")
        assert "(exit status 7" in log.read_text()


def test_a_pod_under_nohup_outlives_its_terminal(home: Home, flavor: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    line = f"exec nohup {_quoted(_line(home, flavor, GRACEFUL))} >{output} 2>/dev/null"
    process = subprocess.Popen(["sh", "-c", line], stdin=subprocess.DEVNULL)
    try:
        _wait_for_line(output, "up")
        process.send_signal(signal.SIGHUP)
        assert list(home.pods().values()) == ["running"]
        assert process.poll() is None
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        _end(process)
    assert output.read_text() == "up\ngraceful\n"


@pytest.mark.parametrize("closed", ["<&-", "<&- 2>&-"])
def test_a_job_without_a_terminal_and_without_input(
    home: Home, flavor: str, tmp_path: Path, closed: str
) -> None:
    """As cron and init scripts start one: a session of its own, descriptors closed."""
    output = tmp_path / "output"
    script = "cat; echo up; exit 4"
    line = f"{_quoted(_line(home, flavor, script))} {closed} >{output}"
    done = subprocess.run(
        ["setsid", "--wait", "sh", "-c", line], stdin=subprocess.DEVNULL, check=False,
        capture_output=True, timeout=PATIENCE, cwd="/",
        env={"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "HOME": "/root", "LOGNAME": "root"},
    )  # fmt: skip
    assert (done.returncode, output.read_text()) == (4, "up\n"), done.stderr


def test_the_process_that_was_started_is_the_pod(home: Home, flavor: str, tmp_path: Path) -> None:
    """No double fork: no pid file is needed, and the parent is told of the end."""
    output = tmp_path / "output"
    with open(output, "wb") as file:
        process = subprocess.Popen(
            _line(home, flavor, GRACEFUL), stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        _wait_for_line(output, "up")
        (uuid,) = home.pods()
        shown = dict(line.split("=", 1) for line in home.must("status", uuid).splitlines())
        assert shown["pid"] == str(process.pid)
        assert os.getpgid(process.pid) == os.getpgid(0)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        _end(process)
