"""`podctl attach`: apps with a terminal or streams of their own."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kept_pods import NAME, until
from typist import Typist

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import World

pytestmark = pytest.mark.root

TTY = ("--stdin=tty", "--stdout=tty", "--stderr=tty")
STREAM = ("--stdin=stream", "--stdout=stream", "--stderr=stream")
ECHO = 'while read -r x; do echo "got $x"; echo "err $x" >&2; [ "$x" != quit ] || exit 3; done'
KEYS = "\x10\x11"


def holders(world: World) -> list[int]:
    """Processes that hold streams of this data directory's pods."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if b"sys/holder.py" in words and os.fsencode(world.data) in words:
            found.append(int(name))
    return found


@pytest.fixture
def own(world: World) -> Iterator[World]:
    """The world; its pods are ended, and every holder ends with its pod."""
    yield world
    for path in world.data.glob("pods/run/*"):
        world.podctl("stop", "--force", "--timeout=30s", path.name)
    until(lambda: not holders(world))


def start(world: World, script: str, *flags: str) -> str:
    """A detached pod of the shell; its UUID."""
    return world.must("run", "-d", NAME, *flags, "--exec=/bin/sh", "--", "-c", script).strip()


def attach(world: World, *arguments: str) -> subprocess.Popen[str]:
    """An attached podctl whose standard input is ours."""
    pipe = subprocess.PIPE
    line = world.command("attach", *arguments)
    return subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def say(client: subprocess.Popen[str], text: str) -> None:
    assert client.stdin is not None
    client.stdin.write(text)
    client.stdin.flush()


def line_of(client: subprocess.Popen[str]) -> str:
    assert client.stdout is not None
    return client.stdout.readline()


class TestStreams:
    def test_list_is_rkts(self, own: World) -> None:
        uuid = start(own, "exec sleep 600", "--stdin=stream", "--stdout=stream")
        targets = json.loads(own.must("attach", "--mode=list", uuid))
        directory = own.data / "pods/run" / uuid / "attach/busybox"
        assert targets == {
            "version": 1,
            "targets": [
                {"name": name, "domain": "unix", "address": f"{directory}/sock-{name}"}
                for name in ("stdin", "stdout")
            ],
        }
        for path in (directory, *directory.iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path

    def test_input_and_output(self, own: World) -> None:
        uuid = start(own, ECHO, *STREAM)
        client = attach(own, uuid)
        out, err = client.communicate("one\nquit\n", timeout=60)
        assert (out, err) == ("got one\ngot quit\n", "err one\nerr quit\n")
        assert client.returncode == 0
        assert own.must("wait", uuid) == "3\n"

    def test_output_reaches_everybody_who_is_attached(self, own: World) -> None:
        uuid = start(own, ECHO, *STREAM)
        first, second = attach(own, uuid), attach(own, "--mode=stdout", uuid)
        # Whoever has got a line is attached.
        say(first, "x\n")
        assert line_of(first) == "got x\n"
        say_until_seen(first, second)
        first.communicate("quit\n", timeout=60)
        assert second.communicate(timeout=60)[0].endswith("got quit\n")

    def test_nobody_reads_and_the_app_goes_on(self, own: World) -> None:
        script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 5"
        uuid = start(own, script, "--stdout=stream")
        assert own.must("wait", uuid) == "5\n"

    def test_nothing_is_lost_to_a_slow_reader(self, own: World) -> None:
        script = "read -r x; i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done"
        uuid = start(own, script, "--stdin=stream", "--stdout=stream")
        client = attach(own, uuid)
        # With one pipe full and the other, the app waits; what is read late is whole.
        out, _ = client.communicate("go\n", timeout=60)
        assert out == "".join(f"line {number}\n" for number in range(30000))

    def test_detaching_does_not_disturb(self, own: World) -> None:
        uuid = start(own, ECHO, *STREAM)
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            client = attach(own, uuid)
            say(client, "here\n")
            assert line_of(client) == "got here\n"
            client.send_signal(number)
            client.communicate(timeout=60)
        assert attach(own, uuid).communicate("quit\n", timeout=60)[0] == "got quit\n"

    def test_input_alone_goes_in_and_ends(self, own: World) -> None:
        uuid = start(own, ECHO, "--stdin=stream")
        assert own.must("attach", "--mode=stdin", uuid, stdin="a\nquit\n") == ""
        assert own.must("wait", uuid) == "3\n"
        assert own.podctl("logs", uuid) == (0, "got a\ngot quit\n", "err a\nerr quit\n")

    def test_null_is_nothing(self, own: World) -> None:
        uuid = start(own, "echo out; echo err >&2", "--stdout=null")
        assert own.must("wait", uuid) == "0\n"
        assert own.podctl("logs", uuid) == (0, "", "err\n")
        assert holders(own) == []

    def test_a_socket_is_enough(self, own: World) -> None:
        """As rkt's, it carries the bytes as they are."""
        uuid = start(own, ECHO, *STREAM)
        client = attach(own, uuid)
        say(client, "there\n")
        assert line_of(client) == "got there\n"
        top = os.open(own.data / "pods/run" / uuid / "attach/busybox", os.O_DIRECTORY)
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(f"/proc/self/fd/{top}/sock-stdin")
            plain.sendall(b"quit\n")
        os.close(top)
        assert client.communicate(timeout=60)[0] == "got quit\n"

    @pytest.mark.parametrize("user", ["0", "web"])
    def test_standard_output_can_be_opened_by_its_name(self, own: World, user: str) -> None:
        script = "read -r x; echo out >/dev/stdout; echo err >/dev/stderr"
        uuid = start(own, script, *STREAM, f"--user={user}")
        assert attach(own, uuid).communicate("go\n", timeout=60) == ("out\n", "err\n")


def say_until_seen(first: subprocess.Popen[str], second: subprocess.Popen[str]) -> None:
    """Type until the second one has got a line: it is attached then."""
    assert second.stdout is not None
    while not select.select([second.stdout], [], [], 0.05)[0]:
        say(first, "y\n")
        assert line_of(first) == "got y\n"
    assert line_of(second) in ("got x\n", "got y\n")


class TestTerminal:
    def test_type_and_read(self, own: World) -> None:
        uuid = start(own, "exec sh -i", *TTY)
        typist = Typist(own, "attach", uuid)
        typist.type("test -t 0 && test -t 1 && test -t 2 && echo is-a-$((1+1))\n")
        typist.expect("is-a-2")
        typist.type("readlink /proc/self/fd/0; stty size; echo $TERM-$((4+4))\n")
        typist.expect("xterm-8")
        assert "\n/dev/pts/" in typist.seen
        assert "\n33 77\r" in typist.seen
        typist.type("exit 9\n")
        assert typist.process.wait(30) == 0
        assert own.must("wait", uuid) == "9\n"
        os.close(typist.controller)

    def test_keys_detach_and_the_app_goes_on(self, own: World) -> None:
        uuid = start(own, "exec sh -i", *TTY)
        typist = Typist(own, "attach", uuid)
        typist.type("mine=4; echo set-$mine\n")
        typist.expect("set-4")
        typist.type(KEYS)
        assert typist.process.wait(30) == 0
        typist.expect("detached")
        os.close(typist.controller)
        again = Typist(own, "attach", "--mode=tty", uuid)
        again.type("echo still-$mine$mine\n")
        again.expect("still-44")
        again.type(KEYS)
        assert again.process.wait(30) == 0
        os.close(again.controller)

    def test_ctrl_p_alone_is_the_apps(self, own: World) -> None:
        script = "read -r x; stty raw -echo; echo ready; busybox od -An -tx1 -N3; exec sleep 600"
        uuid = start(own, script, *TTY)
        typist = Typist(own, "attach", uuid)
        typist.type("\n")
        typist.expect("ready")
        typist.type("\x10a\x10\x10")
        typist.expect("10 61 10")
        # The last one is still held back.
        typist.type("\x11")
        assert typist.process.wait(30) == 0
        os.close(typist.controller)

    def test_an_interrupt_is_the_apps(self, own: World) -> None:
        script = "trap 'echo caught; exit 7' INT; while :; do echo go; sleep 0.05; done"
        uuid = start(own, script, *TTY)
        typist = Typist(own, "attach", uuid)
        typist.expect("go")
        typist.type("\x03")
        typist.expect("caught")
        assert typist.process.wait(30) == 0
        assert own.must("wait", uuid) == "7\n"
        os.close(typist.controller)

    def test_output_alone_and_input_alone(self, own: World) -> None:
        uuid = start(own, "stty -echo; " + ECHO, *TTY)
        reader = attach(own, "--mode=tty-out", uuid)
        # Nothing is lost of what comes when it is there.
        writer = attach(own, "--mode=tty-in", uuid)
        assert reader.stdout is not None
        while not select.select([reader.stdout], [], [], 0.05)[0]:
            say(writer, "z\n")
        say(writer, "quit\n")
        out = reader.communicate(timeout=60)[0]
        assert "got z\n" in out
        assert out.endswith("err quit\n")
        assert writer.communicate(timeout=60)[0] == ""

    def test_an_app_that_prints_is_not_stopped_by_nobody(self, own: World) -> None:
        script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 6"
        uuid = start(own, script, *TTY)
        assert own.must("wait", uuid) == "6\n"


class TestPods:
    def test_in_the_foreground(self, own: World) -> None:
        file = own.top / "uuid"
        pod = own.start(
            "run", f"--uuid-file-save={file}", NAME, "--stdin=stream", "--stdout=stream",
            "--exec=/bin/sh", "--", "-c", ECHO,
        )  # fmt: skip
        until(lambda: file.exists() and own.state(file.read_text()) == "running")
        client = attach(own, file.read_text())
        assert client.communicate("quit\n", timeout=60)[0] == "got quit\n"
        out, err = pod.communicate(timeout=60)
        assert out == ""
        assert err.endswith("err quit\n")
        assert pod.returncode == 3

    def test_one_of_several(self, own: World) -> None:
        uuid = own.must(
            "run", "-d", NAME, "--name=a", *STREAM, "--exec=/bin/sh", "--", "-c", ECHO, "---",
            NAME, "--name=b", "--exec=/bin/sh", "--", "-c", "echo mine; exec sleep 600",
        ).strip()  # fmt: skip
        done = own.podctl("attach", uuid)
        assert (done.code, "multiple apps: a, b" in done.err) == (254, True)
        done = own.podctl("attach", "--app=b", uuid)
        assert (done.code, 'app "b" has nothing to attach to' in done.err) == (254, True)
        assert attach(own, "--app=a", uuid).communicate("quit\n", timeout=60)[0] == "got quit\n"
        assert len(holders(own)) <= 1

    def test_prepared_before(self, own: World) -> None:
        uuid = own.must(
            "prepare", "--quiet", NAME, *STREAM, "--exec=/bin/sh", "--", "-c", ECHO
        ).strip()  # fmt: skip
        own.must("run-prepared", "--detach", uuid)
        assert attach(own, uuid).communicate("quit\n", timeout=60)[0] == "got quit\n"

    @pytest.mark.parametrize("streams", [STREAM, TTY], ids=["stream", "tty"])
    def test_again_after_the_app_was_stopped_and_started(
        self, own: World, streams: tuple[str, ...]
    ) -> None:
        file = own.top / "uuid"
        own.start("app", "sandbox", f"--uuid-file-save={file}")
        until(file.exists)
        uuid = file.read_text()
        line = (NAME, "--name=app", *streams, "--exec=/bin/sh", "--", "-c", ECHO)
        own.must("app", "add", uuid, *line)
        done = own.podctl("attach", "--app=app", uuid)
        assert (done.code, "isn't currently running" in done.err) == (254, True)
        for _ in range(2):
            own.must("app", "start", uuid, "--app=app")
            client = attach(own, "--app=app", uuid)
            say(client, "one\n")
            seen = ""
            while "got one" not in seen:
                seen += line_of(client)
            own.must("app", "stop", uuid, "--app=app")
            client.communicate(timeout=60)
            assert client.returncode == 0
        own.must("app", "rm", uuid, "--app=app")
        until(lambda: not holders(own))
        assert not (own.data / "pods/run" / uuid / "attach/app").exists()
        # The name can be had again.
        own.must("app", "add", uuid, *line)
        own.must("app", "start", uuid, "--app=app")
        say(client := attach(own, uuid), "two\n")
        seen = ""
        while "got two" not in seen:
            seen += line_of(client)
        client.kill()
        client.communicate()

    def test_without_users_of_its_own(self, own: World) -> None:
        uuid = own.must(
            "run", "-d", "--private-users=no", NAME, *TTY, "--exec=/bin/sh", "--", "-i"
        ).strip()
        typist = Typist(own, "attach", uuid)
        typist.type("echo here-$((5+5))\n")
        typist.expect("here-10")
        typist.type(KEYS)
        assert typist.process.wait(30) == 0
        os.close(typist.controller)


class TestHolder:
    def test_signals_do_not_end_it(self, own: World) -> None:
        uuid = start(own, ECHO, *STREAM)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            for pid in holders(own):
                os.kill(pid, number)
        assert attach(own, uuid).communicate("quit\n", timeout=60)[0] == "got quit\n"

    def test_it_ends_when_the_pod_is_killed(self, own: World) -> None:
        uuid = start(own, "exec sleep 600", *TTY)
        assert len(holders(own)) == 1
        own.must("stop", "--force", "--timeout=30s", uuid)
        until(lambda: not holders(own))

    def test_apps_without_need_have_none(self, own: World) -> None:
        start(own, "exec sleep 600", "--stdout=log", "--stderr=null")
        assert holders(own) == []

    def test_it_keeps_nothing_open_of_its_starter(self, own: World) -> None:
        start(own, "exec sleep 600", *TTY)
        (pid,) = holders(own)
        opened = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [name for name in opened if name.startswith("/") and not _is_device(name)]
        assert os.readlink(f"/proc/{pid}/cwd") == "/"

    def test_what_a_pod_sends_it_does_it_no_harm(self, own: World) -> None:
        """The launcher's socket can be reached by whoever has become the pod's root."""
        uuid = start(own, ECHO, *STREAM)
        top = os.open(own.data / "pods/run" / uuid / "supervisor/busybox", os.O_DIRECTORY)
        path = os.open("/", os.O_PATH)
        before = len(os.listdir(f"/proc/{holders(own)[0]}/fd"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(f"/proc/self/fd/{top}/holder")
            for text in (b"", b"\xff\xfe", b"nothing of the kind", b"x" * 200, b"tty tty tty"):
                sender.send(text)
                socket.send_fds(sender, [text or b" "], [path] * 9)
            # What cannot be read leaves nothing to read, and that is the pod's own loss.
            socket.send_fds(sender, [b"stderr"], [path])
        os.close(top)
        os.close(path)
        until(lambda: len(os.listdir(f"/proc/{holders(own)[0]}/fd")) == before - 1)
        assert attach(own, uuid).communicate("quit\n", timeout=60)[0] == "got quit\n"


def _is_device(name: str) -> bool:
    return name.startswith("/dev/")


class TestRefused:
    def test_a_terminal_with_pipes(self, own: World) -> None:
        done = own.podctl("run", NAME, "--stdin=tty", "--stdout=stream")
        assert (done.code, "either a tty or streams" in done.err) == (254, True)

    def test_with_the_callers_terminal(self, own: World) -> None:
        done = own.podctl("run", "--interactive", NAME, *TTY)
        assert (done.code, "leave out --interactive" in done.err) == (254, True)
        assert own.pods() == {}

    @pytest.mark.parametrize("flag", ["--stdin=tty", "--stdout=stream", "--stderr=null"])
    def test_by_fly(self, own: World, flag: str) -> None:
        done = own.podctl("run", "--stage1=fly", NAME, flag)
        named = f"flavor fly does not support {flag.split('=', maxsplit=1)[0]}"
        assert (done.code, named in done.err) == (254, True)

    def test_by_fly_when_a_manifest_says_so(self, own: World) -> None:
        annotation = "--annotation=coreos.com/rkt/stage2/stdin=tty"
        done = own.podctl("run", "--stage1=fly", NAME, annotation)
        assert (done.code, "fly does not support --stdin" in done.err) == (254, True)
        done = own.podctl("run", NAME, "--annotation=coreos.com/rkt/stage2/stdin=log")
        assert (done.code, "must be one of: null, tty, stream" in done.err) == (254, True)

    @pytest.mark.parametrize(
        ("mode", "said"),
        [
            ("tty", "has no tty to attach to"),
            ("stdin,stderr", "has no stderr to attach to"),
            ("all", "is none of: list, auto, tty"),
            ("", "is none of"),
        ],
    )
    def test_modes_the_app_has_not(self, own: World, mode: str, said: str) -> None:
        uuid = start(own, ECHO, "--stdin=stream", "--stdout=stream")
        done = own.podctl("attach", f"--mode={mode}", uuid)
        assert (done.code, said in done.err) == (254, True)

    def test_a_pod_that_has_ended(self, own: World) -> None:
        uuid = start(own, "true", *STREAM)
        own.must("wait", uuid)
        done = own.podctl("attach", uuid)
        assert (done.code, "is not running" in done.err) == (254, True)
