"""Pods under whatever starts processes: a shell, nohup, a supervisor's loop (D6, D7), strace (X22).

Nothing stands between the supervisor and the app: the process it started is the app, signals go
to it, its exit code comes back.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import image_files
import pytest
from home import Home
from image_files import File

if TYPE_CHECKING:
    from site_world import Site

pytestmark = pytest.mark.root

FLY = "--stage1=fly"
NAME = "supervised.example/app"
#: ends with 42 when asked to
GRACEFUL = "trap 'echo bye; exit 42' TERM; echo up $$; while :; do sleep 0.02; done"


@pytest.fixture(scope="module")
def home(published: Site, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("supervised"))
    home.install(NAME, {"content": b"x"}, app=image_files.shell(GRACEFUL))
    return home


#: what starts a pod -> the words before podctl's
WAYS = {
    "directly": [],
    "shell that becomes it": ["sh", "-c", 'exec "$@"', "sh"],
    "nohup": ["nohup"],
    "new session": ["setsid"],
    "cron": ["env", "-i", "PATH=/usr/bin:/bin", "setsid"],
    "limits": ["nice", "-n", "5", "ionice", "-c", "3"],
}


@pytest.mark.parametrize("prepared", [False, True], ids=["run", "run-prepared"])
@pytest.mark.parametrize("way", WAYS)
def test_d7_the_process_that_was_started_is_the_app(home: Home, way: str, prepared: bool) -> None:
    words = ["run", FLY, NAME]
    if prepared:
        words = ["run-prepared", home.must("prepare", FLY, "--quiet", NAME).strip()]
    command = [*WAYS[way], *home.line(*words)]
    pod = subprocess.Popen(command, stdin=-3, stdout=-1, stderr=-3, text=True)
    try:
        assert pod.stdout is not None
        line = pod.stdout.readline()
        while not line.startswith("up"):
            assert line, "the app has not started"
            line = pod.stdout.readline()
        # fly has no PID namespace: the app sees the number its supervisor knows.
        assert line == f"up {pod.pid}\n"
        assert Path(f"/proc/{pod.pid}/comm").read_text() in ("sh\n", "busybox\n")
        assert others(home, pod.pid) == []
        pod.send_signal(signal.SIGTERM)
        assert pod.stdout.read() == "bye\n"
        assert pod.wait(30) == 42
    finally:
        pod.kill()
        pod.communicate()


def others(home: Home, pid: int) -> list[str]:
    """Processes of podctl, or with files of this installation open, beside the app's own."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_text()
            files = [os.readlink(fd) for fd in (process / "fd").iterdir()]
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(process.name) in (pid, os.getpid()) or int(parent) == pid:
            continue
        if str(home.data) in line or any(str(home.data) in file for file in files):
            found.append(line)
    return found


_SUPERVISOR = """
starts=0
while [ $starts -lt 3 ]; do
    starts=$((starts + 1))
    "$@" &
    pid=$!
    echo "started $pid"
    trap 'kill -TERM $pid' USR1
    while :; do
        wait $pid
        code=$?
        # 128 and more: our own trap has interrupted the wait.
        [ $code -gt 128 ] && kill -0 $pid 2>/dev/null || break
    done
    echo "ended $code"
done
"""


def test_d7_a_supervisors_loop(home: Home) -> None:
    """Start, tell it to end, see its code, start it again: what runit and its like do."""
    command = ["sh", "-c", _SUPERVISOR, "supervisor", *home.line("run", FLY, NAME)]
    supervisor = subprocess.Popen(command, stdin=-3, stdout=-1, stderr=-3, text=True)
    try:
        assert supervisor.stdout is not None
        for _ in range(3):
            started = supervisor.stdout.readline().split()
            assert started[0] == "started"
            assert supervisor.stdout.readline() == f"up {started[1]}\n"
            supervisor.send_signal(signal.SIGUSR1)
            assert supervisor.stdout.readline() == "bye\n"
            assert supervisor.stdout.readline() == "ended 42\n"
        assert supervisor.wait(30) == 0
    finally:
        supervisor.kill()
        supervisor.communicate()
    assert "running" not in home.pods().values()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV, signal.SIGINT, signal.SIGHUP])
def test_d7_death_by_a_signal_is_seen_as_one(home: Home, end: signal.Signals) -> None:
    words = ["run", FLY, NAME, "--exec=/bin/sleep", "--", "1000"]
    file = home.top / f"uuid-{end.name}"
    pod = home.start(*words[:2], f"--uuid-file-save={file}", *words[2:], stderr=-3)
    try:
        while Path(f"/proc/{pod.pid}/comm").read_text() not in ("sleep\n", "busybox\n"):
            assert pod.poll() is None
        pod.send_signal(end)
        assert pod.wait(30) == -end
    finally:
        pod.kill()
        pod.wait()
    assert "state=exited" in home.must("status", f"--uuid-file={file}")


def test_d6_there_is_no_service_before_or_after(home: Home) -> None:
    def listening() -> set[str]:
        lines = Path("/proc/net/unix").read_text().splitlines()
        return {line.split()[-1] for line in lines if "podctl" in line}

    before = listening()
    assert home.podctl("run", FLY, NAME, "--exec=/bin/true").returncode == 0
    assert listening() == before
    assert others(home, 0) == []


def test_x22_nothing_of_an_image_runs_or_is_loaded_before_it_is_the_root(home: Home) -> None:
    """Name services, Python modules and preloads in an image are the app's business alone."""
    code = b"raise SystemExit('run on the host')\n"
    program = File(b"#!/bin/sh\necho run on the host\n", 0o755)
    planted = {
        "etc/ld.so.preload": b"/lib/evil.so\n",
        "etc/nsswitch.conf": b"passwd: evil\ngroup: evil\n",
        "lib/libnss_evil.so.2": b"\x7fELF",
        "lib/evil.so": b"\x7fELF",
        "sitecustomize.py": code,
        "podctl/__init__.py": code,
        "usr/lib/python3/dist-packages/sitecustomize.py": code,
        "bin/mount": program,
        "usr/bin/modprobe": program,
        "usr/lib/locale/locale-archive": b"evil",
    }
    home.install("supervised.example/evil", planted, app=image_files.shell("echo $0 fine"))
    names = {os.path.basename(name) for name in planted} - {"__init__.py"}
    looked_at: set[str] = set()
    log = home.top / "strace"
    command = ["strace", "-f", "-qq", "-s", "512", "-o", str(log)]
    command += ["-e", "trace=execve,open,openat,openat2,chroot,chdir,fchdir,pivot_root"]
    for words in (["run", FLY, "supervised.example/evil", "--user=user1"], ["list"]):
        done = subprocess.run(
            [*command, *home.line(*words)], capture_output=True, text=True, check=False, stdin=-3,
            cwd=home.top,
        )  # fmt: skip
        assert done.returncode == 0, done
        assert "run on the host" not in done.stdout + done.stderr
        inside: set[str] = set()
        for line in log.read_text().splitlines():
            pid, _, call = line.partition(" ")
            if call.strip().startswith("chroot("):
                inside.add(pid)
            found = re.search(r'(?:execve|open\w*)\((?:(\w+), )?"([^"]*)"', call)
            if found is None or pid in inside:
                continue
            directory, path = found[1] or "AT_FDCWD", found[2]
            # By an absolute path outside of the store it is the host's own file.
            if path.startswith(str(home.data)) or directory != "AT_FDCWD":
                looked_at.add(os.path.basename(path))
                assert os.path.basename(path) not in names, line
    # Control: the one file of the image that is looked at, by descriptor, is among what is seen.
    assert "passwd" in looked_at
    assert "sh fine" in subprocess.run(
        home.line("run", FLY, "supervised.example/evil"), capture_output=True, text=True,
        check=True, stdin=-3,
    ).stdout  # fmt: skip
