"""What every stage1 flavor must do, as tests: subclass Stage1Contract and give it your provider.

    class TestFly(Stage1Contract):
        provider = fly

Pods really run, so root is needed. The app's standard output must reach the pod's own (as for a
flavor run in the foreground); override `run_app` where more than that has to be taken off.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import HostLacks, PodctlError, Refused
from podctl.model.isolators import Isolator
from podctl.model.plan import Bind, FlavorDescription, LaunchPlan
from podctl.pods.describe import describe, plan_to_json
from podctl.testing.mutablestage1 import MUTABLE_HOOKS
from podctl.testing.pods import (
    PodFactory,
    Process,
    confined,
    host_mounts,
    is_locked,
    start,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from podctl.model.plan import PreparedPod
    from podctl.testing.pods import Result

#: isolators of appc with a value that is valid for each
ISOLATORS: dict[str, Any] = {
    "resource/cpu": {"limit": "500m"},
    "resource/memory": {"limit": "64M"},
    "resource/block-bandwidth": {"default": True, "limit": "2M"},
    "resource/block-iops": {"default": True, "limit": "1k"},
    "resource/network-bandwidth": {"default": True, "limit": "1G"},
    "os/linux/capabilities-retain-set": {"set": ["CAP_KILL"]},
    "os/linux/capabilities-remove-set": {"set": ["CAP_MKNOD"]},
    "os/linux/seccomp-retain-set": {"set": ["@appc.io/all"]},
    "os/linux/seccomp-remove-set": {"set": ["mount"]},
    "os/linux/no-new-privileges": True,
    "os/linux/oom-score-adj": 100,
    "os/linux/cpu-shares": 512,
    "os/linux/selinux-context": {"user": "system_u", "role": "r", "type": "t", "level": "s0"},
    "os/linux/apparmor-profile": "docker-default",
    "os/unix/sysctl": {"net.ipv4.ip_forward": "0"},
    "example.com/unheard-of": {"any": "thing"},
}
#: pod options and a value; a flavor lists those it carries out
OPTIONS = {"hostname": "box", "private-users": "1", "ipc": "private"}


class Stage1Contract:
    """Subclass with `provider` set; every test takes a fresh image and pod."""

    provider: Any

    @pytest.fixture
    def factory(self, tmp_path: Path) -> PodFactory:
        """A busybox image and pods of it below a temporary directory."""
        return PodFactory(str(tmp_path))

    def start(self, pod: PreparedPod) -> Process:
        """Start a pod as `podctl run` does."""
        pod = confined(self.description, pod)
        self.provider.stage1_prepare(pod=pod)
        return start(self.provider.stage1_plan(pod=pod), pod)

    def run_app(self, pod: PreparedPod) -> Result:
        """Run a pod to its end; `out` is what the app wrote."""
        with self.start(pod) as process:
            return process.wait()

    def enter(self, pod: PreparedPod, *argv: str) -> Result:
        """Run a command in a running pod as `podctl enter` does."""
        from podctl.pods.enter import enter

        pod = confined(self.description, pod)
        app = pod.apps[0].name
        with Process(lambda: enter(self.provider.stage1_enter(pod=pod, app=app, argv=argv))) as it:
            return it.wait()

    @property
    def description(self) -> FlavorDescription:
        """The flavor's own words."""
        found: FlavorDescription = self.provider.stage1_describe()
        return found

    # What it says

    def test_describes_itself(self) -> None:
        description = self.description
        assert type(description) is FlavorDescription
        assert description.name
        assert description.max_apps is None or description.max_apps >= 1
        assert description.isolators <= set(ISOLATORS)
        has = {name for name in MUTABLE_HOOKS if hasattr(self.provider, name)}
        assert has == (set(MUTABLE_HOOKS) if description.mutable else set())

    def test_tells_what_the_host_lacks_in_lines(self) -> None:
        for line in self.provider.stage1_check_host():
            assert isinstance(line, str)
            assert "\n" not in line

    def test_planning_changes_nothing_and_repeats_itself(self, factory: PodFactory) -> None:
        pod = factory.pod("/bin/true")
        before = _tree(factory.directory)
        plan = self.provider.stage1_plan(pod=pod)
        assert isinstance(plan, LaunchPlan)
        assert plan == self.provider.stage1_plan(pod=pod)
        assert plan.flavor == self.description.name
        assert _tree(factory.directory) == before

    def test_plan_can_be_printed(self, factory: PodFactory) -> None:
        plan = self.provider.stage1_plan(pod=factory.pod("/bin/true"))
        assert not any("\n" in line for line in describe(plan))
        assert json.loads(json.dumps(plan_to_json(plan)))["flavor"] == plan.flavor

    # What it refuses

    @pytest.mark.parametrize("name", sorted(ISOLATORS))
    def test_isolator_is_enforced_or_refused_by_name(self, factory: PodFactory, name: str) -> None:
        known = name != "example.com/unheard-of"
        pod = factory.pod("/bin/true", isolators=[Isolator(name, ISOLATORS[name], known)])
        if name in self.description.isolators:
            try:
                held = confined(self.description, pod)
            except HostLacks as error:
                assert name in str(error)
                return
            self.provider.stage1_prepare(pod=held)
            plan = self.provider.stage1_plan(pod=held)
            carried = [app.confinement for app in plan.apps] or [plan.confinement]
            # What a flavor says it carries out is in its plan, or it says it of nothing.
            assert not self.description.confines or carried == [held.apps[0].confinement]
            return
        with pytest.raises(Refused, match=name) as caught:
            self.provider.stage1_prepare(pod=confined(self.description, pod))
        assert caught.value.hint

    @pytest.mark.parametrize("option", sorted(OPTIONS))
    def test_option_is_carried_out_or_refused_by_name(
        self, factory: PodFactory, option: str
    ) -> None:
        pod = factory.pod("/bin/true", options={option: OPTIONS[option]})
        if option in self.description.options:
            self.provider.stage1_plan(pod=pod)
            return
        with pytest.raises(Refused, match=option):
            self.provider.stage1_plan(pod=pod)

    def test_network_it_does_not_offer_is_refused_by_name(self, factory: PodFactory) -> None:
        if self.description.networks == ("*",):
            return
        pod = factory.pod("/bin/true", networks=("some-other-net",))
        with pytest.raises(Refused, match="some-other-net"):
            self.provider.stage1_plan(pod=pod)

    def test_more_apps_than_it_runs_are_refused(self, factory: PodFactory) -> None:
        most = self.description.max_apps
        pod = factory.pod("/bin/true", apps=3 if most is None else most + 1)
        if most is None:
            self.provider.stage1_plan(pod=pod)
            return
        with pytest.raises(Refused, match=str(most + 1)):
            self.provider.stage1_plan(pod=pod)

    @pytest.mark.parametrize("target", ["/", "/proc", "/proc/self", "/x/../proc/sys"])
    def test_mount_over_root_or_proc_is_refused(
        self, factory: PodFactory, tmp_path: Path, target: str
    ) -> None:
        pod = factory.pod("/bin/true", mounts=(Bind(str(tmp_path), target),))
        with pytest.raises(Refused, match="mount target"):
            self.provider.stage1_prepare(pod=pod)

    # What it does

    def test_runs_the_app_in_its_image(self, factory: PodFactory) -> None:
        result = self.run_app(factory.pod("/bin/sh", "-c", "echo in $AC_APP_NAME; ls /bin/busybox"))
        assert result == (0, "in app\n/bin/busybox\n", "")

    def test_arguments_reach_the_app_unchanged(self, factory: PodFactory) -> None:
        words = ["a b", "", "$HOME", "%s\\n", "'\"`", "--", "-x", "tab\there", "nl\nthere", "é"]
        script = 'for word; do echo "<$word>"; done'
        result = self.run_app(factory.pod("/bin/sh", "-c", script, "sh", *words))
        assert result.out == "".join(f"<{word}>\n" for word in words)

    def test_environment_is_exactly_the_app_s(self, factory: PodFactory) -> None:
        os.environ["PODCTL_TEST_LEAK"] = "leaked"
        try:
            result = self.run_app(factory.pod("/bin/env", environment={"A": "1", "B": "x=y z"}))
        finally:
            del os.environ["PODCTL_TEST_LEAK"]
        lines = result.out.splitlines()
        assert {"A=1", "B=x=y z", "AC_APP_NAME=app"} <= set(lines)
        assert "leaked" not in result.out

    def test_user_group_and_groups(self, factory: PodFactory) -> None:
        pod = factory.pod("/bin/id", user="web", group="web", groups=(7, 4))
        words = self.run_app(pod).out.split()
        assert words[:2] == ["uid=1001(web)", "gid=1002(web)"]
        assert words[2].startswith("groups=")
        assert set(words[2][7:].split(",")) == {"4(adm)", "7", "1002(web)"}

    def test_volumes(self, factory: PodFactory, tmp_path: Path) -> None:
        for name in ("rw", "ro"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text(name)
        mounts = (
            Bind(str(tmp_path / "rw"), "/data/rw"),
            Bind(str(tmp_path / "ro"), "/data/ro", read_only=True),
        )
        script = (
            "cat /data/rw/file /data/ro/file; touch /data/rw/new; touch /data/ro/new || echo no"
        )
        result = self.run_app(factory.pod("/bin/sh", "-c", script, mounts=mounts))
        assert result.out == "rwrono\n"
        assert (tmp_path / "rw" / "new").exists()

    def test_a_working_directory_is_made_where_it_is_to_be(
        self, factory: PodFactory, tmp_path: Path
    ) -> None:
        (tmp_path / "volume").mkdir()
        mounts = (Bind(str(tmp_path / "volume"), "/data"),)
        for directory in ("/srv/work", "/data/work"):
            script = "pwd; stat -c '%u %g %a' . ${PWD%/work}"
            pod = factory.pod(
                "/bin/sh", "-c", script, user="web", group="web",
                working_directory=directory, make_working_directory=True, mounts=mounts,
            )  # fmt: skip
            assert self.run_app(pod).out == f"{directory}\n0 0 755\n0 0 755\n"
        assert os.listdir(tmp_path / "volume") == ["work"]

    def test_a_working_directory_is_not_made_otherwise(self, factory: PodFactory) -> None:
        pod = factory.pod("/bin/pwd", working_directory="/srv/work")
        assert self.run_app(pod).out == ""

    def test_the_user_s_home_and_name_where_they_are_to_be(self, factory: PodFactory) -> None:
        script = "echo $HOME $USER $LOGNAME"
        pod = factory.pod("/bin/sh", "-c", script, user="web", environment={"LOGNAME": "mine"})
        assert self.run_app(pod).out == "/ web mine\n"

    def test_read_only_root(self, factory: PodFactory, tmp_path: Path) -> None:
        (tmp_path / "volume").mkdir()
        pod = factory.pod(
            "/bin/sh",
            "-c",
            "touch /x /bin/x /tmp/x || echo denied; touch /data/y",
            mounts=(Bind(str(tmp_path / "volume"), "/data"),),
            read_only_rootfs=True,
        )
        assert self.run_app(pod).out == "denied\n"
        assert os.listdir(tmp_path / "volume") == ["y"]

    def test_resolv_conf_and_hosts(self, factory: PodFactory) -> None:
        pod = factory.pod(
            "/bin/cat",
            "/etc/resolv.conf",
            "/etc/hosts",
            resolv_conf="nameserver 192.0.2.1\n",
            hosts="192.0.2.2 box\n",
        )
        assert self.run_app(pod).out == "nameserver 192.0.2.1\n192.0.2.2 box\n"

    def test_image_is_never_written(self, factory: PodFactory) -> None:
        before = _tree(factory.image)
        script = "echo x > /etc/passwd; rm /bin/ls; echo y > /new"
        self.run_app(factory.pod("/bin/sh", "-c", script))
        assert _tree(factory.image) == before

    def test_no_descriptor_leaks_into_the_app(self, factory: PodFactory, tmp_path: Path) -> None:
        leak = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        os.set_inheritable(leak, True)
        try:
            script = "for fd in $(ls /proc/$$/fd); do readlink /proc/$$/fd/$fd; done"
            out = self.run_app(factory.pod("/bin/sh", "-c", script)).out
        finally:
            os.close(leak)
        others = [line for line in out.splitlines() if not line.startswith(("pipe:", "/dev/null"))]
        assert [line for line in others if not line.endswith("/lock")] == []

    # How it lives and ends

    def test_lock_is_held_exactly_while_the_app_lives(self, factory: PodFactory) -> None:
        pod = factory.pod("/bin/sh", "-c", "echo up; exec sleep 1000")
        with self.start(pod) as process:
            assert process.read_line() == "up\n"
            assert is_locked(pod)
            self.provider.stage1_stop(pod=pod, force=True)
            process.reap()
        wait_until(lambda: not is_locked(pod), "the lock to be given up")

    def test_stop_lets_the_app_end_by_itself(self, factory: PodFactory) -> None:
        script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"
        pod = factory.pod("/bin/sh", "-c", script)
        with self.start(pod) as process:
            assert process.read_line() == "up\n"
            self.provider.stage1_stop(pod=pod, force=False)
            assert process.wait().out == "bye\n"

    def test_stop_sends_the_signal_the_app_asks_for(self, factory: PodFactory) -> None:
        script = "trap 'echo bye; exit 0' USR1; trap '' TERM; echo up; while :; do sleep 0.01; done"
        pod = factory.pod("/bin/sh", "-c", script, stop_signal=signal.SIGUSR1)
        with self.start(pod) as process:
            assert process.read_line() == "up\n"
            self.provider.stage1_stop(pod=pod, force=False)
            assert process.wait().out == "bye\n"

    def test_force_ends_an_app_that_ignores_everything(self, factory: PodFactory) -> None:
        script = "trap '' TERM INT HUP; echo up; while :; do sleep 0.01; done"
        pod = factory.pod("/bin/sh", "-c", script)
        with self.start(pod) as process:
            assert process.read_line() == "up\n"
            self.provider.stage1_stop(pod=pod, force=True)
            process.reap()
        wait_until(lambda: not is_locked(pod), "the lock to be given up")

    def test_enter_is_inside_and_no_less_confined(self, factory: PodFactory) -> None:
        nnp = Isolator("os/linux/no-new-privileges", True)
        script = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/self/status"
        pod = factory.pod(
            "/bin/sh",
            "-c",
            f"echo mark > /mark; {script}; echo up; exec sleep 1000",
            user="web",
            group="web",
            isolators=[nnp] if nnp.name in self.description.isolators else [],
        )
        os.makedirs(pod.apps[0].upper, exist_ok=True)
        os.chmod(pod.apps[0].upper, 0o777)
        with self.start(pod) as process:
            app = []
            while (line := process.read_line()) != "up\n":
                assert line, process.wait()
                app.append(line)
            entered = self.enter(pod, "/bin/sh", "-c", f"{script}; cat /mark")
            self.provider.stage1_stop(pod=pod, force=True)
            process.reap()
        assert len(app) >= 9
        assert entered == (0, "".join([*app, "mark\n"]), "")

    def test_processes_of_an_app_are_its_own(self, factory: PodFactory) -> None:
        pod = factory.pod("/bin/sh", "-c", "sleep 1000 & echo up; sleep 1001; :")
        with self.start(pod) as process:
            assert process.read_line() == "up\n"
            others = ["sleep 1000", "sleep 1001"]
            wait_until(lambda: sorted(self.commands(pod)[1:]) == others, "its processes")
            assert self.commands(pod)[0].startswith("/bin/sh")
            self.provider.stage1_stop(pod=pod, force=True)
            process.reap()

    def commands(self, pod: PreparedPod) -> list[str]:
        """Command lines of the app's processes."""
        found = []
        for pid, _ in self.provider.stage1_processes(pod=pod, app="app"):
            with open(f"/proc/{pid}/cmdline") as file:
                found.append(" ".join(file.read().split("\0")).strip())
        return found

    def test_enter_refuses_a_pod_that_has_ended(self, factory: PodFactory) -> None:
        pod = factory.pod("/bin/true")
        self.run_app(pod)
        with pytest.raises(PodctlError):
            self.provider.stage1_enter(pod=pod, app="app", argv=("/bin/true",))

    def test_nothing_stays_on_the_host(self, factory: PodFactory) -> None:
        before = host_mounts()
        pod = factory.pod("/bin/true")
        self.run_app(pod)
        self.provider.stage1_gc(pod=pod)
        self.provider.stage1_gc(pod=pod)
        assert host_mounts() == before

    def test_gc_of_a_pod_that_never_ran(self, factory: PodFactory) -> None:
        self.provider.stage1_gc(pod=factory.pod("/bin/true"))


def _tree(directory: str) -> list[tuple[str, int, int, bytes]]:
    """Every name with mode, mtime and content."""
    found = []
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            content = b""
            if name in files and not os.path.islink(path):
                with open(path, "rb") as file:
                    content = file.read()
            found.append((path, status.st_mode, status.st_mtime_ns, content))
    return sorted(found)
