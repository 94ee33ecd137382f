"""X1, X3: who enters a pod, or starts an app in it, is out of reach for what runs there already.

The launcher is a program of the host with more rights than the app, for a moment in sight of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hostile_pods import EVERYTHING, HostilePods

from podctl_stage1_nspawn.hooks import nspawn

if TYPE_CHECKING:
    from podctl.model.plan import PreparedPod
    from podctl.testing.pods import Process

pytestmark = pytest.mark.root

ROUNDS = 20
UP = ("/bin/sh", "-c", "echo up; exec sleep 1000")
#: where dynamic programs of the host look for their loader
LOADER = "/lib64/ld-linux-x86-64.so.2"
INTERPRETER = os.path.basename(os.path.realpath(sys.executable))
#: whether a pod has users of its own -> what keeps it from writing to a program of the host's: it
#: is nobody's there, and in any case seen through a mount that is read-only
KEPT = {
    True: f"{INTERPRETER}: Permission denied\n",
    False: f"{INTERPRETER}: Read-only file system\n",
}


@pytest.fixture
def pods(tmp_path: Path) -> HostilePods:
    return HostilePods(tmp_path)


@pytest.fixture
def baited(pods: HostilePods) -> HostilePods:
    """An image in which the command `bait` is whoever executes it, with the attacker's loader."""
    pods.install("loader", "-nostdlib", "-fno-stack-protector", path=LOADER)
    pods.install("reopen")
    bait = Path(pods.factory.image, "bin", "bait")
    bait.write_text("#!/proc/self/exe\n")
    bait.chmod(0o755)
    return pods


def name_and_error(output: str) -> str:
    """Without the directory: the mount it was seen through is gone from the app's namespace, so
    that the kernel may name the file from that mount's root."""
    return output.rpartition("/")[2]


def up(pods: HostilePods, pod: PreparedPod) -> Process:
    process = pods.start(pod)
    assert process.read_line() == "up\n", process.wait()
    return process


@pytest.mark.parametrize("users", [True, False])
def test_x1_who_enters_cannot_be_made_to_give_away_its_program(
    baited: HostilePods, users: bool
) -> None:
    """CVE-2019-5736."""
    pod = baited.pod(*UP, users=users)
    with up(baited, pod) as process:
        for _ in range(ROUNDS):
            with baited.entering(pod, "bait") as entered:
                assert name_and_error(entered.wait().out) == KEPT[users]
        baited.end(pod, process)


@pytest.mark.parametrize("users", [True, False])
def test_x1_an_app_cannot_be_started_into_its_launcher_s_program(
    baited: HostilePods, users: bool
) -> None:
    pod = baited.pod("bait", users=users, apps=2)
    # The pod lasts until the attempt was made, which outlives the app.
    wait = ("/bin/sh", "-c", "until [ -e /dev/shm/tried ]; do sleep 0.01; done")
    app, second = pod.apps
    section = second.app._replace(exec=wait)  # type: ignore[attr-defined]
    with baited.start(pod._replace(apps=(app, second._replace(app=section)))) as process:
        assert name_and_error(process.wait().out) == KEPT[users]


def test_x1_control_nsenter_gives_away_its_program(baited: HostilePods, tmp_path: Path) -> None:
    pod = baited.pod(*UP, users=False)
    program = tmp_path / "nsenter"
    shutil.copy(shutil.which("nsenter") or "", program)
    with up(baited, pod) as process:
        app = nspawn.stage1_enter(pod=pod, app="app", argv=("true",)).pid
        words = [program, "--target", str(app), "--mount", "--pid", "--root", "/bin/bait"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        baited.end(pod, process)
    assert done.stdout == f"{program} can be written\n"


def stalked(pods: HostilePods, **more: object) -> dict[str, int]:
    """What a stalker has got of launchers that came by."""
    pods.install("stalker")
    pod = pods.pod("/bin/stalker", **more)  # type: ignore[arg-type]
    with pods.start(pod) as process:
        assert process.read_line() == "ready\n", process.wait()
        for _ in range(ROUNDS):
            with pods.entering(pod, "true") as entered:
                assert entered.wait().code == 0
        with pods.entering(pod, "touch", "/end") as entered:
            assert entered.wait().code == 0
        words = process.wait().out.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


@pytest.mark.parametrize("users", [True, False])
def test_x3_a_launcher_is_no_object_of_the_app_s(pods: HostilePods, users: bool) -> None:
    """CVE-2016-9962: neither its program nor memory nor descriptors, nor is it to be traced."""
    found = stalked(pods, users=users)
    assert found.pop("seen") > 0
    assert not any(found.values()), found


def test_x3_control_an_app_that_may_trace_gets_all_of_it(pods: HostilePods) -> None:
    found = stalked(pods, insecure=EVERYTHING)
    assert all(found.values()), found
