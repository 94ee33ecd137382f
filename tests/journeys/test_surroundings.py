"""podctl in odd surroundings (L6), on a full disk (L5), and on one that cannot be written."""

from __future__ import annotations

import os
import random
import stat
import subprocess
from typing import TYPE_CHECKING

import image_files
import pytest
from home import Home
from image_files import ARCH, File, manifest, pack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from live_world import Discovery
    from site_world import Site

pytestmark = pytest.mark.root

FLY = "--stage1=fly"
NAME = "live.example/odd"
PATH = f"/{NAME}-latest-linux-{ARCH}.aci"

#: what a shell does before it becomes podctl
ODD = {
    "plain": "",
    "no working directory": 'mkdir "$TOP/gone" && cd "$TOP/gone" && rmdir "$TOP/gone"',
    "no HOME": "unset HOME",
    "HOME nowhere": "export HOME=/nonexistent",
    "no environment at all": 'exec env -i "$@"',
    "umask 077": "umask 077",
    "umask 000": "umask 000",
    "umask 777": "umask 777",
    "locale C": "export LC_ALL=C LANG=C",
    "locale unknown": "export LC_ALL=xx_YY.koi8",
    "odd time zone": "export TZ=:/nonexistent/zone",
    "no PATH": "unset PATH",
    "no input": "exec 0<&-",
    "no errors": "exec 2<&-",
    "no input and errors": "exec 0<&- 2<&-",
    "few descriptors": "ulimit -n 64",
    "many descriptors": "for i in {10..200}; do eval \"exec $i</dev/null\"; done",
    "no core, small stack": "ulimit -c 0; ulimit -s 512",
    "signals ignored": "trap '' HUP INT QUIT TERM PIPE",
    "nice and idle": "renice -n 19 $$ >/dev/null",
    "no TMPDIR": "export TMPDIR=/nonexistent",
    "python variables": "export PYTHONHOME=/nonexistent PYTHONPATH=/nonexistent PYTHONINSPECT=1",
}  # fmt: skip


def modes(home: Home) -> dict[str, int]:
    """Modes of everything in the store that has the same name every time."""
    found = {}
    for path in home.data.rglob("*"):
        name = str(path.relative_to(home.data))
        if not name.startswith("pods/") or name.count("/") < 2:
            found[name] = stat.S_IMODE(path.lstat().st_mode)
    return found


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """Where the modes of usual surroundings are kept."""
    return {}


@pytest.mark.parametrize("case", ODD)
def test_l6_a_days_work(
    home: Home, live: Discovery, case: str, usual: dict[str, dict[str, int]]
) -> None:
    # dash knows descriptors of one digit only.
    shell = "bash" if case == "many descriptors" else "sh"
    live.add(PATH, pack(manifest(NAME, app={}), image_files.busybox()))
    home.prefix += ["env", f"TOP={home.top}", shell, "-c", f'{ODD[case]}\nexec "$@"', shell]
    home.must("fetch", NAME)
    script = ["--exec=/bin/sh", "--", "-c", "umask; ulimit -n; echo out; echo error >&2; exit 7"]
    ran = home.podctl("run", FLY, NAME, *script)
    assert ran.returncode == 7, ran
    assert ran.stdout.splitlines()[0] == "0022"
    assert ran.stdout.splitlines()[-1] == "out"
    if "errors" not in case:
        assert ran.stderr.splitlines()[-1] == "error"
    prepared = home.must("prepare", FLY, "--quiet", NAME).strip()
    assert home.podctl("run-prepared", prepared).returncode == 0
    assert len(home.must("list", "--no-legend").splitlines()) == 2
    assert "state=exited" in home.must("status", prepared)
    home.must("image", "verify", NAME)
    found = modes(home)
    home.must("rm", prepared)
    home.must("gc", "--grace-period=0s")
    home.must("fsck")
    assert home.pods() == {}
    # Whatever the umask: the same modes.
    assert found == usual.setdefault("modes", found)
    home.must("image", "rm", NAME)
    refused = home.podctl("run", FLY, "--pull-policy=never", NAME)
    assert refused.returncode == 254
    if "errors" not in case:
        (line,) = [line for line in refused.stderr.splitlines() if not line.startswith("sh: ")]
        assert line.startswith("run: ")


@pytest.mark.parametrize("closing", ["1>&-", "1>/dev/full"])
def test_l6_results_that_cannot_be_written_are_an_error(
    home: Home, live: Discovery, closing: str
) -> None:
    """And what was done is done all the same."""
    live.add(PATH, pack(manifest(NAME, app={}), image_files.busybox()))
    plain = home.prefix
    home.prefix = [*plain, "sh", "-c", f'exec "$@" {closing}', "sh"]
    done = home.podctl("fetch", NAME)
    assert done.returncode == 254, done
    listed = home.podctl("list")
    assert listed.returncode == 254, listed
    silent = home.podctl("run", FLY, NAME)
    assert silent.returncode == 0, silent
    home.prefix = plain
    assert len(home.images()) == 1
    assert list(home.pods().values()) == ["exited"]
    home.must("fsck")


# -- disks -----------------------------------------------------------------------------------

_DISK = """
mkdir -p "$1"
mount -t tmpfs -o "$2" none "$1"
echo ready
exec sleep infinity
"""


class Disk(Home):
    """An installation whose data directory is a file system of its own."""

    def __init__(self, top: Path, site: Site, options: str) -> None:
        words = ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", _DISK, "disk"]
        self._holder = subprocess.Popen(
            site.inside(*words, str(top / "data"), options), stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        enter = ["nsenter", "--target", str(self._holder.pid), "--net", "--mount"]
        super().__init__(top, enter)

    def remount(self, options: str) -> None:
        words = ["mount", "-o", f"remount,{options}", "none", str(self.data)]
        subprocess.run([*self.prefix, *words], check=True)

    def fill(self) -> None:
        """Take every byte that is left."""
        words = ["sh", "-c", f"cat /dev/zero > {self.data}/ballast 2>/dev/null; true"]
        subprocess.run([*self.prefix, *words], check=True)

    def free(self) -> None:
        subprocess.run([*self.prefix, "rm", f"{self.data}/ballast"], check=True)

    def unfinished(self) -> list[str]:
        words = ["find", str(self.data), "-name", "*.stage", "-o", "-name", ".tmp-*"]
        words += ["-o", "-path", "*/pods/*/*-*-*-*-*", "-prune"]
        return subprocess.run(
            [*self.prefix, *words], check=True, capture_output=True, text=True
        ).stdout.split()

    def close(self) -> None:
        self._holder.terminate()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


@pytest.fixture
def disk(tmp_path: Path, published: Site) -> Iterator[Disk]:
    disk = Disk(tmp_path, published, "size=64m,nr_inodes=10000")
    yield disk
    disk.close()


def large() -> bytes:
    """3 MiB that compression makes no smaller."""
    files = image_files.busybox()
    files["payload"] = File(random.Random(3).randbytes(3 << 20))
    return pack(manifest(NAME, app={}), files)


@pytest.mark.parametrize("limit", ["size=2m", "size=6m", "size=8m", "nr_inodes=30", "nr_inodes=45"])
def test_l5_a_disk_that_fills_up_and_is_freed(disk: Disk, live: Discovery, limit: str) -> None:
    live.add(PATH, large())
    disk.remount(limit)
    for words in (["fetch", NAME], ["run", FLY, NAME]):
        done = disk.podctl(*words)
        assert done.returncode == 254, done
        assert "No space left on device" in done.stderr, done
        lines = [line for line in done.stderr.splitlines() if not line.startswith("image: ")]
        assert len(lines) == 1, done.stderr
    assert disk.images() == []
    assert disk.pods() == {}
    assert disk.unfinished() == []
    disk.remount("size=64m,nr_inodes=10000")
    assert disk.podctl("run", FLY, NAME).returncode == 0
    disk.must("image", "verify", NAME)
    disk.must("fsck")


def test_l5_with_no_byte_left_things_can_be_looked_at_and_removed(
    disk: Disk, live: Discovery
) -> None:
    live.add(PATH, large())
    assert disk.podctl("run", FLY, NAME).returncode == 0
    assert disk.podctl("run", FLY, NAME).returncode == 0
    prepared = disk.must("prepare", FLY, "--quiet", NAME).strip()
    disk.fill()
    full = disk.podctl("run", FLY, NAME)
    assert full.returncode == 254, full
    assert "No space left" in full.stderr
    assert len(disk.pods()) == 3
    for words in (["list"], ["image", "list"], ["status", prepared], ["cat-manifest", prepared]):
        disk.must(*words)
    first = next(uuid for uuid, state in disk.pods().items() if state == "exited")
    disk.must("rm", first)
    disk.fill()
    disk.must("gc", "--grace-period=0s", "--expire-prepared=0s")
    assert disk.pods() == {}
    disk.fill()
    disk.must("image", "rm", NAME)
    disk.fill()
    disk.must("image", "gc", "--grace-period=0s")
    assert disk.images() == []
    disk.free()
    assert disk.podctl("run", FLY, NAME).returncode == 0
    disk.must("fsck")


def test_l6_a_disk_that_cannot_be_written(disk: Disk, live: Discovery) -> None:
    live.add(PATH, large())
    assert disk.podctl("run", FLY, NAME).returncode == 0
    (uuid,) = disk.pods()
    (key,) = disk.images()
    disk.remount("ro")
    for words in (
        ["list"],
        ["list", "--format=json"],
        ["status", uuid],
        ["cat-manifest", uuid],
        ["image", "list"],
        ["image", "cat-manifest", key],
        ["image", "export", key, f"{disk.top}/exported.aci"],
        ["config"],
        ["version"],
    ):
        disk.must(*words)
    for words in (
        ["fetch", NAME],
        ["run", FLY, NAME],
        ["prepare", FLY, NAME],
        ["rm", uuid],
        ["image", "rm", key],
    ):
        done = disk.podctl(*words)
        assert done.returncode == 254, (words, done)
        assert "Read-only file system" in done.stderr, (words, done)
        assert "unexpected" not in done.stderr
    # One that cannot be collected is reported and does not keep the rest.
    assert "Read-only file system" in disk.podctl("gc", "--grace-period=0s").stderr
    disk.remount("rw")
    disk.must("fsck")
    assert disk.podctl("run", FLY, NAME).returncode == 0


def test_l6_without_run_shm_and_temporary_directory(home: Home, live: Discovery) -> None:
    live.add(PATH, pack(manifest(NAME, app={}), image_files.busybox()))
    empty = home.top / "empty"
    empty.mkdir()
    # What the installation under test lies in cannot be hidden from it.
    places = [
        p for p in ("/run", "/dev/shm", "/var/tmp", "/tmp") if p not in map(str, empty.parents)
    ]
    hide = f'for place in {" ".join(places)}; do mount --bind "$0" $place; done'
    home.prefix += ["unshare", "--mount", "sh", "-euc", f'{hide}; exec "$@"', str(empty)]
    assert home.podctl("run", FLY, NAME).returncode == 0
    home.must("list")
    home.must("gc", "--grace-period=0s")
    # `mount` is mount(8)'s own note.
    assert set(os.listdir(empty)) <= {"mount"}
