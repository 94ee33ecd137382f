"""Many pods: what one costs does not depend on how many there were, and nothing of them stays."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from box_world import BOX, PATIENCE, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from box_world import World
    from flavor_columns import Flavor

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

MANY, AT_ONCE = 100, 20


def calls(world: World, tmp_path: Path, *arguments: str) -> int:
    """How many system calls a command and all its processes make."""
    log = tmp_path / "calls"
    command = ["strace", "-f", "-c", "-U", "calls", "-o", str(log), *world.command(*arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    total = re.search(r"^\s*(\d+)\s+total", log.read_text(), re.MULTILINE)
    assert total, log.read_text()
    return int(total.group(1))


def test_the_hundredth_costs_what_the_first_did(
    world: World, flavor: Flavor, tmp_path: Path
) -> None:
    run = ["run", flavor.flag, BOX, "--exec=/bin/true"]
    world.must(*run)
    first, listed = calls(world, tmp_path, *run), calls(world, tmp_path, "list")
    for _ in range(MANY - 2):
        world.must(*run)
    assert len(world.pods()) == MANY
    last = calls(world, tmp_path, *run)
    # What a pod costs the commands that look at each of them, on top of what they cost anyway.
    per_pod = (calls(world, tmp_path, "list") - listed) / (MANY - 1)
    assert last < first * 1.1 + 100
    assert per_pod < 15
    assert world.must("list", "--no-legend").count("exited") == MANY + 1
    uuids = world.pods()
    one = calls(world, tmp_path, "rm", uuids[0])
    others = calls(world, tmp_path, "rm", *uuids[1:])
    assert others < one * MANY
    assert world.pods() == []
    assert world.left() == []


def test_twenty_at_once(world: World, flavor: Flavor) -> None:
    pods = [
        world.start(flavor.flag, BOX, "--exec=/bin/sh", "--", "-c", "echo ready; exec sleep 600")
        for _ in range(AT_ONCE)
    ]
    for pod in pods:
        pod.ready()
    assert world.must("list", "--no-legend").count("running") == AT_ONCE
    inside = world.must("enter", pods[7].uuid, "/bin/echo", "inside")
    assert inside == "inside\n"
    world.must("stop", *(pod.uuid for pod in pods))
    for pod in pods:
        pod.end()
    wait_until(
        lambda: world.must("list", "--no-legend").count("exited") == AT_ONCE, "the end of all"
    )


def test_one_killed_leaves_the_others_alone(world: World, flavor: Flavor) -> None:
    """CT1, L5: there is no process whose death affects two pods."""
    pods = [
        world.start(flavor.flag, BOX, "--exec=/bin/sh", "--", "-c", "echo ready; exec sleep 600")
        for _ in range(5)
    ]
    for pod in pods:
        pod.ready()
    for number, pod in enumerate(pods):
        os.kill(pod.pid, 9)
        pod.end()
        wait_until(lambda one=pod: world.status(one.uuid)["state"] == "exited", "its end")
        states = [world.status(one.uuid)["state"] for one in pods]
        assert states == ["exited"] * (number + 1) + ["running"] * (len(pods) - number - 1)


def test_nothing_of_podctl_stays_beside_a_running_pod(world: World, flavor: Flavor) -> None:
    """D6, M5: the process that was started is systemd-nspawn (or the app); none of Python's is
    left."""
    pod = world.start(
        flavor.flag, BOX, "--exec=/bin/sh", "--", "-c", "echo ready; exec sleep 600"
    ).ready()
    wanted = {"fly": "busybox", "nspawn": "systemd-nspawn"}[flavor.name]
    assert os.path.basename(os.readlink(f"/proc/{pod.pid}/exe")) == wanted
    world.pods()
    assert not [line for line in world.left() if "python" in line]
