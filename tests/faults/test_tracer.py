"""The tracer that the kill sweeps stand on: whose call, and which, a point means."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from sweeping import ON_X86_64

from podctl.testing.tracer import Point, run_traced

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.timeout(60), ON_X86_64]


def write(path: Path, times: int) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(b"x")


@pytest.fixture
def crowd(tmp_path: Path) -> list[Path]:
    """Files that `gather` writes: a process, two threads of its child, and a grandchild."""
    return [tmp_path / name for name in ("first", "thread 1", "thread 2", "grandchild")]


def gather(files: list[Path]) -> int:
    first, *threads, grandchild = files
    child = os.fork()
    if child == 0:
        workers = [
            threading.Thread(target=write, args=(path, number + 2))
            for number, path in enumerate(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        below = os.fork()
        if below == 0:
            write(grandchild, 4)
            os._exit(0)
        os.waitpid(below, 0)
        os._exit(0)
    os.waitpid(child, 0)
    write(first, 1)
    return 7


def test_every_call_has_its_process_thread_and_ordinal(crowd: list[Path]) -> None:
    done = run_traced(lambda: gather(crowd))
    assert (done.status, done.killed) == (7, False)
    writes = [point for point in done.points if point.call == "write"]
    # The first call of each is the open that makes the file.
    assert sorted(writes) == [
        Point(0, 0, 2, "write"),
        *(Point(1, 1, ordinal, "write") for ordinal in (2, 3)),
        *(Point(1, 2, ordinal, "write") for ordinal in (2, 3, 4)),
        *(Point(2, 0, ordinal, "write") for ordinal in (2, 3, 4, 5)),
    ]


def test_points_are_the_same_in_every_run(crowd: list[Path]) -> None:
    runs = {tuple(sorted(run_traced(lambda: gather(crowd)).points)) for _ in range(5)}
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("point", "sizes"),
    [
        (Point(0, 0, 2), [0, 2, 3, 4]),
        (Point(1, 2, 3), [1, None, 1, None]),
        (Point(2, 0, 4), [1, 2, 3, 2]),
        (Point(3, 0, 1), [1, 2, 3, 4]),
    ],
)
def test_a_process_is_killed_with_its_threads_before_the_call(
    crowd: list[Path], point: Point, sizes: list[int | None]
) -> None:
    """Of a thread beside the one that is killed, nobody knows how far it came."""
    done = run_traced(lambda: gather(crowd), point)
    assert done.killed == (point.process < 3)
    assert done.status == (-9 if point.process == 0 else 7)
    for path, size in zip(crowd, sizes, strict=True):
        if size is not None:
            assert path.stat().st_size == size
    if point.process == 1:
        assert not crowd[3].exists()
