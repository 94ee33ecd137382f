"""Becoming the app: what is left of podctl in the process, and what is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podctl.model.plan import Account, Bind, Identity, LaunchPlan
from podctl.sys import procs
from podctl.sys.locks import lock
from podctl.testing.pods import (
    LOCK_FD,
    PATH,
    Process,
    host_mounts,
    is_locked,
    lock_path,
    start,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.testing.pods import PodFactory

    MakePlan = Callable[..., LaunchPlan]

PROC = Bind("/proc", "/proc")
DEV = Bind("/dev", "/dev")
STATUS = "cat /proc/self/status"


def status_of(text: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key: value.strip() for key, value in pairs}


def compile_program(directory: Path, target: str, source: str) -> None:
    """A static program for an image, from C."""
    (directory / "program.c").write_text(source)
    subprocess.run(["gcc", "-static", "-o", target, directory / "program.c"], check=True)


# Identity and confinement


def test_identity_is_complete_and_nothing_is_inheritable(
    factory: PodFactory, make_plan: MakePlan
) -> None:
    """X12: every uid and gid, exactly the groups, no capability beyond the bounding set."""
    pod = factory.pod("cat", "/proc/self/status")
    plan = make_plan(pod, PROC, identity=Account("web", "adm", (7, 5)))
    with start(plan, pod) as process:
        found = status_of(process.wait().out)
    assert found["Uid"].split() == ["1001"] * 4
    assert found["Gid"].split() == ["4"] * 4
    assert found["Groups"].split() == ["4", "5", "7"]
    assert [int(found[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Amb")] == [0] * 4
    assert found["NoNewPrivs"] == "0"


def test_root_keeps_what_podctl_had(factory: PodFactory, make_plan: MakePlan) -> None:
    pod = factory.pod("cat", "/proc/self/status")
    with start(make_plan(pod, PROC), pod) as process:
        found = status_of(process.wait().out)
    own = status_of(Path("/proc/self/status").read_text())
    for kind in ("Prm", "Eff", "Bnd"):
        assert found[f"Cap{kind}"] == own[f"Cap{kind}"]
    assert [int(found[f"Cap{kind}"], 16) for kind in ("Inh", "Amb")] == [0, 0]
    assert found["Groups"].split() == ["0"]


@pytest.mark.parametrize("confined", [True, False])
def test_setuid_program_gains_nothing(
    factory: PodFactory, make_plan: MakePlan, tmp_path: Path, confined: bool
) -> None:
    """X15; without no-new-privileges it does gain (control)."""
    target = f"{factory.image}/bin/euid"
    compile_program(
        tmp_path,
        target,
        """
        #include <stdio.h>
        #include <unistd.h>
        int main() { printf("%d\\n", geteuid()); }
        """,
    )
    os.chmod(target, 0o4755)
    pod = factory.pod("euid")
    plan = make_plan(pod, identity=Identity(1001, 1001), no_new_privileges=confined)
    with start(plan, pod) as process:
        assert process.wait() == (0, "1001\n" if confined else "0\n", "")


def test_an_account_brings_its_home_and_name(factory: PodFactory, make_plan: MakePlan) -> None:
    Path(factory.image, "etc/passwd").write_text("web:x:1001:1002::/srv/web:/bin/sh\n")
    pod = factory.pod("env")
    identity = Account("1001", "")
    with start(make_plan(pod, identity=identity, environment={"PATH": PATH}), pod) as process:
        found = set(process.wait().out.splitlines())
    assert found == {f"PATH={PATH}", "HOME=/srv/web", "LOGNAME=web", "USER=web"}


def test_what_the_environment_has_of_them_stays(factory: PodFactory, make_plan: MakePlan) -> None:
    pod = factory.pod("env")
    given = {"PATH": PATH, "HOME": "", "USER": "other"}
    with start(make_plan(pod, identity=Account("web", ""), environment=given), pod) as process:
        found = set(process.wait().out.splitlines())
    assert found == {f"PATH={PATH}", "HOME=", "LOGNAME=web", "USER=other"}


def test_the_list_of_users_is_not_read_for_a_complete_environment(
    factory: PodFactory, make_plan: MakePlan
) -> None:
    os.unlink(f"{factory.image}/etc/passwd")
    os.mkfifo(f"{factory.image}/etc/passwd")
    pod = factory.pod("env")
    given = {"PATH": PATH, "HOME": "/h", "USER": "u", "LOGNAME": "u"}
    with start(make_plan(pod, identity=Account("0", "0"), environment=given), pod) as process:
        assert set(process.wait().out.splitlines()) == {f"{k}={v}" for k, v in given.items()}
    # The control: without HOME it is.
    del given["HOME"]
    pod = factory.pod("env")
    with start(make_plan(pod, identity=Account("0", "0"), environment=given), pod) as process:
        result = process.wait()
    assert (result.code, "/etc/passwd" in result.err) == (254, True)


def test_numbers_bring_nothing(factory: PodFactory, make_plan: MakePlan) -> None:
    pod = factory.pod("env")
    plan = make_plan(pod, identity=Identity(1001, 1002), environment={"PATH": PATH})
    with start(plan, pod) as process:
        assert process.wait().out == f"PATH={PATH}\n"


def test_unknown_user_ends_in_one_line_and_leaves_no_mount(
    factory: PodFactory, make_plan: MakePlan
) -> None:
    pod = factory.pod("true")
    plan = make_plan(pod, PROC, identity=Account("ghost", "0"))

    def attempt() -> None:
        from podctl.errors import NotFound
        from podctl.pods.launch import launch
        from podctl.sys.mounts import mount_points_below

        with pytest.raises(NotFound, match='user "ghost"'):
            launch(plan, pod, None)
        os.write(1, str(mount_points_below(pod.directory)).encode())

    before = host_mounts()
    with Process(attempt) as process:
        assert process.wait() == (0, "[]", "")
    assert host_mounts() == before


# Descriptors


def test_only_declared_descriptors_survive(
    factory: PodFactory, make_plan: MakePlan, tmp_path: Path
) -> None:
    """X2: inheritable ones of the caller as well; none is a directory."""
    pod = factory.pod("sh", "-c", "for f in $(ls /proc/$$/fd); do readlink /proc/$$/fd/$f; done")
    leaks = [os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(5)]
    kept = os.open(tmp_path / "kept", os.O_WRONLY | os.O_CREAT)
    for fd in (*leaks, kept):
        os.set_inheritable(fd, True)
    try:
        with start(make_plan(pod, PROC, inherited=[kept]), pod) as process:
            lines = process.wait().out.splitlines()
    finally:
        for fd in (*leaks, kept):
            os.close(fd)
    files = [line for line in lines if not line.startswith(("pipe:", "/dev/null"))]
    assert len(lines) == 5
    assert sorted(files) == sorted([lock_path(pod), str(tmp_path / "kept")])


@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_missing_standard_descriptors_are_not_filled_by_accident(
    factory: PodFactory, make_plan: MakePlan, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    """Otherwise a directory of the host, opened on the way, would become the app's 0, 1 or 2."""
    (tmp_path / "out").mkdir()
    script = 'r=$(for f in 0 1 2; do readlink /proc/$$/fd/$f; done); echo "$r" > /out/list'
    pod = factory.pod("sh", "-c", script)
    plan = make_plan(pod, PROC, Bind(str(tmp_path / "out"), "/out"))

    def become() -> None:
        from podctl.pods.launch import launch

        for fd in closed:
            os.close(fd)
        # As in an interpreter that was started so.
        sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None  # type: ignore[misc]
        launch(plan, pod, None)

    with Process(become) as process:
        assert process.wait().code == 0
    lines = (tmp_path / "out" / "list").read_text().splitlines()
    assert [lines[fd] for fd in closed] == ["/dev/null"] * len(closed)


def test_directory_as_standard_descriptor_is_refused(
    factory: PodFactory, make_plan: MakePlan
) -> None:
    pod = factory.pod("true")
    plan = make_plan(pod)

    def become() -> None:
        from podctl.pods.launch import launch

        os.dup2(os.open("/", os.O_RDONLY), 0)
        launch(plan, pod, None)

    with Process(become) as process:
        result = process.wait()
    assert result.code == 254
    assert "descriptor 0 is a directory" in result.err


@pytest.mark.parametrize("kind", ["directory", "writable", "pipe"])
def test_lock_that_would_be_a_way_out_is_refused(
    factory: PodFactory, make_plan: MakePlan, kind: str
) -> None:
    pod = factory.pod("true")
    plan = make_plan(pod)

    def become() -> None:
        from podctl.pods.launch import launch

        if kind == "directory":
            fd = os.open(pod.directory, os.O_RDONLY)
        elif kind == "writable":
            fd = os.open(lock_path(pod), os.O_RDWR | os.O_CREAT)
        else:
            fd = os.pipe()[0]
        launch(plan, pod, fd)

    with Process(become) as process:
        result = process.wait()
    assert result.code == 254
    assert "no read-only regular file" in result.err


# Working directory


@pytest.mark.parametrize("fd", range(3, 65))
def test_working_directory_is_no_way_out(factory: PodFactory, make_plan: MakePlan, fd: int) -> None:
    """M14, CVE-2024-21626: /proc/self/fd/N of a descriptor somebody forgot."""
    pod = factory.pod("pwd")
    plan = make_plan(pod, PROC, working_directory=f"/proc/self/fd/{fd}")

    def become() -> None:
        from podctl.pods.launch import launch

        os.dup2(os.open("/", os.O_RDONLY), fd, inheritable=True)
        launch(plan, pod, None)

    with Process(become) as process:
        result = process.wait()
    assert result.code == 254
    assert "working directory" in result.err


def test_control_naive_change_of_directory_gets_out(factory: PodFactory) -> None:
    def become() -> None:
        os.dup2(os.open("/", os.O_RDONLY), 40, inheritable=True)
        host = os.stat("/")
        os.mkdir(f"{factory.image}/proc")
        from podctl.sys import constants as c
        from podctl.sys.mounts import make_tree_slave, mount
        from podctl.sys.namespaces import unshare

        unshare(c.CLONE_NEWNS)
        make_tree_slave()
        mount("/proc", f"{factory.image}/proc", None, c.MS_BIND)
        os.chroot(factory.image)
        os.chdir("/proc/self/fd/40")
        os.write(1, str(os.path.samestat(os.stat("."), host)).encode())

    with Process(become) as process:
        assert process.wait().out == "True"


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/", "/"), ("/etc", "/etc"), ("../../etc", "/etc"), ("/up", "/"), ("/link", "/etc")],
)
def test_working_directory_inside(
    factory: PodFactory, make_plan: MakePlan, path: str, expected: str
) -> None:
    os.symlink("../../../..", f"{factory.image}/up")
    os.symlink("/etc", f"{factory.image}/link")
    pod = factory.pod("/bin/pwd", "-P")
    with start(make_plan(pod, working_directory=path), pod) as process:
        assert process.wait() == (0, expected + "\n", "")


@pytest.mark.parametrize("path", ["/missing", "/etc/passwd", "/bin/sh/.."])
def test_working_directory_that_is_none(
    factory: PodFactory, make_plan: MakePlan, path: str
) -> None:
    pod = factory.pod("true")
    with start(make_plan(pod, working_directory=path), pod) as process:
        result = process.wait()
    assert (result.code, result.err.count("\n")) == (254, 1)
    assert path in result.err


# The process itself


def test_signals_mask_and_umask_are_fresh(factory: PodFactory, make_plan: MakePlan) -> None:
    pod = factory.pod("sh", "-c", "umask; exec cat /proc/self/status")
    plan = make_plan(pod, PROC)

    def become() -> None:
        from podctl.pods.launch import launch

        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.umask(0o777)
        launch(plan, pod, None)

    with Process(become) as process:
        text = process.wait().out
    assert text.splitlines()[0] == "0022"
    found = status_of(text)
    assert [int(found[f"Sig{kind}"], 16) for kind in ("Blk", "Ign", "Cgt")] == [0, 0, 0]


def test_nohup_is_honoured(factory: PodFactory, make_plan: MakePlan) -> None:
    pod = factory.pod("cat", "/proc/self/status")
    plan = make_plan(pod, PROC)

    def become() -> None:
        from podctl.pods.launch import launch

        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        launch(plan, pod, None)

    with Process(become) as process:
        found = status_of(process.wait().out)
    assert int(found["SigIgn"], 16) == 1 << (signal.SIGHUP - 1)


def test_process_is_the_app_and_no_podctl_remains(factory: PodFactory, make_plan: MakePlan) -> None:
    pod = factory.pod("sh", "-c", "echo $$ $PPID; cat /proc/$$/cmdline; echo; exec sleep 1000")
    with start(make_plan(pod, PROC), pod) as process:
        pid, parent = map(int, process.read_line().split())
        assert (pid, parent) == (process.pid, os.getpid())
        assert process.read_line().startswith("sh\0-c\0")
        process.close()


def test_records_tell_who_it_is(factory: PodFactory, make_plan: MakePlan) -> None:
    pod = factory.pod("sh", "-c", "echo up; exec sleep 1000")
    plan = make_plan(pod, records={"pid": "{pid}\n", "note": "x"})
    with start(plan, pod) as process:
        process.read_line()
        instance = procs.read_instance(pod.directory)
        assert instance is not None
        assert instance.pid == process.pid
        assert procs.is_running(instance)
        with open(f"{pod.directory}/pid") as file:
            assert file.read() == f"{process.pid}\n"
        assert procs.pod_processes(pod.directory, instance) == [process.pid]
    assert not procs.is_running(instance)
    assert sorted(os.listdir(pod.directory)) == ["app", "instance", "lock", "note", "pid"]


@pytest.mark.parametrize("name", ["../escape", "/etc/x", ".hidden", ""])
def test_record_names_stay_in_the_pod(factory: PodFactory, make_plan: MakePlan, name: str) -> None:
    pod = factory.pod("true")
    with start(make_plan(pod, records={name: "x"}), pod) as process:
        assert process.wait().code == 254
    assert not os.path.exists(f"{pod.directory}/../escape")


def test_namespace_a_launch_cannot_make_is_refused(
    factory: PodFactory, make_plan: MakePlan
) -> None:
    pod = factory.pod("true")
    with start(make_plan(pod, namespaces=("NS", "PID")), pod) as process:
        result = process.wait()
    assert result == (254, "", "flavor test: a launch cannot make a new PID namespace\n")


def test_further_namespaces(factory: PodFactory, make_plan: MakePlan) -> None:
    pod = factory.pod("sh", "-c", "readlink /proc/self/ns/uts /proc/self/ns/net /proc/self/ns/ipc")
    pod = factory.pod("sh", "-c", "for n in uts net ipc pid; do readlink /proc/self/ns/$n; done")
    with start(make_plan(pod, PROC, namespaces=("UTS", "NET")), pod) as process:
        found = process.wait().out.splitlines()
    own = [os.readlink(f"/proc/self/ns/{name}") for name in ("uts", "net", "ipc", "pid")]
    assert [a == b for a, b in zip(found, own, strict=True)] == [False, False, True, True]


def test_session_keyring_is_a_new_one(
    factory: PodFactory, make_plan: MakePlan, tmp_path: Path
) -> None:
    """X18: a key of the caller's session is not found by the app."""
    compile_program(
        tmp_path,
        f"{factory.image}/bin/search",
        """
        #include <errno.h>
        #include <stdio.h>
        #include <string.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main() {
            long key = syscall(SYS_keyctl, 10, -3, "user", "podctl-test", 0);
            puts(key > 0 ? "found" : strerror(errno));
        }
        """,
    )
    pod = factory.pod("search")
    plan = make_plan(pod, PROC)

    def with_key(then: Callable[[], object]) -> Callable[[], object]:
        def become() -> None:
            import ctypes

            from podctl.sys.calls import join_new_session_keyring, libc

            join_new_session_keyring()
            number = ctypes.c_long({"x86_64": 248}.get(os.uname().machine, 217))
            session = ctypes.c_long(-3)
            assert libc.syscall(number, b"user", b"podctl-test", b"x", 1, session) > 0
            then()

        return become

    def launch_it() -> None:
        from podctl.pods.launch import launch

        launch(plan, pod, None)

    program = f"{factory.image}/bin/search"
    with Process(with_key(lambda: os.execv(program, [program]))) as process:
        assert process.wait() == (0, "found\n", "")  # control
    with Process(with_key(launch_it)) as process:
        assert process.wait() == (0, "Required key not available\n", "")


def test_host_root_is_out_of_sight(factory: PodFactory, make_plan: MakePlan) -> None:
    """The old root is detached, not merely hidden: no mount of it is left in the namespace."""
    pod = factory.pod("cat", "/proc/self/mountinfo")
    with start(make_plan(pod, PROC), pod) as process:
        lines = process.wait().out.splitlines()
    points = [line.split()[4] for line in lines]
    assert points[0] == "/"
    assert all(point == "/" or point.startswith("/proc") for point in points)
    assert points.count("/") == 1
    assert f"podctl-{pod.uuid}" in lines[0]
    assert pod.directory not in lines[0]


# The lock


def test_lock_ends_with_the_app_even_when_killed(factory: PodFactory, make_plan: MakePlan) -> None:
    pod = factory.pod("sh", "-c", "echo up; exec sleep 1000")
    with start(make_plan(pod), pod) as process:
        process.read_line()
        assert is_locked(pod)
        os.kill(process.pid, signal.SIGKILL)
        process.reap()
        assert not is_locked(pod)


def test_children_of_the_app_keep_the_pod_locked(factory: PodFactory, make_plan: MakePlan) -> None:
    pod = factory.pod("sh", "-c", "sh -c 'echo $$; exec sleep 1000' & read x < /etc/passwd")
    with start(make_plan(pod, DEV), pod) as process:
        child = int(process.read_line())
        process.reap()
        assert is_locked(pod)
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: not is_locked(pod), "the lock to be given up")


def test_daemon_that_closes_every_descriptor_is_still_found(
    factory: PodFactory, make_plan: MakePlan
) -> None:
    """The lock is free and the first process gone; its mounts give the daemon away."""
    script = (
        f"exec {LOCK_FD}>&-; setsid sh -c 'echo $$; exec 0>&- 1>&- 2>&-; exec sleep 1000' & "
        "read x < /etc/passwd"
    )
    pod = factory.pod("sh", "-c", script)
    with start(make_plan(pod, DEV), pod) as process:
        daemon = int(process.read_line())
        process.reap()
        wait_until(lambda: not is_locked(pod), "the lock to be given up")
        instance = procs.read_instance(pod.directory)
        assert instance is not None
        assert not procs.is_running(instance)
        assert procs.pod_alive(pod.directory)
        assert procs.pod_processes(pod.directory, instance) == [daemon]
        assert procs.signal_pod(pod.directory, instance, signal.SIGKILL) == 1
        wait_until(lambda: not procs.pod_alive(pod.directory), "the daemon to end")


def test_app_cannot_turn_the_lock_into_a_directory_or_write_it(
    factory: PodFactory, make_plan: MakePlan
) -> None:
    script = f"ls /proc/self/fd/{LOCK_FD}/..; echo x >&{LOCK_FD}"
    pod = factory.pod("sh", "-c", script)
    with start(make_plan(pod, PROC), pod) as process:
        result = process.wait()
    assert "Not a directory" in result.err
    assert "Bad file descriptor" in result.err or "write error" in result.err
    assert os.path.getsize(lock_path(pod)) == 0


def test_lock_is_the_caller_s_own(factory: PodFactory) -> None:
    """Control: the tests above look at a lock that can also be free."""
    pod = factory.pod("true")
    assert not is_locked(pod)
    fd = os.open(lock_path(pod), os.O_RDONLY | os.O_CREAT)
    lock(fd, exclusive=True)
    assert is_locked(pod)
    os.close(fd)
