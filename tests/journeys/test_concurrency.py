"""Many commands at once on one data directory: each does its work or says why not, none breaks.

Rows L7, L8 and R18 of the hostile-input catalogue. Which command meets which is left to the
scheduler; what each worker does is drawn from a fixed seed.
"""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import image_files
import pytest
from home import PODCTL
from image_files import ARCH, manifest, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from home import Done, Home
    from live_world import Discovery

    from podctl.testing.httpserver import Content, Reply, Request, Server

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

FLY = "--stage1=fly"
NAMES = [f"live.example/{letter}" for letter in "abc"]
WORKERS, STEPS = 6, 24


def image(name: str, *, sleep: float = 0) -> bytes:
    """An image whose app reads a file of its own and prints it."""
    script = f"sleep {sleep}; cat /content"
    files = image_files.busybox() | {"content": f"content of {name}\n".encode()}
    return pack(manifest(name, app=image_files.shell(script)), files)


def path_of(name: str) -> str:
    return f"/{name}-latest-linux-{ARCH}.aci"


class Crowd:
    """What the workers do, and what each command may answer.

    Attributes:
        complaints: answers that were not allowed.
        counts: command -> how often it succeeded and how often it was refused.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.complaints: list[str] = []
        self.counts: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    def work(self, seed: int) -> None:
        """One worker's day."""
        chance = random.Random(seed)
        for _ in range(STEPS):
            chance.choice(self.acts())(chance)

    def acts(self) -> list[Callable[[random.Random], None]]:
        often = [self.fetch, self.run, self.prepare, self.list, self.images, self.status]
        return [*often, *often, self.rm, self.stop, self.gc, self.image_rm, self.image_gc]

    def call(self, *words: str, refusals: str = "", output: str | None = None) -> Done:
        """Run a command; note an answer that is not allowed."""
        done = self.home.podctl(*words)
        fine = done.returncode == 0 and output in (None, done.stdout)
        allowed = bool(refusals) and done.returncode == 254
        allowed = allowed and re.search(refusals, done.stderr) is not None
        with self._lock:
            self.counts.setdefault(words[0], [0, 0])[0 if fine else 1] += 1
            if not (fine or allowed):
                self.complaints.append(f"{words}: {done.returncode} {done.stdout} {done.stderr}")
        return done

    def fetch(self, chance: random.Random) -> None:
        self.call("fetch", chance.choice(NAMES))

    def run(self, chance: random.Random) -> None:
        name = chance.choice(NAMES)
        self.call("run", FLY, name, output=f"content of {name}\n")

    def prepare(self, chance: random.Random) -> None:
        name = chance.choice(NAMES)
        uuid = self.call("prepare", FLY, "--quiet", name).stdout.strip()
        # Any worker may have removed it, but no image may have gone from under it.
        if uuid:
            self.call("run-prepared", uuid, output=f"content of {name}\n",
                      refusals="no matches found|is not prepared")  # fmt: skip

    def list(self, chance: random.Random) -> None:
        done = self.call("list", "--format=json")
        if done.stderr:
            self.complaints.append(f"list says: {done.stderr}")

    def images(self, chance: random.Random) -> None:
        done = self.call("image", "list", "--full")
        if done.stderr:
            self.complaints.append(f"image list says: {done.stderr}")

    def some_pod(self, chance: random.Random) -> str | None:
        pods = sorted(self.home.pods())
        return chance.choice(pods) if pods else None

    def status(self, chance: random.Random) -> None:
        pod = self.some_pod(chance)
        if pod:
            self.call("status", pod, refusals="no matches found")

    def stop(self, chance: random.Random) -> None:
        pod = self.some_pod(chance)
        if pod:
            self.call("stop", pod, refusals="not running|no matches found|not started yet")

    def rm(self, chance: random.Random) -> None:
        pod = self.some_pod(chance)
        if pod:
            self.call("rm", pod, refusals="is currently|no matches found")

    def gc(self, chance: random.Random) -> None:
        self.call("gc", "--grace-period=0s")

    def image_rm(self, chance: random.Random) -> None:
        self.call("image", "rm", chance.choice(NAMES), refusals="not in the store|cannot find")

    def image_gc(self, chance: random.Random) -> None:
        self.call("image", "gc", "--grace-period=0s")


def check_end(home: Home) -> None:
    """Nothing is under way any more, all that is there is whole, and all of it can be removed."""
    states = set(home.pods().values())
    assert states <= {"prepared", "exited", "exited garbage"}, states
    home.must("fsck")
    home.must("gc", "--grace-period=0s", "--expire-prepared=0s")
    home.must("image", "gc", "--grace-period=0s")
    assert home.pods() == {}
    assert home.images() == []
    home.must("fsck")
    for place in ("cas/tmp", "cas/images", "layers", "trees", "verified"):
        left = [path for path in (home.data / place).glob("*") if path.name != "remotes"]
        assert not left, left
    blobs = [path for path in (home.data / "cas/blobs").rglob("*") if path.is_file()]
    assert not blobs


def test_l7_everything_at_once(home: Home, live: Discovery) -> None:
    for name in NAMES:
        live.add(path_of(name), image(name))
    mounts = Path("/proc/self/mountinfo").read_text()
    crowd = Crowd(home)
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(crowd.work, range(WORKERS)))
    assert crowd.complaints == []
    # The mixture was one: everything that can succeed did so at least once.
    for command in ("fetch", "run", "prepare", "run-prepared", "list", "image", "gc", "rm"):
        assert crowd.counts[command][0] > 0, crowd.counts
    check_end(home)
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_r18_many_fetch_one_image_and_one_of_them_is_killed(
    home: Home, live: Discovery, live_server: Server
) -> None:
    """Who holds the download is killed in the middle of it; the others get the image."""
    held, release = threading.Event(), threading.Event()
    data = image(NAMES[0])
    content = live.add(path_of(NAMES[0]), data)

    def first_hangs(request: Request) -> Reply:
        reply = content(request)
        if not held.is_set():
            held.set()
            reply.hold = release
        return reply

    live.files[path_of(NAMES[0])] = first_hangs
    url = f"https://live.example{path_of(NAMES[0])}"
    crowd = [home.start("fetch", "--full", url, stdout=-1, stderr=-1)]
    try:
        assert held.wait(30)
        crowd += [home.start("fetch", "--full", url, stdout=-1, stderr=-1) for _ in range(5)]
        for waiting in crowd[1:]:
            assert waiting.stderr is not None
            assert any("waiting" in line for line in waiting.stderr)
        crowd[0].send_signal(signal.SIGKILL)
        results = [one.communicate() for one in crowd]
    finally:
        release.set()
        for one in crowd:
            one.kill()
    assert [one.returncode for one in crowd] == [-signal.SIGKILL, 0, 0, 0, 0, 0]
    ids = {out for out, _ in results[1:]}
    assert len(ids) == 1
    gets = [r for r in live_server.log if r.path == path_of(NAMES[0]) and r.method == "GET"]
    assert len(gets) == 2
    home.must("fsck")
    assert home.must("run", FLY, NAMES[0]) == f"content of {NAMES[0]}\n"
    check_end(home)


def test_different_images_are_fetched_side_by_side(home: Home, live: Discovery) -> None:
    """No download waits for another one: all are under way at the same time."""
    together = threading.Barrier(len(NAMES), timeout=30)
    for name in NAMES:
        content = live.add(path_of(name), image(name))

        def wait_for_the_others(request: Request, content: Content = content) -> Reply:
            if request.method == "GET":
                together.wait()
            return content(request)

        live.files[path_of(name)] = wait_for_the_others
    fetches = [home.start("fetch", name, stdout=-1, stderr=-1) for name in NAMES]
    for one in fetches:
        _, said = one.communicate(timeout=60)
        assert one.returncode == 0, said
    assert len(home.images()) == len(NAMES)
    home.must("fsck")


def test_l8_no_image_is_removed_under_a_pod(home: Home, live: Discovery) -> None:
    """Collectors in a loop against pods being prepared, started and run."""
    name = NAMES[0]
    live.add(path_of(name), image(name, sleep=0.05))
    home.must("fetch", name)
    over = threading.Event()
    said: list[str] = []

    def collect(*words: str) -> int:
        rounds = 0
        while not over.is_set():
            done = home.podctl(*words)
            rounds += 1
            if done.returncode not in (0, 254) or "unexpected" in done.stderr:
                said.append(f"{words}: {done}")
        return rounds

    def use(number: int) -> None:
        for _ in range(5):
            if number % 2:
                done = home.podctl("run", FLY, name)
            else:
                uuid = home.must("prepare", FLY, "--quiet", name).strip()
                done = home.podctl("run-prepared", uuid)
            if (done.returncode, done.stdout) != (0, f"content of {name}\n"):
                said.append(str(done))

    with ThreadPoolExecutor(8) as pool:
        collectors = [
            pool.submit(collect, "image", "rm", name),
            pool.submit(collect, "image", "gc", "--grace-period=0s"),
            pool.submit(collect, "gc", "--grace-period=0s"),
        ]
        try:
            list(pool.map(use, range(4)))
        finally:
            over.set()
        assert all(one.result() > 0 for one in collectors)
    assert said == []
    check_end(home)


def test_a_prepared_pod_is_run_by_exactly_one(home: Home, live: Discovery) -> None:
    live.add(path_of(NAMES[0]), image(NAMES[0]))
    for _ in range(3):
        uuid = home.must("prepare", FLY, "--quiet", NAMES[0]).strip()
        crowd = [home.start("run-prepared", uuid, stdout=-1, stderr=-1) for _ in range(6)]
        codes = []
        for one in crowd:
            out, said = one.communicate(timeout=60)
            codes.append(one.returncode)
            assert one.returncode == 0 or "is not prepared" in said, said
            assert bool(out) == (one.returncode == 0)
        assert sorted(codes) == [0, 254, 254, 254, 254, 254]
    check_end(home)


def test_cd1_killing_commands_never_stops_a_pod(home: Home, live: Discovery) -> None:
    """Nobody stands behind a pod: every podctl process may go."""
    script = "trap 'exit 3' TERM; echo up; while true; do sleep 0.05; done"
    files = image_files.busybox()
    live.add(path_of(NAMES[0]), pack(manifest(NAMES[0], app=image_files.shell(script)), files))
    pods = [home.start("run", FLY, NAMES[0], stdout=-1) for _ in range(3)]
    try:
        for pod in pods:
            assert pod.stdout is not None
            assert pod.stdout.readline() == "up\n"
            # What was podctl is the app now.
            assert PODCTL not in Path(f"/proc/{pod.pid}/cmdline").read_text()
        for words in (["list"], ["status", "--wait", next(iter(home.pods()))], ["image", "gc"]):
            command = home.start(*words, stdout=-1, stderr=-1)
            command.kill()
            command.communicate()
        assert sorted(home.pods().values()) == ["running"] * 3
        for uuid in home.pods():
            home.must("stop", uuid)
        assert [pod.wait(timeout=30) for pod in pods] == [3, 3, 3]
    finally:
        for pod in pods:
            pod.kill()
            pod.communicate()
    listed = json.loads(home.must("list", "--format=json"))
    assert {one["state"] for one in listed} == {"exited"}
    assert subprocess.run(["pgrep", "-f", str(home.data)], check=False).returncode == 1
    check_end(home)
