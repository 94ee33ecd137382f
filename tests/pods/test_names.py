"""Names of pods on real ones."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import World

NAME = "pods.example/busybox"
pytestmark = pytest.mark.root


def prepare(world: World, *flags: str) -> str:
    return world.must("prepare", "--stage1=fly", "--quiet", *flags, NAME).strip()


def test_a_name_stands_for_the_uuid(world: World) -> None:
    uuid = prepare(world, "--name", "web")
    status = world.status("web")
    assert (status["state"], status["name"]) == ("prepared", "web")
    assert world.must("run-prepared", "web") == ""
    assert world.must("rm", "web") == f'"{uuid}"\n'


def test_a_name_behind_an_image_is_the_apps(world: World) -> None:
    uuid = world.must(
        "prepare", "--stage1=fly", "--quiet", "--name=pod", NAME, "--name=app"
    ).strip()
    shown = json.loads(world.must("status", "--format=json", "pod"))
    assert (shown["name"], shown["pod_name"], shown["app_names"]) == (uuid, "pod", ["app"])


def test_pod_name_may_stand_anywhere(world: World) -> None:
    world.must("prepare", "--stage1=fly", "--quiet", NAME, "--pod-name=late")
    assert world.status("late")["name"] == "late"


def test_lists_show_names(world: World) -> None:
    prepare(world, "--name=web")
    prepare(world)
    header, *rows = world.must("list", "--full").splitlines()
    assert header.split()[-1] == "NAME"
    assert sorted(row.endswith("  web") for row in rows) == [False, True]
    listed = json.loads(world.must("list", "--format=json"))
    assert sorted(pod.get("pod_name", "") for pod in listed) == ["", "web"]


def test_a_living_pods_name_is_refused(world: World) -> None:
    uuid = prepare(world, "--name=web")
    done = world.podctl("prepare", "--stage1=fly", "--name=web", NAME)
    assert done.code == 254
    assert f'the name "web" is in use by pod "{uuid}"' in done.err
    assert list(world.pods()) == [uuid]


def test_only_one_of_many_at_once_gets_the_name(world: World) -> None:
    def one(_number: int) -> int:
        return world.podctl("prepare", "--stage1=fly", "--name=web", NAME).code

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(one, range(8)))
    assert sorted(codes) == [0] + [254] * 7
    assert len(world.pods()) == 1


def test_the_next_pod_takes_the_name_of_one_that_ended(world: World) -> None:
    world.must("run", "--stage1=fly", "--name=web", NAME)
    uuid = prepare(world, "--name=web")
    assert world.must("rm", "web") == f'"{uuid}"\n'
    assert world.status("web")["state"] == "exited"


@pytest.mark.parametrize("name", ["", "-x", "a/b", "../x", "a b", "deadbeef", "x" * 65, "\x1b[1m"])
def test_what_is_no_name_is_refused(world: World, name: str) -> None:
    done = world.podctl("prepare", "--stage1=fly", f"--pod-name={name}", NAME)
    assert done.code == 254
    assert "no name for a pod" in done.err
    assert "\x1b" not in done.err
    assert world.pods() == {}
