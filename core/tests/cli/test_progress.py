"""A download's progress: drawn on a terminal, silent elsewhere, never in the way of a message."""

from __future__ import annotations

import io
import os
import pty
from typing import TYPE_CHECKING

import pytest

from podctl.cli import progress
from podctl.cli.context import Globals
from podctl.cli.session import open_session

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("done", "total", "speed", "text"),
    [
        (0, 100, 0.0, "downloading [" + " " * 30 + "]   0% of 100 B 0 B/s"),
        (50, 100, 10.0, "downloading [" + "=" * 15 + " " * 15 + "]  50% of 100 B 10 B/s"),
        (3 << 20, 3 << 20, 2048.0, "downloading [" + "=" * 30 + "] 100% of 3.0 MiB 2.0 KiB/s"),
        (5 << 30, None, 1 << 30, "downloading 5.0 GiB 1.0 GiB/s"),
        (7, 5, 1.0, "downloading [" + "=" * 30 + "] 100% of 5 B 1 B/s"),
    ],
)
def test_one_line_says_share_size_and_speed(
    done: int, total: int | None, speed: float, text: str
) -> None:
    assert progress.render(done, total, speed) == text


def test_the_line_is_redrawn_in_place_and_taken_away_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr("sys.stderr", drawn)
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    line = progress.ProgressLine()
    line(10, 100)
    line(100, 100)
    assert drawn.getvalue().count("\r\x1b[K") == 3
    assert "\n" not in drawn.getvalue()
    assert drawn.getvalue().endswith("\r\x1b[K")
    line.clear()
    assert drawn.getvalue().count("\r\x1b[K") == 3


def test_drawing_is_not_more_frequent_than_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr("sys.stderr", drawn)
    monkeypatch.setattr(progress, "INTERVAL", 3600.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: 7200.0)
    line = progress.ProgressLine()
    for done in range(50):
        line(done, 100)
    assert drawn.getvalue().count("downloading") == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_for_terminals_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    read, write = pty.openpty() if terminal else os.pipe()
    with os.fdopen(read, "rb"), os.fdopen(write, "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        options = Globals()
        options.dir = str(tmp_path)
        assert (open_session(options).progress is not None) is terminal


def test_layers_have_a_line_each_and_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr("sys.stderr", drawn)
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    lines = progress.LayerLines()
    lines("sha256:" + "a" * 64, 0, 100)
    lines("sha256:" + "b" * 64, 50, 100)
    first, second = drawn.getvalue().splitlines()[-2:]
    assert first.endswith("layer aaaaaaaaaaaa [" + " " * 30 + "]   0% of 100 B")
    assert second == "layer bbbbbbbbbbbb [" + "=" * 15 + " " * 15 + "]  50% of 100 B"
    lines("sha256:" + "a" * 64, 100, 100)
    lines("sha256:" + "b" * 64, 100, 100)
    # One line up, and everything below cleared.
    assert drawn.getvalue().endswith("\x1b[1A\r\x1b[J")
    lines.clear()
    assert drawn.getvalue().endswith("\x1b[1A\r\x1b[J")


def test_a_layer_without_bytes_is_drawn_as_complete() -> None:
    assert "100%" in progress.render_layer("sha256:" + "c" * 64, 0, 0)
