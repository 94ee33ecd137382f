"""The child that handles bytes from outside: what it has lost, and what its parent believes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podctl.errors import FetchFailed, PodctlError, TrustRefused
from podctl.sys import results
from podctl.sys.child import Child, Privileges, spawn

if TYPE_CHECKING:
    from collections.abc import Callable

NONE, EXTRACT, SAME = Privileges.NONE, Privileges.EXTRACT, Privileges.SAME


def status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return {key: value.strip() for key, value in (line.split(":", 1) for line in file)}


def run(function: Callable[[], object], privileges: Privileges = NONE) -> object:
    with spawn(function, privileges=privileges, name="work") as child:
        return child.wait()


def facts(privileges: Privileges) -> dict[str, str]:
    found = run(status, privileges)
    assert isinstance(found, dict)
    return found


def test_none_is_nobody_without_any_capability() -> None:
    found = facts(NONE)
    assert found["Uid"].split() == ["65534"] * 4
    assert found["Gid"].split() == ["65534"] * 4
    assert found["Groups"] == ""
    assert [int(found[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [0] * 5
    assert found["NoNewPrivs"] == "1"


def test_extract_is_root_with_exactly_five_capabilities() -> None:
    found = facts(EXTRACT)
    assert found["Uid"].split() == ["0"] * 4
    assert found["Groups"] == ""
    expected = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 31
    assert [int(found[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Bnd")] == [expected] * 3
    assert [int(found[f"Cap{kind}"], 16) for kind in ("Inh", "Amb")] == [0, 0]
    assert found["NoNewPrivs"] == "1"


@pytest.mark.parametrize("privileges", list(Privileges))
def test_system_calls_beyond_the_work_are_denied(privileges: Privileges) -> None:
    """SAME is the control: it may do all of it."""

    def try_everything() -> list[str]:
        import ctypes
        import socket

        from podctl.sys.calls import libc

        def call(number: int, *arguments: object) -> None:
            if libc.syscall(ctypes.c_long(number), *arguments) < 0:
                raise OSError(ctypes.get_errno(), "denied")

        machine = 0 if os.uname().machine == "x86_64" else 1
        attempts: dict[str, Callable[[], object]] = {
            "socket": lambda: socket.socket().close(),
            "execve": lambda: call((59, 221)[machine], b"/nonexistent", None, None),
            "ptrace": lambda: call((101, 117)[machine], 0x4206, 1, 0, 0x7FFFFFFF),
            "bpf": lambda: call((321, 280)[machine], 99, None, 0),
            "io_uring": lambda: call(425, 0, None),
            # getpid under the x32 ABI's number, or once more what is denied anyway
            "x32": lambda: call((0x40000000 + 39, 425)[machine], 0, None),
        }
        denied = []
        for name, attempt in attempts.items():
            try:
                attempt()
            except PermissionError:
                denied.append(name)
            except OSError:
                continue
        return denied

    expected = {
        SAME: [],
        NONE: ["execve", "ptrace", "bpf", "io_uring", "x32"],
        EXTRACT: ["socket", "execve", "ptrace", "bpf", "io_uring", "x32"],
    }
    assert run(try_everything, privileges) == expected[privileges]
    assert facts(privileges)["Seccomp"] == ("0" if privileges is SAME else "2")


def test_same_keeps_everything() -> None:
    """Control: the reports above are of a change, not of this host."""
    found = facts(SAME)
    assert found["CapEff"] == status()["CapEff"]
    assert int(found["CapEff"], 16) != 0


def test_none_cannot_read_what_is_root_s(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    with pytest.raises(PodctlError, match="work failed: PermissionError"):
        run(lambda: secret.read_text())
    assert run(lambda: secret.read_text(), SAME) == "x"


@pytest.mark.parametrize("privileges", [NONE, EXTRACT])
def test_no_way_back_up(privileges: Privileges) -> None:
    def try_everything() -> list[str]:
        tried: list[tuple[str, Callable[[], object]]] = [
            ("setuid", lambda: os.setresuid(1, 1, 1)),
            ("setgroups", lambda: os.setgroups([4])),
            ("chroot", lambda: os.chroot("/tmp")),
            ("mknod", lambda: os.mknod("/tmp/podctl-test-node", 0o20600, os.makedev(1, 3))),
            ("nice", lambda: os.nice(-5)),
        ]
        if privileges is NONE:
            tried.append(("chown", lambda: os.chown("/tmp", 65534, 65534)))
        done = []
        for name, attempt in tried:
            try:
                attempt()
            except PermissionError:
                continue
            done.append(name)
        return done

    assert run(try_everything, privileges) == []


def test_extract_may_give_files_away_and_enter_closed_directories(tmp_path: Path) -> None:
    def work() -> None:
        os.mkdir(tmp_path / "closed", 0)
        os.chown(tmp_path / "closed", 1234, 1234)
        (tmp_path / "closed" / "file").write_text("x")
        os.chown(tmp_path / "closed" / "file", 99, 98)
        os.chmod(tmp_path / "closed" / "file", 0o6755)

    run(work, EXTRACT)
    found = os.stat(tmp_path / "closed" / "file")
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (99, 98, 0o6755)


def test_extract_is_confined_to_its_directory(tmp_path: Path) -> None:
    (tmp_path / "jail").mkdir()
    (tmp_path / "outside").write_text("secret")

    def work() -> list[str]:
        open("/inside", "w").close()
        return [*os.listdir("/"), *os.listdir("/.."), str(os.path.exists("/../outside"))]

    with spawn(work, privileges=EXTRACT, name="x", chroot_to=str(tmp_path / "jail")) as child:
        assert child.wait() == ["inside", "inside", "False"]


def test_nothing_is_imported_from_the_directory(tmp_path: Path) -> None:
    """A module planted where the interpreter's library would be is not found."""
    import sys

    planted = [f"{tmp_path}{entry}" for entry in sys.path if entry.startswith("/")]
    for directory in [*planted, str(tmp_path)]:
        os.makedirs(directory, exist_ok=True)
        Path(directory, "tarfile_planted.py").write_text("raise SystemExit('ran')")

    def work() -> None:
        __import__("tarfile_planted")

    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(PodctlError, match="SystemExit: ran"):
            run(work, EXTRACT)  # control: without the change of root it is found
        with (
            spawn(work, privileges=EXTRACT, name="x", chroot_to=str(tmp_path)) as child,
            pytest.raises(PodctlError, match="ModuleNotFoundError"),
        ):
            child.wait()
    finally:
        sys.path.remove(str(tmp_path))


def test_only_named_descriptors_stay_open(tmp_path: Path) -> None:
    leak = os.open(tmp_path, os.O_RDONLY)
    kept = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leak, True)

    def is_open() -> list[bool]:
        answers = []
        for fd in (0, 1, 2, leak, kept):
            try:
                os.fstat(fd)
                answers.append(True)
            except OSError:
                answers.append(False)
        return answers

    def standard_input() -> bool:
        return os.path.samestat(os.fstat(0), os.stat("/dev/null"))

    with spawn(is_open, privileges=NONE, keep=[kept], name="x") as child:
        assert child.wait() == [True, True, True, False, True]
    assert run(standard_input) is True
    os.close(leak)
    os.close(kept)


def test_child_dies_with_its_parent() -> None:
    """The parent is killed outright, so nothing it could do helps."""
    for privileges in Privileges:
        read, write = os.pipe()
        parent = os.fork()
        if parent == 0:
            child = spawn(signal.pause, privileges=privileges, keep=[write], name="x")
            os.write(write, b"%d\n" % child.pid)
            os.close(write)
            signal.pause()
        os.close(write)
        os.read(read, 32)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        # Only the child still holds the writing end: end of file tells of its death.
        assert select.select([read], [], [], 60)[0], f"{privileges} outlived its parent"
        assert os.read(read, 1) == b""
        os.close(read)


def in_thread(function: Callable[[], object]) -> object:
    """What a function returns in a new thread of this process."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def thread_status() -> dict[str, str]:
    """status(), of the calling thread."""
    path = f"/proc/self/task/{threading.get_native_id()}/status"
    with open(path) as file:
        return {key: value.strip() for key, value in (line.split(":", 1) for line in file)}


@pytest.mark.parametrize("privileges", [NONE, EXTRACT])
def test_a_thread_of_the_child_has_no_more_than_the_child(privileges: Privileges) -> None:
    """Ids, capabilities and the filter of calls are a thread's own; it has them of its maker."""
    fields = ["Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp"]
    fields += [f"Cap{kind}" for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")]

    def compare() -> object:
        found = in_thread(thread_status)
        assert isinstance(found, dict)
        assert found["Pid"] != status()["Pid"]
        return [[found[field], status()[field]] for field in fields]

    pairs = run(compare, privileges)
    assert isinstance(pairs, list)
    assert all(one == other for one, other in pairs)
    assert dict(zip(fields, pairs, strict=True))["Seccomp"] == ["2", "2"]


@pytest.mark.parametrize("privileges", list(Privileges))
def test_a_thread_cannot_do_what_the_child_cannot(privileges: Privileges) -> None:
    """SAME is the control."""

    def attempt() -> list[str]:
        import ctypes
        import resource

        from podctl.sys.calls import libc

        denied = []
        if libc.unshare(ctypes.c_int(0x40000000)) < 0:
            denied.append("unshare")
        if libc.syscall(ctypes.c_long({"x86_64": 101}.get(os.uname().machine, 117)), 0x4206, 1) < 0:
            denied.append("ptrace")
        if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0):
            denied.append("core")
        return denied

    expected = ["ptrace"] if privileges is SAME else ["unshare", "ptrace", "core"]
    assert run(lambda: in_thread(attempt), privileges) == expected


def test_child_dies_with_its_parent_whatever_its_threads_do() -> None:
    """The request goes by thread; the death it brings does not."""
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:

        def work() -> None:
            started = threading.Event()

            def linger() -> None:
                started.set()
                while True:
                    signal.pause()

            for _ in range(3):
                threading.Thread(target=linger, daemon=True).start()
            assert started.wait(30)
            os.write(write, b"x")
            signal.pause()

        spawn(work, privileges=NONE, keep=[write], name="x")
        os.close(write)
        signal.pause()
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert select.select([read], [], [], 60)[0], "it outlived its parent"
    assert os.read(read, 1) == b""
    os.close(read)


def test_a_thread_that_kills_its_process_is_told_as_any_other_end() -> None:
    with pytest.raises(PodctlError, match="^work was killed by signal 9$"):
        run(lambda: in_thread(lambda: os.kill(os.getpid(), signal.SIGKILL)))


def test_results_of_every_type() -> None:
    value = {"none": None, "t": (1, -2, 2.5, True), "s": "ü\0\n", "b": bytes(range(256)), "e": b""}
    assert run(lambda: value) == {**value, "t": [1, -2, 2.5, True]}


@pytest.mark.parametrize("value", [{1: 2}, {"$bytes": "x"}, object(), {"a": {1, 2}}])
def test_result_that_cannot_travel_is_an_error(value: object) -> None:
    with pytest.raises(PodctlError, match="work failed: TypeError"):
        run(lambda: value)


def test_expected_errors_keep_class_message_and_hint() -> None:
    def fail() -> None:
        raise TrustRefused("not signed", hint="trust the key")

    with pytest.raises(TrustRefused) as caught:
        run(fail)
    assert (caught.value.message, caught.value.hint) == ("not signed", "trust the key")
    assert caught.value.debug
    assert "in fail" in caught.value.debug


def test_unexpected_errors_name_the_work_and_keep_the_traceback() -> None:
    with pytest.raises(PodctlError, match="^work failed: ZeroDivisionError: ") as caught:
        run(lambda: 1 // 0)
    assert type(caught.value) is PodctlError
    assert caught.value.debug
    assert "test_child.py" in caught.value.debug


def test_killed_child_is_named() -> None:
    with pytest.raises(PodctlError, match="^work was killed by signal 9$"):
        run(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(PodctlError, match="without one"):
        run(lambda: os._exit(0))


def answer(data: bytes) -> object:
    """What a parent makes of `data` from a child gone bad."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        view = memoryview(data)
        while view:
            view = view[os.write(write, view) :]
        os._exit(0)
    os.close(write)
    with Child(pid, read, "work") as child:
        return child.wait()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"nul",
        b'{"result": 1, "error": 2}',
        b'{"result": 1, "result": 2}',
        b'{"result": {"a": 1, "a": 2}}',
        b'{"result": NaN}',
        b'{"result": Infinity}',
        b'{"result": {"$bytes": 1}}',
        b'{"result": {"$bytes": "AA=="  , "x": 1}}',
        b'{"result": {"$bytes": "*"}}',
        b'{"error": "x"}',
        b'{"error": [1, "m", null, null]}',
        b'{"error": ["FetchFailed", null, null, null]}',
        b'{"result": "\xff"}',
        b'{"result": 1}{"result": 2}',
        b'{"result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"result": ' + b"9" * 5000 + b"}",
    ],
)
def test_malformed_answers_are_refused(data: bytes) -> None:
    with pytest.raises(PodctlError, match="^work failed: its answer is malformed"):
        answer(data)


def test_answer_beyond_the_cap_is_not_read_on() -> None:
    with pytest.raises(PodctlError, match=f"longer than {results.LIMIT} bytes"):
        answer(b" " * (results.LIMIT + (1 << 20)))


def test_child_cannot_choose_a_foreign_exception_class() -> None:
    for kind in ("KeyboardInterrupt", "__builtins__", "annotations", "SystemExit", ""):
        with pytest.raises(PodctlError) as caught:
            answer(json.dumps({"error": [kind, "m", None, None]}).encode())
        assert type(caught.value) is PodctlError
    with pytest.raises(FetchFailed):
        answer(json.dumps({"error": ["FetchFailed", "m", None, None]}).encode())


def test_leaving_the_context_kills() -> None:
    with spawn(signal.pause, privileges=NONE, name="x") as child:
        pid = child.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    child.kill()


def test_without_root_there_is_no_new_privilege_either() -> None:
    def as_user() -> object:
        os.setresgid(4711, 4711, 4711)
        os.setresuid(4711, 4711, 4711)
        with spawn(status, privileges=NONE, name="inner") as child:
            return child.wait()

    found = run(as_user, SAME)
    assert isinstance(found, dict)
    assert found["Uid"].split() == ["4711"] * 4
    assert found["NoNewPrivs"] == "1"


def test_no_core_dump_is_written() -> None:
    import resource

    assert run(lambda: resource.getrlimit(resource.RLIMIT_CORE)) == [0, 0]


_INTERRUPTED = """
import os, signal
from podctl.sys.child import Privileges, spawn
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    {fork}
except KeyboardInterrupt:
    print("interrupted")
"""
_SPAWN = "spawn(lambda: 1, privileges=Privileges.SAME, name='child')"


@pytest.mark.parametrize(
    ("fork", "said"), [(_SPAWN, "interrupted\n"), ("os.fork() or os._exit(0)", "")]
)
def test_an_interrupt_while_it_forks_is_not_lost(fork: str, said: str) -> None:
    """The second is the control: what Python makes of an interrupt during a plain fork."""
    script = _INTERRUPTED.format(fork=fork)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == said, done.stderr
