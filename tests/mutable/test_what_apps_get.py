"""What an app that is added gets, and is held to: the same as one of a pod that is run."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from mutable_world import BOX, POINTS

if TYPE_CHECKING:
    from pathlib import Path

    from mutable_world import MutableWorld, Sandbox

#: everything of a process that says what it may do, and of its mounts how they are
LOOK = """
grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/self/status
cat /proc/self/uid_map /proc/self/oom_score_adj
cat /sys/fs/cgroup/*/memory.limit_in_bytes /sys/fs/cgroup/*/pids.max 2>/dev/null
ls /dev /; id; env | sort | grep -v HOSTNAME
cut -d' ' -f5- /proc/self/mountinfo | sed 's/master:[0-9]*//; s/ - .*//' | sort
"""
#: of /proc/self/uid_map
RANGE = re.compile(r"^ +0 +(\d+) +\d+$", re.MULTILINE)
FLAGS = ("--user=web", "--group=web", "--memory=64Mi", "--oom-score-adj=100", "--cpu=500m",
         "--caps-retain=CAP_NET_BIND_SERVICE", "--environment=A=b")  # fmt: skip


@pytest.mark.parametrize("users", ["yes", "no"])
@pytest.mark.parametrize("flags", [(), FLAGS], ids=["default", "flags"])
def test_an_added_app_is_held_to_what_one_of_run_is(
    world: MutableWorld, users: str, flags: tuple[str, ...]
) -> None:
    line = [BOX, "--name=same", "--exec=/bin/sh", *flags, "--", "-c", LOOK]
    run = world.podctl("run", f"--private-users={users}", "--hostname=h", *line)
    assert run.code == 0, run.err
    pod = world.sandbox(f"--private-users={users}", "--hostname=h")
    pod.run("same", LOOK, *flags)
    assert pod.ended("same") == 0
    found = [RANGE.search(text) for text in (run.out.decode(), pod.said())]
    bases = [one and one[1] for one in found]
    # Each has a range of its own.
    assert (bases[0] == bases[1]) == (users == "no")
    assert RANGE.sub("", pod.said()) == RANGE.sub("", run.out.decode())


@pytest.mark.parametrize(
    "target",
    ["/srv/real/x", "/srv/link/x", "/srv/far/x", "/srv/absolute/x", "../../../srv/real/x",
     "srv/real/../../srv/real/x"],
)  # fmt: skip
def test_targets_stay_in_the_app_s_root(pod: Sandbox, tmp_path: Path, target: str) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/file").write_text("shared\n")
    mount = f"--mnt-volume=name=v,kind=host,source={tmp_path}/volume,target={target}"
    pod.run("one", "cat /srv/real/x/file", mount)
    assert pod.ended("one") == 0, pod.said()
    assert pod.said() == "shared\n"
    assert not os.path.exists("/srv/real/x")


def test_volumes_are_shared_by_name_and_live_as_long_as_the_pod(pod: Sandbox) -> None:
    pod.run("first", "echo one >/data/file", "--volume=data,kind=empty",
            "--mount=volume=data,target=/data")  # fmt: skip
    assert pod.ended("first") == 0
    pod.app("rm", "first")
    pod.run("second", "cat /elsewhere/file", "--mount=volume=data,target=/elsewhere")
    assert pod.ended("second") == 0
    assert pod.said() == "one\n"


def test_volumes_nobody_has_asked_for_go_with_their_app(pod: Sandbox) -> None:
    pod.run("one", "echo x >/srv/state/kept", image=POINTS)
    pod.ended("one")
    pod.app("rm", "one")
    assert pod.left_of("one") == []
    pod.run("one", "ls /srv/state", image=POINTS)
    pod.ended("one")
    assert "kept" not in pod.said()


def test_a_volume_of_its_own_is_nobody_else_s(pod: Sandbox) -> None:
    own = "--mnt-volume=name=v,kind=empty,target=/data"
    memory = "--mnt-volume=name=m,kind=tmpfs,size=1Mi,target=/memory"
    for name in ("one", "two"):
        pod.run(name, "echo $AC_APP_NAME >>/data/x; cat /data/x; grep -c ' /memory ' /proc/mounts",
                own, memory)  # fmt: skip
        assert pod.ended(name) == 0
    assert pod.said() == "one\n1\ntwo\n1\n"


def test_a_read_only_volume_cannot_be_made_writable_by_who_may_mount(
    world: MutableWorld, tmp_path: Path
) -> None:
    (tmp_path / "volume").mkdir()
    mount = f"--mnt-volume=name=v,kind=host,source={tmp_path}/volume,readOnly=true,target=/mnt"
    control = f"--mnt-volume=name=w,kind=host,source={tmp_path}/volume,target=/w"
    pod = world.sandbox("--private-users=yes")
    pod.run("one", "touch /w/works; mount -o remount,rw,bind /mnt; touch /mnt/new; exec true",
            mount, control, "--caps-retain=CAP_SYS_ADMIN,CAP_DAC_OVERRIDE",
            "--seccomp=mode=retain,@appc.io/all")  # fmt: skip
    pod.ended("one")
    assert os.listdir(tmp_path / "volume") == ["works"], pod.said()


def test_without_overlay(world: MutableWorld) -> None:
    pod = world.sandbox("--no-overlay")
    pod.run("one", "echo x >/new; cat /srv/data/file; exec sleep 600")
    pod.waits_for("from the image\n")
    assert (pod.directory / "rootfs/one/new").read_text() == "x\n"
    pod.app("rm", "one")
    assert pod.left_of("one") == []


def test_images_that_apps_need_stay_and_no_longer(world: MutableWorld, pod: Sandbox) -> None:
    layers = set(os.listdir(world.data / "layers"))
    pod.add("one", "cat /srv/data/file")
    pod.add("two", "true", image=POINTS)
    kept = {path.name for path in (world.data / "layers").iterdir()}
    needs = (pod.directory / "images.json").read_text()
    pod.app("rm", "two")
    fewer = (pod.directory / "images.json").read_text()
    assert needs.count("sha512-") > fewer.count("sha512-") > 0
    assert kept == layers
    world.must("image", "gc", "--grace-period=0s")
    pod.app("start", "one")
    assert pod.ended("one") == 0, pod.said()
    assert pod.said() == "from the image\n"


def test_its_documents_are_no_app_s_to_read(pod: Sandbox) -> None:
    pod.add("secret", "true", "--environment=KEY=canary")
    pod.run("spy", "find / -xdev -name secret; grep -r canary /podctl /opt /proc/1 2>/dev/null; :")
    assert pod.ended("spy") == 0
    assert pod.said() == ""
    assert b"canary" in (pod.directory / "stage1/podctl/apps/secret").read_bytes()


def test_what_is_waived_for_the_pod_is_waived_for_its_apps_and_nothing_else(
    world: MutableWorld,
) -> None:
    look = "grep -E '^(CapBnd|Seccomp):' /proc/self/status"
    waives = "--insecure-options=seccomp"
    strict, lax = world.sandbox(), world.sandbox(waives)
    done = strict.try_add("one", look, waives)
    assert b"is the pod's to have" in done.err
    lax.add("one", look)
    for pod in (strict, lax):
        pod.app("start", "one")
        pod.ended("one")
    assert "Seccomp:\t2" in strict.said()
    assert "Seccomp:\t0" in lax.said()
