"""Many commands at once on one data directory: each does its work or says why not, none breaks.

Rows L7, L8 and R18 of the hostile-input catalogue. Which command meets which is left to the
scheduler; what each worker does is drawn from a fixed seed.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import image_files
import pytest
from crowd import Crowd, check_end
from home import PODCTL
from image_files import ARCH, manifest, pack

if TYPE_CHECKING:
    from home import Home
    from live_world import Discovery

    from podctl.testing.httpserver import Content, Reply, Request, Server

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

FLY = "--stage1=fly"
NAMES = [f"live.example/{letter}" for letter in "abc"]


def image(name: str, *, sleep: float = 0) -> bytes:
    """An image whose app reads a file of its own and prints it."""
    script = f"sleep {sleep}; cat /content"
    files = image_files.busybox() | {"content": f"content of {name}\n".encode()}
    return pack(manifest(name, app=image_files.shell(script)), files)


def path_of(name: str) -> str:
    return f"/{name}-latest-linux-{ARCH}.aci"


def test_l7_everything_at_once(home: Home, live: Discovery) -> None:
    for name in NAMES:
        live.add(path_of(name), image(name))
    mounts = Path("/proc/self/mountinfo").read_text()
    Crowd(home, {name: f"content of {name}\n" for name in NAMES}).work()
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
