"""Images of registries run as docker runs them where its rules are not rkt's."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from small import runnable

from podctl.testing.ocilayers import directory, fifo, file, hardlink, layer, symlink, whiteout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clean_home import Clean

    from podctl.testing.ocilayers import Entry
    from podctl.testing.registry import Registry

pytestmark = pytest.mark.root

FLY = "--stage1=fly"
NAME, ASKED = "registry.example/app:1", "docker://registry.example/app:1"
OVERLAY = pytest.mark.parametrize("options", [[], ["--no-overlay"]], ids=["overlay", "copied"])


def run(registry: Registry, home: Clean, *entries: Entry, **config: Any) -> str:
    """Publish an image and run it; what it writes."""
    registry.put("app", runnable(*entries, **config), "1")
    return home.must("run", FLY, ASKED)


# -- volumes -----------------------------------------------------------------------------------

DATA = (
    directory("data", uid=1000, gid=1001, mode=0o700),
    file("data/seed", "grown\n", uid=1000, gid=1001, mode=0o600),
    hardlink("data/again", "data/seed"),
    directory("data/sub", uid=5, gid=6, mode=0o2755),
    fifo("data/sub/pipe"),
)
#: what a user of the volume sees, and then leaves there
USE = """
stat -c '%n %u %g %a %h' /data /data/seed /data/sub
cat /data/again
echo more >>/data/seed && echo new >/data/new && ls /data
"""
SEEN = """\
/data 1000 1001 700 3
/data/seed 1000 1001 600 2
/data/sub 5 6 2755 2
grown
again
new
seed
sub
"""


@OVERLAY
def test_a_user_writes_into_the_volume_of_an_image(
    options: list[str], registry: Registry, home: Clean
) -> None:
    made = runnable(*DATA, User="app", Volumes={"/data": {}}, shell=USE)
    registry.put("app", made, "1")
    assert home.must("run", FLY, *options, ASKED) == SEEN
    # Each pod has its own: what the first one left is not in the second.
    assert home.must("run", FLY, *options, ASKED) == SEEN
    first = sorted(home.data.glob("pods/*/*/sharedVolumes/*"))[0]
    assert (first / "seed").read_text() == "grown\nmore\n"
    assert first.stat().st_mode & 0o7777 == 0o700


def test_the_volume_is_what_all_layers_make_of_it(registry: Registry, home: Clean) -> None:
    base = runnable(
        directory("srv/low"), file("srv/low/kept", "low"), file("srv/low/gone", "low"),
        symlink("data", "srv/./low"), Volumes={"/data": {}}, shell="ls /data; pwd -P",
    )  # fmt: skip
    above = layer(whiteout("srv/low/gone"), file("srv/low/added", "high"))
    layers = (*base.layers, above)
    config = base.config.amended(
        rootfs={"type": "layers", "diff_ids": [one.diff_id for one in layers]}
    )
    documents = [*base.manifest.value["layers"], {**base.manifest.value["layers"][0]}]
    documents[-1].update(digest=above.digest, size=len(above.blob))
    made = base._replace(config=config, layers=layers)
    registry.put("app", made.amended(config=config.descriptor(), layers=documents), "1")
    assert home.must("run", FLY, ASKED) == "added\nkept\n/\n"


@OVERLAY
def test_a_prepared_pod_does_not_change_with_the_store(
    options: list[str], registry: Registry, home: Clean
) -> None:
    registry.put("app", runnable(*DATA, Volumes={"/data": {}}, shell="cat /data/seed"), "1")
    uuid = home.must("prepare", "--quiet", FLY, *options, ASKED).strip()
    registry.put("app", runnable(directory("data"), Volumes={"/data": {}}), "1")
    home.must("fetch", "--pull-policy=update", ASKED)
    home.podctl("image", "rm", NAME)
    home.must("image", "gc", "--grace-period=0s")
    assert home.must("run-prepared", uuid) == "grown\n"


def test_a_volume_that_somebody_gives_is_not_filled(
    registry: Registry, home: Clean, tmp_path: Path
) -> None:
    registry.put("app", runnable(*DATA, Volumes={"/data": {}}, shell="ls /data; echo end"), "1")
    (tmp_path / "mine").mkdir()
    host = f"--volume=volume-data,kind=host,source={tmp_path}/mine"
    for volume in (host, "--volume=volume-data,kind=empty,uid=7"):
        assert home.must("run", FLY, volume, ASKED) == "end\n"
    assert list((tmp_path / "mine").iterdir()) == []


def test_the_manifest_of_a_pod_makes_an_equal_one(
    registry: Registry, home: Clean, tmp_path: Path
) -> None:
    registry.put("app", runnable(*DATA, User="app", Volumes={"/data": {}}, shell=USE), "1")
    uuid = home.must("prepare", "--quiet", FLY, ASKED).strip()
    (tmp_path / "pod.json").write_text(home.must("cat-manifest", uuid))
    assert home.must("run", FLY, f"--pod-manifest={tmp_path}/pod.json") == SEEN


@pytest.mark.parametrize(("target", "words"), [("/", "is the root"), ("/etc/group", "no direct")])
def test_a_volume_in_an_impossible_place_leaves_nothing(
    target: str, words: str, registry: Registry, home: Clean
) -> None:
    made = runnable(symlink("data", target), Volumes={"/data": {}}, shell="true")
    registry.put("app", made, "1")
    assert words in home.refused("run", FLY, ASKED)
    assert home.pods() == {}
    assert home.leftovers() == []


def test_control_the_volumes_of_an_archive_begin_empty(home: Clean) -> None:
    app = {
        "exec": ["/bin/sh", "-c", "ls /data; echo end"], "user": "0", "group": "0",
        "mountPoints": [{"name": "data", "path": "/data"}],
    }  # fmt: skip
    home.install("local.example/app", {"data/seed": b"grown"}, app=app)
    assert home.must("run", FLY, "local.example/app") == "end\n"


# -- the end -----------------------------------------------------------------------------------

#: says what it was told and ends at USR1; nothing else that asks is heard
STUBBORN = """
trap '' TERM INT
trap 'echo told; exit 3' USR1
echo up
while :; do sleep 0.01; done
"""


@pytest.fixture
def started(registry: Registry, home: Clean) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running pod whose image has a stop signal of its own, and its UUID."""
    made = runnable(shell=STUBBORN, StopSignal="USR1", StopTimeout=7)
    registry.put("app", made, "1")
    save = f"--uuid-file-save={home.top}/uuid"
    with home.start("run", FLY, save, ASKED, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield process, (home.top / "uuid").read_text().strip()
        finally:
            process.kill()


def test_stop_sends_the_signal_of_the_image(
    started: tuple[subprocess.Popen[str], str], home: Clean
) -> None:
    process, uuid = started
    assert home.must("stop", uuid) == f'"{uuid}"\n'
    assert process.communicate()[0] == "told\n"
    assert process.returncode == 3


def test_force_kills_all_the_same(started: tuple[subprocess.Popen[str], str], home: Clean) -> None:
    process, uuid = started
    home.must("stop", "--force", uuid)
    assert process.communicate()[0] == ""
    assert process.returncode == -9


def test_the_pod_keeps_what_its_image_said(
    started: tuple[subprocess.Popen[str], str], home: Clean
) -> None:
    process, uuid = started
    home.podctl("image", "rm", "--force", NAME)
    annotations = json.loads(home.must("cat-manifest", uuid))["apps"][0]["annotations"]
    kept = {one["name"].removeprefix("appc.io/docker/"): one["value"] for one in annotations}
    assert kept == {"repository": "app", "stopsignal": "SIGUSR1", "stoptimeout": "7"}
    home.must("stop", uuid)
    assert process.communicate()[0] == "told\n"


# -- the working directory ---------------------------------------------------------------------


@OVERLAY
def test_a_missing_working_directory_is_made(
    options: list[str], registry: Registry, home: Clean
) -> None:
    script = "pwd; stat -c '%u %g %a' . .."
    registry.put("app", runnable(User="app", WorkingDir="/made/for/it", shell=script), "1")
    expected = "/made/for/it\n0 0 755\n0 0 755\n"
    assert home.must("run", FLY, *options, ASKED) == expected
    assert home.must("run", FLY, *options, ASKED, "--readonly-rootfs") == expected


def test_a_working_directory_that_is_there_stays_as_it_is(registry: Registry, home: Clean) -> None:
    place = directory("srv", uid=1000, gid=1001, mode=0o2750)
    script = "pwd; stat -c '%u %g %a' ."
    assert run(registry, home, place, WorkingDir="/srv", shell=script) == "/srv\n1000 1001 2750\n"


def test_a_working_directory_below_a_volume_is_made_in_it(registry: Registry, home: Clean) -> None:
    said = run(registry, home, Volumes={"/v": {}}, WorkingDir="/v/w", shell="touch x; ls -d /v/*/*")
    assert said == "/v/w/x\n"


def test_a_file_for_a_working_directory_is_an_error(registry: Registry, home: Clean) -> None:
    registry.put("app", runnable(file("f"), WorkingDir="/f/g", shell="pwd"), "1")
    assert "cannot make /f/g in the pod: Not a directory" in home.refused("run", FLY, ASKED)


def test_control_an_archive_must_have_its_working_directory(home: Clean) -> None:
    app = {"exec": ["/bin/pwd"], "user": "0", "group": "0", "workingDirectory": "/made"}
    home.install("local.example/app", app=app)
    assert "working directory /made" in home.refused("run", FLY, "local.example/app")


# -- the user ----------------------------------------------------------------------------------

PASSWD = file(
    "etc/passwd",
    "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/srv/app:/bin/sh\nbare:x:1002:1002\n",
)
LOGIN = "echo HOME=$HOME USER=$USER LOGNAME=$LOGNAME"


@pytest.mark.parametrize(
    ("user", "home_is", "name"),
    [
        ("", "/root", "root"),
        ("app", "/srv/app", "app"),
        ("1000", "/srv/app", "app"),
        ("app:0", "/srv/app", "app"),
        ("bare", "/", "bare"),
        ("4711:4711", "/", ""),
    ],
)
def test_home_and_name_are_the_user_s(
    user: str, home_is: str, name: str, registry: Registry, home: Clean
) -> None:
    said = run(registry, home, PASSWD, User=user, shell=LOGIN)
    assert said == f"HOME={home_is} USER={name} LOGNAME={name}\n"


def test_home_that_the_image_or_the_user_sets_stays(registry: Registry, home: Clean) -> None:
    said = run(registry, home, PASSWD, User="app", Env=["HOME=/image"], shell=LOGIN)
    assert said == "HOME=/image USER=app LOGNAME=app\n"
    own = home.must("run", FLY, ASKED, "--environment=HOME=/own")
    assert own == "HOME=/own USER=app LOGNAME=app\n"


def test_who_enters_has_the_same_home(registry: Registry, home: Clean) -> None:
    registry.put("app", runnable(PASSWD, User="app", shell="echo up; exec sleep 1000"), "1")
    save = f"--uuid-file-save={home.top}/uuid"
    with home.start("run", FLY, save, ASKED, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            uuid = (home.top / "uuid").read_text().strip()
            said = home.must("enter", uuid, "/bin/sh", "-c", LOGIN)
        finally:
            process.kill()
    assert said == "HOME=/srv/app USER=app LOGNAME=app\n"


def test_control_the_home_of_an_archive_is_rkt_s(home: Clean) -> None:
    app = {"exec": ["/bin/sh", "-c", LOGIN], "user": "1", "group": "1"}
    home.install("local.example/app", app=app)
    assert home.must("run", FLY, "local.example/app") == "HOME=/root USER=root LOGNAME=root\n"


GROUP = file("etc/group", "root:x:0:root\nwheel:x:10:root,app\ntape:x:26:app\ndisk:x:6:root\n")


@pytest.mark.parametrize(
    ("user", "groups"), [("", "0 6 10"), ("0", "0 6 10"), ("0:0", "0"), (":10", "10")]
)
def test_root_is_in_the_groups_that_list_it(
    user: str, groups: str, registry: Registry, home: Clean
) -> None:
    """As docker has it: `docker run alpine id` shows wheel and others."""
    said = run(registry, home, GROUP, User=user, shell="grep Groups /proc/self/status")
    assert sorted(said.split()[1:], key=int) == groups.split()


def test_a_dry_run_tells_of_the_user_s_home(registry: Registry, home: Clean) -> None:
    registry.put("app", runnable(User="app", WorkingDir="/made", shell=LOGIN), "1")
    home.must("fetch", ASKED)
    plan = home.must("run", FLY, "--dry-run", NAME).splitlines()
    assert "environment: HOME of that user" in plan
    assert "directory: /made (mode 0755) if missing" in plan
