"""`run`, `prepare` and `run-prepared`: the pod is the app, or nothing is left."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import World

NAME = "pods.example/busybox"
pytestmark = pytest.mark.root


def fingerprint(top: Path) -> dict[str, tuple[int, int, str]]:
    """Every path below with mode, time and content."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


class TestBecomingTheApp:
    @pytest.mark.parametrize("code", [0, 1, 2, 7, 254])
    def test_exit_code_is_the_apps(self, world: World, code: int) -> None:
        assert world.shell(f"exit {code}").code == code

    def test_signal_ends_it_like_any_process(self, world: World) -> None:
        assert world.shell("kill -TERM $$").code == -signal.SIGTERM

    def test_output_and_input_are_passed_through(self, world: World) -> None:
        done = world.shell("cat; echo problem >&2", stdin="hello\n")
        assert (done.code, done.out) == (0, "hello\n")
        assert done.err.splitlines()[-1] == "problem"

    def test_process_is_the_app_itself(self, world: World) -> None:
        uuid, process = world.sleeper()
        assert os.readlink(f"/proc/{process.pid}/exe").endswith("/bin/busybox")
        assert world.status(uuid)["pid"] == str(process.pid)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        assert children == ""

    def test_arguments_arrive_as_they_are(self, world: World) -> None:
        words = ["a b", "new\nline", "$HOME", "'\"\\", "", "---x", "%s"]
        done = world.podctl(
            "run", "--stage1=fly", NAME, "--exec=/bin/sh", "--", "-c",
            'for w; do echo "[$w]"; done', "sh", *words,
        )  # fmt: skip
        # Empty words outlive only inside the arguments.
        assert done.out == "".join(f"[{word}]\n" for word in words)

    def test_name_prefix_and_hash_of_an_image(self, world: World) -> None:
        key = json.loads(world.must("image", "list", "--format=json"))[0]["id"]
        for reference in (f"{NAME}:1.0", key, key[:30]):
            assert world.podctl("run", "--stage1=fly", reference).code == 0

    def test_network_of_the_host_may_be_asked_for(self, world: World) -> None:
        done = world.podctl(
            *("run", "--stage1=fly", "--net=host", NAME, "--exec=/bin/readlink"),
            *("--", "/proc/self/ns/net"),
        )
        assert (done.code, done.out.strip()) == (0, os.readlink("/proc/self/ns/net"))

    def test_no_descriptor_but_the_lock_is_left_open(self, world: World) -> None:
        done = world.shell("ls -l /proc/self/fd", pass_fds=())
        links = [line.split(" -> ")[1] for line in done.out.splitlines() if " -> " in line]
        beyond = [link for link in links[3:] if not link.startswith("/proc/")]
        assert len(beyond) == 1
        assert beyond[0].endswith("/lock")

    def test_umask_of_the_app_is_the_usual_one(self, world: World) -> None:
        assert world.shell("umask", umask=0o077).out == "0022\n"

    @pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
    def test_callers_umask_changes_nothing(self, world: World, umask: int) -> None:
        assert world.shell("stat -c %a / /tmp", umask=umask).out == "755\n1777\n"
        (uuid,) = world.pods()
        assert world.state(uuid) == "exited"
        modes = {path.stat().st_mode & 0o007 for path in world.data.glob("pods/run/*/*")}
        assert modes == {0}

    def test_working_directory_of_the_caller_may_be_gone(
        self, world: World, tmp_path: Path
    ) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        command = world.command("run", "--stage1=fly", NAME)
        script = f"cd '{gone}' && rmdir '{gone}' && exec \"$@\""
        done = subprocess.run(["sh", "-c", script, "sh", *command], check=False, timeout=60)
        assert done.returncode == 0

    def test_no_overlay_runs_a_copy(self, world: World) -> None:
        line = ["run", "--stage1=fly", "--no-overlay", NAME, "--exec=/bin/sh", "--", "-c"]
        done = world.podctl(*line, "echo x > /new; stat -f -c %T / ; cat /dir1/file")
        assert done.code == 0
        assert done.out.endswith("from the image\n")
        (pod,) = world.data.glob("pods/run/*")
        assert (pod / "rootfs/busybox/new").read_text() == "x\n"
        assert not (pod / "overlay").exists()

    def test_pods_do_not_see_each_others_changes(self, world: World) -> None:
        assert world.shell("rm /dir1/file; echo x > /new").code == 0
        assert world.shell("cat /dir1/file; test ! -e /new").out == "from the image\n"


class TestFailing:
    @pytest.mark.parametrize(
        ("flags", "message", "code"),
        [
            (["--exec=/no/such"], "no such program in the image", 127),
            (["--exec=/etc/passwd"], "no execute permission", 126),
            (["--user=nobody-here"], "nobody-here", 254),
            (["--group=nobody-here"], "nobody-here", 254),
            (["--user=/no/file"], "/no/file", 254),
            (["--working-dir=/no/dir"], "/no/dir", 254),
            (["--memory=16m"], "4096", 254),
            (["--memory=100k"], "resource/memory", 254),
            (["--seccomp=mode=retain,no_such_call"], "no_such_call", 254),
            (["--mount=volume=x,target=/x"], "dangling mount point", 254),
            (["--stdin=stream"], "--stdin", 254),
        ],
    )
    def test_one_line_and_no_pod_is_left(
        self, world: World, flags: list[str], message: str, code: int
    ) -> None:
        done = world.podctl("run", "--stage1=fly", NAME, *flags)
        assert done.code == code
        assert message in done.err.splitlines()[-1]
        assert "Traceback" not in done.err
        assert world.pods() == {}

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--net=none"], 'cannot use network "none"'),
            (["--net"], 'cannot use network "default"'),
            (["--net=host,other"], 'cannot use network "other"'),
            (["--hostname=x"], "does not support --hostname"),
            (["--private-users"], "does not support --private-users"),
            (["--ipc=parent"], "does not support --ipc"),
            (["--mds-register"], "does not support --mds-register"),
            (["--dns=nonsense"], "not an IP address"),
            (["--port=http:80"], "could not be found"),
            (["--port=http:80", "--net=host"], "--port flag does not work with 'host'"),
            (["--port=http:80", "--net=none"], "none"),
            (["--volume=v,kind=host,source=/no/such", "--mount=volume=v,target=/v"], "/no/such"),
            (["--volume=a,kind=empty", "--volume=a,kind=empty"], "duplicate volume name"),
            (["--stage1-name=example.com/other"], "exclude each other"),
            (["--set-env=A=1", "--set-env=A=2"], "A"),
            (["--ipc=nonsense"], "nonsense"),
            (["--no-such-flag"], "unknown flag: --no-such-flag"),
            (["--exec=/bin/sh"], "--exec must follow an image"),
        ],
    )
    def test_refused_before_anything_is_made(
        self, world: World, flags: list[str], message: str
    ) -> None:
        done = world.podctl("run", "--stage1=fly", *flags, NAME)
        assert done.code == 254
        assert message in done.err
        assert not (world.data / "pods").exists()

    def test_two_apps_are_too_many_for_fly(self, world: World) -> None:
        done = world.podctl("run", "--stage1=fly", NAME, NAME, "--name=b")
        assert done.code == 254
        assert "at most 1 app" in done.err
        assert world.pods() == {}

    def test_without_images(self, world: World) -> None:
        done = world.podctl("run", "--stage1=fly")
        assert done.code == 254
        assert "must provide at least one image" in done.err

    def test_flavor_that_is_not_installed_names_its_package_and_the_way_out(
        self, world: World
    ) -> None:
        done = world.podctl("run", "--stage1=kvm", NAME)
        assert done.code == 254
        assert "podctl-stage1-kvm" in done.err

    def test_flavor_from_the_configuration(self, world: World, tmp_path: Path) -> None:
        directory = tmp_path / "etc/stage1.d"
        directory.mkdir(parents=True)
        kind = {
            "rktKind": "stage1",
            "rktVersion": "v1",
            "location": "/usr/lib/rkt/stage1-images/stage1-fly.aci",
        }
        (directory / "x.json").write_text(json.dumps(kind))
        done = world.podctl("--local-config", str(tmp_path / "etc"), "run", NAME)
        assert done.code == 0, done.err

    def test_image_that_is_not_there(self, world: World) -> None:
        done = world.podctl("run", "--stage1=fly", "--pull-policy=never", "pods.example/other")
        assert done.code == 254
        assert "pods.example/other" in done.err
        assert world.pods() == {}

    def test_several_images_are_refused_interactively(self, world: World) -> None:
        done = world.podctl("run", "--stage1=fly", "--interactive", NAME, NAME, "--name=b")
        assert done.code == 254


class TestDryRun:
    def test_prints_the_plan_and_changes_no_byte(self, world: World) -> None:
        before = fingerprint(world.data)
        line = ["run", "--stage1=fly", "--dry-run", "--volume=v,kind=empty", NAME]
        flags = ["--mount=volume=v,target=/v", "--exec=/bin/sh", "--", "-c", "exit 9"]
        text = world.must(*line, *flags)
        assert "execute: /bin/sh -c 'exit 9'" in text
        assert "environment: VAR_FROM_MANIFEST=manifest" in text
        plan = json.loads(world.must(*line, "--format=json", *flags))
        assert plan["argv"] == ["/bin/sh", "-c", "exit 9"]
        assert "/v" in [step.get("target") for step in plan["steps"]]
        assert fingerprint(world.data) == before

    def test_plan_is_the_one_that_is_carried_out(self, world: World) -> None:
        flags = [NAME, "--exec=/bin/env"]
        plan = json.loads(world.must("run", "--stage1=fly", "--dry-run", "--format=json", *flags))
        real = world.must("run", "--stage1=fly", *flags)
        assert dict(line.split("=", 1) for line in real.splitlines()) == plan["environment"]

    def test_of_a_prepared_pod(self, world: World) -> None:
        uuid = world.prepare("--exec=/bin/false")
        before = fingerprint(world.data)
        plan = json.loads(world.must("run-prepared", "--dry-run", "--format=json", uuid))
        assert plan["argv"] == ["/bin/false"]
        assert f"/pods/run/{uuid}/" in plan["root"]
        assert fingerprint(world.data) == before
        assert world.podctl("run-prepared", uuid).code == 1

    def test_refusals_are_the_same(self, world: World) -> None:
        for flags in (["--net=none", NAME], [NAME, "--memory=100k"], ["pods.example/other"]):
            done = world.podctl("run", "--stage1=fly", "--dry-run", *flags)
            assert done.code == 254
        assert not (world.data / "pods").exists()


class TestPrepared:
    def test_prints_the_uuid_and_runs_once(self, world: World) -> None:
        uuid = world.prepare("--exec=/bin/sh", "--", "-c", "exit 3")
        assert world.state(uuid) == "prepared"
        assert world.podctl("run-prepared", uuid[:6]).code == 3
        again = world.podctl("run-prepared", uuid)
        assert again.code == 254
        assert f'pod "{uuid}" is not prepared' in again.err
        assert world.state(uuid) == "exited"

    def test_what_the_run_cannot_do_leaves_it_prepared(self, world: World) -> None:
        uuid = world.prepare()
        for flags in (["--net=none"], ["--hostname=x"], ["--dns=x"]):
            assert world.podctl("run-prepared", *flags, uuid).code == 254
            assert world.state(uuid) == "prepared"
        assert world.podctl("run-prepared", uuid).code == 0

    def test_missing_volume_source_leaves_it_prepared(self, world: World, tmp_path: Path) -> None:
        source = tmp_path / "later"
        flags = [f"--volume=v,kind=host,source={source}", "--mount=volume=v,target=/v"]
        uuid = world.must("prepare", "--stage1=fly", *flags, NAME).strip()
        done = world.podctl("run-prepared", uuid)
        assert done.code == 254
        assert str(source) in done.err
        source.mkdir()
        assert world.podctl("run-prepared", uuid).code == 0

    def test_insecure_options_are_repeated(self, world: World) -> None:
        flags = ["--caps-retain=CAP_CHOWN", "--exec=/bin/grep", "--", "CapEff", "/proc/self/status"]
        line = ["prepare", "--insecure-options=capabilities", "--stage1=fly", NAME, *flags]
        held, waived = (world.must(*line).strip() for _ in range(2))
        assert world.must("run-prepared", held).split()[1] == f"{1:016x}"
        run = ["run-prepared", "--insecure-options=capabilities", waived]
        assert world.must(*run).split()[1] != f"{1:016x}"

    def test_image_may_be_removed_meanwhile(self, world: World) -> None:
        uuid = world.prepare("--exec=/bin/cat", "--", "/dir1/file")
        world.must("image", "rm", NAME)
        world.must("image", "gc", "--grace-period=0s")
        assert world.must("run-prepared", uuid) == "from the image\n"
        assert f"{NAME}:1.0" in world.must("list")

    def test_exactly_one_of_many_gets_it(self, world: World) -> None:
        uuid = world.prepare("--exec=/bin/echo", "--", "mine")
        racers = [world.start("run-prepared", uuid) for _ in range(6)]
        results = [(racer.communicate(timeout=60), racer.returncode) for racer in racers]
        winners = [output for (output, _), code in results if code == 0]
        assert winners == ["mine\n"]
        for (_, error), code in results:
            assert code == 0 or "is not prepared" in error or "no matches" in error

    def test_run_against_gc(self, world: World) -> None:
        """gc expires prepared pods while they are started: each either runs or was removed."""
        for _ in range(8):
            uuid = world.prepare("--exec=/bin/echo", "--", "ran")
            runner = world.start("run-prepared", uuid)
            collector = world.start("gc", "--expire-prepared=0s", "--grace-period=1h")
            output = runner.communicate(timeout=60)
            assert collector.wait(60) == 0
            if runner.returncode == 0:
                assert output[0] == "ran\n"
                assert world.pods()[uuid] in ("run", "exited-garbage")
            else:
                assert uuid not in world.pods(), output

    def test_runs_beside_gc_and_image_gc(self, world: World) -> None:
        """An image is never removed under a pod, a pod never under its app."""
        script = 'while :; do "$@" || exit 1; done'
        for command in (["gc", "--grace-period=0s"], ["image", "gc", "--grace-period=0s"]):
            loop = subprocess.Popen(
                ["sh", "-c", script, "sh", *world.command(*command)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            try:
                for _ in range(6):
                    uuid = world.prepare("--exec=/bin/cat", "--", "/dir1/file")
                    done = world.podctl("run-prepared", uuid)
                    assert (done.code, done.out) == (0, "from the image\n"), done.err
            finally:
                os.killpg(loop.pid, signal.SIGKILL)
                assert loop.stderr is not None
                complaints = loop.stderr.read()
                loop.communicate()
            assert "Traceback" not in complaints
            if command[0] == "image":
                return
            # The next round needs the image again.
            assert world.podctl("run", "--stage1=fly", NAME).code == 0

    def test_prepare_has_no_run_flags(self, world: World) -> None:
        for flag in ("--net=host", "--hostname=x", "--interactive", "--uuid-file-save=/x"):
            assert world.podctl("prepare", "--stage1=fly", flag, NAME).code == 254


class TestPodManifest:
    def manifest(self, world: World, path: Path, **app: object) -> list[str]:
        key = json.loads(world.must("image", "list", "--format=json"))[0]["id"]
        entry = {"name": "one", "image": {"id": key}, **app}
        value = {"acVersion": "0.8.11", "acKind": "PodManifest", "apps": [entry]}
        path.write_text(json.dumps(value))
        return ["--stage1=fly", f"--pod-manifest={path}"]

    def test_app_section_is_taken_whole(self, world: World, tmp_path: Path) -> None:
        section = {"exec": ["/bin/env"], "user": "0", "group": "0"}
        line = self.manifest(world, tmp_path / "pod", app=section)
        out = world.must("run", *line)
        assert "AC_APP_NAME=one" in out
        assert "VAR_FROM_MANIFEST" not in out

    def test_image_fills_in(self, world: World, tmp_path: Path) -> None:
        line = self.manifest(world, tmp_path / "pod")
        uuid = world.must("prepare", *line).strip()
        app = json.loads(world.must("cat-manifest", uuid))["apps"][0]
        assert app["app"]["exec"] == ["/bin/true"]
        assert app["image"]["name"] == NAME
        assert world.podctl("run-prepared", uuid).code == 0

    @pytest.mark.parametrize(
        "flags",
        [
            ["--inherit-env"],
            ["--no-store"],
            ["--store-only"],
            ["--pull-policy=never"],
            ["--pull-policy=update"],
            ["--port=http:80"],
            ["--set-env=A=1"],
            ["--volume=v,kind=empty"],
            ["--mount=volume=v,target=/v"],
            [NAME],
            [NAME, "--exec=/bin/sh"],
        ],
    )
    @pytest.mark.parametrize("command", ["run", "prepare"])
    def test_other_sources_conflict(
        self, world: World, tmp_path: Path, command: str, flags: list[str]
    ) -> None:
        line = self.manifest(world, tmp_path / "pod")
        done = world.podctl(command, *line, *flags)
        assert done.code == 254
        assert "conflicting flags set with --pod-manifest (see --help)" in done.err

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"acVersion":"0.8.11","acKind":"PodManifest","apps":[]}', "at least one application"),
            ("{", "pod"),
            (
                '{"acVersion":"0.8.11","acKind":"PodManifest",'
                '"apps":[{"name":"../x","image":{"id":"sha512-aa"}}]}',
                "../x",
            ),
        ],
    )
    def test_bad_documents(self, world: World, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "pod").write_text(text)
        done = world.podctl("run", "--stage1=fly", f"--pod-manifest={tmp_path / 'pod'}")
        assert done.code == 254
        assert message in done.err
        assert world.pods() == {}
