"""How pods are held and managed: R1, CT1, L2, L5, N1, N3, M2, M5, M6, M7, D6, D7 with the default
flavor."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import box_images
import pytest
from box_world import BOX, DOMAIN, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from box_world import Done, Running, World

pytestmark = pytest.mark.root

SERVE = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.02; done"


def shell(script: str, *flags: str) -> list[str]:
    """The words of a pod of busybox's shell."""
    return [BOX, *flags, "--exec=/bin/sh", "--", "-c", script]


def run(world: World, script: str, *flags: str, pod: tuple[str, ...] = ()) -> Done:
    return world.podctl("run", *pod, *shell(script, *flags))


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def descendants(pid: int) -> list[int]:
    """Numbers of a process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in descendants(int(child)))]


def podctls(world: World) -> list[str]:
    """Command lines of processes of podctl, or of Python, on this data directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            program = os.readlink(entry / "exe")
        except OSError:
            continue
        if str(world.data) in line and "python" in program:
            found.append(line)
    return found


def listening() -> set[str]:
    """Names of Unix sockets of podctl's."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return {line.split()[-1] for line in lines if "podctl" in line}


def test_r1_what_runc_does_is_done(world: World, tmp_path: Path) -> None:
    """Namespaces, capabilities, filter, limits, groups, hooks, paths, user, mounts; and exec."""
    (tmp_path / "file").write_text("from the host\n")
    script = """
        grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; ulimit -n
        grep -c :/$ /proc/self/cgroup; id -u; cat /volume/file
        echo x 2>/dev/null >/proc/sys/x || echo no
        wc -c </proc/keys; echo ready; exec sleep 600
    """
    pod = world.start(
        f"--volume=volume,kind=host,source={tmp_path},readOnly=true",
        *shell(script, "--mount=volume=volume,target=/volume", "--user=web", "--group=web"),
    )
    seen = []
    while (line := pod.line().decode().strip()) != "ready":
        assert line or seen, pod.end()
        seen.append(line)
    assert seen[0].split() == ["CapBnd:", "00000000a80425fb"]
    assert [line.split() for line in seen[1:3]] == [["NoNewPrivs:", "1"], ["Seccomp:", "2"]]
    assert int(seen[4]) > 0
    assert seen[5:] == ["1001", "from the host", "no", "0"]
    for kind in ("mnt", "pid", "uts", "ipc", "user"):
        app = descendants(pod.pid)[-1]
        assert os.readlink(f"/proc/{app}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"), kind
    entered = world.must("exec", pod.uuid, "/bin/grep", "Seccomp:", "/proc/self/status")
    assert entered.split() == ["Seccomp:", "2"]
    handled = world.podctl("run", f"{DOMAIN}/handlers")
    assert handled.out.splitlines()[0].startswith(b"before")


def test_n3_the_default_is_nspawn_with_namespaces_of_its_own(world: World) -> None:
    pod = world.start(*shell("echo ready; exec sleep 600")).ready()
    assert comm(pod.pid) == "systemd-nspawn"
    app = descendants(pod.pid)[-1]
    for kind in ("mnt", "pid", "uts", "ipc"):
        assert os.readlink(f"/proc/{app}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"), kind
    assert world.status(pod.uuid)["stage1"] == "nspawn"


def test_m5_the_process_that_was_started_becomes_nspawn(world: World) -> None:
    pod = world.start(*shell("echo ready; exec sleep 600")).ready()
    assert comm(pod.pid) == "systemd-nspawn"
    assert world.status(pod.uuid)["pid"] == str(pod.pid)
    programs = {os.readlink(f"/proc/{one}/exe") for one in descendants(pod.pid)}
    assert not any("python" in program for program in programs)
    assert podctls(world) == []


@pytest.fixture
def three(world: World) -> Iterator[list[Running]]:
    """Three pods that serve."""
    yield [world.start(*shell(SERVE)).ready() for _ in range(3)]


def test_d6_ct1_nothing_of_podctl_is_there_while_pods_run(
    world: World, three: list[Running]
) -> None:
    assert podctls(world) == []
    before = listening()
    for words in (["list"], ["status", three[0].uuid], ["gc"], ["image", "list"]):
        world.must(*words)
        assert podctls(world) == []
    assert listening() == before


def test_ct1_killed_commands_stop_no_pod(world: World, three: list[Running]) -> None:
    for words in (["status", "--wait", three[0].uuid], ["exec", three[1].uuid, "/bin/sleep", "600"],
                  ["top", three[2].uuid]):  # fmt: skip
        client = subprocess.Popen(world.command(*words), stdin=-3, stdout=-3, stderr=-3)
        client.kill()
        client.wait()
    assert [world.status(pod.uuid)["state"] for pod in three] == ["running"] * 3


def test_l5_no_process_has_two_pods_in_its_hands(world: World, three: list[Running]) -> None:
    """Each process of the first pod is killed in turn; the others do not notice."""
    for one in reversed(descendants(three[0].pid)):
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue
        assert [pod.process.poll() for pod in three[1:]] == [None, None]
    wait_until(lambda: world.status(three[0].uuid)["state"] == "exited", "the end of the first")
    for pod in three[1:]:
        assert world.status(pod.uuid)["state"] == "running"
        pod.signal(signal.SIGTERM)
        assert pod.end() == (0, b"bye\n", b"")


_SUPERVISOR = """
for turn in 1 2; do
    "$@" & pid=$!
    echo "started $pid"; read order; kill -TERM $pid
    wait $pid; echo "ended $?"
done
"""
WAYS: dict[str, list[str]] = {
    "shell that becomes it": ["sh", "-c", 'exec "$@"', "sh"],
    "nohup": ["nohup"],
    "session": ["setsid"],
    "cron": ["env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "setsid"],
}


@pytest.mark.parametrize("way", WAYS)
def test_m6_d7_any_supervisor_has_the_pod_for_its_child(world: World, way: str) -> None:
    script = SERVE.replace("exit 0", "exit 42")
    pod = world.start(*shell(script), prefix=WAYS[way]).ready()
    assert comm(pod.pid) == "systemd-nspawn"
    pod.signal(signal.SIGTERM)
    done = pod.end()
    assert (done.code, done.out) == (42, b"bye\n")


def test_m6_d7_a_loop_that_starts_again(world: World) -> None:
    line = world.command("run", *shell(SERVE.replace("echo ready", ": >/up/$$")))
    up = world.top / "up"
    up.mkdir(mode=0o777)
    up.chmod(0o777)
    at = line.index("run") + 1
    line[at:at] = [f"--volume=up,kind=host,source={up}"]
    line[line.index(BOX) + 1 : line.index(BOX) + 1] = ["--mount=volume=up,target=/up"]
    loop = subprocess.Popen(
        ["sh", "-c", _SUPERVISOR, "loop", *line], stdin=-1, stdout=-1, stderr=-3, text=True
    )
    assert loop.stdin is not None
    assert loop.stdout is not None
    for _ in range(2):
        assert loop.stdout.readline().startswith("started ")
        wait_until(lambda: any(up.iterdir()), "the app")
        shutil.rmtree(up, ignore_errors=True)
        up.mkdir(mode=0o777, exist_ok=True)
        loop.stdin.write("stop\n")
        loop.stdin.flush()
        assert loop.stdout.readline() == "bye\n"
        assert loop.stdout.readline() == "ended 0\n"
    loop.communicate()


def test_m2_the_life_of_a_pod_needs_no_name_of_anything_but_itself(world: World) -> None:
    def state() -> str:
        (pod,) = json.loads(world.must("list", "--format=json"))
        return str(pod["state"])

    uuid = world.must("prepare", "--quiet", *shell("echo ready; read end")).strip()
    assert state() == "prepared"
    pod = subprocess.Popen(
        world.command("run-prepared", "--interactive", uuid), stdin=-1, stdout=-1, text=True
    )
    assert pod.stdout is not None
    assert pod.stdout.readline() == "ready\n"
    assert state() == "running"
    assert "state=running" in world.must("status", uuid)
    pod.communicate("end\n")
    assert state() == "exited"
    world.must("gc", "--mark-only")
    assert state() == "exited garbage"
    world.must("gc", "--grace-period=0s")
    assert json.loads(world.must("list", "--format=json")) == []


def test_n1_memory_is_limited_and_the_host_does_not_notice(
    world: World, three: list[Running]
) -> None:
    grow = "x=0123456789abcdef; while [ ${#x} -lt 60000000 ]; do x=$x$x; done; echo ${#x}"
    assert run(world, grow, "--memory=64M").code == 137
    assert run(world, grow, "--memory=1G").code == 0
    assert [world.status(pod.uuid)["state"] for pod in three] == ["running"] * 3


def test_n1_two_busy_loops_share_what_the_pod_may_have(world: World) -> None:
    """Measured by the app's own clocks: processor time by time that has passed."""
    spin = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done"
    script = f"({spin}) & ({spin}) & read a b </proc/uptime; wait; read c d " \
             "</proc/uptime; times; echo $a $c"  # fmt: skip
    done = run(world, script, "--cpu=500m")
    assert done.code == 0, done
    lines = done.out.decode().splitlines()
    spent = sum(_seconds(word) for word in lines[-2].split())
    begin, end = map(float, lines[-1].split())
    assert end - begin > 1, "too short to say"
    assert spent / (end - begin) <= 0.55


def _seconds(text: str) -> float:
    minutes, seconds = re.fullmatch(r"(\d+)m([\d.]+)s", text).groups()  # type: ignore[union-attr]
    return int(minutes) * 60 + float(seconds)


#: what busybox's shell needs, and no call that makes directories
_FEW_CALLS = """
    execve brk arch_prctl set_tid_address set_robust_list rseq prlimit64 readlink readlinkat
    getrandom mprotect mmap munmap getuid geteuid getgid getegid getpid getppid getpgrp setpgid
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack clone fork vfork wait4 exit exit_group
    read write writev open openat close dup dup2 dup3 fcntl ioctl pipe pipe2 fstat stat lstat
    newfstatat statx access faccessat getcwd uname umask poll futex prctl kill
"""
ISOLATORS: dict[str, tuple[object, str, str]] = {
    "os/linux/capabilities-retain-set": (
        {"set": ["CAP_KILL"]}, "grep CapBnd: /proc/self/status", "CapBnd:\t0000000000000020"),
    "os/linux/capabilities-remove-set": (
        {"set": ["CAP_MKNOD"]}, "grep CapBnd: /proc/self/status", "CapBnd:\t00000000a00425fb"),
    "os/linux/no-new-privileges": (True, "grep NoNewPrivs: /proc/self/status", "NoNewPrivs:\t1"),
    "os/linux/seccomp-remove-set": (
        {"set": ["mkdir", "mkdirat"], "errno": "ENOTSUP"},
        "mkdir /x 2>&1 | sed 's/.*: //'", "Operation not supported"),
    "os/linux/seccomp-retain-set": (
        {"set": _FEW_CALLS.split(), "errno": "ENOTSUP"},
        "mkdir /x 2>&1 | sed 's/.*: //'", "Operation not supported"),
    "os/linux/oom-score-adj": (321, "cat /proc/self/oom_score_adj", "321"),
    "os/linux/cpu-shares": (77, "cat /sys/fs/cgroup/cpu*/cpu.shares | head -n1", "77"),
    "resource/memory": (
        {"limit": "32Mi"}, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes", str(32 << 20)),
    "resource/cpu": ({"limit": "500m"}, "cat /sys/fs/cgroup/cpu*/cpu.cfs_quota_us | head -n1",
                     "50000"),
}  # fmt: skip


@pytest.mark.parametrize("name", ISOLATORS)
def test_m7_an_image_s_isolator_is_seen_from_inside(world: World, name: str) -> None:
    value, script, expected = ISOLATORS[name]
    image = f"{DOMAIN}/isolated"
    app = {"exec": ["/bin/sh", "-c", script], "isolators": [{"name": name, "value": value}]}
    key = world.must("fetch", str(box_images.make(world.top / "isolated.aci", image, **app)))
    done = world.podctl("run", key.strip())
    world.must("image", "rm", key.strip())
    assert (done.code, done.out.decode().strip()) == (0, expected), done


def test_m7_root_filesystem_and_groups_are_as_the_flags_say(world: World) -> None:
    script = "id -G; touch /x 2>&1 | sed 's/.*: //'"
    flags = ("--readonly-rootfs", "--supplementary-gids=7,50")
    done = run(world, script, *flags, "--user=web", "--group=web")
    assert done.out == b"1002 7 50\nRead-only file system\n"


def test_m7_selinux_is_refused_where_there_is_none(world: World) -> None:
    if Path("/sys/fs/selinux/enforce").exists():
        pytest.skip("this host has SELinux")
    value = {"user": "u", "role": "r", "type": "t", "level": "s0"}
    isolators = [{"name": "os/linux/selinux-context", "value": value}]
    file = box_images.make(world.top / "labelled.aci", f"{DOMAIN}/labelled", isolators=isolators)
    key = world.must("fetch", str(file)).strip()
    done = world.podctl("run", key)
    world.must("image", "rm", key)
    assert done.code == 254
    assert b"selinux-context" in done.err
