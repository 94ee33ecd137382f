"""Volumes of every kind are the same in every flavor, with users of the pod's own and without."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from podctl.sys.mounts import mount, umount2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import World

NAME = "pods.example/busybox"
pytestmark = pytest.mark.root

WAYS = {
    "fly": ["--stage1=fly"],
    "nspawn": ["--stage1=nspawn", "--net=none", "--private-users=yes"],
    "nspawn, the host's users": ["--stage1=nspawn", "--net=none", "--private-users=no"],
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> list[str]:
    return WAYS[request.param]


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A directory of the host's with a file of user 1001."""
    path = tmp_path / "volume"
    path.mkdir()
    (path / "file").write_text("host\n")
    os.chown(path / "file", 1001, 1002)
    return path


@pytest.fixture
def nested(volume: Path) -> Iterator[Path]:
    """The same with another filesystem below it."""
    below = volume / "below"
    below.mkdir()
    mount("podctl-test", str(below), "tmpfs")
    (below / "deep").touch()
    yield volume
    umount2(str(below))


def said(text: str) -> list[str]:
    """Standard error without what is said of the image."""
    return [line for line in text.splitlines() if not line.startswith("image: using")]


def run(world: World, way: list[str], volume: str, script: str, *flags: str) -> str:
    line = ["run", *way, f"--volume=v,{volume}", *flags, NAME, "--mount=volume=v,target=/v"]
    done = world.podctl(*line, "--exec=/bin/sh", "--", "-c", script)
    assert (done.code, said(done.err)) == (0, []), done
    return done.out


def test_a_directory_of_the_host(world: World, way: list[str], volume: Path) -> None:
    script = "cat /v/file; stat -c '%u %g' /v/file; echo new >/v/new; stat -c '%u %g' /v/new"
    assert run(world, way, f"kind=host,source={volume}", script) == "host\n1001 1002\n0 0\n"
    assert (volume / "new").read_text() == "new\n"
    assert (volume / "new").stat().st_uid == 0


def test_a_file_of_the_host(world: World, way: list[str], volume: Path) -> None:
    script = "cat /v; echo more >>/v"
    assert run(world, way, f"kind=host,source={volume / 'file'}", script) == "host\n"
    assert (volume / "file").read_text() == "host\nmore\n"


def test_read_only_reaches_everything_below(world: World, way: list[str], nested: Path) -> None:
    script = "ls /v/below; for f in /v/x /v/below/x; do touch $f 2>/dev/null || echo no; done"
    source = f"kind=host,source={nested},readOnly=true"
    assert run(world, way, source, script) == "deep\nno\nno\n"


def test_what_is_mounted_below_comes_along_or_not(
    world: World, way: list[str], nested: Path
) -> None:
    source = f"kind=host,source={nested}"
    assert run(world, way, source, "ls /v/below; touch /v/below/new") == "deep\n"
    assert run(world, way, f"{source},recursive=false", "ls /v/below; touch /v/below/x") == ""
    assert sorted(os.listdir(nested / "below")) == ["deep", "new"]


def test_an_empty_volume(world: World, way: list[str]) -> None:
    script = "stat -c '%u %g %a' /v; ls -A /v; echo x >/v/file; cat /v/file"
    out = run(world, way, "kind=empty,mode=1770,uid=7,gid=8", script)
    assert out == "7 8 1770\nx\n"


def test_a_tmpfs(world: World, way: list[str]) -> None:
    script = (
        "stat -c '%u %g %a' /v; stat -f -c %T /v; echo x >/v/file; cat /v/file;"
        "while echo 0123456789012345678901234567890123456789; do :; done >/v/big 2>/dev/null;"
        "[ $(stat -c %s /v/big) -lt 70000 ] && echo full"
    )
    out = run(world, way, "kind=tmpfs,size=64Ki,mode=1770,uid=7,gid=8", script)
    assert out == "7 8 1770\ntmpfs\nx\nfull\n"
    (pod,) = world.data.glob("pods/run/*")
    assert os.listdir(pod / "sharedVolumes" / "v") == []


def test_a_read_only_tmpfs(world: World, way: list[str]) -> None:
    script = "touch /v/file 2>/dev/null || echo no"
    assert run(world, way, "kind=tmpfs,readOnly=true", script) == "no\n"


def test_a_socket(world: World, way: list[str], volume: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(volume / "socket"))
        script = "test -S /v && stat -c '%u %g' /v"
        assert run(world, way, f"kind=host,source={volume / 'socket'}", script) == "0 0\n"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A block device that is root's."""
    (tmp_path / "disk").write_bytes(b"on the disk\n".ljust(1 << 20, b"\0"))
    command = ["losetup", "--find", "--show", str(tmp_path / "disk")]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_device(world: World, way: list[str], disk: str, read_only: bool) -> None:
    source = f"kind=host,source={disk},readOnly={str(read_only).lower()}"
    script = (
        "stat -c '%u %g %a' /v; read -r line </v; echo $line;"
        "(: >>/v) 2>/dev/null && echo write; exit 0"
    )
    status = os.stat(disk)
    owner = f"{status.st_uid} {status.st_gid} {stat.S_IMODE(status.st_mode):o}"
    # Under fly the app has the host's /dev anyway.
    written = "" if read_only and "--stage1=fly" not in way else "write\n"
    assert run(world, way, source, script) == f"{owner}\non the disk\n{written}"


def test_apps_of_a_pod_share_volumes(world: World, volume: Path) -> None:
    kinds = {"e": "kind=empty", "t": "kind=tmpfs", "h": f"kind=host,source={volume}"}
    for name in ("nspawn", "nspawn, the host's users"):
        line = ["run", *WAYS[name], *(f"--volume={key},{kind}" for key, kind in kinds.items())]
        mounts = [f"--mount=volume={key},target=/{key}" for key in kinds]
        write = "for v in e t h; do echo $v >/$v/x; done; mkdir /e/ready"
        read = "while ! [ -d /e/ready ]; do sleep 0.01; done; cat /e/x /t/x /h/x"
        done = world.podctl(
            *line, NAME, "--name=one", *mounts, "--exec=/bin/sh", "--", "-c", write, "---",
            NAME, "--name=two", *mounts, "--exec=/bin/sh", "--", "-c", read,
        )  # fmt: skip
        assert (done.code, done.out, said(done.err)) == (0, "e\nt\nh\n", [])


# --private-users on the command line


def test_users_are_shown_and_given_back(world: World) -> None:
    file = world.top / "uuid"
    line = ["run", f"--uuid-file-save={file}", "--net=none", NAME, "--exec=/bin/sh"]
    out = world.must(*line, "--", "-c", "cat /proc/self/uid_map")
    inside, base, size = out.split()
    uuid = file.read_text()
    assert (inside, size) == ("0", "65536")
    assert world.status(uuid)["private-users"] == f"{base}:65536"
    assert json.loads(world.must("status", "--format=json", uuid))["private_users"] == (
        f"{base}:65536"
    )
    claim = f"/run/podctl/users/{int(base) // 65536}"
    assert uuid in os.readlink(claim)
    world.must("rm", uuid)
    assert not os.path.lexists(claim) or uuid not in os.readlink(claim)


@pytest.mark.parametrize("flags", [["--private-users=no"], ["--net=host"]])
def test_the_host_s_users(world: World, flags: list[str]) -> None:
    line = ["run", *flags, NAME, "--exec=/bin/cat", "--", "/proc/self/uid_map"]
    assert world.must(*line).split() == ["0", "0", "4294967295"]
    assert "private-users" not in world.must("run", "--dry-run", *flags, NAME)


def test_a_dry_run_shows_users_and_claims_none(world: World) -> None:
    line = ["run", "--dry-run", "--net=none", NAME]
    assert "private-users=" in world.must(*line)
    plan = json.loads(world.must(*line, "--format=json"))
    assert plan["privateUsers"].endswith(":65536")
    assert world.pods() == {}


def test_what_cannot_be_is_refused(world: World) -> None:
    for flags, word in ((["--net=host"], "network"), (["--stage1=fly"], "fly")):
        done = world.podctl("run", "--private-users", *flags, NAME)
        assert (done.code, done.out, len(said(done.err))) == (254, "", 1)
        assert word in said(done.err)[0]
    assert world.must("run", "--stage1=fly", "--private-users=no", NAME) == ""
    assert set(world.pods().values()) <= {"run"}


@pytest.mark.parametrize("flags", [[], ["--no-overlay"]])
def test_an_export_has_the_owners_that_the_app_saw(world: World, flags: list[str]) -> None:
    import tarfile

    file, path = world.top / "uuid", world.top / "out.aci"
    script = "echo x >/new; echo y >/web; busybox chown 1001:1002 /web"
    world.must(
        "run", f"--uuid-file-save={file}", "--net=none", *flags, NAME, "--exec=/bin/sh", "--",
        "-c", script,
    )  # fmt: skip
    world.must("export", file.read_text(), str(path))
    with tarfile.open(path) as archive:
        owners = {entry.name: (entry.uid, entry.gid) for entry in archive}
    assert owners["rootfs/new"] == (0, 0)
    assert owners["rootfs/web"] == (1001, 1002)
    assert set(owners.values()) == {(0, 0), (1001, 1002)}


def test_a_prepared_pod_remembers_what_was_asked(world: World) -> None:
    command = ["--exec=/bin/cat", "--", "/proc/self/uid_map"]
    for flag, base in (("--private-users=no", {"0"}), ("--private-users", None), (None, None)):
        flags = [] if flag is None else [flag]
        uuid = world.must("prepare", "--quiet", *flags, NAME, *command).strip()
        found = world.must("run-prepared", "--net=none", uuid).split()[1]
        assert found in base if base else int(found) >= 524288
