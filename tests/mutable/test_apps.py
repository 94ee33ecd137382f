"""Apps that are added, started, stopped and removed (rkt_app_sandbox_test.go)."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from box_world import wait_until
from mutable_world import BOX, POINTS

from podctl.cli.main import run as main
from podctl.pods import mutable
from podctl.pods.directories import PodDirectories

if TYPE_CHECKING:
    from mutable_world import MutableWorld, Sandbox


def test_add_start_and_remove(pod: Sandbox) -> None:
    assert pod.states() == {}
    pod.add("web", "echo here; exec sleep 600")
    assert pod.states() == {"web": "created"}
    assert pod.said() == ""
    pod.app("start", "web")
    assert pod.states() == {"web": "running"}
    pod.waits_for("here\n")
    pod.app("rm", "web")
    assert pod.states() == {}
    assert pod.left_of("web") == []


def test_an_app_is_called_as_its_image_unless_it_is_said(pod: Sandbox) -> None:
    assert pod.world.must("app", "add", pod.uuid, BOX, "--exec=/bin/true") == "box\n"
    assert pod.states() == {"box": "created"}


def test_the_end_of_apps_is_not_the_pod_s(pod: Sandbox) -> None:
    for name, script in (("good", "exit 0"), ("bad", "exit 12"), ("long", "exec sleep 600")):
        pod.run(name, script)
    assert (pod.ended("good"), pod.ended("bad")) == (0, 12)
    assert pod.states() == {"good": "exited", "bad": "exited", "long": "running"}
    assert pod.process.poll() is None


@pytest.mark.parametrize("stopped", [True, False])
def test_an_app_can_be_started_again(pod: Sandbox, stopped: bool) -> None:
    pod.run("again", "echo begin; cat /count; echo x >>/count; [ $(wc -l </count) = 2 ] || "
                     + ("exec sleep 600" if stopped else "exit 7"))  # fmt: skip
    if stopped:
        pod.waits_for("begin\n")
        wait_until(lambda: pod.inside("again", "/bin/cat", "/count").out == b"x\n", "the count")
        pod.app("stop", "again")
    first = pod.ended("again")
    assert first == (128 + signal.SIGTERM if stopped else 7)
    before = pod.status("again")
    pod.app("start", "again")
    assert pod.ended("again") == 0
    assert pod.status("again")["started_at"] > before["started_at"]
    assert pod.status("again")["created_at"] == before["created_at"]
    assert pod.said().count("begin\n") == 2
    assert "x\n" in pod.said()


def test_start_of_a_running_app_and_stop_of_an_ended_one_change_nothing(pod: Sandbox) -> None:
    pod.run("one", "echo up; exec sleep 600")
    pod.waits_for("up\n")
    again = pod.world.podctl("app", "start", pod.uuid, "--app=one")
    assert (again.code, again.err) == (0, b'app start: app "one" is running already\n')
    pod.app("stop", "one")
    before = pod.status("one")
    again = pod.world.podctl("app", "stop", pod.uuid, "--app=one")
    assert (again.code, again.err) == (0, b'app stop: app "one" is not running\n')
    assert pod.status("one") == before
    assert pod.said() == "up\n"


def test_an_app_that_ignores_its_stop_signal_is_killed(pod: Sandbox) -> None:
    flag = "--annotation=podctl.example/none=1"
    pod.run("stubborn", "trap '' TERM; echo up; while :; do sleep 1; done", flag)
    pod.waits_for("up\n")
    (pod.directory / "supervisor/stubborn/timeout").write_text("1\n")
    pod.app("stop", "stubborn")
    assert pod.status("stubborn")["exit_code"] == 128 + signal.SIGKILL


def test_what_kills_an_app_does_not_reach_the_next_start_of_it(pod: Sandbox) -> None:
    pod.add("quick", "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done")
    (pod.directory / "supervisor/quick/timeout").write_text("1\n")
    pod.app("start", "quick")
    pod.waits_for("up\n")
    pod.app("stop", "quick")
    pod.add("clock", "sleep 2; echo later")
    pod.app("start", "quick")
    pod.app("start", "clock")
    pod.waits_for("later\n")
    assert pod.states()["quick"] == "running"


def test_stop_leaves_nothing_of_an_app(pod: Sandbox) -> None:
    pod.run("forks", "setsid sleep 4321 & setsid sleep 4321 & echo up; wait")
    pod.waits_for("up\n")
    pod.app("stop", "forks")
    wait_until(lambda: not _processes(b"4321"), "the app's processes to be gone")


def _processes(mark: bytes) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(entry.name)
        except OSError:
            continue
    return found


def test_stop_of_the_pod_ends_it_with_0(pod: Sandbox) -> None:
    pod.run("bad", "exit 3")
    pod.run("one", "echo up; exec sleep 600")
    pod.waits_for("up\n")
    pod.ended("bad")
    pod.world.must("stop", pod.uuid)
    assert pod.process.wait(timeout=60) == 0
    assert pod.states() == {"bad": "exited", "one": "exited"}
    assert pod.status("one")["exit_code"] == 128 + signal.SIGTERM
    lines = pod.world.must("status", pod.uuid).splitlines()
    assert [line for line in lines if line.startswith("app-")] == ["app-bad=3", "app-one=143"]


def test_an_empty_pod_ends_too(pod: Sandbox) -> None:
    pod.world.must("status", "--wait-ready", pod.uuid)
    pod.world.must("app", "list", pod.uuid)
    pod.add("never", "exit 1")
    pod.world.must("stop", pod.uuid)
    assert pod.process.wait(timeout=60) == 0
    assert pod.states() == {"never": "exited"}
    assert "exit_code" not in pod.status("never")


def test_apps_of_a_pod_that_was_killed_have_exited(pod: Sandbox) -> None:
    pod.run("one", "echo up; exec sleep 600")
    pod.waits_for("up\n")
    pod.world.must("stop", "--force", pod.uuid)
    pod.world.must("status", "--wait=30s", pod.uuid)
    assert pod.states() == {"one": "exited"}
    assert "exit_code" not in pod.status("one")
    pod.app("rm", "one")
    assert pod.states() == {}
    assert pod.left_of("one") == []


def test_status_has_rkt_s_lines(pod: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    pod.run("one", "exit 4", "--user-annotation=a=b", "--user-label=c=d", "--user-label=e=f",
            f"--mnt-volume=name=v,kind=host,source={tmp_path}/volume,target=/mnt")  # fmt: skip
    pod.ended("one")
    text = pod.world.must("app", "status", pod.uuid, "--app=one")
    lines = dict(line.split("=", 1) for line in text.splitlines())
    assert list(lines) == [
        "name", "state", "image_id", "created_at", "started_at", "finished_at", "exit_code",
        "mounts", "user_annotations", "user_labels",
    ]  # fmt: skip
    assert lines["state"] == "exited"
    assert lines["exit_code"] == "4"
    assert lines["mounts"] == f"{tmp_path}/volume:/mnt"
    assert (lines["user_annotations"], lines["user_labels"]) == ("a:b", "c:d,e:f")
    of_pod = json.loads(pod.world.must("status", "--format=json", pod.uuid))
    assert of_pod["apps"] == [pod.status("one")]


def test_what_is_said_of_pod_and_apps_is_in_the_manifest(world: MutableWorld) -> None:
    pod = world.sandbox(
        "--annotation=example.com/a=1", "--user-annotation=b=2", "--user-label=c=3",
        "--hostname=here", "--dns=192.0.2.1", "--pod-name=mine",
    )  # fmt: skip
    pod.run("one", "hostname; cat /etc/resolv.conf; echo $WORD; exec sleep 600",
            "--annotation=example.com/d=4", "--environment=WORD=five")  # fmt: skip
    pod.waits_for("five\n")
    assert pod.said().startswith("here\n")
    assert "nameserver 192.0.2.1\n" in pod.said()
    manifest = pod.manifest()
    assert {"name": "example.com/a", "value": "1"} in manifest["annotations"]
    assert {"name": "coreos.com/rkt/stage1/mutable", "value": "true"} in manifest["annotations"]
    assert (manifest["userAnnotations"], manifest["userLabels"]) == ({"b": "2"}, {"c": "3"})
    assert {"name": "example.com/d", "value": "4"} in manifest["apps"][0]["annotations"]
    assert world.must("app", "list", "--no-legend", "mine").split() == ["one", "running"]


def test_exec_is_inside_and_takes_its_app_before_or_after_the_pod(pod: Sandbox) -> None:
    pod.run("one", "echo 1 >/mark; exec sleep 600")
    pod.run("two", "echo 2 >/mark; echo up; exec sleep 600")
    pod.waits_for("up\n")
    assert pod.inside("two", "/bin/cat", "/mark").out == b"2\n"
    line = ("app", "exec", pod.uuid, "--app", "one", "/bin/cat", "/mark")
    assert pod.world.must(*line) == "1\n"
    assert pod.inside("one", "/bin/sh", "-c", "exit 9").code == 9
    pod.app("stop", "one")
    done = pod.inside("one", "/bin/true")
    assert done.code == 254
    assert b"isn't currently running" in done.err


def test_handlers_run_at_every_start_and_end(pod: Sandbox) -> None:
    pod.add("one", "echo app >>/srv/state/log", image=POINTS)
    for _ in range(2):
        pod.app("start", "one")
        pod.ended("one")
    log = pod.directory / "sharedVolumes/one-state/log"
    assert log.read_text() == "before\napp\nafter\n" * 2


def test_an_app_is_told_to_stop_also_while_it_is_being_started(pod: Sandbox) -> None:
    pod.add("one", "exec sleep 600")
    for _ in range(5):
        pod.app("start", "one")
        pod.app("stop", "one")
        assert pod.status("one")["exit_code"] in (128 + signal.SIGTERM, 254)


def test_an_app_whose_shell_was_killed_can_be_removed(
    pod: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.add("one", "echo up; exec sleep 7531")
    (pod.directory / "supervisor/one/timeout").write_text("1\n")
    pod.app("start", "one")
    pod.waits_for("up\n")
    for shell in pod.children():
        if any(b"7531" in _words(child) for child in pod.children(shell)):
            os.kill(shell, signal.SIGKILL)
    monkeypatch.setattr(mutable, "_LAST_WAIT", -9)
    mutable.remove(PodDirectories(str(pod.world.data)), pod.uuid, "one")
    assert pod.left_of("one") == []
    assert not _processes(b"7531")


def _words(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_an_app_that_was_stopped_leaves_no_process_that_waits(pod: Sandbox) -> None:
    pod.add("one", "exec sleep 600")
    before = len(pod.children())
    for _ in range(3):
        pod.app("start", "one")
        pod.app("stop", "one")
    wait_until(lambda: len(pod.children()) == before, "the pod's shells to end")


def test_an_app_can_be_added_as_soon_as_the_pod_has_a_uuid(world: MutableWorld) -> None:
    for _ in range(3):
        pod = world.sandbox()
        words = world.command("app", "add", pod.uuid, BOX, "--exec=/bin/true")[4:]
        assert main(words) == 0
        assert pod.states() == {"box": "created"}
