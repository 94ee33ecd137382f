"""`ps`, `inspect`, `top` and `stats` on real pods."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from kept_pods import NAME, detach, ended, until

if TYPE_CHECKING:
    from conftest import World

BUSY = "while :; do :; done"
pytestmark = pytest.mark.root
flavors = pytest.mark.parametrize("flavor", ["fly", "nspawn"])


class TestPs:
    def test_running_pods_or_all(self, world: World) -> None:
        running = detach(world, "exec sleep 600", "--name=web")
        over = ended(world, "exit 3")
        header, row = world.must("ps").splitlines()
        assert header.split() == [
            *("POD", "APP", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME"),
        ]
        assert row.split()[:3] == [running[:8], "busybox", f"{NAME}:1.0"]
        assert "/bin/sh -c 'exec slee..." in row
        assert "  Up " in row
        assert row.endswith("  web")
        rows = world.must("ps", "--all", "--no-legend").splitlines()
        (line,) = (line for line in rows if line.startswith(over[:8]))
        assert "Exited (3) " in line
        assert len(rows) == 2
        world.must("kill", "web")

    def test_uuids_alone(self, world: World) -> None:
        uuid = world.prepare()
        assert world.must("ps", "-q") == ""
        assert world.must("ps", "-aq") == f"{uuid[:8]}\n"
        assert world.must("ps", "-aq", "--no-trunc") == f"{uuid}\n"

    def test_json_is_that_of_list(self, world: World) -> None:
        world.prepare()
        shown = world.must("ps", "--all", "--format=json")
        assert json.loads(shown) == json.loads(world.must("list", "--format=json"))


class TestInspect:
    def test_a_pod(self, world: World) -> None:
        uuid = detach(world, "exec sleep 600", "--name=web")
        (found,) = json.loads(world.must("inspect", "web"))
        assert (found["type"], found["name"], found["pod_name"]) == ("pod", uuid, "web")
        assert (found["flavor"], found["state"]) == ("fly", "running")
        assert str(found["pid"]) == world.status("web")["pid"]
        assert found["directory"] == str(world.data / "pods/run" / uuid)
        assert found["manifest"]["acKind"] == "PodManifest"
        world.must("kill", "web")

    def test_an_image(self, world: World) -> None:
        key = json.loads(world.must("image", "list", "--format=json"))[0]["id"]
        for name in (NAME, key, key[:20]):
            (found,) = json.loads(world.must("inspect", "--format=json", name))
            assert (found["type"], found["id"], found["name"]) == ("image", key, NAME)
            assert found["manifest"]["acKind"] == "ImageManifest"

    def test_several_and_kinds(self, world: World) -> None:
        uuid = world.prepare()
        kinds = [one["type"] for one in json.loads(world.must("inspect", uuid, NAME))]
        assert kinds == ["pod", "image"]
        assert 'no image "' in world.podctl("inspect", "--type=image", uuid).err
        assert "no matches" in world.podctl("inspect", "--type=pod", NAME).err
        assert world.podctl("inspect", "nope").code == 254


class TestTop:
    @flavors
    def test_processes_of_a_pod(self, world: World, flavor: str) -> None:
        uuid = detach(world, "sleep 601 & sleep 602; :", flavor=flavor)
        until(lambda: len(json.loads(world.must("top", "--format=json", uuid))) == 3)
        found = json.loads(world.must("top", "--format=json", uuid))
        assert found[0]["command"].startswith("/bin/sh -c")
        assert {one["command"] for one in found[1:]} == {"sleep 601", "sleep 602"}
        assert {(one["app"], one["uid"], one["state"]) for one in found} == {("busybox", 0, "S")}
        header, *rows = world.must("top", uuid).splitlines()
        assert header.split()[:4] == ["APP", "PID", "INSIDE", "USER"]
        assert len(rows) == 3
        world.must("kill", uuid)

    def test_only_of_a_pod_that_runs(self, world: World) -> None:
        assert "is not running" in world.podctl("top", world.prepare()).err


class TestStats:
    @flavors
    def test_what_a_pod_uses(self, world: World, flavor: str) -> None:
        busy = detach(world, BUSY, "--name=busy", flavor=flavor)
        idle = detach(world, "exec sleep 600", flavor=flavor)

        def sample() -> dict[str, dict[str, float]]:
            found = json.loads(world.must("stats", "--no-stream", "--format=json"))
            return {one["name"]: one for one in found}

        first = sample()
        assert first.keys() == {busy, idle}
        until(lambda: sample()[busy]["cpu_seconds"] > first[busy]["cpu_seconds"])
        now = sample()
        assert now[busy]["cpu_seconds"] > now[idle]["cpu_seconds"]
        assert now[busy]["memory_bytes"] > 0
        assert now[busy]["pids"] == 1
        assert now[busy]["source"] == ("processes" if flavor == "fly" else "cgroup")
        (header, *rows) = world.must("stats", "--no-stream", "busy").splitlines()
        assert header.split()[:3] == ["POD", "NAME", "CPU"]
        assert [row.split()[:2] for row in rows] == [[busy[:8], "busy"]]
        world.must("kill", busy, idle)

    def test_follows_until_the_pod_has_ended(self, world: World) -> None:
        uuid = detach(world, "exec sleep 600")
        process = world.start("stats", "--format=json", uuid)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())[0]["name"] == uuid
        world.must("kill", uuid)
        assert process.communicate(timeout=30)[0].splitlines()[-1] == "[]"
        assert process.returncode == 0
