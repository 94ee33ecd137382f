"""Waiting for pods, woken by the kernel."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from podctl.errors import NotFound, PodStateError
from podctl.pods.directories import EXITED_GARBAGE, PREPARE, PREPARED, RUN
from podctl.pods.waiting import wait_until_ended, wait_until_ready
from podctl.sys import procs

if TYPE_CHECKING:
    from conftest import Yard


def test_ended_pod_is_not_waited_for(yard: Yard) -> None:
    assert wait_until_ended(yard.pods, yard.put(RUN), None).state == "exited"


def test_end_wakes_the_waiter(yard: Yard) -> None:
    uuid = yard.put(RUN)
    release = yard.hold(RUN, uuid)
    threading.Timer(0.1, release).start()
    assert wait_until_ended(yard.pods, uuid, 60).state == "exited"


def test_waiter_sleeps_in_the_kernel(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks once before and once after, however long the pod lives."""
    uuid = yard.put(RUN)
    release = yard.hold(RUN, uuid)
    looks = 0
    locate = yard.pods.locate

    def count(name: str) -> object:
        nonlocal looks
        looks += 1
        return locate(name)

    monkeypatch.setattr(yard.pods, "locate", count)
    threading.Timer(0.5, release).start()
    wait_until_ended(yard.pods, uuid, None)
    assert looks == 2


def test_time_is_limited(yard: Yard) -> None:
    uuid = yard.put(RUN)
    yard.hold(RUN, uuid)
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(PodStateError, match=f'error waiting for pod "{uuid}": it is still running'):
        wait_until_ended(yard.pods, uuid, 0.05)
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_prepared_pod_is_waited_for_through_its_whole_life(yard: Yard) -> None:
    uuid = yard.put(PREPARED)

    def live() -> None:
        time.sleep(0.05)
        (yard.top / "pods/run").mkdir()
        release = yard.hold(PREPARED, uuid)
        os.rename(yard.path(PREPARED, uuid), yard.path(RUN, uuid))
        time.sleep(0.05)
        release()

    thread = threading.Thread(target=live)
    thread.start()
    assert wait_until_ended(yard.pods, uuid, 60).state == "exited"
    thread.join()


def test_removed_pod(yard: Yard) -> None:
    uuid = yard.put(PREPARED)
    threading.Timer(0.05, lambda: yard.path(PREPARED, uuid).rename(yard.top / "gone")).start()
    with pytest.raises(NotFound, match="it was removed"):
        wait_until_ended(yard.pods, uuid, 60)


def test_aborted_preparation_ends_the_wait(yard: Yard) -> None:
    uuid = yard.put(PREPARE)
    assert wait_until_ready(yard.pods, uuid, 60).state == "aborted prepare"


def test_marked_pod_counts_as_ended(yard: Yard) -> None:
    assert wait_until_ended(yard.pods, yard.put(EXITED_GARBAGE), 60).state == "exited garbage"


def test_process_that_gave_up_the_lock_is_waited_for(yard: Yard) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    started = procs.start_time(pid)
    record = {**procs.current_instance()._asdict(), "pid": pid, "start_time": started}
    # Not ours: else this test's own processes would count as the pod's.
    record["mount_namespace"] = 1
    uuid = yard.put(RUN, instance=record)
    pod = yard.pods.locate(uuid)
    assert pod is not None
    assert (pod.state, pod.held) == ("running", False)
    threading.Timer(0.1, os.close, [write]).start()
    assert wait_until_ended(yard.pods, uuid, 60).state == "exited"
    os.waitpid(pid, 0)


def test_ready_means_started(yard: Yard) -> None:
    uuid = yard.put(RUN)
    yard.hold(RUN, uuid)
    record = yard.path(RUN, uuid) / "instance"
    threading.Timer(0.05, lambda: record.write_text("{}")).start()
    assert wait_until_ready(yard.pods, uuid, 60).state == "running"
    assert record.exists()
