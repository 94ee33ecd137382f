"""Entering a running pod: inside, confined no less than the app, and never a stranger."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from podctl.errors import PodStateError
from podctl.model.plan import Account, Bind, EnterPlan, Identity, LaunchPlan
from podctl.sys import caps, procs
from podctl.sys.cgroups import hierarchies, memberships
from podctl.testing.pods import PATH, Process, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from podctl.model.plan import PreparedPod
    from podctl.testing.pods import PodFactory

    MakePlan = Callable[..., LaunchPlan]

PROC = Bind("/proc", "/proc")
CONFINEMENT = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/self/status"


def plan_for(process: Process, *argv: str, **fields: object) -> EnterPlan:
    values: dict[str, object] = {
        "pid": process.pid,
        "start_time": procs.start_time(process.pid),
        "namespaces": ("NS",),
        "identity": Identity(0, 0),
        "no_new_privileges": False,
        "working_directory": "/",
        "environment": {"PATH": PATH},
        "argv": argv,
        **fields,
    }
    return EnterPlan(**values)  # type: ignore[arg-type]


def entering(plan: EnterPlan) -> Process:
    def become() -> None:
        from podctl.pods.enter import enter

        enter(plan)

    return Process(become)


@contextmanager
def running(plan: LaunchPlan, pod: PreparedPod) -> Iterator[Process]:
    with start(plan, pod) as process:
        assert process.read_line() == "up\n", process.wait()
        yield process


@pytest.fixture
def pod(factory: PodFactory) -> PreparedPod:
    return factory.pod("sh", "-c", "echo mark > /mark; echo up; exec sleep 1000")


def test_sees_the_pod_s_files_and_its_own_environment(
    pod: PreparedPod, make_plan: MakePlan
) -> None:
    with running(make_plan(pod, PROC), pod) as app:
        plan = plan_for(app, "sh", "-c", "cat mark; env", environment={"PATH": PATH, "A": "b"})
        with entering(plan) as process:
            out = process.wait().out.splitlines()
    assert out[0] == "mark"
    assert {line for line in out[1:] if not line.startswith(("SHLVL", "PWD"))} == {
        f"PATH={PATH}",
        "A=b",
    }


def test_same_mounts_and_root_as_the_app(pod: PreparedPod, make_plan: MakePlan) -> None:
    with running(make_plan(pod, PROC), pod) as app:
        with entering(plan_for(app, "readlink", "/proc/self/ns/mnt")) as process:
            entered = process.wait().out.strip()
        assert entered == os.readlink(f"/proc/{app.pid}/ns/mnt")
        with entering(plan_for(app, "cat", "/proc/self/mountinfo")) as process:
            assert pod.uuid in process.wait().out.splitlines()[0]


@pytest.mark.parametrize("nnp", [True, False])
def test_confined_exactly_as_an_app_with_less(
    factory: PodFactory, make_plan: MakePlan, nnp: bool
) -> None:
    """X12, X14: podctl itself was started with fewer capabilities than the one that enters has."""
    script = f"{CONFINEMENT}; echo up; exec sleep 1000"
    pod = factory.pod("sh", "-c", script)
    plan = make_plan(pod, PROC, identity=Account("web", "web", (7,)), no_new_privileges=nnp)

    def become() -> None:
        from podctl.pods.launch import launch

        caps.drop_bounding((0, 1, 3, 6, 7, 18, 21))
        launch(plan, pod, None)

    with Process(become) as app:
        shown = []
        while (line := app.read_line()) != "up\n":
            assert line, app.wait()
            shown.append(line)
        account = Account("web", "web", (7,))
        with entering(plan_for(app, "sh", "-c", CONFINEMENT, identity=account)) as process:
            assert process.wait() == (0, "".join(shown), "")
        own = plan_for(app, "sh", "-c", CONFINEMENT)
        with entering(own) as process:
            found = process.wait().out
    expected = sum(1 << number for number in (0, 1, 3, 6, 7, 18, 21))
    assert f"CapBnd:\t{expected:016x}\n" in "".join(shown)
    # uid 0 was asked for: even so nothing beyond the app's bounding set, and its own lock.
    assert f"CapEff:\t{expected:016x}\n" in found
    assert f"NoNewPrivs:\t{int(nnp)}\n" in found


def test_joins_the_control_groups(pod: PreparedPod, make_plan: MakePlan) -> None:
    """X14, CVE-2019-10147."""
    name, (point, _) = next(iter(hierarchies().items()))
    own = memberships("self")
    group = f"{point}/podctl-test-{os.getpid()}"
    os.mkdir(group)
    plan = make_plan(pod, PROC)

    def become() -> None:
        from podctl.pods.launch import launch

        with open(f"{group}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
        launch(plan, pod, None)

    try:
        with Process(become) as app:
            assert app.read_line() == "up\n", app.wait()
            there = memberships(app.pid)
            assert there != own, f"hierarchy {name} took no member"
            with entering(plan_for(app, "cat", "/proc/self/cgroup")) as process:
                lines = process.wait().out.splitlines()
        assert {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines} == there
    finally:
        os.rmdir(group)


def test_no_descriptor_of_the_host_comes_along(
    pod: PreparedPod, make_plan: MakePlan, tmp_path: Path
) -> None:
    with running(make_plan(pod, PROC), pod) as app:
        leak = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        os.set_inheritable(leak, True)
        script = "for f in $(ls /proc/$$/fd); do readlink /proc/$$/fd/$f; done"
        with entering(plan_for(app, "sh", "-c", script)) as process:
            lines = process.wait().out.splitlines()
        os.close(leak)
    assert len(lines) == 3
    assert all(line.startswith(("pipe:", "/dev/null")) for line in lines)


@pytest.mark.parametrize("path", ["/proc/self/cwd", "/proc/self/root", "/missing"])
def test_working_directory_is_no_way_out(pod: PreparedPod, make_plan: MakePlan, path: str) -> None:
    with (
        running(make_plan(pod, PROC), pod) as app,
        entering(plan_for(app, "pwd", working_directory=path)) as process,
    ):
        result = process.wait()
    assert result.code == 254
    assert path in result.err


def test_names_are_those_of_the_pod(
    factory: PodFactory, pod: PreparedPod, make_plan: MakePlan
) -> None:
    with running(make_plan(pod, PROC), pod) as app:
        with open(f"/proc/{app.pid}/root/etc/passwd", "a") as file:
            file.write("late:x:4711:4712::/:\n")
        plan = plan_for(app, "id", identity=Account("late", ""))
        with entering(plan) as process:
            assert process.wait().out == "uid=4711(late) gid=4712 groups=4712\n"


@pytest.mark.parametrize(("argv", "code"), [(("nothing",), 127), (("/etc/passwd",), 126)])
def test_what_cannot_be_executed(
    pod: PreparedPod, make_plan: MakePlan, argv: tuple[str, ...], code: int
) -> None:
    with running(make_plan(pod, PROC), pod) as app, entering(plan_for(app, *argv)) as process:
        result = process.wait()
    assert (result.code, result.err.count("\n")) == (code, 1)


def test_exit_code_is_the_command_s(pod: PreparedPod, make_plan: MakePlan) -> None:
    with (
        running(make_plan(pod), pod) as app,
        entering(plan_for(app, "sh", "-c", "exit 42")) as process,
    ):
        assert process.wait().code == 42


def test_process_with_the_number_of_the_pod_s_is_not_entered(
    pod: PreparedPod, make_plan: MakePlan
) -> None:
    """X20: the number was reused."""
    with running(make_plan(pod), pod) as app:
        plan = plan_for(app, "true", start_time=1)
        with entering(plan) as process:
            result = process.wait()
    assert result == (254, "", "the pod is not running any more\n")


def test_ended_pod_is_told(pod: PreparedPod, make_plan: MakePlan) -> None:
    from podctl.pods.enter import enter

    with running(make_plan(pod), pod) as app:
        plan = plan_for(app, "true")
        os.kill(app.pid, signal.SIGKILL)
        app.reap()
    with pytest.raises(PodStateError, match="not running any more"):
        enter(plan)


def test_namespace_one_process_cannot_enter_is_refused(
    pod: PreparedPod, make_plan: MakePlan
) -> None:
    with (
        running(make_plan(pod), pod) as app,
        entering(plan_for(app, "true", namespaces=("NS", "PID"))) as process,
    ):
        result = process.wait()
    assert result.code == 254
    assert "PID namespace" in result.err
