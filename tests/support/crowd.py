"""Many commands at once on one data directory: workers who each do what a fixed seed says."""

from __future__ import annotations

import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from home import Done, Home

FLY = "--stage1=fly"
WORKERS, STEPS = 6, 24


class Crowd:
    """What the workers do, and what each command may answer.

    Args:
        outputs: image as it is asked for -> what its app prints.

    Attributes:
        complaints: answers that were not allowed.
        counts: command -> how often it succeeded and how often it was refused.
    """

    def __init__(self, home: Home, outputs: Mapping[str, str]) -> None:
        self.home = home
        self.outputs = outputs
        self.names = list(outputs)
        self.complaints: list[str] = []
        self.counts: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    def work(self) -> None:
        """All workers at once; none may complain, and everything that can succeed has to, once."""
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(self.one_day, range(WORKERS)))
        assert self.complaints == []
        for command in ("fetch", "run", "prepare", "run-prepared", "list", "image", "gc", "rm"):
            assert self.counts[command][0] > 0, self.counts

    def one_day(self, seed: int) -> None:
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
        self.call("fetch", chance.choice(self.names))

    def run(self, chance: random.Random) -> None:
        name = chance.choice(self.names)
        self.call("run", FLY, name, output=self.outputs[name])

    def prepare(self, chance: random.Random) -> None:
        name = chance.choice(self.names)
        uuid = self.call("prepare", FLY, "--quiet", name).stdout.strip()
        # Any worker may have removed it, but no image may have gone from under it.
        if uuid:
            self.call("run-prepared", uuid, output=self.outputs[name],
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
        self.call("image", "rm", chance.choice(self.names), refusals="not in the store|cannot find")

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
