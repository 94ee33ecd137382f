"""list, status, stop, rm, gc, enter, export and cat-manifest on real pods."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING

import pytest

from podctl.testing.reach import as_user

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import World

NAME = "pods.example/busybox"
pytestmark = pytest.mark.root


def wait_for(world: World, uuid: str) -> None:
    """Until the pod has ended."""
    world.must("status", "--wait=30s", uuid)


class TestListAndStatus:
    def test_table(self, world: World) -> None:
        uuid, _ = world.sleeper()
        header, row = world.must("list").splitlines()
        names = ["UUID", "APP", "IMAGE", "NAME", "STATE", "CREATED", "STARTED", "NETWORKS"]
        assert header.split() == names
        cells = row.split()
        assert cells[:4] == [uuid[:8], "busybox", f"{NAME}:1.0", "running"]

    def test_full_table(self, world: World) -> None:
        uuid = world.prepare()
        key = json.loads(world.must("image", "list", "--format=json"))[0]["id"]
        (row,) = world.must("list", "--full", "--no-legend").splitlines()
        assert row.split()[:5] == [uuid, "busybox", f"{NAME}:1.0", key[:19], "prepared"]

    def test_json_is_the_same_in_list_and_status(self, world: World) -> None:
        uuid, _ = world.sleeper("--user-label=tier=front")
        (listed,) = json.loads(world.must("list", "--format=json"))
        shown = json.loads(world.must("status", "--format=json-pretty", uuid))
        # Only who asks for one pod waits for machined's answer.
        assert {**listed, "registered": shown["registered"]} == shown
        assert (listed["name"], listed["state"]) == (uuid, "running")
        assert listed["app_names"] == ["busybox"]
        assert listed["apps"][0]["user_labels"] == {"tier": "front"}

    def test_times_are_when_it_happened(self, world: World) -> None:
        before = time.time() - 1
        uuid = world.prepare()
        created = json.loads(world.must("status", "--format=json", uuid))
        assert before <= created["created_at"] <= time.time()
        assert "started_at" not in created
        world.must("run-prepared", uuid)
        run = json.loads(world.must("status", "--format=json", uuid))
        assert run["created_at"] == created["created_at"]
        assert before <= run["started_at"] <= time.time()

    def test_status_of_a_running_and_an_exited_pod(self, world: World) -> None:
        uuid, process = world.sleeper()
        status = world.status(uuid)
        names = ["state", "created", "started", "networks", "stage1", "pid", "registered", "exited"]
        assert list(status) == names
        assert (status["pid"], status["exited"]) == (str(process.pid), "false")
        process.kill()
        wait_for(world, uuid)
        status = world.status(uuid)
        assert list(status) == ["state", "created", "started", "networks", "stage1", "exited"]
        assert (status["state"], status["exited"]) == ("exited", "true")

    def test_wait_ends_with_the_pod(self, world: World) -> None:
        uuid, process = world.sleeper()
        waiter = world.start("status", "--wait", uuid)
        late = world.podctl("status", "--wait=50ms", uuid)
        assert late.code == 254
        assert f'error waiting for pod "{uuid}"' in late.err
        assert waiter.poll() is None
        process.kill()
        assert "state=exited" in waiter.communicate(timeout=30)[0]

    def test_wait_ready(self, world: World) -> None:
        uuid = world.prepare("--exec=/bin/sleep", "--", "600")
        waiter = world.start("status", "--wait-ready", uuid)
        world.start("run-prepared", uuid)
        assert "state=running" in waiter.communicate(timeout=30)[0]

    def test_uuid_file(self, world: World, tmp_path: Path) -> None:
        uuid = world.prepare()
        (tmp_path / "uuid").write_text(f"{uuid}\n")
        out = world.must("status", f"--uuid-file={tmp_path / 'uuid'}")
        assert out.startswith("state=prepared\n")

    def test_damaged_pod_is_reported_and_listed(self, world: World) -> None:
        bad, good = world.prepare(), world.prepare()
        (world.data / "pods/prepared" / bad / "pod").write_text("{")
        done = world.podctl("list", "--full", "--no-legend")
        assert done.code == 0
        rows = {row.split()[0]: row.split()[1] for row in done.out.splitlines()}
        assert rows == {bad: "-", good: "busybox"}
        assert "errors encountered when listing pods" in done.err
        assert bad in done.err

    def test_nothing_to_list(self, world: World) -> None:
        assert world.must("list", "--format=json").strip() == "[]"
        assert len(world.must("list").splitlines()) == 1


class TestStop:
    def test_ends_the_app(self, world: World) -> None:
        uuid, process = world.sleeper()
        assert world.must("stop", uuid) == f'"{uuid}"\n'
        assert process.wait(30) == -signal.SIGTERM
        wait_for(world, uuid)
        again = world.podctl("stop", uuid)
        assert again.code == 0
        assert f'pod "{uuid}" is already stopped' in again.err

    def test_force_ends_one_that_ignores(self, world: World, tmp_path: Path) -> None:
        file = tmp_path / "uuid"
        process = world.start(
            "run", "--stage1=fly", f"--uuid-file-save={file}", NAME, "--exec=/bin/sh", "--", "-c",
            "trap '' TERM; echo ready; while :; do sleep 1; done",
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        uuid = file.read_text()
        world.must("stop", uuid)
        assert world.state(uuid) == "running"
        world.must("stop", "--force", f"--uuid-file={file}")
        assert process.wait(30) == -signal.SIGKILL

    def test_only_running_pods(self, world: World) -> None:
        prepared, (running, _) = world.prepare(), world.sleeper()
        done = world.podctl("stop", prepared, "feedface", running)
        assert done.code == 254
        assert done.out == f'"{running}"\n'
        assert f'pod "{prepared}" is not running' in done.err
        assert 'no matches found for "feedface"' in done.err
        assert "failed to stop 2 pod(s)" in done.err

    def test_without_the_flavors_plugin(self, world: World) -> None:
        uuid, process = world.sleeper()
        (world.data / "pods/run" / uuid / "flavor").write_text("gone\n")
        done = world.podctl("stop", uuid)
        assert done.code == 0
        assert "podctl-stage1-gone" in done.err
        assert process.wait(30) == -signal.SIGTERM

    def test_with_damaged_files(self, world: World) -> None:
        uuid, process = world.sleeper()
        (world.data / "pods/run" / uuid / "pod").write_text("{")
        assert world.podctl("stop", "--force", uuid).code == 0
        assert process.wait(30) == -signal.SIGKILL

    def test_stranger_with_the_number_is_not_touched(self, world: World) -> None:
        """The pod's process is gone, its lock is held by something else, its number reused."""
        uuid, process = world.sleeper()
        record = world.data / "pods/run" / uuid / "instance"
        value = json.loads(record.read_text())
        with subprocess.Popen(["sleep", "600"]) as stranger:
            try:
                record.write_text(json.dumps({**value, "pid": stranger.pid, "mount_namespace": 1}))
                world.podctl("stop", uuid)
                world.podctl("stop", "--force", uuid)
                assert stranger.poll() is None
                assert process.poll() is None
            finally:
                stranger.kill()


class TestDaemon:
    """An app that goes to the background and closes every descriptor, the lock's too."""

    SCRIPT = (
        'setsid sh -c \'i=3; while [ $i -lt 20 ]; do eval "exec $i>&-"; i=$((i+1)); done;'
        " echo up; exec sleep 600' > /out 2>&1 & while ! grep -q up /out; do :; done"
    )

    def test_keeps_the_pod_alive(self, world: World) -> None:
        assert world.shell(f"touch /out; {self.SCRIPT}").code == 0
        (uuid,) = world.pods()
        try:
            assert world.state(uuid) == "running"
            refused = world.podctl("rm", uuid)
            assert refused.code == 254
            assert f'pod "{uuid}" is currently running' in refused.err
            world.must("gc", "--grace-period=0s")
            assert world.pods() == {uuid: "run"}
        finally:
            world.podctl("stop", "--force", uuid)
        wait_for(world, uuid)
        world.must("rm", uuid)
        assert world.pods() == {}


class TestRmAndGc:
    def test_rm_of_each_kind(self, world: World) -> None:
        prepared, (running, process) = world.prepare(), world.sleeper()
        assert world.podctl("run", "--stage1=fly", NAME).code == 0
        exited = next(uuid for uuid in world.pods() if uuid not in (prepared, running))
        done = world.podctl("rm", prepared, running, exited)
        assert done.code == 254
        assert done.out == f'"{prepared}"\n"{exited}"\n'
        assert f'pod "{running}" is currently running' in done.err
        assert "failed to remove one or more pods" in done.err
        assert world.pods() == {running: "run"}
        process.kill()
        wait_for(world, running)
        assert world.must("rm", running) == f'"{running}"\n'

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["deadbeef"], 'no matches found for "deadbeef"'),
            ([""], "UUID cannot be empty"),
            ([], "give either UUIDs or --uuid-file"),
        ],
    )
    def test_rm_of_nothing(self, world: World, arguments: list[str], message: str) -> None:
        done = world.podctl("rm", *arguments)
        assert done.code == 254
        assert message in done.err

    def test_rm_by_file(self, world: World, tmp_path: Path) -> None:
        (tmp_path / "uuid").write_text(world.prepare())
        world.must("rm", f"--uuid-file={tmp_path / 'uuid'}")
        assert world.pods() == {}

    def test_gc_keeps_to_grace_and_expiry(self, world: World) -> None:
        world.must("run", "--stage1=fly", NAME)
        (exited,) = world.pods()
        prepared, (running, _) = world.prepare(), world.sleeper()
        done = world.podctl("gc", "--mark-only")
        assert f'moving pod "{exited}" to garbage' in done.err
        assert world.pods() == {exited: "exited-garbage", prepared: "prepared", running: "run"}
        assert "exited garbage" in world.must("list")
        done = world.podctl("gc")
        assert f'pod "{exited}" not removed: still within grace period (30m0s)' in done.err
        done = world.podctl("gc", "--grace-period=0s", "--expire-prepared=0s")
        assert f'Garbage collecting pod "{exited}"' in done.err
        assert done.code == 0
        assert world.pods() == {running: "run"}

    def test_killed_app_is_exited_and_collected(self, world: World) -> None:
        uuid, process = world.sleeper()
        process.kill()
        process.wait()
        assert world.state(uuid) == "exited"
        world.must("gc", "--grace-period=0s")
        assert world.pods() == {}

    @pytest.mark.parametrize("text", ["soon", "-5m", ""])
    def test_bad_durations(self, world: World, text: str) -> None:
        done = world.podctl("gc", f"--grace-period={text}")
        assert done.code == 254
        assert "is not a duration" in done.err

    def test_many_at_once(self, world: World) -> None:
        """Pods come and go beside list, status and gc; nothing is lost, nothing complains."""
        code = (
            "import subprocess, sys\n"
            "for _ in range(6):\n"
            "    done = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
            "    if done.returncode or 'Traceback' in done.stderr or 'unable' in done.stderr:\n"
            "        sys.exit(f'{sys.argv[8:]}: {done.returncode}: {done.stderr}')\n"
        )
        commands = [
            ["run", "--stage1=fly", NAME],
            ["run", "--stage1=fly", "--no-overlay", NAME],
            ["prepare", "--stage1=fly", NAME],
            ["list", "--full"],
            ["list", "--format=json"],
            ["gc", "--grace-period=0s"],
            ["gc", "--grace-period=0s", "--expire-prepared=0s"],
        ]
        workers = [
            subprocess.Popen(
                [sys.executable, "-I", "-c", code, *world.command(*command)],
                stderr=subprocess.PIPE,
                text=True,
            )
            for command in commands
        ]
        for worker in workers:
            _, error = worker.communicate(timeout=100)
            assert worker.returncode == 0, error
        world.must("gc", "--grace-period=0s", "--expire-prepared=0s")
        assert world.pods() == {}


class TestEnter:
    def test_exit_code_and_output_are_the_commands(self, world: World) -> None:
        uuid, _ = world.sleeper("--user=web", "--group=web")
        done = world.podctl("enter", uuid, "/bin/sh", "-c", "pwd; cat /dir1/file; exit 5")
        assert (done.code, done.out) == (5, "/\nfrom the image\n")

    def test_flags_behind_the_pod_belong_to_the_command(self, world: World) -> None:
        uuid, _ = world.sleeper()
        assert world.must("enter", uuid, "/bin/echo", "--app", "--dir=x") == "--app --dir=x\n"

    def test_default_is_bash(self, world: World) -> None:
        uuid, _ = world.sleeper()
        done = world.podctl("enter", uuid)
        assert done.code == 127
        assert "no command specified, assuming /bin/bash" in done.err

    def test_which_app(self, world: World) -> None:
        uuid, _ = world.sleeper()
        assert world.must("enter", "--app=busybox", uuid, "/bin/echo", "x") == "x\n"
        done = world.podctl("enter", "--app=other", uuid, "/bin/true")
        assert done.code == 254
        assert "it has busybox" in done.err

    def test_pod_that_does_not_run(self, world: World) -> None:
        uuid = world.prepare()
        done = world.podctl("enter", uuid, "/bin/true")
        assert done.code == 254
        assert f'pod "{uuid}" isn\'t currently running' in done.err


class TestExport:
    def exited(self, world: World, script: str, *flags: str) -> str:
        line = ["run", "--stage1=fly", *flags, NAME, "--exec=/bin/sh", "--", "-c", script]
        assert world.podctl(*line).code == 0
        (uuid,) = world.pods()
        return uuid

    @pytest.mark.parametrize("flags", [[], ["--no-overlay"]])
    def test_changes_are_in_the_image(self, world: World, tmp_path: Path, flags: list[str]) -> None:
        script = "echo new > /new; rm /dir1/file; echo 'web2:x:5:' >> /etc/group; chmod 6711 /new"
        uuid = self.exited(world, script, *flags)
        path = tmp_path / "out.aci"
        world.must("export", uuid, str(path))
        with tarfile.open(path) as archive:
            names = set(archive.getnames())
            assert archive.getmember("rootfs/new").mode == 0o6711
            group = archive.extractfile("rootfs/etc/group")
            assert group is not None
            assert group.read().decode().endswith("web2:x:5:\n")
        assert "rootfs/new" in names
        assert "rootfs/dir1/file" not in names
        assert "rootfs/dir1" in names

    def test_exported_image_runs(self, world: World, tmp_path: Path) -> None:
        uuid = self.exited(world, "echo kept > /new")
        path = tmp_path / "out.aci"
        world.must("export", uuid, str(path))
        line = ["run", "--stage1=fly", str(path), "--exec=/bin/cat", "--", "/new"]
        assert world.must(*line) == "kept\n"

    def test_everything_a_file_can_be(self, world: World, tmp_path: Path) -> None:
        uuid = self.exited(world, "echo x > /new")
        upper = next(world.data.glob(f"pods/run/{uuid}/overlay/*/upper"))
        os.mkfifo(upper / "fifo")
        os.link(upper / "new", upper / "hard")
        (upper / "link").symlink_to("/etc/shadow")
        os.mknod(upper / "device", 0o20600, os.makedev(1, 3))
        os.setxattr(upper / "new", "user.test", b"\x00\xff value")
        os.chown(upper / "new", 4000000, 65534)
        path = tmp_path / "out.aci"
        world.must("export", uuid, str(path))
        with tarfile.open(path) as archive:
            assert archive.getmember("rootfs/fifo").isfifo()
            assert archive.getmember("rootfs/device").ischr()
            assert archive.getmember("rootfs/link").linkname == "/etc/shadow"
            first, second = (archive.getmember(f"rootfs/{name}") for name in ("hard", "new"))
            assert second.islnk()
            assert second.linkname == "rootfs/hard"
            assert (first.uid, first.gid) == (4000000, 65534)
            value = first.pax_headers["SCHILY.xattr.user.test"]
            assert value.encode("utf-8", "surrogateescape") == b"\x00\xff value"

    def test_same_pod_gives_the_same_bytes(self, world: World, tmp_path: Path) -> None:
        uuid = self.exited(world, "echo x > /new")
        for name in ("a.aci", "b.aci"):
            world.must("export", uuid, str(tmp_path / name))
        assert (tmp_path / "a.aci").read_bytes() == (tmp_path / "b.aci").read_bytes()

    def test_existing_file(self, world: World, tmp_path: Path) -> None:
        uuid = self.exited(world, "true")
        path = tmp_path / "out.aci"
        path.write_text("precious")
        done = world.podctl("export", uuid, str(path))
        assert done.code == 254
        assert "output ACI file exists (try --overwrite)" in done.err
        assert path.read_text() == "precious"
        world.must("export", "--overwrite", uuid, str(path))
        assert tarfile.is_tarfile(path)
        assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []

    def test_refusals(self, world: World, tmp_path: Path) -> None:
        uuid, _ = world.sleeper()
        path = str(tmp_path / "out.aci")
        done = world.podctl("export", uuid, path)
        assert done.code == 254
        assert "pod is not exited" in done.err.replace(f'"{uuid}" ', "")
        assert world.podctl("export", uuid, str(tmp_path / "out.tar")).code == 254
        assert not os.path.exists(path)

    def test_unknown_app_and_directory(self, world: World, tmp_path: Path) -> None:
        uuid = self.exited(world, "true")
        done = world.podctl("export", "--app=other", uuid, str(tmp_path / "out.aci"))
        assert 'has no app "other"' in done.err
        done = world.podctl("export", uuid, "/no/such/dir/out.aci")
        assert done.code == 254
        assert "Traceback" not in done.err


class TestCatManifest:
    def test_prints_what_runs(self, world: World) -> None:
        uuid = world.prepare("--environment=A=1")
        for text in (uuid, uuid[:5]):
            manifest = json.loads(world.must("cat-manifest", text))
            assert {"name": "A", "value": "1"} in manifest["apps"][0]["app"]["environment"]
        flat = world.must("cat-manifest", "--pretty-print=false", uuid)
        assert flat.count("\n") == 1
        assert world.podctl("cat-manifest", "feedface").code == 254
        assert world.podctl("cat-manifest", "").code == 254


class TestPrivileges:
    ROOT_ONLY = (
        ["run", NAME],
        ["prepare", NAME],
        ["run-prepared", "x"],
        ["enter", "x"],
        ["gc"],
        ["rm", "x"],
        ["stop", "x"],
        ["export", "x", "y.aci"],
        ["logs", "x"],
        ["kill", "x"],
        ["exec", "x", "true"],
        ["top", "x"],
        ["stats"],
        ["cp", "x:/y", "z"],
    )

    def as_nobody(self, world: World, *arguments: str, group: int = 65534) -> tuple[int, str]:
        done = subprocess.run(
            as_user(65534, group, *world.command(*arguments)),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd="/",
        )
        return done.returncode, done.stdout + done.stderr

    @pytest.mark.parametrize("command", ROOT_ONLY, ids=lambda command: command[0])
    def test_root_only(self, world: World, command: list[str]) -> None:
        code, text = self.as_nobody(world, *command)
        assert code == 254
        assert "cannot run as unprivileged user" in text

    def test_others_do_not_get_in(self, world: World) -> None:
        uuid, _ = world.sleeper()
        for directory in (world.data, *world.data.parents):
            if directory.stat().st_mode & 0o001 == 0 and directory != world.data:
                directory.chmod(directory.stat().st_mode | 0o011)
        os.chmod(world.data, 0o755)
        for path in (
            world.data / "pods",
            world.data / "pods/run" / uuid / "pod",
            world.data / "pods/run" / uuid / "overlay/busybox/upper",
        ):
            code = (
                "import os, sys\n"
                "try: os.stat(sys.argv[1] + '/x')\n"
                "except PermissionError: sys.exit(0)\n"
                "except NotADirectoryError: pass\n"
                "sys.exit(1)\n"
            )
            command = as_user(65534, 65534, sys.executable, "-I", "-c", code, str(path))
            done = subprocess.run(command, check=False)
            assert done.returncode == 0, path

    def test_the_group_may_list_but_not_look_inside(self, world: World) -> None:
        """With the data directory's group as setup-data-dir sets it."""
        group = 4242
        for path in (world.data, world.data / "pods"):
            path.mkdir(exist_ok=True)
            os.chown(path, 0, group)
            path.chmod(0o2750)
        for directory in world.data.parents:
            if directory.stat().st_mode & 0o001 == 0:
                directory.chmod(directory.stat().st_mode | 0o011)
        uuid, _ = world.sleeper()
        prepared = world.prepare()
        code, text = self.as_nobody(world, "list", "--full", "--no-legend", group=group)
        assert code == 0, text
        states = {row.split()[0]: row for row in text.splitlines()}
        assert " running " in states[uuid]
        assert " prepared " in states[prepared]
        pod = world.data / "pods/run" / uuid
        for name in ("overlay", "rootfs"):
            assert (pod / name).stat().st_mode & 0o7777 == 0o700
        assert (pod / "overlay/busybox/upper").stat().st_mode & 0o7777 == 0o755
        assert (pod / "overlay/busybox/upper").stat().st_gid == 0
