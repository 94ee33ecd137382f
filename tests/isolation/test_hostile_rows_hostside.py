"""X17, X22, X29, S3, S5: what podctl does on the host while pods of hostile images run."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from box_world import World

pytestmark = pytest.mark.root

TRAP = "hostile.example/trap"
NSPAWN = "--stage1=nspawn"
TRAP_MARK = "run where it must not"
#: file names of the image's that mean something to programs of the host
BAIT = frozenset({
    "ld.so.preload", "nsswitch.conf", "libnss_evil.so.2", "evil.so", "sitecustomize.py",
    "usercustomize.py", "modprobe", "systemd-notify", "setpriv", "locale-archive", "podctl.nspawn",
})  # fmt: skip
UP = ("--exec=/bin/sh", "--", "-c", "echo ready; exec sleep 600")


class Call(NamedTuple):
    """A call on the host's side: its name, the directory it starts from, and a path."""

    name: str
    directory: str
    path: str
    flags: str


def traced(log: Path, *command: str, cwd: Path | None = None) -> tuple[list[Call], str]:
    """The calls a command and all its processes make before they are an app, and its output.

    A launcher has gone into an app with pivot_root(2), or setns(2) when it enters a running one.
    """
    kinds = "execve,execveat,open,openat,openat2,mkdir,mkdirat,mknodat,pivot_root,setns"
    words = ["strace", "-f", "-qq", "-y", "-s", "4096", "-o", str(log), "-e", f"trace={kinds}"]
    done = subprocess.run(
        [*words, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done
    return list(_host_side(log.read_text(errors="replace"))), done.stdout + done.stderr


def _host_side(text: str) -> Iterator[Call]:
    launchers: set[str] = set()
    inside: set[str] = set()
    for line in text.splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.startswith("execve") and "applauncher.py" in call:
            launchers.add(pid)
        if pid in launchers and call.startswith(("pivot_root(", "setns(")):
            inside.add(pid)
        found = re.match(r'(\w+)\((?:(\w+)(?:<([^>]*)>)?, )?"([^"]*)"(.*)', call)
        if found is not None and pid not in inside:
            yield Call(found[1], found[3] or found[2] or "AT_FDCWD", found[4], found[5])


def touches(calls: list[Call], data: Path) -> list[Call]:
    """Those that execute or open bait. By an absolute path that leads neither into the store nor
    to where apps' roots lie in a pod it is the host's own file."""
    return [
        call for call in calls
        if os.path.basename(call.path) in BAIT
        and (not call.path.startswith("/") or call.path.startswith((str(data), "/opt/stage2/")))
    ]  # fmt: skip


def test_x22_nothing_of_an_image_is_run_or_loaded_on_the_host_s_side(
    world: World, tmp_path: Path
) -> None:
    """Name services, loaders' lists, Python modules and programs are the app's business alone."""
    log = tmp_path / "strace"
    run = world.command("run", NSPAWN, TRAP, "--user=web", "--exec=/bin/echo", "--", "fine")
    calls, output = traced(log, *run)
    assert "fine" in output
    pod = world.start(NSPAWN, TRAP, *UP).ready()
    (tmp_path / "out").mkdir()
    for words in (
        ["enter", pod.uuid, "/bin/echo", "fine"],
        ["exec", "--user=web", pod.uuid, "/bin/echo", "fine"],
        ["cp", f"{pod.uuid}:/etc/passwd", str(tmp_path / "out")],
        ["status", pod.uuid],
    ):
        more, said = traced(log, *world.command(*words))
        assert more, words
        calls += more
        output += said
    assert TRAP_MARK not in output
    assert touches(calls, world.data) == []
    # The image was looked at, by descriptors: what is above could have been seen.
    assert any(os.path.basename(call.path) == "passwd" and not call.path.startswith("/")
               for call in calls)  # fmt: skip
    executed = {call.path for call in calls if call.name.startswith("execve")}
    assert executed
    assert not [path for path in executed if not path.startswith("/")]


def test_x22_control_a_program_that_believes_its_directory_is_seen(
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"print({TRAP_MARK!r})\n")
    words = [sys.executable, "-S", "-c", "import sitecustomize"]
    calls, output = traced(tmp_path / "strace", *words, cwd=tmp_path)
    assert TRAP_MARK in output
    assert touches(calls, tmp_path)


def abstract() -> set[str]:
    """Abstract sockets in this network: anybody in it can connect to them (CVE-2020-15257)."""
    lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]
    return {words[7] for words in map(str.split, lines) if len(words) > 7 and words[7][0] == "@"}


def test_x17_podctl_has_no_abstract_socket(world: World) -> None:
    before = abstract()
    pods = [world.start(NSPAWN, *flags, TRAP, *UP).ready().uuid for flags in ([], ["--net=host"])]
    for flags in ([], ["--stdin=stream"]):
        pods.append(world.must("run", "--detach", NSPAWN, TRAP, *flags, *UP).split()[-1])
    for uuid in pods:
        world.must("enter", uuid, "/bin/true")
    assert abstract() == before
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(f"\0podctl-test-{os.getpid()}")
        assert len(abstract() - before) == 1


@pytest.mark.parametrize(("network", "reached"), [("none", False), ("host", True)])
def test_x17_only_a_pod_with_the_host_s_network_reaches_the_host_s_abstract_sockets(
    world: World, network: str, reached: bool
) -> None:
    """As documented: the control is the documented exception."""
    name = f"podctl-test-{os.getpid()}-{network}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        line = ["run", NSPAWN, f"--net={network}", TRAP, "--exec=/bin/grep"]
        done = world.podctl(*line, "--", "-c", name, "/proc/net/unix")
    assert (done.out == b"1\n") == reached


def test_x2_an_app_that_can_be_attached_to_has_three_descriptors(world: World) -> None:
    script = "cd /proc/self/fd; for fd in *; do readlink $fd; done; true"
    line = (NSPAWN, TRAP, "--stdin=stream", "--exec=/bin/sh", "--", "-c", script)
    kinds = [line.split(":")[0] for line in world.must("run", *line).split()]
    assert kinds == ["pipe"] * 3


def test_s3_others_see_nothing_of_a_pod(world: World) -> None:
    """What a pod's first process writes and the launcher reads lies in directories of root's."""
    pod = world.start(NSPAWN, TRAP, *UP).ready()
    directory = next(world.data.glob(f"pods/run/{pod.uuid}"))
    for name in ("overlay", "rootfs", "stage1", "status", "supervisor"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o700, name
    for top in (world.data, world.data / "pods", directory):
        assert not top.stat().st_mode & 0o007
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    for path in (directory, directory / "stage1" / "podctl" / "apps" / "trap"):
        tried = subprocess.run([*nobody, "cat", str(path)], capture_output=True, check=False)
        assert b"Permission denied" in tried.stderr
    assert (directory / "stage1").exists()  # control: root sees it


def shared(calls: list[Call]) -> list[Call]:
    """Those that make a file, or may, in a directory where everybody may, and could be given
    somebody else's instead."""
    return [call for call in calls if _may_be_anothers(call)]


def _may_be_anothers(call: Call) -> bool:
    if "O_CREAT" not in call.flags or "O_EXCL" in call.flags:
        return False
    path = os.path.join(call.directory if call.directory != "AT_FDCWD" else "/", call.path)
    try:
        return bool(os.stat(os.path.dirname(path)).st_mode & stat.S_IWOTH)
    except OSError:
        return False


def test_s5_no_file_is_made_where_another_could_have_put_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp, /var/tmp, /dev/shm, or wherever TMPDIR leads."""
    anybody = tmp_path / "anybody"
    anybody.mkdir()
    anybody.chmod(0o1777)
    for name in ("TMPDIR", "TMP", "TEMP"):
        monkeypatch.setenv(name, str(anybody))
    log = tmp_path / "strace"
    calls: list[Call] = []
    prepared = world.must("prepare", NSPAWN, "--quiet", TRAP, "--exec=/bin/true").strip()
    for words in (
        ["run", NSPAWN, TRAP, "--exec=/bin/true"],
        ["run-prepared", prepared],
        ["gc", "--grace-period=0s"],
        ["image", "export", TRAP, str(tmp_path / "exported.aci")],
        ["image", "render", TRAP, str(tmp_path / "rendered")],
    ):
        calls += traced(log, *world.command(*words))[0]
    assert len([call for call in calls if "O_CREAT" in call.flags]) > 5
    assert shared(calls) == []
    assert list(anybody.iterdir()) == []


def test_s5_control_a_careless_program_is_seen(tmp_path: Path) -> None:
    name = f"/tmp/podctl-test-{os.getpid()}"
    try:
        calls, _ = traced(tmp_path / "strace", "sh", "-c", f"echo x >{name}")
    finally:
        Path(name).unlink(missing_ok=True)
    assert shared(calls)


@pytest.mark.parametrize(
    "flag",
    [
        "--hostname=a\nb", "--hostname=../x", "--hostname=x\x1b[2J", "--dns=192.0.2.1\noptions x",
        "--dns-search=a\nnameserver 192.0.2.6", "--dns-opt=ndots:1\nnameserver 192.0.2.6",
        "--dns-domain=a\nb", "--hosts-entry=192.0.2.1=a\n192.0.2.6 bank",
    ],
)  # fmt: skip
def test_x29_no_line_is_smuggled_into_the_files_of_a_pod(world: World, flag: str) -> None:
    before = world.pods()
    done = world.podctl("run", NSPAWN, flag, TRAP, "--exec=/bin/true")
    assert (done.code, done.out) == (254, b"")
    assert done.err.count(b"\n") <= 2
    assert b"\x1b" not in done.err
    assert world.pods() == before


@pytest.fixture
def shows(world: World) -> Callable[..., str]:
    """What a pod shows of its files."""

    def run(*flags: str) -> str:
        files = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
        line = ("run", NSPAWN, *flags, TRAP, "--exec=/bin/cat", "--", *files)
        return world.must(*line)

    return run


def test_x29_control_what_is_no_line_of_its_own_arrives(shows: Callable[..., str]) -> None:
    shown = shows("--hostname=ab", "--dns=192.0.2.1", "--hosts-entry=192.0.2.1=bank")
    assert shown.startswith("ab\n")
    assert "nameserver 192.0.2.1\n" in shown
    assert "192.0.2.1" in shown
    assert "bank" in shown
