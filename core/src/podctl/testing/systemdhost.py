"""A host with systemd, journald, D-Bus and machined, booted in a container over this machine.

    with SystemdHost(directory) as host:
        host.write("/etc/systemd/system/pod.service", UNIT)
        host.must("systemctl", "start", "pod.service")

Its root is an overlay of this machine's, so it has the same programs at the same paths (and this
checkout), and what it writes is thrown away. Podctl's data directory in it, /var/lib/podctl, lies
on a real disk, as overlays cannot be stacked on one another at will; so does /srv, which the
machine and the test share. Nothing that this machine would start is started: only what
basic.target takes, and the bus.

Everything lives in a mount namespace and in control groups of its own and ends with `close`.
Needs root and Debian's systemd-container, systemd-sysv and dbus.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podctl.testing.pods import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

#: seconds a boot may take; it takes about three
BOOT = 90
_GROUPS = "/sys/fs/cgroup"
#: what it starts, beside what basic.target stands for
_TARGET = """[Unit]
Description=What tests of podctl need
Requires=basic.target
After=basic.target
Wants=dbus.socket dbus.service
"""
#: started by the clock or by this machine's own packages
_MASKED = ("timers.target", "docker.socket", "podman.socket", "systemd-networkd.socket")
#: Mounts and groups are made by a shell, in namespaces that end with the container. A group of
#: cpuset takes processes once it has processors and memory.
_SETUP = """
set -e
top=$1 name=$2
shift 2
mount --bind / "$top/lower"
mount -t overlay -o "lowerdir=$top/lower,upperdir=$top/upper,workdir=$top/work" "$name" "$top/root"
mount -t tmpfs -o mode=0755 "$name" /run/systemd
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    [ -w "$hierarchy/cgroup.procs" ] || continue
    mkdir "$hierarchy/$name"
    for file in cpuset.cpus cpuset.mems; do
        [ ! -e "$hierarchy/$name/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$name/$file"
    done
    echo $$ >"$hierarchy/$name/cgroup.procs"
done
exec setpriv --pdeathsig KILL "$@"
"""
#: systemd-nspawn shows resource controllers of version 1 read-only: a real host can write there.
_INIT = """
for hierarchy in /sys/fs/cgroup/*/; do mount -o remount,bind,rw "$hierarchy"; done
exec /lib/systemd/systemd systemd.unit=podctl-test.target
"""


class SystemdHost:
    """A booted host; a context manager.

    Args:
        directory: where it keeps what it needs, on a disk; made, and removed by `close`.
        binds: further paths of this machine that it sees, read and write.

    Attributes:
        leader: number of its systemd, as seen here.
        shared: the directory it has at /srv.
    """

    def __init__(self, directory: Path, binds: Sequence[str] = ()) -> None:
        self.directory = directory
        self.name = f"podctl-test-{secrets.token_hex(4)}"
        self.leader = 0
        self.shared = directory / "srv"
        for part in ("lower", "upper", "work", "root", "srv", "data", "docker"):
            (directory / part).mkdir(parents=True)
        self._prepare()
        self._nspawn: subprocess.Popen[bytes] | None = None
        try:
            self._boot(binds)
        except BaseException:
            self.close()
            raise

    def enter(self, *argv: str) -> list[str]:
        """The command line of a command in it, outside all of its units, as init scripts run."""
        return ["nsenter", "--target", str(self.leader), "--all", "--", *argv]

    def run(self, *argv: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end."""
        given = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, **settings}
        return subprocess.run(self.enter(*argv), check=False, timeout=PATIENCE, **given)

    def must(self, *argv: str, **settings: Any) -> str:
        """Run a command, which has to succeed; return standard output without the last newline."""
        done = self.run(*argv, **settings)
        assert done.returncode == 0, (
            f"{' '.join(argv)}: {done.returncode}: {done.stdout}{done.stderr}"
        )
        return str(done.stdout).rstrip("\n")

    def in_unit(self, *argv: str, options: Sequence[str] = ()) -> list[str]:
        """The command line of a command in a transient unit, which waits for it."""
        head = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", *options)
        return self.enter(*head, "--", *argv)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file in it."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def path(self, path: str) -> Path:
        """How a path in it is reached from here."""
        return Path(f"/proc/{self.leader}/root{path}")

    def show(self, unit: str, name: str) -> str:
        """A property of a unit (systemctl(1), show)."""
        return self.must("systemctl", "show", "--property", name, "--value", unit)

    def wait_for(self, unit: str, name: str, *values: str) -> str:
        """Wait until a property has one of some values; return which."""
        seen: list[str] = [""]

        def is_there() -> bool:
            seen[0] = self.show(unit, name)
            return seen[0] in values

        try:
            wait_until(is_there, f"{name} of {unit}")
        except TimeoutError:
            journal = self.run("journalctl", "--no-pager", "--unit", unit).stdout
            raise TimeoutError(
                f"{unit}: {name} stays {seen[0]!r}, not {values}: {journal}"
            ) from None
        return seen[0]

    def host_pid(self, pid: int | str) -> int:
        """The number here of a process that has the number `pid` there."""
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and _number_in(int(entry), self.leader) == int(pid):
                return int(entry)
        raise LookupError(f"no process {pid} in {self.name}")

    def close(self) -> None:
        """End it and every trace of it."""
        nspawn = self._nspawn
        if nspawn is not None:
            if self.leader:
                os.kill(self.leader, signal.SIGKILL)
            try:
                nspawn.wait(PATIENCE if self.leader else 0.1)
            except subprocess.TimeoutExpired:
                nspawn.kill()
                nspawn.wait()
            self._nspawn = None
        _remove_groups(self.name)
        shutil.rmtree(self.directory, ignore_errors=False)

    def __enter__(self) -> SystemdHost:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        upper = self.directory / "upper"
        units = upper / "etc/systemd/system"
        units.mkdir(parents=True)
        (units / "podctl-test.target").write_text(_TARGET)
        for unit in _MASKED:
            (units / unit).symlink_to("/dev/null")
        (upper / "etc/machine-id").write_text(secrets.token_hex(16) + "\n")
        (upper / "etc/hostname").write_text(f"{self.name}\n")
        command = upper / "usr/bin/podctl"
        command.parent.mkdir(parents=True)
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -I -m podctl "$@"\n')
        command.chmod(0o755)
        # Copied up directories keep what they were made with here.
        for directory in ("etc", "etc/systemd", "etc/systemd/system", "usr", "usr/bin", ""):
            (upper / directory).chmod(0o755)

    def _boot(self, binds: Sequence[str]) -> None:
        top = str(self.directory)
        ready = f"{top}/ready"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(ready)
            notified.settimeout(BOOT)
            with open(f"{top}/console", "wb") as console:
                self._nspawn = subprocess.Popen(
                    ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SETUP, "setup",
                     top, self.name, "systemd-nspawn", *self._options(binds), "--",
                     "/bin/sh", "-c", _INIT],
                    stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                    env={
                        "PATH": os.environ["PATH"],
                        "NOTIFY_SOCKET": ready,
                        # A host has no filter of system calls.
                        "SYSTEMD_SECCOMP": "0",
                    },
                )  # fmt: skip
            self._await(notified)
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text()
        self.leader = next(pid for pid in map(int, children.split()) if _number_in(pid, pid) == 1)

    def _await(self, notified: socket.socket) -> None:
        """systemd-nspawn passes on that the systemd inside is up."""
        assert self._nspawn is not None
        notified.settimeout(0.2)
        for _ in range(BOOT * 5):
            try:
                if "READY=1" in notified.recv(4096).decode().splitlines():
                    return
            except TimeoutError:
                if self._nspawn.poll() is not None:
                    break
        console = (self.directory / "console").read_text(errors="replace")
        raise RuntimeError(f"the host did not boot: {console}")

    def _options(self, binds: Sequence[str]) -> list[str]:
        top = self.directory
        options = [
            "--quiet", "--register=no", "--keep-unit", "--notify-ready=yes", "--console=pipe",
            "--settings=no", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
            "--private-network", "--capability=all", "--kill-signal=SIGRTMIN+3",
            f"--directory={top}/root", f"--machine={self.name}",
            f"--bind={top}/srv:/srv", f"--bind={top}/data:/var/lib/podctl",
            f"--bind={top}/docker:/var/lib/docker",
        ]  # fmt: skip
        options += [f"--bind={path}" for path in binds]
        return options + [f"--bind-ro={path}" for path in _elsewhere()]


def _elsewhere() -> list[str]:
    """Where podctl and its interpreter lie, as far as they are not on the root file system."""
    spec = find_spec("podctl")
    assert spec is not None and spec.submodule_search_locations
    package = Path(next(iter(spec.submodule_search_locations)))
    root = os.stat("/").st_dev
    places = {sys.prefix, sys.base_prefix, str(package.parents[2])}
    return sorted(place for place in places if os.stat(place).st_dev != root)


def _number_in(pid: int, leader: int) -> int | None:
    """The number of a process in the namespace `leader` is the first process of, or the innermost
    one when `leader` is itself."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(errors="replace")
        ours = Path(f"/proc/{leader}/status").read_text(errors="replace")
    except OSError:
        return None
    numbers, depth = _numbers(text), len(_numbers(ours))
    return numbers[depth - 1] if len(numbers) >= depth and depth > 1 else None


def _numbers(status: str) -> list[int]:
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return [int(word) for word in line.split()[1:]]
    return []


def _remove_groups(name: str) -> None:
    """The kernel lets go of a group a moment after its last process has ended."""
    for top in (_GROUPS, *(entry.path for entry in os.scandir(_GROUPS) if entry.is_dir())):
        group = f"{top}/{name}"
        if os.path.isdir(group):
            wait_until(lambda group=group: _removed(group), f"the end of {group}")  # type: ignore[misc]


def _removed(group: str) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
