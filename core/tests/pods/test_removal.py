"""Removing pods: what is removed when, in which order, and what survives an interruption."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from podctl.errors import NotFound, PluginMissing, PodStateError
from podctl.pods.directories import (
    EMBRYO,
    EXITED_GARBAGE,
    GARBAGE,
    PREPARE,
    PREPARED,
    RUN,
    PodDirectories,
)
from podctl.pods.removal import NEEDS_GC, Remover, delete_tree, discard

if TYPE_CHECKING:
    from conftest import Yard

    from podctl.pods.directories import Pod


class Recorder:
    """A Remover with everything it says."""

    def __init__(self, yard: Yard) -> None:
        self.said: list[str] = []
        self.released: list[str] = []
        self.yard = yard
        self.remover = Remover(yard.pods, self.said.append, self.released.append)

    def rm(self, uuid: str) -> None:
        pod = self.yard.pods.locate(uuid)
        assert pod is not None
        self.remover.remove(pod)

    def gc(self, *, grace: float = 0, expire: float = 0, mark_only: bool = False) -> None:
        self.remover.collect(grace=grace, expire=expire, mark_only=mark_only)


@pytest.fixture
def recorder(yard: Yard) -> Recorder:
    for place in (EMBRYO, PREPARE, PREPARED, RUN, EXITED_GARBAGE, GARBAGE):
        (yard.top / "pods" / place).mkdir(parents=True)
    return Recorder(yard)


class TestRm:
    @pytest.mark.parametrize("place", [PREPARE, PREPARED, RUN, EXITED_GARBAGE])
    def test_dead_pod_is_gone(self, yard: Yard, recorder: Recorder, place: str) -> None:
        uuid, other = yard.put(place), yard.put(place)
        recorder.rm(uuid)
        assert yard.all() == {other: place}
        assert recorder.remover.removed == [uuid]

    @pytest.mark.parametrize(
        ("place", "refusal"),
        [
            (RUN, "is currently running"),
            (PREPARE, "is currently being prepared"),
            (EXITED_GARBAGE, "is currently being deleted"),
            (PREPARED, "is being started or removed"),
        ],
    )
    def test_pod_in_use_is_refused_and_untouched(
        self, yard: Yard, recorder: Recorder, place: str, refusal: str
    ) -> None:
        uuid = yard.put(place)
        yard.hold(place, uuid)
        with pytest.raises(PodStateError, match=refusal):
            recorder.rm(uuid)
        assert yard.all() == {uuid: place}

    def test_pod_that_another_rm_has_just_removed(self, yard: Yard, recorder: Recorder) -> None:
        pod = yard.pods.locate(yard.put(RUN))
        assert pod is not None
        Recorder(yard).remover.remove(pod)
        pod.place, pod.directory = RUN, yard.pods.path(RUN, pod.uuid)
        with pytest.raises(NotFound):
            recorder.remover.remove(pod)

    def test_stale_look_does_not_remove_a_pod_that_was_started(
        self, yard: Yard, recorder: Recorder
    ) -> None:
        """run-prepared took it between our look and our removal."""
        uuid = yard.put(PREPARED)
        pod = yard.pods.locate(uuid)
        assert pod is not None
        os.rename(yard.path(PREPARED, uuid), yard.path(RUN, uuid))
        yard.hold(RUN, uuid)
        with pytest.raises(PodStateError, match="is currently running"):
            recorder.remover.remove(pod)
        assert yard.all() == {uuid: RUN}


class TestGc:
    def test_marks_before_it_deletes(self, yard: Yard, recorder: Recorder) -> None:
        exited, aborted = yard.put(RUN), yard.put(PREPARE)
        prepared, running, preparing = yard.put(PREPARED), yard.put(RUN), yard.put(PREPARE)
        yard.hold(RUN, running)
        yard.hold(PREPARE, preparing)
        recorder.gc(grace=0, expire=0, mark_only=True)
        assert yard.all() == {
            exited: EXITED_GARBAGE,
            aborted: GARBAGE,
            prepared: PREPARED,
            running: RUN,
            preparing: PREPARE,
        }
        assert recorder.said == [
            f'moving pod "{exited}" to garbage',
            f'moving failed prepare "{aborted}" to garbage',
        ]

    def test_without_grace_everything_dead_goes(self, yard: Yard, recorder: Recorder) -> None:
        uuids = [yard.put(place) for place in (PREPARE, PREPARED, RUN, EXITED_GARBAGE, GARBAGE)]
        running = yard.put(RUN)
        yard.hold(RUN, running)
        recorder.gc()
        assert yard.all() == {running: RUN}
        assert sorted(recorder.remover.removed) == sorted(uuids)
        assert f'moving expired prepared pod "{uuids[1]}" to garbage' in recorder.said

    def test_grace_period_begins_when_the_pod_is_marked(
        self, yard: Yard, recorder: Recorder
    ) -> None:
        exited, old = yard.put(RUN), yard.put(EXITED_GARBAGE)
        os.utime(yard.path(RUN, exited), (0, 0))
        recorder.gc(grace=1800, expire=86400)
        assert yard.all() == {exited: EXITED_GARBAGE, old: EXITED_GARBAGE}
        line = f'pod "{exited}" not removed: still within grace period (30m0s)'
        assert line in recorder.said

    def test_prepared_pods_wait_for_their_expiry(self, yard: Yard, recorder: Recorder) -> None:
        uuid = yard.put(PREPARED)
        recorder.gc(expire=3600)
        assert yard.all() == {uuid: PREPARED}

    def test_prepared_pod_being_started_is_left_alone(self, yard: Yard, recorder: Recorder) -> None:
        uuid = yard.put(PREPARED)
        yard.hold(PREPARED, uuid)
        recorder.gc()
        assert yard.all() == {uuid: PREPARED}

    def test_clock_set_back_keeps_pods(
        self, yard: Yard, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uuid = yard.put(EXITED_GARBAGE)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now - 10 * 365 * 86400)
        recorder.gc(grace=60)
        assert yard.all() == {uuid: EXITED_GARBAGE}

    def test_embryo_without_creator_goes_one_with_stays(
        self, yard: Yard, recorder: Recorder
    ) -> None:
        dead, alive, bare = yard.put(EMBRYO), yard.put(EMBRYO), yard.put(EMBRYO)
        yard.hold(EMBRYO, alive)
        (yard.path(EMBRYO, bare) / "lock").unlink()
        recorder.gc()
        assert yard.all() == {alive: EMBRYO}
        assert dead not in recorder.remover.removed

    def test_creation_survives_a_gc_in_its_first_moment(
        self, yard: Yard, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """gc sees the new directory before its lock file is there, and takes it away."""
        mkdir = os.mkdir
        collected = []

        def mkdir_then_gc(path: str, mode: int = 0o777) -> None:
            mkdir(path, mode)
            if f"/{EMBRYO}/" in path and not collected:
                collected.append(path)
                recorder.gc()

        monkeypatch.setattr(os, "mkdir", mkdir_then_gc)
        with yard.pods.create() as pod:
            assert len(collected) == 1
            assert yard.all() == {pod.uuid: PREPARE}

    def test_a_faulty_pod_does_not_stop_the_rest(
        self, yard: Yard, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        faulty, fine = yard.put(EXITED_GARBAGE), yard.put(EXITED_GARBAGE)
        delete = recorder.remover.delete

        def fail_for_one(pod: Pod) -> None:
            if pod.uuid == faulty:
                raise OSError(5, "Input/output error")
            delete(pod)  # type: ignore[arg-type]

        monkeypatch.setattr(recorder.remover, "delete", fail_for_one)
        recorder.gc()
        assert yard.all() == {faulty: EXITED_GARBAGE}
        assert any(faulty in line and "Input/output error" in line for line in recorder.said)
        assert recorder.remover.removed == [fine]

    def test_two_at_once_remove_everything_once(self, yard: Yard, recorder: Recorder) -> None:
        uuids = [yard.put(place) for place in (RUN, EXITED_GARBAGE, GARBAGE) for _ in range(60)]
        program = (
            "import sys; from podctl.pods.directories import PodDirectories;"
            "from podctl.pods.removal import Remover;"
            "r = Remover(PodDirectories(sys.argv[1]), lambda line: None, lambda path: None);"
            "sys.stdin.read(1); r.collect(grace=0, expire=0, mark_only=False);"
            "print('\\n'.join(r.removed))"
        )
        command = [sys.executable, "-I", "-c", program, str(yard.top)]
        collectors = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        outputs = [collector.communicate("x")[0].split() for collector in collectors]
        assert all(collector.returncode == 0 for collector in collectors)
        assert yard.all() == {}
        assert sorted(sum(outputs, [])) == sorted(uuids)


class TestDeleting:
    def fill(self, yard: Yard, uuid: str) -> None:
        directory = yard.path(EXITED_GARBAGE, uuid)
        for name in ("rootfs/app/etc", "overlay/app/upper/var", "sharedVolumes/data", "appsinfo/a"):
            (directory / name).mkdir(parents=True)
            (directory / name / "file").write_text("x")

    def test_manifest_outlives_everything_but_the_lock(
        self, yard: Yard, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whenever deletion stops, the manifest is there, or nothing but it is gone."""
        uuid = yard.put(EXITED_GARBAGE)
        self.fill(yard, uuid)
        from podctl.sys import files

        remove = files.remove_tree
        seen: list[list[str]] = []

        def watch(path: str) -> None:
            seen.append(sorted(os.listdir(yard.path(EXITED_GARBAGE, uuid))))
            remove(path)

        monkeypatch.setattr(files, "remove_tree", watch)
        recorder.rm(uuid)
        assert len(seen) > 5
        assert all("pod" in names for names in seen if names != ["lock"])
        assert "rootfs" not in seen[1]
        assert yard.all() == {}

    @pytest.mark.parametrize("failing", range(8))
    def test_deletion_cut_short_can_be_done_again(
        self, yard: Yard, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, failing: int
    ) -> None:
        uuid = yard.put(EXITED_GARBAGE)
        self.fill(yard, uuid)
        from podctl.sys import files

        remove = files.remove_tree
        calls = 0

        def fail_once(path: str) -> None:
            nonlocal calls
            calls += 1
            if calls == failing + 1:
                raise OSError(5, "Input/output error", path)
            remove(path)

        monkeypatch.setattr(files, "remove_tree", fail_once)
        try:
            recorder.rm(uuid)
        except OSError:
            assert yard.all() == {uuid: EXITED_GARBAGE}
            recorder.rm(uuid)
        assert yard.all() == {}

    def test_links_out_of_the_pod_are_not_followed(
        self, yard: Yard, recorder: Recorder, tmp_path: os.PathLike[str]
    ) -> None:
        uuid = yard.put(EXITED_GARBAGE)
        outside = yard.top / "outside"
        outside.mkdir()
        (outside / "canary").write_text("alive")
        directory = yard.path(EXITED_GARBAGE, uuid)
        (directory / "rootfs").symlink_to(outside)
        (directory / "overlay").mkdir()
        (directory / "overlay/app").symlink_to(outside)
        recorder.rm(uuid)
        assert (outside / "canary").read_text() == "alive"
        assert yard.all() == {}

    def test_flavor_is_asked_only_for_what_it_left(self, yard: Yard, recorder: Recorder) -> None:
        plain, holding = yard.put(EXITED_GARBAGE), yard.put(EXITED_GARBAGE)
        (yard.path(EXITED_GARBAGE, holding) / NEEDS_GC).touch()
        recorder.rm(plain)
        recorder.rm(holding)
        assert recorder.released == [str(yard.path(EXITED_GARBAGE, holding))]

    def test_pod_is_kept_while_its_flavor_cannot_release_it(self, yard: Yard) -> None:
        uuid = yard.put(EXITED_GARBAGE)
        (yard.path(EXITED_GARBAGE, uuid) / NEEDS_GC).touch()

        def missing(directory: str) -> None:
            raise PluginMissing('stage1 "kvm" is not installed')

        said: list[str] = []
        remover = Remover(yard.pods, said.append, missing)
        remover.collect(grace=0, expire=0, mark_only=False)
        assert yard.all() == {uuid: EXITED_GARBAGE}
        assert 'stage1 "kvm" is not installed' in said[-1]

    def test_discarding_a_pod_of_ours(self, yard: Yard) -> None:
        pod = yard.pods.create()
        discard(pod, yard.pods)
        pod.close()
        assert yard.all() == {}

    @pytest.mark.root
    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
    def test_leftover_mounts_do_not_keep_a_pod(self, yard: Yard) -> None:
        """Stacked, busy and shared mounts below the pod, also ones seen by other namespaces."""
        uuid = yard.put(EXITED_GARBAGE)
        directory = yard.path(EXITED_GARBAGE, uuid)
        (directory / "rootfs/app/sub dir").mkdir(parents=True)
        outside = yard.top / "outside"
        outside.mkdir()
        (outside / "canary").write_text("alive")
        script = f"""
            set -e
            mount -t tmpfs none '{directory}/rootfs/app'
            mkdir '{directory}/rootfs/app/sub dir'
            mount --bind '{outside}' '{directory}/rootfs/app/sub dir'
            mount --bind '{outside}' '{directory}/rootfs/app/sub dir'
            mount --make-rshared '{directory}/rootfs/app'
            cd '{directory}/rootfs/app/sub dir'
            unshare --mount --propagation private sleep 600 &
            other=$!
            '{sys.executable}' -I -c '
import sys
from podctl.pods.removal import delete_tree
delete_tree(sys.argv[1], print)' '{directory}'
            kill $other
            ! grep -q '{uuid}' /proc/self/mountinfo
        """
        command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "unmounted 3 leftover mount(s)" in done.stdout
        assert yard.all() == {}
        assert (outside / "canary").read_text() == "alive"

    def test_deleting_what_is_gone_already(self, yard: Yard) -> None:
        delete_tree(str(yard.path(GARBAGE, "nothing")), print)


def test_rm_against_a_creator(yard: Yard) -> None:
    """Creation and collection side by side: no pod is lost, none is removed under its maker."""
    program = (
        "import sys; from podctl.pods.directories import PodDirectories;"
        "from podctl.pods.removal import Remover; p = PodDirectories(sys.argv[1]);\n"
        "print(flush=True)\n"
        "while not sys.stdin.closed:\n"
        "    Remover(p, lambda l: None, lambda d: None).collect("
        "grace=0, expire=1e9, mark_only=False)\n"
    )
    command = [sys.executable, "-I", "-c", program, str(yard.top)]
    collector = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert collector.stdout is not None
        collector.stdout.readline()
        pods = PodDirectories(str(yard.top))
        for _ in range(150):
            pod = pods.create()
            assert os.path.isdir(pod.directory)
            pods.move(pod, PREPARED, durable=False)
            assert os.path.isdir(pod.directory)
            pod.close()
        assert set(yard.all().values()) == {PREPARED}
        assert len(yard.all()) == 150
    finally:
        collector.kill()
        collector.communicate()
