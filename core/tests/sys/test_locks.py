"""flock: who holds it, how it is inherited, and lock files that are replaced."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from podctl.sys import locks

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


def test_exclusive_lock_is_seen_and_given_back(path: str) -> None:
    assert not locks.held(path)
    with locks.LockedFile(path) as lock:
        assert lock.fd >= 0
        assert locks.held(path)
        with pytest.raises(BlockingIOError, match="locked by another"):
            locks.LockedFile(path, blocking=False).acquire()
    assert not locks.held(path)
    assert lock.fd == -1


def test_shared_locks_do_not_exclude_each_other(path: str) -> None:
    with locks.LockedFile(path, exclusive=False), locks.LockedFile(path, exclusive=False):
        assert not locks.held(path)
        with pytest.raises(BlockingIOError):
            locks.LockedFile(path, blocking=False).acquire()


def test_lock_lives_as_long_as_an_inherited_descriptor(path: str) -> None:
    read, write = os.pipe()
    lock = locks.LockedFile(path)
    lock.acquire()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    lock.release()
    assert locks.held(path)
    os.close(write)
    os.waitpid(pid, 0)
    os.close(read)
    assert not locks.held(path)


def test_descriptor_is_a_regular_file_read_only_and_not_inherited(path: str) -> None:
    with locks.LockedFile(path, mode=0o660) as lock:
        assert stat.S_ISREG(os.fstat(lock.fd).st_mode)
        assert fcntl.fcntl(lock.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        assert not os.get_inheritable(lock.fd)


def test_mode_holds_whatever_the_umask(path: str) -> None:
    before = os.umask(0o077)
    try:
        with locks.LockedFile(path, mode=0o660):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660


def test_waiter_locks_the_file_that_replaced_the_one_it_waited_for(path: str) -> None:
    first = locks.LockedFile(path)
    first.acquire()
    second = locks.LockedFile(path)
    waiter = threading.Thread(target=second.acquire)
    waiter.start()
    _wait_for_waiter(path)
    os.unlink(path)
    replacement = os.open(path, os.O_RDONLY | os.O_CREAT)
    first.release()
    waiter.join(60)
    assert os.path.samestat(os.fstat(second.fd), os.fstat(replacement))
    assert locks.held(path)
    second.release()
    os.close(replacement)


def test_link_is_not_followed_and_missing_file_not_made_unasked(path: str, tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    os.symlink("target", path)
    with pytest.raises(OSError, match="symbolic"):
        locks.LockedFile(path).acquire()
    with pytest.raises(FileNotFoundError):
        locks.LockedFile(str(tmp_path / "other"), create=False).acquire()
    assert not (tmp_path / "other").exists()


def test_converting_between_shared_and_exclusive(path: str) -> None:
    with locks.LockedFile(path, exclusive=False) as lock:
        assert locks.lock(lock.fd, exclusive=True, blocking=False)
        assert locks.held(path)
        locks.unlock(lock.fd)
        assert not locks.held(path)


def _wait_for_waiter(path: str) -> None:
    """Until the kernel lists a blocked request for the file's lock."""
    inode = f":{os.stat(path).st_ino} "
    while True:
        with open("/proc/locks") as file:
            if any("->" in line and inode in line for line in file):
                return
