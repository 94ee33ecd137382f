"""What a killed process leaves is told by its lock, and cleared by whoever comes next."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from podctl.store.fsck import Structure
from podctl.store.leftovers import clear_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.store import ImageRecord, Store

    Put = Callable[..., ImageRecord]

pytestmark = pytest.mark.root


def staged(data_dir: Path) -> list[Path]:
    found = [*(data_dir / "cas/tmp").glob("*.stage"), *(data_dir / "layers").glob(".tmp-*")]
    return sorted(found)


def start_staging(store: Store) -> tuple[int, int]:
    """A child that stages until it is killed; its pid, and a pipe that says when it is at it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with store.staging() as staging:
                os.write(staging.piece().blob_fd, b"half")
                os.write(write, b".")
                signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 1) == b"."
    return pid, read


def test_staging_at_work_is_left_alone_and_an_abandoned_one_cleared(
    store: Store, data_dir: Path
) -> None:
    pid, read = start_staging(store)
    try:
        assert len(staged(data_dir)) == 2
        clear_leftovers(store)
        assert len(staged(data_dir)) == 2
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
    assert len(staged(data_dir)) == 2
    assert list(Structure(store).check()) == []
    with store.staging() as staging:
        staging.piece()
        assert len(staged(data_dir)) == 2, "the abandoned one is gone, ours is there"
    assert staged(data_dir) == []


def test_a_removal_that_was_interrupted_is_finished(store: Store, put: Put, data_dir: Path) -> None:
    record = put(store, "example.com/app", b"1")
    other = put(store, "example.com/other", b"2")
    tombstone = data_dir / "cas/tmp/0123.removed"
    (data_dir / f"cas/images/{record.key}").rename(tombstone)
    blob = data_dir / store.layout.blob(record.blob)
    assert blob.exists()
    structure = Structure(store)
    assert list(structure.check()) == []
    assert structure.orphans == []
    clear_leftovers(store)
    assert not blob.exists()
    assert not tombstone.exists()
    assert (data_dir / store.layout.blob(other.blob)).exists()


def test_finishing_spares_what_was_imported_again(store: Store, put: Put, data_dir: Path) -> None:
    record = put(store, "example.com/app")
    (data_dir / f"cas/images/{record.key}").rename(data_dir / "cas/tmp/0123.removed")
    put(store, "example.com/app")
    clear_leftovers(store)
    assert (data_dir / store.layout.blob(record.blob)).exists()
    assert store.image(record.key)


def test_leftovers_are_no_reason_to_wait(store: Store, put: Put, data_dir: Path) -> None:
    """Somebody removes an image right now: clearing up can wait, staging cannot."""
    put(store, "example.com/app")
    (data_dir / "cas/tmp/0123.removed").mkdir()
    with store.locks.changing():
        clear_leftovers(store)
        assert (data_dir / "cas/tmp/0123.removed").exists()
    clear_leftovers(store)
    assert not (data_dir / "cas/tmp/0123.removed").exists()
