"""rkt command lines with the name changed: what an app finds when it starts (flavor fly)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from home import Home
from image_files import Directory, File, Link, manifest, pack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from home import Done
    from site_world import Site

pytestmark = pytest.mark.root

IMAGE = "rkt.example/inspect"
BARE = "rkt.example/bare"
FLY = "--stage1=fly"
#: how a pod comes to run
WAYS = ["run", "run-prepared"]

FILES = {
    "dir1/file": b"from the image\n",
    "dir1/run-me": File(b"#!/bin/sh\necho relative to $PWD\n", 0o755),
    "dir1/owned": File(b"", uid=1000, gid=100),
    "dir2": Directory(),
    "absolute-dir": Link("/dir2"),
    "relative-dir": Link("dir2"),
    "to-root": Link("/"),
    "dangling": Link("/not/there"),
    "up/link": Link("../dir2/../../../dir2"),
    "opt/tool": File(b"#!/bin/sh\necho tool of opt\n", 0o755),
    "bin/tool-link": Link("/opt/tool"),
    "bin/no-interpreter": File(b"#!/bin/missing\n", 0o755),
    "bin/not-executable": File(b"#!/bin/sh\n", 0o644),
    "etc/hosts": b"# the image's own hosts\n",
}


class Inspect(Home):
    """An installation with images that look around."""

    def shell(
        self,
        script: str,
        *flags: str,
        app: Sequence[str] = (),
        way: str = "run",
        image: str = IMAGE,
        **settings: Any,
    ) -> Done:
        """Run a shell script as the app: `flags` of the command, `app` of the image."""
        words = [FLY, *flags, image, "--exec=/bin/sh", *app, "--", "-c", script]
        if way == "run":
            return self.podctl("run", *words, **settings)
        prepared = self.podctl("prepare", *words, **settings)
        if prepared.returncode:
            return prepared
        return self.podctl("run-prepared", prepared.stdout.strip(), **settings)

    def says(self, script: str, *flags: str, **settings: Any) -> str:
        """Standard output of a script that has to succeed, without the last newline."""
        done = self.shell(script, *flags, **settings)
        assert done.returncode == 0, done
        return done.stdout.rstrip("\n")


@pytest.fixture(scope="module")
def inspect(published: Site, tmp_path_factory: pytest.TempPathFactory) -> Inspect:
    inspect = Inspect(tmp_path_factory.mktemp("inspect"), published.inside())
    environment = [{"name": "VAR_FROM_MANIFEST", "value": "manifest"}]
    inspect.install(IMAGE, FILES, app={"environment": environment})
    inspect.install(
        "rkt.example/points",
        FILES,
        app={
            "mountPoints": [
                {"name": "rw", "path": "/dir1"},
                {"name": "ro", "path": "/dir2", "readOnly": True},
            ]
        },
    )
    inspect.install("rkt.example/owned", FILES, app={"user": "400", "group": "500"})
    bare = inspect.top / "bare.aci"
    bare.write_bytes(pack(manifest(BARE), {"bin/true": Link("busybox")}))
    inspect.must("fetch", str(bare))
    return inspect


ENVIRONMENT = {
    "image": ([], [], {}, "VAR_FROM_MANIFEST", "manifest"),
    "set-env": (["--set-env=VAR=set"], [], {}, "VAR", "set"),
    "set-env over image": (["--set-env=VAR_FROM_MANIFEST=s"], [], {}, "VAR_FROM_MANIFEST", "s"),
    "host is not inherited": ([], [], {"VAR": "host"}, "VAR", ""),
    "inherit-env": (["--inherit-env"], [], {"VAR": "host"}, "VAR", "host"),
    "image over inherited": (
        ["--inherit-env"], [], {"VAR_FROM_MANIFEST": "host"}, "VAR_FROM_MANIFEST", "manifest"
    ),
    "set-env over inherited": (["--inherit-env", "--set-env=V=s"], [], {"V": "h"}, "V", "s"),
    "file": (["--set-env-file=FILE"], [], {}, "FROM_FILE", "file = value"),
    "set-env over file": (
        ["--set-env-file=FILE", "--set-env=FROM_FILE=set"], [], {}, "FROM_FILE", "set"
    ),
    "file over image": (["--set-env-file=FILE"], [], {}, "VAR_FROM_MANIFEST", "of the file"),
    "default PATH": (
        ["--set-env-file=FILE"], [], {},
        "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    "TERM": (["--set-env=TERM=dumb"], [], {}, "TERM", "dumb"),
    "environment over all": (
        ["--set-env=V=set", "--inherit-env", "--set-env-file=FILE"], ["--environment=V=app"],
        {"V": "host"}, "V", "app",
    ),
    "name of the app": ([], ["--name=other"], {}, "AC_APP_NAME", "other"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ENVIRONMENT)
def test_environment(inspect: Inspect, way: str, case: str) -> None:
    flags, app, caller, name, value = ENVIRONMENT[case]
    file = inspect.top / "environment"
    file.write_text(
        "# comment\n; comment\n\nFROM_FILE=file = value\nVAR_FROM_MANIFEST=of the file\n"
    )
    given = [flag.replace("FILE", str(file)) if "file=" in flag else flag for flag in flags]
    environment = {**os.environ, **caller}
    found = inspect.says(f'echo "${name}"', *given, app=app, way=way, env=environment)
    assert found == value


BAD_ENVIRONMENT = {
    "twice": ["--set-env=A=1", "--set-env=A=2"],
    "no value": ["--set-env=A"],
    "no name": ["--set-env==1"],
    "line without =": ["--set-env-file=BAD"],
    "file twice": ["--set-env-file=TWICE"],
    "no file": ["--set-env-file=/not/there"],
}


@pytest.mark.parametrize("case", BAD_ENVIRONMENT)
def test_environment_that_makes_no_sense_is_refused(inspect: Inspect, case: str) -> None:
    files = {"BAD": "A\n", "TWICE": "A=1\nA=2\n"}
    flags = []
    for flag in BAD_ENVIRONMENT[case]:
        option, _, name = flag.partition("=")
        if name in files:
            (inspect.top / name).write_text(files[name])
            flag = f"{option}={inspect.top / name}"
        flags.append(flag)
    done = inspect.shell("true", *flags)
    assert done.returncode == 254
    assert done.stderr.startswith("run: ")


USERS = {
    "none": ([], IMAGE, "0:0"),
    "user": (["--user=200"], IMAGE, "200:0"),
    "group": (["--group=300"], IMAGE, "0:300"),
    "both": (["--user=200", "--group=300"], IMAGE, "200:300"),
    "names": (["--user=user1", "--group=group1"], IMAGE, "1000:100"),
    "name and number": (["--user=user1", "--group=7"], IMAGE, "1000:7"),
    "paths": (["--user=/dir1/owned", "--group=/dir1/owned"], IMAGE, "1000:100"),
    "root by name": (["--user=root", "--group=root"], "rkt.example/owned", "0:0"),
    "image": ([], "rkt.example/owned", "400:500"),
    "image, user given": (["--user=1"], "rkt.example/owned", "1:500"),
    "image, group given": (["--group=1"], "rkt.example/owned", "400:1"),
    "image, both given": (["--user=1", "--group=2"], "rkt.example/owned", "1:2"),
}


@pytest.mark.parametrize("case", USERS)
def test_user_and_group(inspect: Inspect, case: str) -> None:
    app, image, expected = USERS[case]
    assert inspect.says('echo "$(id -u):$(id -g)"', app=app, image=image) == expected


def test_supplementary_groups_are_those_listed_and_the_primary(inspect: Inspect) -> None:
    app = ["--supplementary-gids=400,500,1200"]
    assert inspect.says("grep ^Groups: /proc/self/status", app=app).split() == [
        "Groups:", "0", "400", "500", "1200",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (["--user=user2"], 'user "user2" is not in'),
        (["--group=group2"], 'group "group2" is not in'),
        (["--user=/not/there"], "/not/there"),
        (["--group=/not/there"], "/not/there"),
    ],
)
def test_unknown_user_or_group_fails_the_pod(inspect: Inspect, app: list[str], reason: str) -> None:
    done = inspect.shell("true", app=app)
    assert done.returncode == 254
    assert reason in done.stderr


def test_working_directory(inspect: Inspect) -> None:
    assert inspect.says("pwd") == "/"
    assert inspect.says("pwd; cat file", app=["--working-dir=/dir1"]) == "/dir1\nfrom the image"
    # A link leads to where it leads inside the image.
    assert inspect.says("pwd -P", app=["--working-dir=/absolute-dir"]) == "/dir2"


EXECUTABLES = {
    "absolute link": (["--exec=/bin/tool-link"], [], 0, "tool of opt\n"),
    "by PATH": (["--exec=echo"], ["by PATH"], 0, "by PATH\n"),
    "by the app's PATH": (
        ["--exec=tool", "--environment=PATH=/nowhere:/opt:/bin"], [], 0, "tool of opt\n"
    ),
    "relative to the working directory": (
        ["--exec=./run-me", "--working-dir=/dir1"], [], 0, "relative to /dir1\n"
    ),
    "not there": (["--exec=/bin/absent"], [], 127, "/bin/absent"),
    "not in PATH": (["--exec=absent"], [], 127, "absent"),
    "interpreter not there": (["--exec=/bin/no-interpreter"], [], 127, "/bin/missing"),
    "not executable": (["--exec=/bin/not-executable"], [], 126, "/bin/not-executable"),
    "a directory": (["--exec=/dir1"], [], 126, "/dir1"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", EXECUTABLES)
def test_executable(inspect: Inspect, way: str, case: str) -> None:
    app, arguments, code, text = EXECUTABLES[case]
    words = [FLY, IMAGE, *app, "--", *arguments]
    if way == "run":
        done = inspect.podctl("run", *words)
    else:
        done = inspect.podctl("run-prepared", inspect.must("prepare", *words).strip())
    assert done.returncode == code, done
    if code == 0:
        assert done.stdout == text
    else:
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("image: ")]
        assert text in line, done.stderr


def test_image_without_an_app_needs_exec(inspect: Inspect) -> None:
    refused = inspect.refused("run", FLY, BARE)
    assert "--exec" in refused
    done = inspect.podctl("run", FLY, BARE, "--exec=/bin/true")
    assert done.returncode == 127  # the link leads nowhere: there is no busybox in it
    assert "/bin/true" in done.stderr


@pytest.mark.parametrize("code", [0, 1, 2, 77, 253])
def test_exit_code_is_the_apps(inspect: Inspect, code: int) -> None:
    assert inspect.shell(f"exit {code}").returncode == code


def test_arguments_arrive_as_they_are(inspect: Inspect) -> None:
    words = ["new\nline", "quo'te\"s", "$HOME", "", "--", "back\\slash", "ümläut", "%s", "-c"]
    script = 'for word; do echo "<$word>"; done'
    done = inspect.podctl("run", FLY, IMAGE, "--exec=/bin/sh", "--", "-c", script, "sh", *words)
    assert done.stdout == "".join(f"<{word}>\n" for word in words)


@pytest.mark.parametrize("way", WAYS)
def test_host_volumes(inspect: Inspect, tmp_path: Path, way: str) -> None:
    (tmp_path / "file").write_text("of the host\n")
    mount = ["--mount=volume=vol,target=/new/deep/place"]
    volume = f"--volume=vol,kind=host,source={tmp_path}"
    script = "cat /new/deep/place/file && echo written > /new/deep/place/back"
    assert inspect.says(script, volume, app=mount, way=way) == "of the host"
    assert (tmp_path / "back").read_text() == "written\n"
    refused = inspect.shell(script, f"{volume},readOnly=true", app=mount, way=way)
    assert refused.stdout == "of the host\n"
    assert "ead-only file system" in refused.stderr
    assert refused.returncode != 0
    # Parents of the target that were missing are open to all.
    assert inspect.says("stat -c %a /new /new/deep", volume, app=mount, way=way) == "755\n755"


READ_ONLY = {
    "as the mount point says, writable": ("rw", "", "/dir1", True),
    "as the mount point says, read-only": ("ro", "", "/dir2", False),
    "volume beats writable mount point": ("rw", ",readOnly=true", "/dir1", False),
    "volume beats read-only mount point": ("ro", ",readOnly=false", "/dir2", True),
}


@pytest.mark.parametrize("case", READ_ONLY)
def test_who_decides_whether_a_volume_is_read_only(
    inspect: Inspect, tmp_path: Path, case: str
) -> None:
    name, option, target, writable = READ_ONLY[case]
    done = inspect.shell(
        f"echo new > {target}/file",
        f"--volume={name},kind=host,source={tmp_path}{option}",
        image="rkt.example/points",
    )
    assert (done.returncode == 0, (tmp_path / "file").exists()) == (writable, writable)


def test_mount_point_without_a_volume_gets_an_empty_one(inspect: Inspect) -> None:
    file = inspect.top / "uuid"
    done = inspect.shell(
        "ls /dir1 /dir2; echo x > /dir1/new", f"--uuid-file-save={file}", image="rkt.example/points"
    )
    assert done.returncode == 0
    assert done.stdout == "/dir1:\n\n/dir2:\n"
    for name in ("rw", "ro"):
        assert f'no volume specified for mount point "{name}"' in done.stderr
    volumes = json.loads(inspect.must("cat-manifest", f"--uuid-file={file}"))["volumes"]
    assert [one["name"] for one in volumes] == ["points-rw", "points-ro"]


def test_empty_volume_has_owner_and_mode(inspect: Inspect) -> None:
    volume = "--volume=vol,kind=empty,mode=0123,uid=9991,gid=9992"
    mount = ["--mount=volume=vol,target=/dir1"]
    assert inspect.says("stat -c '%a %u %g' /dir1", volume, app=mount) == "123 9991 9992"
    plain = inspect.says("stat -c '%a %u %g' /dir1", "--volume=vol,kind=empty", app=mount)
    assert plain == "755 0 0"


TARGETS = {
    "plain": ("/dir1", "/dir1"),
    "absolute link": ("/absolute-dir", "/dir2"),
    "relative link": ("/relative-dir", "/dir2"),
    "dots and slashes": ("/dir1/.././/dir2/.", "/dir2"),
    "more dots than depth": ("/../../../dir1", "/dir1"),
    "link with dots": ("/up/link", "/dir2"),
    "new below a link": ("/absolute-dir/new/one", "/dir2/new/one"),
    "link to what is not there": ("/dangling", "/not/there"),
    "below a link to the root": ("/to-root/dir1", "/dir1"),
    "relative": ("../../dir1", "/dir1"),
    "relative, new": ("new", "/new"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", TARGETS)
def test_mount_targets_stay_in_the_image(
    inspect: Inspect, tmp_path: Path, case: str, way: str
) -> None:
    (tmp_path / "marker").write_text("here\n")
    target, place = TARGETS[case]
    app = [f"--mount=volume=vol,target={target}"]
    volume = f"--volume=vol,kind=host,source={tmp_path}"
    assert inspect.says(f"cat {place}/marker", volume, app=app, way=way) == "here"


def test_nested_volumes_parents_first(inspect: Inspect, tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    (outer / "below").mkdir(parents=True)
    inner.mkdir()
    (inner / "file").write_text("inner\n")
    flags = [f"--volume=a,kind=host,source={inner}", f"--volume=b,kind=host,source={outer}"]
    app = ["--mount=volume=a,target=/dir1/below", "--mount=volume=b,target=/dir1"]
    assert inspect.says("cat /dir1/below/file", *flags, app=app) == "inner"


def test_volume_source_that_is_a_link_a_file_or_a_device(inspect: Inspect, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("content\n")
    (tmp_path / "link").symlink_to("real")
    flags = [
        f"--volume=link,kind=host,source={tmp_path}/link",
        f"--volume=file,kind=host,source={tmp_path}/real/file",
        "--volume=zero,kind=host,source=/dev/zero,readOnly=true",
    ]
    app = [
        "--mount=volume=link,target=/dir1",
        "--mount=volume=file,target=/dir2/renamed",
        "--mount=volume=zero,target=/dir2/zero",
    ]
    script = "cat /dir1/file /dir2/renamed; stat -c %F /dir2/zero"
    assert inspect.says(script, *flags, app=app).splitlines() == [
        "content", "content", "character special file",
    ]  # fmt: skip


def test_last_of_equal_targets_and_the_apps_own_mount_win(inspect: Inspect, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    flags = [f"--volume={name},kind=host,source={tmp_path}/{name}" for name in ("one", "two")]
    both = ["--mount=volume=one,target=/mnt", "--mount=volume=two,target=/mnt/"]
    assert inspect.says("cat /mnt/file", *flags, app=both) == "two"
    pod_wide = "--mount=volume=one,target=/mnt"
    assert inspect.says("cat /mnt/file", *flags, pod_wide) == "one"
    own = ["--mount=volume=two,target=/mnt"]
    assert inspect.says("cat /mnt/file", *flags, pod_wide, app=own) == "two"


@pytest.mark.parametrize(
    ("recursive", "seen"), [("", "in"), (",recursive=false", "outer"), (",recursive=true", "in")]
)
def test_recursive_volumes_bring_what_is_mounted_below(
    inspect: Inspect, tmp_path: Path, recursive: str, seen: str
) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/file").write_text("outer\n")
    mounted = f"mount -t tmpfs none {tmp_path}/below; echo in > {tmp_path}/below/file"
    outer = inspect.prefix
    inspect.prefix = [*outer, "unshare", "--mount", "sh", "-c", f'{mounted}; exec "$@"', "sh"]
    try:
        app = ["--mount=volume=vol,target=/dir1"]
        volume = f"--volume=vol,kind=host,source={tmp_path}{recursive}"
        assert inspect.says("cat /dir1/below/file", volume, app=app) == seen
        if seen == "in":
            refused = inspect.shell("echo x > /dir1/below/f", f"{volume},readOnly=true", app=app)
            assert "ead-only file system" in refused.stderr
    finally:
        inspect.prefix = outer


def test_volumes_over_sys(inspect: Inspect) -> None:
    assert "class" in inspect.says("ls /sys").split()
    empty = inspect.says("ls /sys", "--volume=v,kind=empty", app=["--mount=volume=v,target=/sys"])
    assert empty == ""


def test_read_only_root_with_writable_volume(inspect: Inspect, tmp_path: Path) -> None:
    app = ["--readonly-rootfs=true", "--mount=volume=vol,target=/dir1"]
    volume = f"--volume=vol,kind=host,source={tmp_path}"
    done = inspect.shell("echo x > /dir1/file; echo x > /dir2/file", volume, app=app)
    assert "ead-only file system" in done.stderr
    assert (tmp_path / "file").read_text() == "x\n"


BAD_MOUNTS = {
    "missing source": (["--volume=v,kind=host,source=/not/there"],
                       ["--mount=volume=v,target=/dir1"], "/not/there"),
    "dangling": ([], ["--mount=volume=v,target=/dir1"],
                 'dangling mount point "/dir1": volume "v" not found'),
    "duplicate": (["--volume=v,kind=empty", "--volume=v,kind=empty"], [], "duplicate volume name"),
    "relative source": (["--volume=v,kind=host,source=relative"], [], "relative"),
    "unknown kind": (["--volume=v,kind=magic"], [], "magic"),
    "bad mode": (["--volume=v,kind=empty,mode=999"], [], "999"),
    "root": (["--volume=v,kind=empty"], ["--mount=volume=v,target=/"], "/"),
    "proc": (["--volume=v,kind=empty"], ["--mount=volume=v,target=/proc/self"], "/proc"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", BAD_MOUNTS)
def test_bad_volumes_and_mounts_are_refused(inspect: Inspect, case: str, way: str) -> None:
    flags, app, reason = BAD_MOUNTS[case]
    done = inspect.shell("true", *flags, app=app, way=way)
    assert done.returncode == 254
    assert reason in done.stderr


def test_hosts_and_names(inspect: Inspect, tmp_path: Path) -> None:
    assert inspect.says("cat /etc/hosts") == "# the image's own hosts"
    own = inspect.says("cat /etc/hosts", "--hosts-entry=10.0.0.1=first", "--hosts-entry=10.0.0.1=b")
    assert "10.0.0.1 first b" in own
    assert "127.0.0.1" in own
    (tmp_path / "hosts").write_text("of a volume\n")
    volume = f"--volume=hosts,kind=host,source={tmp_path}/hosts"
    mount = ["--mount=volume=hosts,target=/etc/hosts"]
    assert inspect.says("cat /etc/hosts", volume, app=mount) == "of a volume"
    assert inspect.says("cat /etc/hosts", "--hosts-entry=host") == (
        inspect.top.parent / "site0/hosts"
    ).read_text().rstrip("\n")
    assert inspect.says("readlink /etc/mtab; stat -c %a /etc/hostname") == (
        "../proc/self/mounts\n644"
    )


DNS = {
    "one": (["--dns=8.8.8.8"], ["nameserver 8.8.8.8"]),
    "two": (["--dns=8.8.8.8", "--dns=8.8.4.4"], ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]),
    "search": (
        ["--dns-search=a.example", "--dns-search=b.example"],
        ["search a.example b.example"],
    ),
    "options": (["--dns-opt=debug", "--dns-opt=rotate"], ["options debug rotate"]),
    "domain": (["--dns-domain=a.example"], ["domain a.example"]),
    "all": (
        ["--dns=1.1.1.1", "--dns-search=a", "--dns-opt=debug", "--dns-domain=d.example"],
        ["search a", "nameserver 1.1.1.1", "options debug", "domain d.example"],
    ),
}


@pytest.mark.parametrize("case", DNS)
def test_resolv_conf(inspect: Inspect, case: str) -> None:
    flags, expected = DNS[case]
    lines = inspect.says("cat /etc/resolv.conf", *flags).splitlines()
    assert lines[0].startswith("#")
    assert [line for line in lines[1:] if line] == expected


def test_resolv_conf_is_left_alone_or_the_hosts(inspect: Inspect) -> None:
    assert inspect.shell("cat /etc/resolv.conf").returncode != 0
    with open("/etc/resolv.conf") as file:
        assert inspect.says("cat /etc/resolv.conf", "--dns=host") == file.read().rstrip("\n")
    assert inspect.shell("true", "--dns=host", "--dns=8.8.8.8").returncode == 254
    assert inspect.shell("true", "--dns=not-an-address").returncode == 254


def test_network_is_the_hosts(inspect: Inspect, published: Site) -> None:
    outside = os.readlink(f"/proc/{published.pid}/ns/net")
    assert inspect.says("readlink /proc/self/ns/net", "--net=host") == outside
    assert inspect.says("readlink /proc/self/ns/net") == outside
    mounts = os.readlink(f"/proc/{published.pid}/ns/mnt")
    assert inspect.says("readlink /proc/self/ns/mnt") != mounts
    for network in ("none", "default-restricted"):
        done = inspect.shell("true", f"--net={network}")
        assert done.returncode == 254
        assert network in done.stderr


def test_changes_stay_in_the_pod(inspect: Inspect) -> None:
    for flags in ([], ["--no-overlay"]):
        assert inspect.says("echo new > /dir1/file; cat /dir1/file", *flags) == "new"
        assert inspect.says("cat /dir1/file", *flags) == "from the image"


def pod_manifest(inspect: Inspect, **app: Any) -> str:
    """Write a pod manifest with one app; return its path."""
    listed = json.loads(inspect.must("image", "list", "--full", "--format=json"))
    image = next(one["id"] for one in listed if one["name"].startswith(IMAGE))
    fields = {key: app.pop(key) for key in ("mounts", "readOnlyRootFS") if key in app}
    volumes = app.pop("volumes", [])
    entry: dict[str, Any] = {"name": "one", "image": {"id": image}, **fields}
    if app:
        entry["app"] = {"user": "0", "group": "0", **app}
    document = {"acKind": "PodManifest", "acVersion": "0.8.11", "apps": [entry], "volumes": volumes}
    path = inspect.top / "pod.json"
    path.write_text(json.dumps(document))
    return str(path)


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


@pytest.mark.parametrize("way", WAYS)
def test_pod_manifest(inspect: Inspect, tmp_path: Path, way: str) -> None:
    (tmp_path / "file").write_text("of the host\n")
    tmp_path.chmod(0o755)
    script = "pwd; cat /dir2/file; echo $A; id -u; echo x > /dir2/new; echo x > /dir1/new"
    path = pod_manifest(
        inspect,
        exec=shell(script),
        workingDirectory="/dir1",
        user="user1",
        environment=[{"name": "A", "value": "line\nbreak $HOME \"'"}],
        mountPoints=[{"name": "vol", "path": "/dir2", "readOnly": True}],
        volumes=[{"name": "vol", "kind": "host", "source": str(tmp_path)}],
    )
    if way == "run":
        done = inspect.podctl("run", FLY, "--pod-manifest", path)
    else:
        uuid = inspect.must("prepare", FLY, "--quiet", "--pod-manifest", path).strip()
        done = inspect.podctl("run-prepared", uuid)
    assert done.stdout == "/dir1\nof the host\nline break $HOME \"'\n1000\n"
    assert "ead-only file system" in done.stderr
    assert "ermission denied" in done.stderr


def test_pod_manifest_without_an_app_section_takes_the_images(inspect: Inspect) -> None:
    done = inspect.podctl("run", FLY, "--pod-manifest", pod_manifest(inspect))
    assert (done.returncode, done.stdout) == (0, "")


def test_app_section_of_a_pod_manifest_replaces_the_images_wholly(inspect: Inspect) -> None:
    path = pod_manifest(inspect, exec=shell('echo "<$VAR_FROM_MANIFEST>"'))
    assert inspect.podctl("run", FLY, "--pod-manifest", path).stdout == "<>\n"


CONFLICTS = [
    ["--inherit-env"],
    ["--set-env=A=1"],
    ["--port=http:80"],
    ["--no-store"],
    ["--store-only"],
    ["--pull-policy=never"],
    ["--volume=v,kind=empty"],
    ["--mount=volume=v,target=/dir1"],
    [IMAGE],
    [IMAGE, "--exec=/bin/true"],
    [IMAGE, "--user=1"],
    [IMAGE, "--group=1"],
]


@pytest.mark.parametrize("command", ["run", "prepare"])
@pytest.mark.parametrize("words", CONFLICTS, ids=" ".join)
def test_pod_manifest_goes_with_nothing_that_would_change_it(
    inspect: Inspect, command: str, words: list[str]
) -> None:
    path = pod_manifest(inspect)
    line = inspect.refused(command, FLY, f"--pod-manifest={path}", *words)
    assert "conflicting flags set with --pod-manifest" in line


BAD_PODS: dict[str, Any] = {
    "no apps": ({"apps": []}, "pod must contain at least one application"),
    "two apps of one name": ({"apps": 2}, "one"),
    "image that is not there": ({"id": "sha512-" + "0" * 64}, "0000"),
    "no JSON": ("{", "pod"),
    "duplicate keys": ('{"acKind":"PodManifest","acKind":"PodManifest"}', "acKind"),
    "wrong kind": ('{"acKind":"ImageManifest","acVersion":"0.8.11","apps":[]}', "acKind"),
}


@pytest.mark.parametrize("case", BAD_PODS)
def test_bad_pod_manifests(inspect: Inspect, case: str) -> None:
    change, reason = BAD_PODS[case]
    path = pod_manifest(inspect)
    with open(path) as file:
        document = json.load(file)
    if isinstance(change, str):
        text = change
    else:
        if change.get("apps") == 2:
            document["apps"] *= 2
        elif "apps" in change:
            document["apps"] = []
        else:
            document["apps"][0]["image"]["id"] = change["id"]
        text = json.dumps(document)
    with open(path, "w") as file:
        file.write(text)
    assert reason in inspect.refused("run", FLY, "--pod-manifest", path)
