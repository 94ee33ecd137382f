"""X2, X18, X21: what an app finds of podctl, of the pod's other apps and of the host.

The apps of a pod share its processes. Who has the same user as another app, and no fewer
capabilities, can look at it, as on any host; the pod's own processes are out of reach for all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hostile_pods import EVERYTHING, HostilePods, weaken

from podctl.testing.pods import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podctl.model.plan import PreparedPod
    from podctl.testing.pods import Process

pytestmark = pytest.mark.root

DESCRIPTORS = "cd /proc/self/fd; for fd in *; do readlink $fd; done"
#: what of the pod's first process and of an app's shell leads to podctl's own files
LOOK = """
    for process in /proc/[0-9]*; do
        [ "$(cat $process/comm)" = sh ] && [ $process != /proc/$$ ] || continue
        cat $process/environ >/dev/null && echo environment
        ls $process/root/podctl/apps $process/root/podctl/run && echo files
        ls $process/cwd/ && echo directory
        readlink $process/fd/9 && echo descriptor
        ( : >>$process/mem ) && echo memory
    done 2>/dev/null; exit 0
"""


@pytest.fixture
def pods(tmp_path: Path) -> HostilePods:
    return HostilePods(tmp_path)


@pytest.fixture
def leaks(tmp_path: Path) -> Iterator[None]:
    """Descriptors that whoever calls podctl has forgotten to close."""
    opened = [os.open(path, os.O_RDONLY) for path in ("/", str(tmp_path), "/etc/passwd")]
    for fd in opened:
        os.set_inheritable(fd, True)
    yield
    for fd in opened:
        os.close(fd)


def together(
    pods: HostilePods, first: str, second: str, *, user: str = "0", **more: Any
) -> PreparedPod:
    """A pod of two shells; the second one has a user."""
    pod = pods.pod("/bin/sh", "-c", first, apps=2, **more)
    app, other = pod.apps
    section = other.app._replace(  # type: ignore[attr-defined]
        exec=("/bin/sh", "-c", second), user=user, group=user
    )
    return pod._replace(apps=(app, other._replace(app=section)))


def entered(pods: HostilePods, *argv: str) -> str:
    """What a command prints that enters a pod."""
    pod = pods.pod("/bin/sh", "-c", "echo up; exec sleep 1000")
    with pods.start(pod) as process:
        assert process.read_line() == "up\n", process.wait()
        with pods.entering(pod, *argv) as inside:
            out = inside.wait().out
        pods.end(pod, process)
    return out


def is_harmless(lines: list[str]) -> bool:
    """Standard descriptors, and the directory that the shell reads."""
    kinds = [line.split(":")[0] for line in lines]
    return set(kinds) <= {"/dev/null", "pipe"} and len(kinds) == 3


@pytest.mark.usefixtures("leaks")
def test_x2_apps_have_three_descriptors(pods: HostilePods) -> None:
    assert is_harmless(pods.sh(DESCRIPTORS).out.splitlines())


@pytest.mark.usefixtures("leaks")
def test_x2_event_handlers_have_three_descriptors(pods: HostilePods) -> None:
    handlers = {"pre-start": ("/bin/sh", "-c", DESCRIPTORS)}
    assert is_harmless(pods.run("/bin/true", event_handlers=handlers).out.splitlines())


@pytest.mark.usefixtures("leaks")
def test_x2_who_enters_has_three_descriptors(pods: HostilePods) -> None:
    assert is_harmless(entered(pods, "sh", "-c", DESCRIPTORS).splitlines())


def test_x2_control_a_launcher_that_closes_nothing_is_seen(
    pods: HostilePods, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closing = "    close_range(_FIRST_SOCKET, 0xFFFFFFFF, c.CLOSE_RANGE_CLOEXEC)\n"
    weaken(monkeypatch, tmp_path, "sys/applauncher.py", closing, "")
    lines = entered(pods, "sh", "-c", DESCRIPTORS).splitlines()
    assert any(line.startswith("mnt:[") for line in lines)


@pytest.mark.parametrize("users", [True, False])
def test_x21_podctl_s_processes_in_a_pod_show_an_app_nothing(
    pods: HostilePods, users: bool
) -> None:
    done = pods.sh(LOOK, users=users)
    assert (done.code, done.out) == (0, "")


def test_x21_control_they_do_to_an_app_that_may_trace(pods: HostilePods) -> None:
    seen = pods.sh(LOOK, insecure=EVERYTHING).out.split()
    assert {"environment", "files", "directory", "descriptor", "memory"} <= set(seen)


@pytest.mark.parametrize("users", [True, False])
def test_x21_nothing_of_the_host_is_in_sight(
    pods: HostilePods, monkeypatch: pytest.MonkeyPatch, users: bool
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "hush")
    done = pods.sh("env; cat /proc/self/mountinfo; ls /; ls /proc/self/root/..", users=users)
    assert done.code == 0
    for word in (pods.factory.directory, "SECRET_OF_THE_CALLER", "hush", "podctl/run"):
        assert word not in done.out
    assert "/stage1" not in done.out
    # Nor the control groups that podctl was called in.
    assert " /.." not in done.out


@pytest.mark.parametrize(("user", "sees"), [("web", False), ("0", True)])
def test_x21_an_app_of_another_user_cannot_look_into_an_app(
    pods: HostilePods, user: str, sees: bool
) -> None:
    """The control is one of the same user."""
    first = "echo hush >/secret; chmod 644 /secret; touch /dev/shm/go; exec sleep 1000"
    second = (
        "until [ -e /dev/shm/go ]; do :; done; cat /secret /proc/[0-9]*/root/secret 2>/dev/null;"
        "cat /proc/[0-9]*/environ 2>/dev/null | grep -c AC_APP_NAME=app$; exit 3"
    )
    pod = together(pods, first, second, user=user)
    with pods.start(pod) as process:
        assert ("hush" in process.wait().out) == sees


def killing(pods: HostilePods, user: str) -> tuple[Process, PreparedPod]:
    """A pod one of whose apps kills all that it may."""
    first = "touch /dev/shm/go; until [ -e /dev/shm/done ]; do sleep 0.01; done; echo alive"
    second = (
        "until [ -e /dev/shm/go ]; do :; done; kill -9 -1; echo killed;"
        "while read -r l; do :; done </proc/self/status; touch /dev/shm/done"
    )
    pod = together(pods, first, second, user=user)
    return pods.start(pod), pod


def test_x21_an_app_can_kill_no_other_user_s(pods: HostilePods) -> None:
    process, _ = killing(pods, "web")
    with process:
        done = process.wait()
    assert done.code == 0
    assert sorted(done.out.split()) == ["alive", "killed"]


def test_x21_root_of_a_pod_can_end_it_and_nothing_else(pods: HostilePods, tmp_path: Path) -> None:
    bystander = pods.pod("/bin/sh", "-c", "echo up; exec sleep 1000")
    with pods.start(bystander) as other:
        assert other.read_line() == "up\n", other.wait()
        process, pod = killing(pods, "0")
        with process:
            assert process.wait().code == 137
            wait_until(lambda: not _processes_in(pod.uuid), "the end of all its processes")
        with pods.entering(bystander, "echo", "alive") as inside:
            assert inside.wait().out == "alive\n"
        pods.end(bystander, other)


def _processes_in(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_text()
            if mark in line or mark in (entry / "mountinfo").read_text():
                found.append(line)
        except OSError:
            continue
    return found


def keys_of_two(pods: HostilePods) -> str:
    """Whether an app finds a key that another has in its session's keyring."""
    pods.install("keys")
    first = "keys add; touch /dev/shm/go; exec sleep 1000"
    second = "until [ -e /dev/shm/go ]; do :; done; keys search; exit 3"
    pod = together(pods, first, second, insecure=frozenset({"seccomp"}))
    with pods.start(pod) as process:
        added, found = process.wait().out.splitlines()
    assert added == "found"
    return found


def test_x18_apps_have_keyrings_of_their_own(pods: HostilePods) -> None:
    assert keys_of_two(pods) == "Required key not available"


def test_x18_control_without_them_keys_are_shared(
    pods: HostilePods, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    joining = "        join_new_session_keyring()\n"
    weaken(monkeypatch, tmp_path, "sys/applauncher.py", joining, "")
    assert keys_of_two(pods) == "found"


@pytest.mark.parametrize("gains", [False, True])
def test_x15_capabilities_of_a_file_are_worth_nothing(pods: HostilePods, gains: bool) -> None:
    """The control is an app that may have new privileges."""
    program = f"{pods.factory.image}/capable/grep"
    os.mkdir(os.path.dirname(program))
    shutil.copy(f"{pods.factory.image}/bin/busybox", program)
    subprocess.run(["setcap", "cap_kill+ep", program], check=True)
    done = pods.run(
        "/capable/grep", "CapEff", "/proc/self/status", user="web", group="web", users=False,
        isolators={"os/linux/no-new-privileges": not gains},
    )  # fmt: skip
    assert (int(done.out.split()[1], 16) != 0) == gains, done
