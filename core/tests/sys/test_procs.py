"""Processes told apart from strangers with their number."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podctl.sys import constants as c
from podctl.sys import procs
from podctl.sys.mounts import make_tree_slave, mount
from podctl.sys.namespaces import unshare

if TYPE_CHECKING:
    from collections.abc import Iterator

UUID = "0f1e2d3c-4b5a-4968-8776-a5b4c3d2e1f0"


@pytest.fixture
def sleeper() -> Iterator[procs.Instance]:
    """A process in its own mount namespace, with a mount named for the pod."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        unshare(c.CLONE_NEWNS)
        make_tree_slave()
        mount(f"podctl-{UUID}", "/mnt", "tmpfs")
        os.write(write, procs.current_instance().to_text().encode())
        signal.pause()
    os.close(write)
    value = json.loads(os.read(read, 4096))
    os.close(read)
    yield procs.Instance(**value)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def record(directory: Path, instance: procs.Instance) -> str:
    pod = directory / UUID
    pod.mkdir(exist_ok=True)
    (pod / procs.RECORD).write_text(instance.to_text())
    return str(pod)


def test_running_process_is_recognised(sleeper: procs.Instance, tmp_path: Path) -> None:
    assert procs.is_running(sleeper)
    assert procs.pod_alive(record(tmp_path, sleeper))
    pidfd = procs.open_instance(sleeper)
    assert pidfd is not None
    os.close(pidfd)


@pytest.mark.parametrize(
    "change", [{"start_time": 1}, {"boot_id": "other"}, {"pid": 4_194_303}], ids=str
)
def test_stranger_with_the_number_is_not_taken_for_it(
    sleeper: procs.Instance, change: dict[str, object]
) -> None:
    stranger = sleeper._replace(**change)  # type: ignore[arg-type]
    assert not procs.is_running(stranger)
    assert procs.open_instance(stranger) is None


def test_zombie_is_dead() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert procs.start_time(pid) is None
    os.waitpid(pid, 0)
    assert procs.start_time(pid) is None


def test_command_name_cannot_forge_the_start_time() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        Path("/proc/self/comm").write_text(") S 1 1 1 (")
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    stat = Path(f"/proc/{pid}/stat").read_text()
    assert ") S 1 1" in stat
    assert procs.start_time(pid) == int(stat.rsplit(")", 1)[1].split()[19])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)


def test_survivor_is_found_by_its_mounts(sleeper: procs.Instance, tmp_path: Path) -> None:
    """The first process is gone and its number unused, another lives in the pod's mounts."""
    first = sleeper._replace(pid=4_194_303)
    directory = record(tmp_path, first)
    assert procs.pod_processes(directory, first) == [sleeper.pid]
    assert procs.pod_alive(directory)


def test_namespace_number_alone_is_not_believed(sleeper: procs.Instance, tmp_path: Path) -> None:
    other = tmp_path / "5e0f1e2d-4b5a-4968-8776-a5b4c3d2e1f0"
    other.mkdir()
    assert procs.pod_processes(str(other), sleeper) == []


def test_processes_of_another_boot_are_nobody(sleeper: procs.Instance, tmp_path: Path) -> None:
    old = sleeper._replace(boot_id="another")
    assert not procs.pod_alive(record(tmp_path, old))
    assert procs.signal_pod(record(tmp_path, old), old, signal.SIGKILL) == 0
    assert procs.is_running(sleeper)


def test_our_own_namespace_is_never_the_pod(tmp_path: Path) -> None:
    own = procs.current_instance()
    assert procs.signal_pod(record(tmp_path, own), own, signal.SIGKILL) == 0


def test_signal_reaches_exactly_the_pod(sleeper: procs.Instance, tmp_path: Path) -> None:
    assert procs.signal_pod(record(tmp_path, sleeper), sleeper, signal.SIGKILL) == 1
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not procs.is_running(sleeper)
    assert not procs.pod_alive(record(tmp_path, sleeper))


def test_record_round_trip_and_damage(tmp_path: Path) -> None:
    instance = procs.current_instance()
    directory = record(tmp_path, instance)
    assert procs.read_instance(directory) == instance
    assert procs.read_instance(str(tmp_path)) is None
    for text in ("", "{}", "[]", instance.to_text().replace(f'"pid": {os.getpid()}', '"pid": "1"')):
        Path(directory, procs.RECORD).write_text(text)
        with pytest.raises(ValueError, match="."):
            procs.read_instance(directory)
