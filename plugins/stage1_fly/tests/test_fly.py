"""What is fly's own: what it refuses and excuses, its steps, and how its pods end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from podctl.errors import NotFound, PodStateError, Refused
from podctl.model.confinement import UNCONFINED
from podctl.model.isolators import Isolator
from podctl.model.plan import Bind, Directory, Overlay, WriteFile
from podctl.sys import constants as c
from podctl.sys import procs
from podctl.sys.mounts import mount, mount_points_below
from podctl.sys.namespaces import unshare
from podctl.testing.pods import (
    LOCK_FD,
    PodFactory,
    Process,
    confined,
    host_mounts,
    is_locked,
    start,
    wait_until,
)
from podctl.testing.stage1 import ISOLATORS
from podctl_stage1_fly.hooks import fly

if TYPE_CHECKING:
    from pathlib import Path

    from podctl.model.plan import PreparedPod
    from podctl.testing.pods import Result

pytestmark = pytest.mark.root


@pytest.fixture
def factory(tmp_path: Path) -> PodFactory:
    return PodFactory(str(tmp_path))


def run(pod: PreparedPod) -> Result:
    pod = confined(fly.stage1_describe(), pod)
    with start(fly.stage1_plan(pod), pod) as process:
        return process.wait()


# Isolators

#: some that do something, where the contract's do not
VALUES = {"os/linux/seccomp-retain-set": {"set": ["@rkt/default-whitelist"]}}


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("os/linux/capabilities-retain-set", "capabilities"),
        ("os/linux/capabilities-remove-set", "capabilities"),
        ("os/linux/seccomp-retain-set", "seccomp"),
        ("os/linux/seccomp-remove-set", "seccomp"),
    ],
)
def test_insecure_option_excuses_exactly_its_isolators(
    factory: PodFactory, name: str, option: str
) -> None:
    isolators = [Isolator(name, VALUES.get(name, ISOLATORS[name]))]
    others = frozenset({"image", "tls", "paths", "capabilities", "seccomp"}) - {option}
    held = confined(
        fly.stage1_describe(), factory.pod("true", isolators=isolators, insecure=others)
    )
    assert held.apps[0].confinement != UNCONFINED
    pod = factory.pod("true", isolators=isolators, insecure=frozenset({option}))
    assert confined(fly.stage1_describe(), pod).apps[0].confinement == UNCONFINED
    assert run(pod).code == 0


@pytest.mark.parametrize("name", ["resource/memory", "os/linux/oom-score-adj"])
def test_no_insecure_option_excuses_limits(factory: PodFactory, name: str) -> None:
    everything = frozenset({"image", "tls", "paths", "capabilities", "seccomp", "ondisk"})
    pod = factory.pod("true", isolators=[Isolator(name, ISOLATORS[name])], insecure=everything)
    assert confined(fly.stage1_describe(), pod).apps[0].confinement != UNCONFINED
    assert run(pod).code == 0


def test_without_isolators_nothing_is_held(factory: PodFactory) -> None:
    pod = factory.pod("grep", "-E", "^(CapBnd|NoNewPrivs|Seccomp):", "/proc/self/status")
    with open("/proc/self/status") as file:
        own = [line for line in file if line.startswith(("CapBnd:", "NoNewPrivs:", "Seccomp:"))]
    assert run(pod).out == "".join(own)


@pytest.mark.parametrize("event", ["pre-start", "post-stop"])
def test_event_handlers_are_refused_by_name(factory: PodFactory, event: str) -> None:
    with pytest.raises(Refused, match=event):
        fly.stage1_prepare(factory.pod("true", event_handlers={event: ("/bin/true",)}))


@pytest.mark.parametrize("networks", [("default",), ("host",)])
def test_host_network_under_both_names(factory: PodFactory, networks: tuple[str, ...]) -> None:
    pod = factory.pod("readlink", "/proc/self/ns/net", networks=networks)
    assert run(pod).out.strip() == os.readlink("/proc/self/ns/net")


@pytest.mark.parametrize("networks", [("none",), ("default", "other"), ("host", "x")])
def test_every_other_network_is_refused(factory: PodFactory, networks: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match=f'"{networks[-1]}"'):
        fly.stage1_plan(factory.pod("true", networks=networks))


def test_no_new_privileges_is_enforced_when_any_isolator_asks(factory: PodFactory) -> None:
    name = "os/linux/no-new-privileges"
    for values, expected in (((), 0), ((False,), 0), ((False, True), 1), ((True, False), 1)):
        isolators = [Isolator(name, value) for value in values]
        pod = factory.pod("grep", "NoNewPrivs", "/proc/self/status", isolators=isolators)
        assert run(pod).out == f"NoNewPrivs:\t{expected}\n"


# Steps


def test_order_of_steps(factory: PodFactory, tmp_path: Path) -> None:
    mounts = (Bind(str(tmp_path), "/z"), Bind(str(tmp_path), "/a/b"), Bind(str(tmp_path), "/a/"))
    plan = fly.stage1_plan(factory.pod("true", mounts=mounts, resolv_conf="x"))
    kinds = [type(step) for step in plan.steps]
    assert kinds[0] is Overlay
    files = [i for i, kind in enumerate(kinds) if kind in (WriteFile, Directory)]
    binds = [i for i, kind in enumerate(kinds) if kind is Bind]
    assert max(files) < min(binds)
    targets = [step.target for step in plan.steps if isinstance(step, Bind)]
    assert targets == ["/dev", "/proc", "/sys", "/a", "/a/b", "/z"]
    assert {step.propagation for step in plan.steps if isinstance(step, Bind)} == {"slave"}


def test_last_of_equal_targets_wins(factory: PodFactory, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    mounts = (Bind(str(tmp_path / "one"), "/mnt"), Bind(str(tmp_path / "two"), "/mnt/"))
    assert run(factory.pod("ls", "/mnt", mounts=mounts)).out == "two\n"


def test_volume_over_sys_or_dev_takes_the_host_s_place(factory: PodFactory, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    source = str(tmp_path / "mine")
    pod = factory.pod("ls", "/sys/fs", mounts=(Bind(source, "/sys/fs/mine"),))
    assert run(pod).out == "mine\n"
    pod = factory.pod("ls", "/dev", mounts=(Bind(source, "/dev"),))
    assert run(pod).out == "file\n"


def test_app_sees_the_host_s_dev_proc_and_sys(factory: PodFactory) -> None:
    script = "ls -d /dev/null /proc/1 /sys/kernel /tmp; stat -c %a /tmp; readlink /etc/mtab"
    out = run(factory.pod("sh", "-c", script)).out
    assert out == "/dev/null\n/proc/1\n/sys/kernel\n/tmp\n1777\n../proc/self/mounts\n"


def test_hosts_of_image_flag_and_fallback(factory: PodFactory) -> None:
    assert "127.0.0.1 localhost" in run(factory.pod("cat", "/etc/hosts")).out
    with open(f"{factory.image}/etc/hosts", "w") as file:
        file.write("image\n")
    assert run(factory.pod("cat", "/etc/hosts")).out == "image\n"
    assert run(factory.pod("cat", "/etc/hosts", hosts="flag\n")).out == "flag\n"
    assert run(factory.pod("cat", "/etc/hostname")).out.strip() == os.uname().nodename


def test_dns_flags_outrank_a_volume_and_a_volume_the_rest(
    factory: PodFactory, tmp_path: Path
) -> None:
    (tmp_path / "resolv.conf").write_text("volume\n")
    mounts = (Bind(str(tmp_path / "resolv.conf"), "/etc/resolv.conf"),)
    pod = factory.pod("cat", "/etc/resolv.conf", mounts=mounts, resolv_conf="host\n")
    assert run(pod).out == "volume\n"
    options = {"dns": "192.0.2.1"}
    pod = factory.pod(
        "cat", "/etc/resolv.conf", mounts=mounts, resolv_conf="flag\n", options=options
    )
    assert run(pod).out == "flag\n"
    assert (tmp_path / "resolv.conf").read_text() == "volume\n"


def test_files_go_into_the_pod_not_into_a_volume_over_etc(
    factory: PodFactory, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    mounts = (Bind(str(tmp_path / "etc"), "/etc"),)
    assert run(factory.pod("ls", "/etc", mounts=mounts, resolv_conf="x")).out == ""
    assert os.listdir(tmp_path / "etc") == []


def test_unmounting_everything_in_the_pod_leaves_the_host_as_it_was(factory: PodFactory) -> None:
    """X16, the defect of rkt's fly: its shared binds took the host's own mounts away."""
    script = """
        while read -r _ _ _ _ point _; do echo $point; done < /proc/self/mountinfo > /tmp/points
        for point in $(tail -n +2 /tmp/points); do umount $point; done 2>/dev/null
        wc -l < /tmp/points
        mount -t tmpfs none /bin && echo mounted
    """
    pod = factory.pod("/bin/sh", "-c", script)
    plan = fly.stage1_plan(pod)

    def host() -> None:
        unshare(c.CLONE_NEWNS)
        mount("none", "/", None, c.MS_REC | c.MS_PRIVATE)
        mount("none", "/", None, c.MS_REC | c.MS_SHARED)
        before = host_mounts()
        with start(plan, pod) as process:
            result = process.wait()
        os.write(1, f"{result.out}{host_mounts() == before} {len(before)}".encode())

    with Process(host) as process:
        seen, mounted, same = process.wait().out.splitlines()
    assert int(seen) > 5
    assert (mounted, same.split()[0]) == ("mounted", "True")


# Life and end


DAEMON = (
    f'exec {LOCK_FD}>&-; setsid sh -c \'trap "" TERM; echo $$; exec 0>&- 1>&- 2>&-; '
    "while :; do sleep 0.01; done' & read x < /etc/passwd"
)


def test_force_finds_a_daemon_that_gave_up_the_lock(factory: PodFactory) -> None:
    pod = factory.pod("sh", "-c", DAEMON)
    with start(fly.stage1_plan(pod), pod) as process:
        daemon = int(process.read_line())
        process.reap()
        wait_until(lambda: not is_locked(pod), "the lock to be given up")
        fly.stage1_stop(pod, force=False)
        assert procs.pod_alive(pod.directory)
        entered = fly.stage1_enter(pod, "app", ("true",))
        assert entered.pid != process.pid
        assert entered.start_time == procs.start_time(entered.pid)
        fly.stage1_stop(pod, force=True)
        wait_until(lambda: procs.start_time(daemon) is None, "the daemon to end")
    wait_until(lambda: not procs.pod_alive(pod.directory), "the pod to end")


def test_force_ends_every_process_of_a_pod_that_keeps_forking(factory: PodFactory) -> None:
    script = "echo up; trap '' TERM; while :; do (sleep 1000) & sleep 0.001; done"
    pod = factory.pod("sh", "-c", script)
    with start(fly.stage1_plan(pod), pod) as process:
        process.read_line()
        fly.stage1_stop(pod, force=True)
        process.reap()
    wait_until(lambda: not procs.pod_alive(pod.directory), "the last process to end")


def test_stop_never_signals_a_stranger(factory: PodFactory) -> None:
    """X20: the pod is dead and its number belongs to somebody else now."""
    pod = factory.pod("true")
    run(pod)
    stranger = os.fork()
    if stranger == 0:
        signal.pause()
    instance = procs.read_instance(pod.directory)
    assert instance is not None
    with open(f"{pod.directory}/{procs.RECORD}", "w") as file:
        file.write(instance._replace(pid=stranger).to_text())
    fly.stage1_stop(pod, force=True)
    assert os.waitpid(stranger, os.WNOHANG) == (0, 0)
    with pytest.raises(PodStateError, match="isn't currently running"):
        fly.stage1_enter(pod, "app", ("true",))
    os.kill(stranger, signal.SIGKILL)
    os.waitpid(stranger, 0)


def test_pod_without_a_record_is_told(factory: PodFactory) -> None:
    pod = factory.pod("true")
    with pytest.raises(PodStateError, match="not started yet"):
        fly.stage1_stop(pod, force=True)
    with pytest.raises(NotFound, match='"ghost"'):
        fly.stage1_enter(pod, "ghost", ("true",))


def test_enter_keeps_the_caller_s_terminal(
    factory: PodFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = factory.pod("sh", "-c", "echo up; exec sleep 1000", environment={"A": "b"})
    with start(fly.stage1_plan(pod), pod) as process:
        process.read_line()
        monkeypatch.setenv("TERM", "test-256color")
        assert fly.stage1_enter(pod, "app", ("true",)).environment["TERM"] == "test-256color"
        monkeypatch.delenv("TERM")
        plan = fly.stage1_enter(pod, "app", ("sh", "-c", "x"))
        assert (plan.environment["TERM"], plan.environment["A"]) == ("vt100", "b")
        assert plan.argv == ("sh", "-c", "x")


def test_gc_detaches_what_other_hands_left(factory: PodFactory) -> None:
    pod = factory.pod("true")

    def host() -> None:
        unshare(c.CLONE_NEWNS)
        mount("none", "/", None, c.MS_REC | c.MS_PRIVATE)
        mount("none", "/", None, c.MS_REC | c.MS_SHARED)
        before = host_mounts()
        mount("/sys", pod.apps[0].root, None, c.MS_BIND | c.MS_REC)
        found = len(mount_points_below(pod.directory))
        fly.stage1_gc(pod)
        os.write(1, f"{found > 0} {host_mounts() == before}".encode())

    with Process(host) as process:
        assert process.wait() == (0, "True True", "")


def test_host_check_finds_this_host_able(factory: PodFactory) -> None:
    assert list(fly.stage1_check_host()) == []


def test_host_check_names_what_an_ordinary_user_lacks() -> None:
    def as_user() -> None:
        os.setresuid(65534, 65534, 65534)
        os.write(1, "\n".join(fly.stage1_check_host()).encode())

    with Process(as_user) as process:
        assert "not root" in process.wait().out
