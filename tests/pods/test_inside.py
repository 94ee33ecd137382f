"""What the app finds: its environment, its volumes, its accounts, its names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import World

NAME = "pods.example/busybox"
pytestmark = pytest.mark.root

#: name -> (flags before the image, flags behind it, variable, value)
ENVIRONMENT = {
    "from the image": ([], [], "VAR_FROM_MANIFEST", "manifest"),
    "new by --set-env": (["--set-env=VAR_OTHER=setenv"], [], "VAR_OTHER", "setenv"),
    "--set-env over the image's": (
        ["--set-env=VAR_FROM_MANIFEST=setenv"],
        [],
        "VAR_FROM_MANIFEST",
        "setenv",
    ),
    "inherited": (["--inherit-env"], [], "VAR_OTHER", "host"),
    "not inherited unasked": ([], [], "VAR_OTHER", ""),
    "inherited does not replace the image's": (
        ["--inherit-env"],
        [],
        "VAR_FROM_MANIFEST",
        "manifest",
    ),
    "--set-env over inherited": (
        ["--inherit-env", "--set-env=VAR_OTHER=setenv"],
        [],
        "VAR_OTHER",
        "setenv",
    ),
    "from a file": (["--set-env-file=FILE"], [], "VAR_FILE", "file"),
    "--set-env over the file": (
        ["--set-env-file=FILE", "--set-env=VAR_FILE=setenv"],
        [],
        "VAR_FILE",
        "setenv",
    ),
    "the usual PATH, with a file too": (
        ["--set-env-file=FILE"],
        [],
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    "--environment over everything": (
        ["--inherit-env", "--set-env-file=FILE", "--set-env=VAR_FROM_MANIFEST=setenv"],
        ["--environment=VAR_FROM_MANIFEST=own"],
        "VAR_FROM_MANIFEST",
        "own",
    ),
    "name of the app": ([], ["--name=special"], "AC_APP_NAME", "special"),
    "name of the executor": (["--inherit-env"], [], "container", "podctl"),
}


@pytest.mark.parametrize("case", ENVIRONMENT)
def test_environment_of_app_and_enter(world: World, tmp_path: Path, case: str) -> None:
    before, behind, name, value = ENVIRONMENT[case]
    file = tmp_path / "variables"
    file.write_text("# comment\n; too\n\nVAR_FILE=file\n")
    before = [flag.replace("FILE", str(file)) if "file" in flag else flag for flag in before]
    uuid_file = tmp_path / "uuid"
    process = world.start(
        "run", "--stage1=fly", f"--uuid-file-save={uuid_file}", *before, NAME, *behind,
        "--exec=/bin/sh", "--", "-c", f"echo ${name}; exec sleep 600",
        env={**os.environ, "VAR_OTHER": "host", "VAR_FROM_MANIFEST": "host", "container": "lie"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == f"{value}\n", process.stderr
    entered = world.podctl("enter", uuid_file.read_text(), "/bin/sh", "-c", f"echo ${name}")
    assert (entered.code, entered.out) == (0, f"{value}\n")


def test_terminal_of_app_and_enter(world: World) -> None:
    environment = {**os.environ, "TERM": "vt220"}
    uuid, _ = world.sleeper()
    echo = ["/bin/sh", "-c", "echo $TERM"]
    assert world.podctl("enter", uuid, *echo, env=environment).out == "vt220\n"
    flags = ["run", "--stage1=fly", "--set-env=TERM=dumb", NAME, "--exec=/bin/sh", "--"]
    assert world.podctl(*flags, *echo[1:], env=environment).out == "dumb\n"


def test_hostile_environment_reaches_the_app_alone(world: World, tmp_path: Path) -> None:
    """It is set for the app, and does nothing to podctl, which would otherwise obey it."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(f"open({str(trap / 'sprung')!r}, 'w')")
    (trap / "click.py").write_text(f"open({str(trap / 'sprung')!r}, 'w')")
    names = {
        "PYTHONPATH": str(trap),
        "PYTHONSTARTUP": str(trap / "click.py"),
        "LISTEN_FDS": "3",
        "NOTIFY_SOCKET": "/nowhere",
    }
    flags = [f"--set-env={name}={value}" for name, value in names.items()]
    line = ["run", "--stage1=fly", *flags, NAME, "--exec=/bin/env"]
    out = world.must(*line, env={**os.environ, **names})
    for name, value in names.items():
        assert f"{name}={value}\n" in out
    assert not (trap / "sprung").exists()


class TestVolumes:
    def run(self, world: World, script: str, *flags: str, image: tuple[str, ...] = ()) -> str:
        line = ["run", "--stage1=fly", *flags, NAME, *image, "--exec=/bin/sh", "--", "-c", script]
        done = world.podctl(*line)
        assert done.code == 0, done.err
        return done.out

    def test_writing_reaches_the_host(self, world: World, tmp_path: Path) -> None:
        (tmp_path / "v").mkdir()
        flags = [f"--volume=v,kind=host,source={tmp_path / 'v'}", "--mount=volume=v,target=/v"]
        self.run(world, "echo hello > /v/file", *flags)
        assert (tmp_path / "v/file").read_text() == "hello\n"

    def test_read_only_is_read_only(self, world: World, tmp_path: Path) -> None:
        (tmp_path / "v").mkdir()
        (tmp_path / "v/file").write_text("host\n")
        source = f"--volume=v,kind=host,source={tmp_path / 'v'},readOnly=true"
        script = "cat /v/file; echo x > /v/new 2>/dev/null || echo refused"
        out = self.run(world, script, source, "--mount=volume=v,target=/v")
        assert out == "host\nrefused\n"
        assert not (tmp_path / "v/new").exists()

    def test_empty_volume_has_mode_and_owner(self, world: World) -> None:
        volume = "--volume=v,kind=empty,mode=0123,uid=9991,gid=9992"
        out = self.run(world, "stat -c '%a %u %g' /v", volume, "--mount=volume=v,target=/v")
        assert out == "123 9991 9992\n"

    def test_empty_volume_on_a_read_only_root_stays_writable(self, world: World) -> None:
        script = "echo x > /v/file && cat /v/file; touch /new 2>/dev/null || echo refused"
        out = self.run(
            world,
            script,
            "--volume=v,kind=empty",
            "--mount=volume=v,target=/v",
            image=("--readonly-rootfs=true",),
        )
        assert out == "x\nrefused\n"

    def test_empty_volume_goes_with_the_pod(self, world: World) -> None:
        self.run(world, "echo x > /v/f", "--volume=v,kind=empty", "--mount=volume=v,target=/v")
        assert [path.read_text() for path in world.data.rglob("sharedVolumes/v/f")] == ["x\n"]
        world.must("gc", "--grace-period=0s")
        assert list(world.data.rglob("sharedVolumes")) == []

    def test_file_as_volume(self, world: World, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("content\n")
        flags = [f"--volume=v,kind=host,source={tmp_path / 'f'}", "--mount=volume=v,target=/new/f"]
        assert self.run(world, "cat /new/f", *flags) == "content\n"

    def test_made_parents_are_0755(self, world: World) -> None:
        flags = ["--volume=v,kind=empty,mode=0700", "--mount=volume=v,target=/a/b/c"]
        assert self.run(world, "stat -c %a /a /a/b /a/b/c", *flags) == "755\n755\n700\n"

    def test_nested_targets(self, world: World, tmp_path: Path) -> None:
        for name in ("outer", "inner"):
            (tmp_path / name).mkdir()
            (tmp_path / name / name).touch()
        flags = [
            f"--volume=o,kind=host,source={tmp_path / 'outer'}",
            f"--volume=i,kind=host,source={tmp_path / 'inner'}",
            "--mount=volume=i,target=/m/in",
            "--mount=volume=o,target=/m",
        ]
        (tmp_path / "outer/in").mkdir()
        assert self.run(world, "ls /m /m/in", *flags) == "/m:\nin\nouter\n\n/m/in:\ninner\n"

    def test_link_as_source_is_followed_on_the_host(self, world: World, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real/file").write_text("real\n")
        (tmp_path / "link").symlink_to("real")
        flags = [f"--volume=v,kind=host,source={tmp_path / 'link'}", "--mount=volume=v,target=/v"]
        assert self.run(world, "cat /v/file", *flags) == "real\n"


@pytest.mark.parametrize(
    ("flags", "ids"),
    [
        ([], "0 0"),
        (["--user=200"], "200 0"),
        (["--group=300"], "0 300"),
        (["--user=200", "--group=300"], "200 300"),
        (["--user=web", "--group=web"], "1001 1002"),
        (["--user=web", "--group=50"], "1001 50"),
        (["--user=7", "--group=staff"], "7 50"),
        (["--user=root", "--group=root"], "0 0"),
        (["--user=/dir1/file", "--group=/dir1/file"], "0 0"),
    ],
)
def test_user_and_group(world: World, flags: list[str], ids: str) -> None:
    done = world.shell('echo "$(id -u) $(id -g)"', *flags)
    assert done.out == f"{ids}\n", done.err


def test_supplementary_groups(world: World) -> None:
    done = world.shell("grep Groups /proc/self/status", "--supplementary-gids=400,500,1200")
    assert done.out.split() == ["Groups:", "0", "400", "500", "1200"]


class TestNames:
    def run(self, world: World, script: str, *flags: str) -> str:
        line = ["run", "--stage1=fly", *flags, NAME, "--exec=/bin/sh", "--", "-c", script]
        return world.must(*line)

    def test_no_resolv_conf_unasked(self, world: World) -> None:
        assert self.run(world, "test -e /etc/resolv.conf || echo none") == "none\n"

    def test_resolv_conf_as_asked(self, world: World) -> None:
        out = self.run(world, "cat /etc/resolv.conf", "--dns=1.2.3.4", "--dns-search=a.test")
        assert out == "# Generated by podctl run\n\nsearch a.test\nnameserver 1.2.3.4\n"

    def test_hosts_as_asked(self, world: World) -> None:
        out = self.run(world, "cat /etc/hosts", "--hosts-entry=1.2.3.4=name")
        assert out.endswith("1.2.3.4 name\n")
        assert "localhost" in out

    def test_hosts_of_the_host(self, world: World) -> None:
        out = self.run(world, "cat /etc/hosts", "--hosts-entry=host")
        assert out == Path("/etc/hosts").read_text()

    def test_fallback_hosts(self, world: World) -> None:
        assert "127.0.0.1 localhost" in self.run(world, "cat /etc/hosts")

    def test_asked_at_run_prepared(self, world: World) -> None:
        uuid = world.prepare("--exec=/bin/cat", "--", "/etc/resolv.conf")
        assert "nameserver 9.9.9.9\n" in world.must("run-prepared", "--dns=9.9.9.9", uuid)
