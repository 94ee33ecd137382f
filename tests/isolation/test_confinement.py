"""What apps are held to, seen from inside: capabilities, system calls, paths, devices, limits.

X7 to X13, X15, X18, X19, N1, M7. Every pod is a real one; each control shows what an app without
the thing under test can do.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from podctl.errors import HostLacks, Refused
from podctl.model.isolators import CAPABILITIES, DEFAULT_CAPABILITIES, Isolator
from podctl.pods.enter import enter
from podctl.testing.pods import PodFactory, Process, Result, confined, start
from podctl_stage1_fly.hooks import fly
from podctl_stage1_nspawn.hooks import nspawn

if TYPE_CHECKING:
    from podctl.model.plan import PreparedPod

pytestmark = pytest.mark.root

STATUS = ("Uid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
SHOW_STATUS = "grep -E '^(Uid|Cap...|NoNewPrivs|Seccomp):' /proc/self/status"
EVERYTHING = frozenset({"capabilities", "paths", "seccomp"})
CONTEXT = {"user": "u", "role": "r", "type": "t", "level": "s0"}
V1 = Path("/sys/fs/cgroup/memory").is_dir()


class Flavor(NamedTuple):
    """A provider and pods for it."""

    provider: Any
    factory: PodFactory

    def pod(self, *argv: str, isolators: dict[str, Any] | None = None, **more: Any) -> PreparedPod:
        given = [Isolator(name, value) for name, value in (isolators or {}).items()]
        pod = self.factory.pod(*argv, isolators=given, **more)
        held = confined(self.provider.stage1_describe(), pod)
        self.provider.stage1_prepare(pod=held)
        return held

    def start(self, pod: PreparedPod) -> Process:
        return start(self.provider.stage1_plan(pod=pod), pod)

    def sh(self, script: str, **more: Any) -> Result:
        """Run a script to its end."""
        pod = self.pod("/bin/sh", "-c", script, **more)
        with self.start(pod) as process:
            return process.wait()

    def enter(self, pod: PreparedPod, script: str) -> Result:
        argv = ("/bin/sh", "-c", script)
        plan = self.provider.stage1_enter(pod=pod, app="app", argv=argv)
        with Process(lambda: enter(plan)) as process:
            return process.wait()


@pytest.fixture
def factory(tmp_path: Path) -> PodFactory:
    return PodFactory(str(tmp_path))


@pytest.fixture
def contained(factory: PodFactory) -> Flavor:
    """nspawn, whose apps begin with the default."""
    return Flavor(nspawn, factory)


@pytest.fixture
def chroot(factory: PodFactory) -> Flavor:
    return Flavor(fly, factory)


@pytest.fixture(params=[nspawn, fly], ids=["nspawn", "fly"])
def flavor(request: pytest.FixtureRequest, factory: PodFactory) -> Flavor:
    return Flavor(request.param, factory)


def status(text: str) -> dict[str, str]:
    return {
        name: value.split()[0] for name, _, value in (x.partition(":") for x in text.splitlines())
    }


def mask(names: set[str] | frozenset[str]) -> str:
    return f"{sum(1 << CAPABILITIES.index(name) for name in names):016x}"


def permitted() -> int:
    from podctl.sys.caps import get_permitted

    return get_permitted()


# Capabilities


def test_root_has_exactly_the_default_set(contained: Flavor) -> None:
    found = status(contained.sh(SHOW_STATUS).out)
    default = mask(DEFAULT_CAPABILITIES)
    assert found["CapInh"] == found["CapAmb"] == mask(frozenset())
    assert found["CapBnd"] == found["CapPrm"] == found["CapEff"] == default


def test_another_user_has_none_but_the_bounding_set(contained: Flavor) -> None:
    found = status(contained.sh(SHOW_STATUS, user="web", group="web").out)
    nothing = mask(frozenset())
    assert found["CapInh"] == found["CapAmb"] == found["CapPrm"] == found["CapEff"] == nothing
    assert found["CapBnd"] == mask(DEFAULT_CAPABILITIES)


@pytest.mark.parametrize("names", [[], ["CAP_KILL"], ["CAP_CHOWN", "CAP_NET_ADMIN"]])
def test_a_retain_set_is_exact(flavor: Flavor, names: list[str]) -> None:
    isolators = {"os/linux/capabilities-retain-set": {"set": names}}
    found = status(flavor.sh(SHOW_STATUS, isolators=isolators).out)
    for line in ("CapBnd", "CapPrm", "CapEff"):
        assert found[line] == mask(set(names)), line
    assert found["CapInh"] == found["CapAmb"] == mask(frozenset())


def test_a_remove_set_takes_from_the_default(flavor: Flavor) -> None:
    isolators = {"os/linux/capabilities-remove-set": {"set": ["CAP_MKNOD", "CAP_SYS_TIME"]}}
    found = status(flavor.sh(SHOW_STATUS, isolators=isolators).out)
    assert found["CapBnd"] == mask(DEFAULT_CAPABILITIES - {"CAP_MKNOD"})


def test_fly_without_isolators_has_what_podctl_has(chroot: Flavor) -> None:
    found = status(chroot.sh(SHOW_STATUS).out)
    assert int(found["CapPrm"], 16) == permitted()
    assert found["NoNewPrivs"] == found["Seccomp"] == "0"


def test_insecure_options_waive_their_part_alone(contained: Flavor) -> None:
    """Also the control of all that is denied below."""
    found = status(contained.sh(SHOW_STATUS, insecure=frozenset({"capabilities"})).out)
    assert int(found["CapBnd"], 16) >> CAPABILITIES.index("CAP_SYS_ADMIN") & 1
    assert found["Seccomp"] == "2"
    found = status(contained.sh(SHOW_STATUS, insecure=frozenset({"seccomp"})).out)
    assert found["CapBnd"] == mask(DEFAULT_CAPABILITIES)
    assert found["Seccomp"] == "0"
    assert found["NoNewPrivs"] == "1"


def test_a_filter_without_no_new_privileges_leaves_no_capability_behind(flavor: Flavor) -> None:
    """It takes CAP_SYS_ADMIN to install; execve takes that away again."""
    isolators = {
        "os/linux/no-new-privileges": False,
        "os/linux/seccomp-remove-set": {"set": ["mkdir"], "errno": "EPERM"},
        "os/linux/capabilities-retain-set": {"set": ["CAP_KILL"]},
    }
    for user, expected in (("0", {"CAP_KILL"}), ("web", set())):
        found = status(flavor.sh(SHOW_STATUS, isolators=isolators, user=user, group=user).out)
        assert found["NoNewPrivs"] == "0"
        assert found["Seccomp"] == "2"
        assert found["CapPrm"] == found["CapEff"] == mask(expected)
        assert found["CapBnd"] == mask({"CAP_KILL"})


def test_a_set_user_id_program_gains_nothing(contained: Flavor, factory: PodFactory) -> None:
    source = '#include <stdio.h>\n#include <unistd.h>\nint main() { printf("%d", geteuid()); }'
    program = f"{factory.image}/bin/suid"
    subprocess.run(
        ["gcc", "-static", "-xc", "-o", program, "-"], input=source, text=True, check=True
    )
    os.chmod(program, 0o4755)
    assert contained.sh("suid", user="web", group="web").out == "1001"
    loose = {"os/linux/no-new-privileges": False}
    assert contained.sh("suid", user="web", group="web", isolators=loose).out == "0"


# Entering


def test_who_enters_is_held_to_the_same(flavor: Flavor) -> None:
    isolators = {
        "os/linux/capabilities-retain-set": {"set": ["CAP_KILL", "CAP_CHOWN"]},
        "os/linux/seccomp-remove-set": {"set": ["mkdir", "mkdirat"], "errno": "ENOTSUP"},
        "os/linux/no-new-privileges": True,
        "os/linux/oom-score-adj": 123,
        "resource/memory": {"limit": "64Mi"},
    }
    show = (
        f"{SHOW_STATUS}; cat /proc/self/oom_score_adj; grep -E ':(memory|pids):' /proc/self/cgroup"
    )
    pod = flavor.pod(
        "/bin/sh", "-c", f"{show}; echo up; exec sleep 1000", isolators=isolators, user="web",
        group="web",
    )  # fmt: skip
    with flavor.start(pod) as process:
        lines = []
        while (line := process.read_line()) != "up\n":
            assert line, process.wait()
            lines.append(line)
        entered = flavor.enter(pod, f"{show}; mkdir /tmp/x")
        groups = _groups_of(pod)
        flavor.provider.stage1_stop(pod=pod, force=True)
        process.reap()
    assert entered.out == "".join(lines)
    assert "Operation not supported" in entered.err
    assert groups


def _groups_of(pod: PreparedPod) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"*/podctl/{pod.uuid}/app"))


def test_entering_also_counts_as_one_of_the_app_s_processes(contained: Flavor) -> None:
    pod = contained.pod("/bin/sh", "-c", "echo up; exec sleep 1000")
    with contained.start(pod) as process:
        assert process.read_line() == "up\n"
        before, entered = (int(contained.enter(pod, "wc -l </sys/fs/cgroup/pids/cgroup.procs").out)
                           for _ in range(2))  # fmt: skip
        contained.provider.stage1_stop(pod=pod, force=True)
        process.reap()
    # The app, and what the entered shell has become.
    assert before == entered == 2


# Paths


@pytest.mark.parametrize(
    "path",
    ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kallsyms", "/proc/interrupts"],
)
def test_hidden_files_say_nothing(contained: Flavor, path: str) -> None:
    assert contained.sh(f"! [ -e {path} ] || wc -c <{path}").out in ("0\n", "")


def test_hidden_files_say_something_otherwise(contained: Flavor) -> None:
    """Control."""
    shown = contained.sh("wc -c </proc/interrupts", insecure=frozenset({"paths"}))
    assert int(shown.out) > 0


def test_the_kernel_s_settings_cannot_be_written(contained: Flavor) -> None:
    """Every file of /proc and /sys that has a writer, but those of processes."""
    sweep = (
        "busybox find /proc /sys -path '/proc/[0-9]*' -prune -o -path /proc/self -prune "
        "-o -path /proc/thread-self -prune -o -type f -perm /222 -print 2>/dev/null | "
        'while read -r f; do ( : >>"$f" ) 2>/dev/null && echo "$f"; done; true'
    )
    writable = set(contained.sh(sweep).out.split())
    # Triggers of one's own waiting (psi): everybody's to write, with other engines too.
    pressure = {f"/proc/pressure/{name}" for name in ("cpu", "io", "irq", "memory")}
    assert writable <= pressure, sorted(writable - pressure)[:20]


def test_some_of_them_can_be_written_otherwise(contained: Flavor) -> None:
    """Control: as systemd-nspawn alone leaves it."""
    script = "( : >>/proc/sys/net/ipv4/ip_forward ) && echo written"
    assert contained.sh(script, insecure=frozenset({"paths"})).out == "written\n"


def test_nothing_can_be_made_writable_again(contained: Flavor) -> None:
    script = "mount -o remount,rw,bind /proc/sys; mount -o remount,rw,bind /sys; umount /proc/keys"
    done = contained.sh(script)
    assert done.err.count("denied") + done.err.count("permitted") == 3


def test_an_image_s_own_proc_is_refused(contained: Flavor, factory: PodFactory) -> None:
    os.symlink("/etc", f"{factory.image}/proc")
    done = contained.sh("true")
    assert done.code != 0
    assert "/proc" in done.err


# Control groups


def test_the_app_sees_its_own_groups_alone(contained: Flavor) -> None:
    done = contained.sh("cat /proc/self/cgroup /sys/fs/cgroup/pids/pids.max; ls /sys/fs/cgroup")
    assert all(line.endswith(":/") for line in done.out.splitlines() if ":" in line)
    assert "4096" in done.out.split()
    assert "systemd" not in done.out.split()


def test_release_agents_are_out_of_reach(contained: Flavor) -> None:
    """CVE-2022-0492."""
    script = """
        mkdir /tmp/cg; mount -t cgroup -o memory cgroup /tmp/cg; echo x >/tmp/cg/release_agent
        echo 1 >/sys/fs/cgroup/memory/notify_on_release
        echo 0 >/sys/fs/cgroup/pids/cgroup.procs
    """
    done = contained.sh(script)
    assert done.code != 0
    assert done.err.count("Read-only file system") == 2


def test_memory_is_limited(flavor: Flavor) -> None:
    grow = "x=0123456789abcdef; while [ ${#x} -lt 30000000 ]; do x=$x$x; done; echo ${#x}"
    limited = flavor.sh(grow, isolators={"resource/memory": {"limit": "16Mi"}})
    assert limited.code == 137
    assert limited.out == ""
    assert flavor.sh(grow).out == "33554432\n"


@pytest.mark.skipif(not V1, reason="cgroup v2 has a test of its own in a guest")
def test_cpu_time_is_limited(flavor: Flavor) -> None:
    """Judged by the kernel's own count of throttled periods."""
    spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    if flavor.provider is nspawn:
        spin += "; grep nr_throttled /sys/fs/cgroup/cpu/cpu.stat"
    else:
        spin += "; sed -n 's/^.*:cpu://p' /proc/self/cgroup"
    throttled = {}
    for limit in ("100m", "64"):
        pod = flavor.pod("/bin/sh", "-c", spin, isolators={"resource/cpu": {"limit": limit}})
        with flavor.start(pod) as process:
            process.reap()
            stat = f"/sys/fs/cgroup/cpu/podctl/{pod.uuid}/app/cpu.stat"
            fields = dict(line.split() for line in Path(stat).read_text().splitlines())
        throttled[limit] = int(fields["nr_throttled"])
    assert throttled["100m"] > 0
    assert throttled["64"] == 0


def test_a_fork_bomb_is_limited(contained: Flavor) -> None:
    script = """
        i=0; while [ $i -lt 4200 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done
    """
    pod = contained.pod("/bin/sh", "-c", script)
    with contained.start(pod) as process:
        done = process.wait()
        events = Path(f"/sys/fs/cgroup/pids/podctl/{pod.uuid}/app/pids.events").read_text()
    assert "can't fork" in done.err
    assert int(events.split()[1]) > 0


def test_shares_and_scores(flavor: Flavor) -> None:
    isolators = {"os/linux/cpu-shares": 77, "os/linux/oom-score-adj": 321}
    pod = flavor.pod("/bin/cat", "/proc/self/oom_score_adj", isolators=isolators)
    with flavor.start(pod) as process:
        assert process.wait().out == "321\n"
        shares = Path(f"/sys/fs/cgroup/cpu/podctl/{pod.uuid}/app/cpu.shares").read_text()
    assert shares == "77\n"


def test_nothing_is_left_of_a_pod_s_groups(contained: Flavor) -> None:
    pod = contained.pod("/bin/sh", "-c", "setsid sleep 1000 & echo up")
    with contained.start(pod) as process:
        process.wait()
        assert _groups_of(pod)
    assert not _groups_of(pod)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/podctl/{pod.uuid}"))


# Devices


def test_devices_cannot_be_made_and_opened(contained: Flavor) -> None:
    script = """
        mknod /dev/mine c 1 3 && cat /dev/mine && echo null
        mknod /dev/kmsg2 c 1 11; head -c1 /dev/kmsg2 && echo kmsg
        mknod /dev/loop c 10 237; head -c1 /dev/loop && echo loop
    """
    done = contained.sh(script)
    assert done.out == "null\n"
    assert done.err.count("Operation not permitted") >= 2
    # Control
    loose = contained.sh("mknod /dev/z c 1 5; head -c1 /dev/z >/dev/null && echo read",
                         insecure=EVERYTHING)  # fmt: skip
    assert loose.out == "read\n"


# Refusals


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("example.com/unheard-of", 1, Refused),
        ("os/linux/apparmor-profile", {"profile": "x"}, Refused),
        ("os/linux/selinux-context", CONTEXT, HostLacks),
        ("resource/memory", {"limit": "1000"}, Refused),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_refused_by_name(
    flavor: Flavor, name: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=name):
        flavor.pod("/bin/true", isolators={name: value})


def test_a_capability_podctl_lacks_is_refused(
    contained: Flavor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podctl.sys.caps.get_permitted", lambda: 1)
    with pytest.raises(HostLacks, match="CAP_KILL"):
        contained.pod(
            "/bin/true", isolators={"os/linux/capabilities-retain-set": {"set": ["CAP_KILL"]}}
        )
