"""Places, locks and states of pods, and who wins when several reach for one."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from podctl.errors import Ambiguous, NotFound, PodStateError, UsageError
from podctl.pods.directories import (
    EXITED_GARBAGE,
    GARBAGE,
    PLACES,
    PREPARE,
    PREPARED,
    RUN,
    PodDirectories,
    take_exclusive,
)
from podctl.pods.find import find, named, read_uuid_file, write_uuid_file
from podctl.sys import procs
from podctl.sys.locks import lock

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Yard

FREE = {
    "embryo": "embryo",
    "prepare": "aborted prepare",
    "prepared": "prepared",
    "run": "exited",
    "exited-garbage": "exited garbage",
    "garbage": "garbage",
}
HELD = {
    "embryo": "embryo",
    "prepare": "preparing",
    "prepared": "prepared",
    "run": "running",
    "exited-garbage": "exited deleting",
    "garbage": "deleting",
}


@pytest.mark.parametrize("place", PLACES)
def test_state_follows_place_and_lock(yard: Yard, place: str) -> None:
    uuid = yard.put(place)
    pod = yard.pods.locate(uuid)
    assert pod is not None
    assert (pod.state, pod.held) == (FREE[place], False)
    release = yard.hold(place, uuid)
    pod = yard.pods.locate(uuid)
    assert pod is not None
    assert (pod.state, pod.held) == (HELD[place], True)
    release()
    pod = yard.pods.locate(uuid)
    assert pod is not None
    assert pod.state == FREE[place]


def test_new_pod_is_locked_before_it_is_visible(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []
    rename = os.rename

    def watch(source: str, target: str) -> None:
        fd = os.open(f"{source}/lock", os.O_RDONLY)
        held.append(not lock(fd, exclusive=False, blocking=False))
        os.close(fd)
        rename(source, target)

    monkeypatch.setattr(os, "rename", watch)
    with yard.pods.create() as pod:
        assert held == [True]
        seen = yard.pods.locate(pod.uuid)
        assert seen is not None
        assert seen.state == "preparing"
        yard.pods.move(pod, RUN, durable=False)
        seen = yard.pods.locate(pod.uuid)
        assert seen is not None
        assert seen.state == "running"
    seen = yard.pods.locate(pod.uuid)
    assert seen is not None
    assert seen.state == "exited"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(yard: Yard, umask: int) -> None:
    before = os.umask(umask)
    try:
        with yard.pods.create() as pod:
            modes = [
                os.stat(path).st_mode & 0o777
                for path in (yard.top / "pods", os.path.dirname(pod.directory), pod.directory)
            ]
            lock_mode = os.stat(pod.path("lock")).st_mode & 0o777
        after = os.umask(umask)
    finally:
        os.umask(before)
    assert modes == [0o750] * 3
    assert lock_mode == 0o600
    assert after == umask


def test_lock_descriptor_is_a_read_only_regular_file(yard: Yard) -> None:
    """What the app inherits must not lead it anywhere: fchdir on it fails."""
    with yard.pods.create() as pod:
        with pytest.raises(NotADirectoryError):
            os.fchdir(pod.lock_fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(pod.lock_fd, b"x")
        # The control: a directory's descriptor does lead out.
        directory = os.open(pod.directory, os.O_RDONLY)
        here = os.getcwd()
        try:
            os.fchdir(directory)
        finally:
            os.chdir(here)
            os.close(directory)


def test_walk_lists_each_pod_once_and_leaves_out_garbage(yard: Yard) -> None:
    uuids = {place: yard.put(place) for place in PLACES}
    found = {pod.uuid: pod.state for pod in yard.pods.walk()}
    assert found == {
        uuids[place]: FREE[place] for place in (PREPARE, PREPARED, RUN, EXITED_GARBAGE)
    }


def test_walk_ignores_what_is_no_pod(yard: Yard) -> None:
    uuid = yard.put(RUN)
    (yard.top / "pods/run/notes.txt").touch()
    (yard.top / "pods/run/.tmp").mkdir()
    assert [pod.uuid for pod in yard.pods.walk()] == [uuid]


def test_walk_of_nothing(tmp_path: Path) -> None:
    assert PodDirectories(str(tmp_path / "missing")).walk() == []


def test_data_directory_may_be_a_link(yard: Yard, tmp_path: Path) -> None:
    uuid = yard.put(RUN)
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    (pod,) = PodDirectories(str(link)).walk()
    assert pod.directory == str(yard.path(RUN, uuid))


def search_while_it_moves(yard: Yard, places: tuple[str, ...]) -> list[bool]:
    """For each place a pod may be in and each step of a search: is it found when it moves on
    just then?"""
    found = []
    isdir = os.path.isdir
    for start in range(1, len(PLACES) - 1):
        for moment in range(len(PLACES)):
            uuid = yard.put(PLACES[start])
            looks = 0

            def look_then_move(path: str, *, uuid: str = uuid, start: int = start) -> bool:
                nonlocal looks
                answer = isdir(path)
                if looks == moment:  # noqa: B023  # called before moment changes
                    os.rename(yard.path(PLACES[start], uuid), yard.path(PLACES[start + 1], uuid))
                looks += 1
                return answer

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os.path, "isdir", look_then_move)
                found.append(yard.pods._search(uuid, places) is not None)
    return found


def test_search_never_misses_a_pod_that_moves(yard: Yard) -> None:
    for place in PLACES:
        (yard.top / "pods" / place).mkdir(parents=True, exist_ok=True)
    assert all(search_while_it_moves(yard, PLACES))


def test_control_search_against_the_current_misses_pods(yard: Yard) -> None:
    for place in PLACES:
        (yard.top / "pods" / place).mkdir(parents=True, exist_ok=True)
    assert not all(search_while_it_moves(yard, PLACES[::-1]))


def test_free_lock_of_a_pod_that_moved_on_is_not_an_aborted_prepare(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = yard.put(PREPARE)
    (yard.top / "pods/prepared").mkdir()
    probe = yard.pods._probe
    look = probe.look

    def finish_meanwhile(path: str) -> tuple[bool, float] | None:
        seen = look(path)
        if os.path.exists(yard.path(PREPARE, uuid)):
            os.rename(yard.path(PREPARE, uuid), yard.path(PREPARED, uuid))
        return seen

    monkeypatch.setattr(probe, "look", finish_meanwhile)
    (pod,) = yard.pods.walk()
    assert (pod.place, pod.state) == (PREPARED, "prepared")


def test_take_waits_out_those_who_only_look(yard: Yard) -> None:
    uuid = yard.put(PREPARED)
    pod = yard.pods.locate(uuid)
    assert pod is not None
    fd = os.open(pod.path("lock"), os.O_RDONLY)
    assert lock(fd, exclusive=False, blocking=False)
    timer = threading.Timer(0.05, os.close, [fd])
    timer.start()
    taken = yard.pods.take(pod)
    timer.join()
    assert taken is not None
    taken.close()


def test_take_yields_to_a_holder(yard: Yard) -> None:
    uuid = yard.put(PREPARED)
    pod = yard.pods.locate(uuid)
    assert pod is not None
    yard.hold(PREPARED, uuid)
    assert yard.pods.take(pod) is None


def test_only_one_of_many_takes_a_pod(yard: Yard) -> None:
    uuid = yard.put(PREPARED)
    pod = yard.pods.locate(uuid)
    assert pod is not None
    start_read, start_write = os.pipe()
    end_read, end_write = os.pipe()
    result_read, result_write = os.pipe()
    children = []
    for _ in range(12):
        pid = os.fork()
        if pid == 0:
            os.close(end_write)
            os.read(start_read, 1)
            taken = yard.pods.take(pod)
            os.write(result_write, b"y" if taken else b"n")
            # Hold it until everybody has tried.
            os.read(end_read, 1)
            os._exit(0)
        children.append(pid)
    os.write(start_write, b"x" * 12)
    answers = b""
    while len(answers) < 12:
        answers += os.read(result_read, 12)
    for fd in (start_read, start_write, result_read, result_write, end_read, end_write):
        os.close(fd)
    for pid in children:
        os.waitpid(pid, 0)
    assert sorted(answers) == sorted(b"y" + b"n" * 11)


def test_take_makes_a_lost_lock_file_again(yard: Yard) -> None:
    """A removal that was cut short may have taken the lock file with it."""
    uuid = yard.put(GARBAGE)
    (yard.path(GARBAGE, uuid) / "lock").unlink()
    pod = yard.pods.locate(uuid)
    assert pod is not None
    assert pod.state == "garbage"
    taken = yard.pods.take(pod)
    assert taken is not None
    taken.close()


def test_take_notices_a_replaced_lock_file(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = yard.put(GARBAGE)
    pod = yard.pods.locate(uuid)
    assert pod is not None
    path = yard.path(GARBAGE, uuid) / "lock"

    def replace_then_take(fd: int) -> bool:
        path.unlink()
        path.touch()
        return take_exclusive(fd)

    monkeypatch.setattr("podctl.pods.directories.take_exclusive", replace_then_take)
    assert yard.pods.take(pod) is None


def test_move_of_a_pod_that_is_gone(yard: Yard) -> None:
    uuid = yard.put(RUN)
    pod = yard.pods.locate(uuid)
    assert pod is not None
    (yard.top / "pods/exited-garbage").mkdir()
    os.rename(pod.directory, yard.path(EXITED_GARBAGE, uuid))
    with pytest.raises(PodStateError, match="moved or removed by another process"):
        yard.pods.move(pod, EXITED_GARBAGE, durable=False)


class TestLifeWithoutTheLock:
    """A process of the pod that closed the lock's descriptor still counts."""

    def test_first_process_alone_keeps_the_pod_running(self, yard: Yard) -> None:
        record = procs.current_instance()._asdict()
        uuid = yard.put(RUN, instance=record)
        pod = yard.pods.locate(uuid)
        assert pod is not None
        assert (pod.state, pod.held) == ("running", False)
        assert [one.state for one in yard.pods.walk()] == ["running"]

    @pytest.mark.parametrize(
        "change",
        [
            {"start_time": 1},
            {"boot_id": "00000000-0000-0000-0000-000000000000"},
            {"pid": 2**22 + 1},
        ],
        ids=["number reused", "another boot", "no such process"],
    )
    def test_a_stranger_with_the_same_number_does_not(
        self, yard: Yard, change: dict[str, object]
    ) -> None:
        record = {**procs.current_instance()._asdict(), **change}
        uuid = yard.put(RUN, instance=record)
        pod = yard.pods.locate(uuid)
        assert pod is not None
        assert pod.state == "exited"

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "1"}', '{"pid": 1}', "\x00\xff"])
    def test_damaged_record_means_dead(self, yard: Yard, text: str) -> None:
        uuid = yard.put(RUN)
        (yard.path(RUN, uuid) / "instance").write_text(text)
        pod = yard.pods.locate(uuid)
        assert pod is not None
        assert pod.state == "exited"

    def test_pid_file_is_not_believed(self, yard: Yard) -> None:
        uuid = yard.put(RUN)
        (yard.path(RUN, uuid) / "pid").write_text(f"{os.getpid()}\n")
        pod = yard.pods.locate(uuid)
        assert pod is not None
        assert pod.state == "exited"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
class TestWithoutRoot:
    """The group may list pods but not open their locks; the kernel's table tells."""

    def states(self, yard: Yard) -> dict[str, str]:
        for directory in (yard.top, *yard.top.parents):
            if directory.stat().st_mode & 0o005 != 0o005 and directory != directory.parent:
                directory.chmod(0o755)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                fresh = PodDirectories(str(yard.top))
                text = ";".join(f"{pod.uuid}={pod.state}" for pod in fresh.walk())
                os.write(write, text.encode())
            finally:
                os._exit(0)
        os.close(write)
        with open(read, "rb") as pipe:
            answer = pipe.read().decode()
        os.waitpid(pid, 0)
        return dict(part.split("=") for part in answer.split(";"))

    def test_states_are_the_same_as_roots(self, yard: Yard) -> None:
        for place in (PREPARE, RUN, EXITED_GARBAGE):
            yard.put(place)
            yard.hold(place, yard.put(place))
        expected = {pod.uuid: pod.state for pod in yard.pods.walk()}
        assert set(expected.values()) == {
            *("aborted prepare", "preparing", "exited", "running"),
            *("exited garbage", "exited deleting"),
        }
        assert self.states(yard) == expected

    def test_a_stranger_cannot_make_a_pod_look_alive(self, yard: Yard) -> None:
        uuid = yard.put(RUN)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setresuid(65534, 65534, 65534)
                os.open(yard.path(RUN, uuid) / "lock", os.O_RDONLY)
            except PermissionError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class TestFinding:
    def test_whole_uuid_and_any_unique_beginning(self, yard: Yard) -> None:
        uuid, other = yard.put(RUN), yard.put(PREPARED)
        for text in (uuid, uuid[:8], uuid[:1], f" {uuid[:9].upper()}\n"):
            assert find(yard.pods, text).uuid == uuid
        assert find(yard.pods, other[:1]).uuid == other

    def test_ambiguous_beginning(self, yard: Yard) -> None:
        for name in ("ab000000", "ab111111"):
            path = yard.path(RUN, f"{name}-0000-4000-8000-000000000000")
            path.mkdir(parents=True)
        with pytest.raises(Ambiguous, match=r"^ambiguous uuid, 2 matches"):
            find(yard.pods, "ab")

    @pytest.mark.parametrize("text", ["fe", "no-such", "../run", "0" * 40, "é"])
    def test_no_match(self, yard: Yard, text: str) -> None:
        yard.put(RUN)
        with pytest.raises(NotFound, match="no matches found for"):
            find(yard.pods, text)

    @pytest.mark.parametrize("text", ["", " ", "\n"])
    def test_empty(self, yard: Yard, text: str) -> None:
        yard.put(RUN)
        with pytest.raises(UsageError, match="UUID cannot be empty"):
            find(yard.pods, text)

    def test_garbage_cannot_be_named(self, yard: Yard) -> None:
        uuid = yard.put(GARBAGE)
        with pytest.raises(NotFound):
            find(yard.pods, uuid)

    def test_uuid_file_round_trip(self, yard: Yard, tmp_path: Path) -> None:
        path = str(tmp_path / "uuid")
        write_uuid_file(path, "abc")
        assert read_uuid_file(path) == "abc"
        assert os.stat(path).st_mode & 0o777 == 0o644

    def test_uuid_file_is_stripped_and_limited(self, tmp_path: Path) -> None:
        path = tmp_path / "uuid"
        path.write_text(" \n abc\n\n")
        assert read_uuid_file(str(path)) == "abc"
        path.write_text("a" * 300)
        with pytest.raises(UsageError, match="longer than"):
            read_uuid_file(str(path))
        with pytest.raises(UsageError, match="unable to read UUID file"):
            read_uuid_file(str(tmp_path / "missing"))

    def test_arguments_or_a_file_but_not_both(self, tmp_path: Path) -> None:
        path = tmp_path / "uuid"
        path.write_text("abc")
        assert named(("x", "y"), None) == ["x", "y"]
        assert named((), str(path)) == ["abc"]
        for uuids, file in (((), None), (("x",), str(path))):
            with pytest.raises(UsageError, match="either"):
                named(uuids, file)
