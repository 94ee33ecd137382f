"""`podctl logs` on real pods."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from kept_pods import NAME, detach, ended, keepers, until

if TYPE_CHECKING:
    from conftest import World

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
pytestmark = pytest.mark.root


def test_the_streams_are_kept_apart(world: World) -> None:
    uuid = ended(world, "echo out; echo err >&2; echo more")
    done = world.podctl("logs", uuid)
    assert done == (0, "out\nmore\n", "err\n")


def test_every_byte_is_as_it_was(world: World) -> None:
    script = (
        'printf "no end"; i=0; while [ $i -lt 20000 ]; do echo "$i abcdefgh"; i=$((i+1)); done;'
        r' printf "\000\001\377\n\n\n"; printf "%70000d" 7; printf last'
    )
    uuid = ended(world, script)
    got = subprocess.run(world.command("logs", uuid), stdout=subprocess.PIPE, check=True).stdout
    lines = b"".join(b"%d abcdefgh\n" % number for number in range(20000))
    assert got == b"no end" + lines + b"\0\1\xff\n\n\n" + b"7".rjust(70000) + b"last"


def test_they_stay_until_the_pod_is_removed(world: World) -> None:
    uuid = ended(world, "echo kept")
    world.must("gc", "--mark-only")
    assert world.must("logs", uuid) == "kept\n"
    world.must("rm", uuid)
    assert world.podctl("logs", uuid).code == 254


def test_the_last_lines(world: World) -> None:
    uuid = ended(world, "for i in 1 2 3 4; do echo $i; done; printf 5")
    for count, expected in ((0, ""), (1, "5"), (3, "3\n4\n5"), (9, "1\n2\n3\n4\n5")):
        assert world.must("logs", f"--tail={count}", uuid) == expected


def test_times(world: World) -> None:
    uuid = ended(world, "echo one; echo two")
    out = world.must("logs", "--timestamps", uuid)
    assert re.fullmatch(f"{STAMP} one\n{STAMP} two\n", out)
    assert world.must("logs", "--since=1h", uuid) == "one\ntwo\n"
    assert world.must("logs", f"--since={out.splitlines()[1].split()[0]}", uuid).endswith("two\n")
    assert world.must("logs", "--since=2999-01-01", uuid) == ""
    assert world.podctl("logs", "--since=yesterday", uuid).code == 254


def test_following_ends_with_the_pod(world: World) -> None:
    uuid = detach(world, "echo one; exec sleep 600")
    reader = world.start("logs", "--follow", uuid)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "one\n"
    assert reader.poll() is None
    world.must("stop", "--force", uuid)
    assert reader.communicate(timeout=30)[0] == ""
    assert reader.returncode == 0


def test_a_reader_that_goes_away_stops_it(world: World) -> None:
    uuid = detach(world, "while echo line; do :; done")
    reader = world.start("logs", "--follow", uuid)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "line\n"
    reader.stdout.close()
    assert reader.wait(30) in (141, -signal.SIGPIPE)
    world.must("stop", "--force", uuid)


def test_of_a_pod_in_the_foreground_there_are_none(world: World) -> None:
    world.must("run", "--stage1=fly", "--name=front", NAME)
    done = world.podctl("logs", "front")
    assert done.code == 254
    assert "went to whoever started it (that of a pod run with --detach is kept)" in done.err


def test_a_terminal_is_not_obeyed(world: World) -> None:
    uuid = ended(world, r'printf "\033]0;title\007a\tb\n"; printf "\033[2J\n" >&2')
    controller, side = os.openpty()
    process = subprocess.Popen(world.command("logs", uuid), stdout=side, stderr=side)
    os.close(side)
    process.wait(30)
    got = os.read(controller, 4096)
    os.close(controller)
    assert b"\x1b" not in got
    assert rb"\x1b]0;title\x07a" + b"\tb" in got
    # The control: the same bytes arrive in a pipe.
    assert "\x1b]0;title" in world.podctl("logs", uuid).out


LINES = "i=0; while [ $i -lt 20000 ]; do echo $i 0123456789012345678901234567890; i=$((i+1)); done"


def test_the_app_goes_on_when_the_disk_is_full(world: World) -> None:
    """What cannot be written is drained and counted."""
    script = f"{LINES}; touch /done; until test -e /go; do sleep 0.01; done; echo after"
    uuid = world.prepare("--no-overlay", "--exec=/bin/sh", "--", "-c", script)
    logs = world.data / "pods/prepared" / uuid / "logs"
    logs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "logs", str(logs)], check=True)
    (logs / "ballast").write_bytes(b"x" * 65536)
    world.must("run-prepared", "--detach", uuid)
    pod = world.data / "pods/run" / uuid
    until((pod / "rootfs/busybox/done").exists)
    (pod / "logs/ballast").unlink()
    (pod / "rootfs/busybox/go").touch()
    assert "app-busybox=0\n" in world.must("status", "--wait=30s", uuid)
    done = world.podctl("logs", uuid)
    lines = done.out.splitlines()
    assert lines[0].startswith("0 ")
    assert lines[-1] == "after"
    assert 1000 < len(lines) < 10000
    missing = sum(int(line.split()[1]) for line in done.err.splitlines())
    assert done.err.startswith("logs: ")
    whole = sum(len(f"{number} 0123456789012345678901234567890\n") for number in range(20000))
    assert len(done.out) + missing == whole + len("after\n")
    world.must("rm", uuid)


def test_a_log_is_put_aside_when_it_has_grown(world: World) -> None:
    script = "i=0; while [ $i -lt 20 ]; do cat /dir1/big; i=$((i+1)); done; echo end"
    uuid = world.prepare("--no-overlay", "--exec=/bin/sh", "--", "-c", script)
    line = b"x" * 99 + b"\n"
    (world.data / "pods/prepared" / uuid / "rootfs/busybox/dir1/big").write_bytes(line * 10000)
    world.must("run-prepared", "--detach", uuid)
    reader = world.start("logs", "--follow", uuid)
    followed = reader.communicate(timeout=60)[0]
    logs = world.data / "pods/run" / uuid / "logs"
    sizes = [(logs / name).stat().st_size for name in ("busybox.log", "busybox.log.1")]
    assert max(sizes) <= 8 << 20
    kept = world.must("logs", uuid)
    assert kept.endswith("x\nend\n")
    assert 8 << 20 < sum(sizes) <= 16 << 20
    assert set(followed.splitlines()) == {"x" * 99, "end"}


def test_keepers_end_with_their_pods(world: World) -> None:
    ended(world, LINES)
    until(lambda: not keepers(world))
