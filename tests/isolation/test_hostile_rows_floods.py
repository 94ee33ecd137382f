"""X19: what an app makes without end is bounded, and its neighbours go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from podctl.sys.logfiles import CAP

if TYPE_CHECKING:
    from box_world import World

pytestmark = pytest.mark.root

TRAP = "hostile.example/trap"
NSPAWN = "--stage1=nspawn"
#: default of isolators: processes of an app
PROCESSES = 4096
FLOOD = 64 << 20


def test_x19_processes_nobody_waits_for_count_as_processes(world: World) -> None:
    pod = world.start(NSPAWN, TRAP, "--exec=/bin/zombies")
    count, _, error = pod.line().decode().strip().partition(" ")
    assert error == "Resource temporarily unavailable"
    assert 1000 < int(count) < PROCESSES
    # Another pod starts and can be entered all the same.
    script = "echo ready; exec sleep 600"
    other = world.start(NSPAWN, TRAP, "--exec=/bin/sh", "--", "-c", script).ready()
    assert world.must("enter", other.uuid, "/bin/echo", "fine") == "fine\n"
    world.must("stop", "--force", pod.uuid)
    pod.process.wait()
    assert world.must("enter", other.uuid, "/bin/echo", "fine") == "fine\n"


def test_x19_control_fly_has_no_limit_of_its_own(world: World) -> None:
    pod = world.start("--stage1=fly", TRAP, "--exec=/bin/zombies")
    assert pod.line() == b"6000 no end\n"
    world.must("stop", "--force", pod.uuid)
    pod.process.wait()


def test_x19_output_of_a_detached_pod_takes_no_more_than_its_share(world: World) -> None:
    script = f"yes {'x' * 70} | head -c {FLOOD}; echo; echo last"
    uuid = world.must(
        "run", "--detach", NSPAWN, TRAP, "--exec=/bin/sh", "--", "-c", script
    ).split()[-1]  # fmt: skip
    assert world.must("wait", uuid).split() == ["0"]
    directory = next(world.data.glob(f"pods/*/{uuid}"))
    taken = sum(path.stat().st_size for path in directory.rglob("*")
                if path.is_file() and not path.is_symlink())  # fmt: skip
    assert CAP < taken < 3 * CAP
    # What is kept is the end.
    assert world.must("logs", uuid).splitlines()[-1] == "last"


def test_x19_control_as_much_is_really_written(world: World) -> None:
    script = f"yes {'x' * 70} | head -c {FLOOD}"
    done = world.podctl("run", NSPAWN, TRAP, "--exec=/bin/sh", "--", "-c", script)
    assert len(done.out) == FLOOD
