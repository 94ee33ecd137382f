"""X5: what hides parts of /proc and /sys is the null device itself, whatever an app puts there.

The apps of a pod share its /dev, and one may start long after another (CVE-2025-31133).
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
from typing import TYPE_CHECKING

import pytest
from hostile_pods import HostilePods

from podctl.sys import constants as c
from podctl.sys.applauncher import open_null
from podctl.sys.calls import libc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

ROUNDS = 20_000
_RENAME_EXCHANGE = 2


@pytest.fixture
def pods(tmp_path: Path) -> HostilePods:
    return HostilePods(tmp_path)


@pytest.mark.parametrize(
    ("users", "replace"),
    [
        (True, "ln -s /proc/version /dev/null"),
        (True, "touch /dev/null"),
        (False, "ln -s /proc/version /dev/null"),
        (False, "mknod /dev/null c 1 5"),
    ],
)
def test_x5_an_app_does_not_start_where_another_has_replaced_the_null_device(
    pods: HostilePods, replace: str, users: bool
) -> None:
    attack = f"mv /dev/null /dev/was; {replace}; touch /dev/replaced; exec sleep 1000"
    pod = pods.pod("/bin/sh", "-c", attack, users=users, apps=2)
    first, second = pod.apps
    # The second one starts when its handler has seen what the first did.
    wait = ("/bin/sh", "-c", "until [ -e /dev/replaced ]; do :; done")
    app = second.app._replace(  # type: ignore[attr-defined]
        exec=("/bin/echo", "started"), event_handlers={"pre-start": wait}
    )
    pod = pod._replace(apps=(first, second._replace(app=app)))
    os.makedirs(f"{pod.directory}/supervisor/app2", exist_ok=True)
    with open(f"{pod.directory}/supervisor/app2/pre-start", "w"):
        pass
    with pods.start(pod) as process:
        done = process.wait()
    assert (done.code, done.out) == (254, "")
    assert "cannot start app2: " in done.err
    assert "/dev/null" in done.err


@pytest.fixture
def racing(tmp_path: Path) -> Iterator[str]:
    """A null device that is exchanged with a link to something else, all the time."""
    device, link = tmp_path / "null", tmp_path / "link"
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (tmp_path / "treasure").write_text("x")
    link.symlink_to(tmp_path / "treasure")
    racer = os.fork()
    if racer == 0:
        one, other, here = os.fsencode(device), os.fsencode(link), ctypes.c_int(c.AT_FDCWD)
        while True:
            libc.renameat2(here, one, here, other, ctypes.c_uint(_RENAME_EXCHANGE))
    yield str(device)
    os.kill(racer, signal.SIGKILL)
    os.waitpid(racer, 0)


def raced(path: str, open_it: Callable[[str], int]) -> tuple[int, int]:
    """How often the device was found, and how often something else was taken for it."""
    found = wrong = 0
    for _ in range(ROUNDS):
        try:
            fd = open_it(path)
        except OSError:
            continue
        status = os.fstat(fd)
        os.close(fd)
        found += 1
        wrong += not stat.S_ISCHR(status.st_mode)
        if wrong > 2:
            break
    return found, wrong


def test_x5_a_device_that_is_exchanged_meanwhile_is_never_mistaken(racing: str) -> None:
    found, wrong = raced(racing, open_null)
    assert found > 0
    assert wrong == 0


def test_x5_control_a_path_that_is_looked_up_twice_leads_astray(racing: str) -> None:
    def check_and_open(path: str) -> int:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            raise OSError
        return os.open(path, os.O_PATH)

    assert raced(racing, check_and_open)[1] > 0
