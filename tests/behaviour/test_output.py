"""Only the app's output, byte for byte, wherever it goes."""

from __future__ import annotations

import hashlib
import os
import random
import select
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from box_world import BOX, PATIENCE, Done, shell_code

if TYPE_CHECKING:
    from pathlib import Path

    from box_world import World
    from flavor_columns import Flavor

pytestmark = pytest.mark.root

BYTES = 10 << 20


def line(flavor: Flavor, script: str, *flags: str) -> list[str]:
    return ["run", flavor.flag, *flags, BOX, "--exec=/bin/sh", "--", "-c", script]


def test_ten_megabytes_each_apart(world: World, flavor: Flavor, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    data = {name: random.Random(name).randbytes(BYTES) for name in ("out", "err")}
    for name, content in data.items():
        (tmp_path / "v" / name).write_bytes(content)
    volume = [f"--volume=v,kind=host,source={tmp_path}/v", "--mount=volume=v,target=/v"]
    done = world.podctl(*line(flavor, "cat /v/err >&2 & cat /v/out; wait", *volume))
    assert done.code == 0
    for name, found in (("out", done.out), ("err", done.err)):
        assert hashlib.sha256(found).digest() == hashlib.sha256(data[name]).digest()


def test_into_one_file_in_order(world: World, flavor: Flavor, tmp_path: Path) -> None:
    with (tmp_path / "both").open("wb") as file:
        script = "echo a; echo b >&2; echo c; echo d >&2"
        command = world.command(*line(flavor, script))
        subprocess.run(command, stdout=file, stderr=file, check=True, timeout=PATIENCE)
    assert (tmp_path / "both").read_bytes().endswith(b"a\nb\nc\nd\n")


def test_appended_to_a_file(world: World, flavor: Flavor, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before\n")
    with (tmp_path / "log").open("ab") as file:
        subprocess.run(world.command(*line(flavor, "echo after")), stdout=file, check=True)
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(world: World, flavor: Flavor, tmp_path: Path, closed: str) -> None:
    """Nothing else takes their place, and the app runs."""
    volume = [f"--volume=v,kind=host,source={tmp_path}", "--mount=volume=v,target=/v"]
    script = (
        "echo out; echo err >&2; readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 >/v/l"
    )
    command = world.command(*line(flavor, f"{script}; exit 6", *volume))
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
    done = subprocess.run(shell, capture_output=True, check=False, timeout=PATIENCE)
    assert done.returncode == 6
    assert not (tmp_path / "l").read_text().strip().startswith(str(world.data))


def test_a_device_that_is_full(world: World, flavor: Flavor) -> None:
    script = "echo x 2>/dev/null || exit 8"
    with open("/dev/full", "wb") as full:
        command = world.command(*line(flavor, script))
        done = subprocess.run(command, stdout=full, check=False, timeout=PATIENCE)
    assert done.returncode == 8


def test_a_reader_that_goes_away(world: World, flavor: Flavor) -> None:
    pod = world.start(*line(flavor, "echo ready; exec yes")[1:]).ready()
    assert pod.process.stdout is not None
    pod.process.stdout.close()
    code = shell_code(pod.process.wait(PATIENCE))
    assert code == 128 + signal.SIGPIPE


def test_a_pipe_nobody_reads_does_not_keep_a_pod(world: World, flavor: Flavor) -> None:
    pod = world.start(*line(flavor, "echo ready; exec yes")[1:])
    assert pod.process.stdout is not None
    # Full, and looked at no more.
    select.select([pod.process.stdout], [], [], PATIENCE)
    pod.signal(signal.SIGTERM)
    pod.process.wait(PATIENCE)


def test_a_terminal_gets_what_the_app_writes(world: World, flavor: Flavor) -> None:
    """Not more, and not through another terminal: a line ends with one carriage return."""
    master, slave = os.openpty()
    command = world.command(*line(flavor, "test -t 1 && echo yes; printf 'a\\nb'; read x; echo"))
    done = subprocess.run(
        command, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL, check=False, timeout=PATIENCE
    ) if flavor.name != "fly" else subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.DEVNULL, check=False,
        timeout=PATIENCE,
    )  # fmt: skip
    os.close(slave)
    assert done.returncode == 0
    found = b""
    try:
        while part := os.read(master, 4096):
            found += part
    except OSError:
        pass
    os.close(master)
    assert found == b"yes\r\na\r\nb\r\n"


def test_binary_input_and_output_together(world: World, flavor: Flavor) -> None:
    data = random.Random(5).randbytes(1 << 20)
    done = world.podctl(*line(flavor, "cat", "--interactive"), stdin=data)
    assert done == Done(0, data, b"")


def test_output_while_it_runs(world: World, flavor: Flavor) -> None:
    """A line is there when it was written, and the app's end is the output's end."""
    pod = world.start(*line(flavor, "echo one; read x; echo two", "--interactive")[1:],
                      stdin=subprocess.PIPE)  # fmt: skip
    assert pod.line() == b"one\n"
    assert pod.process.stdin is not None
    pod.process.stdin.write(b"go\n")
    pod.process.stdin.flush()
    assert pod.line() == b"two\n"
    reader = threading.Thread(target=pod.process.stdout.read)  # type: ignore[union-attr]
    reader.start()
    assert pod.process.wait(PATIENCE) == 0
    reader.join(PATIENCE)
    assert not reader.is_alive()
