"""Log files of apps: records, caps, and disks that are full."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from podctl.sys.logfiles import Drain, LogFile, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"


@pytest.fixture
def pod_fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "logs").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def drained(pod_fd: int, out: bytes, err: bytes = b"") -> None:
    """Run a drain over what an app has written before it ended."""
    ends = []
    for data in (out, err):
        reader, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
        ends.append(reader)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    Drain(pod_fd, [("app", ends[0], ends[1])], -1).run(pidfd)
    os.waitpid(pid, 0)
    for fd in (pidfd, *ends):
        os.close(fd)


def test_stamps_compare_like_moments() -> None:
    assert stamp(0) == b"1970-01-01T00:00:00.000000000Z"
    assert stamp(1_795_619_922_964_525_312) == b"2026-11-25T15:18:42.964525312Z"
    assert stamp(999_999_999) < stamp(1_000_000_000) < stamp(10_000_000_000)


def test_lines_and_what_is_left_of_one(pod_fd: int, tmp_path: Path) -> None:
    drained(pod_fd, b"one\n\n\xff\0two\npart", b"problem\n")
    lines = (tmp_path / "logs/app.log").read_bytes().split(b"\n")
    assert all(re.match(STAMP, line) for line in lines[:-1])
    assert sorted(line.split(b" ", 1)[1] for line in lines[:-1]) == [
        b"stderr F problem",
        b"stdout F ",
        b"stdout F one",
        b"stdout F \xff\0two",
        b"stdout P part",
    ]


def test_a_file_that_has_grown_is_put_aside(pod_fd: int, tmp_path: Path) -> None:
    log = LogFile(pod_fd, "app", cap=100)
    for number in range(7):
        log.write(b"%039d\n" % number, 40)
    assert (tmp_path / "logs/app.log").read_bytes() == b"%039d\n" % 6
    assert (tmp_path / "logs/app.log.1").read_bytes() == b"%039d\n%039d\n" % (4, 5)


def test_a_file_is_continued(pod_fd: int, tmp_path: Path) -> None:
    LogFile(pod_fd, "app").write(b"one\n", 4)
    LogFile(pod_fd, "app").write(b"two\n", 4)
    assert (tmp_path / "logs/app.log").read_bytes() == b"one\ntwo\n"


def test_what_cannot_be_written_is_counted(pod_fd: int, tmp_path: Path) -> None:
    log = LogFile(pod_fd, "app")
    (tmp_path / "logs").rename(tmp_path / "elsewhere")
    log.write(b"one\n", 4)
    log.write(b"two\nthree\n", 10)
    (tmp_path / "elsewhere").rename(tmp_path / "logs")
    log.write(b"four\n", 5)
    note, rest = (tmp_path / "logs/app.log").read_bytes().split(b"\n", 1)
    assert re.fullmatch(STAMP + b" lost F 14", note)
    assert rest == b"four\n"


def test_a_link_in_the_way_is_not_followed(pod_fd: int, tmp_path: Path) -> None:
    (tmp_path / "logs/app.log").symlink_to(tmp_path / "target")
    LogFile(pod_fd, "app").write(b"one\n", 4)
    assert not (tmp_path / "target").exists()
