"""X8: of all files of /proc and /sys a pod can open no more for writing than a container of runc.

Both run the same program, which opens every file there is, with the same capabilities: those of
`runc spec`, then those that a pod has by default. Below its own /proc/PID an app may open what a
container may open there; of other processes of the pod it must be no more.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import uuid
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hostile_pods import EVERYTHING, HostilePods, compile_program

from podctl.model.isolators import DEFAULT_CAPABILITIES
from podctl.testing.pods import busybox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root

#: `process.capabilities` of `runc spec`
SPEC_CAPABILITIES = frozenset({"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"})
SETS = {"spec": SPEC_CAPABILITIES, "default": DEFAULT_CAPABILITIES}
SWEEP = ("/bin/sweep", "/proc", "/sys")


class Swept(NamedTuple):
    """What opened: with numbers of processes replaced, and that of others than the program."""

    own: frozenset[str]
    others: frozenset[str]
    files: int


def read(output: str) -> Swept:
    """Read what the program prints."""
    *paths, last = output.splitlines()
    found = re.fullmatch(r"(\d+) files, process (\d+)", last)
    assert found is not None, last
    own, others = set(), set()
    for path in paths:
        process = re.match(r"/proc/(\d+)/", path)
        plain = re.sub(r"/proc/\d+/", "/proc/N/", path)
        plain = re.sub(r"/(task|fdinfo)/\d+", r"/\1/N", plain)
        (own if process is None or process[1] == found[2] else others).add(plain)
    return Swept(frozenset(own), frozenset(others), int(found[1]))


@pytest.fixture(scope="module")
def runc(tmp_path_factory: pytest.TempPathFactory) -> Callable[[frozenset[str], bool], Swept]:
    """Sweep in a container of runc's default spec, with these capabilities, and with the host's
    network or without."""
    top = tmp_path_factory.mktemp("runc")
    programs = top / "rootfs" / "bin"
    programs.mkdir(parents=True)
    compile_program("sweep", str(programs / "sweep"))
    shutil.copy(busybox() or "", programs / "busybox")
    subprocess.run(["runc", "spec"], cwd=top, check=True)
    spec = json.loads((top / "config.json").read_text())
    spec["process"].update(args=SWEEP, terminal=False)
    assert set(spec["process"]["capabilities"]["bounding"]) == SPEC_CAPABILITIES
    namespaces = spec["linux"]["namespaces"]
    known: dict[tuple[frozenset[str], bool], Swept] = {}

    def sweep(capabilities: frozenset[str], host_network: bool) -> Swept:
        if (capabilities, host_network) not in known:
            for kind in ("bounding", "effective", "permitted"):
                spec["process"]["capabilities"][kind] = sorted(capabilities)
            spec["linux"]["namespaces"] = [
                one for one in namespaces if one["type"] != "network" or not host_network
            ]
            (top / "config.json").write_text(json.dumps(spec))
            known[capabilities, host_network] = read(_run(top))
        return known[capabilities, host_network]

    return sweep


def _run(bundle: Path) -> str:
    """In a mount namespace of its own; runc removes the container's control groups itself."""
    name = f"podctl-test-{uuid.uuid4()}"
    apart = ["unshare", "--mount", "--propagation", "private"]
    words = [*apart, "runc", "--root", "state", "run", name]
    done = subprocess.run(words, cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for parent, directories, _ in os.walk("/sys/fs/cgroup"):
        assert name not in directories, parent
    return done.stdout


@pytest.fixture
def pods(tmp_path: Path) -> HostilePods:
    made = HostilePods(tmp_path)
    made.install("sweep")
    return made


@pytest.mark.parametrize("capabilities", SETS)
@pytest.mark.parametrize("network", ["own", "host"])
@pytest.mark.parametrize("users", ["own", "host"])
def test_x8_no_file_opens_for_writing_that_runc_refuses(
    pods: HostilePods,
    runc: Callable[[frozenset[str], bool], Swept],
    users: str,
    network: str,
    capabilities: str,
) -> None:
    names = SETS[capabilities]
    container = runc(names, network == "host")
    done = pods.run(
        *SWEEP,
        users=users == "own",
        networks=("host",) if network == "host" else (),
        isolators={"os/linux/capabilities-retain-set": {"set": sorted(names)}},
    )
    assert (done.code, done.err) == (0, "")
    swept = read(done.out)
    # As much was looked at: nothing hides behind a directory that could not be listed.
    assert swept.files > container.files * 0.9
    assert swept.own <= container.own, sorted(swept.own - container.own)
    assert swept.others <= container.own, sorted(swept.others - container.own)
    assert "/proc/N/mem" in swept.own
    assert "/proc/N/mem" not in swept.others


@pytest.mark.parametrize("network", ["own", "host"])
def test_x8_control_systemd_nspawn_alone_lets_more_be_opened(
    pods: HostilePods, runc: Callable[[frozenset[str], bool], Swept], network: str
) -> None:
    done = pods.run(
        *SWEEP,
        users=False,
        networks=("host",) if network == "host" else (),
        insecure=EVERYTHING,
    )
    swept = read(done.out)
    container = runc(DEFAULT_CAPABILITIES, network == "host")
    assert swept.own - container.own
    assert "/proc/N/mem" in swept.others
