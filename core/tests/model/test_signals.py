"""Names of signals, as images write them."""

from __future__ import annotations

import signal

import pytest

from podctl.errors import InvalidInput
from podctl.model.signals import signal_name, signal_number


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SIGTERM", "SIGTERM"),
        ("TERM", "SIGTERM"),
        ("sigterm", "SIGTERM"),
        ("15", "SIGTERM"),
        ("9", "SIGKILL"),
        ("SIGIOT", "SIGABRT"),
        ("SIGCLD", "SIGCHLD"),
        ("28", "SIGWINCH"),
        ("SIGRTMIN", "SIGRTMIN"),
        ("RTMIN+3", "SIGRTMIN+3"),
        ("SIGRTMIN+30", "SIGRTMIN+30"),
        ("SIGRTMAX", "SIGRTMIN+30"),
        ("SIGRTMAX-1", "SIGRTMIN+29"),
        ("37", "SIGRTMIN+3"),
    ],
)
def test_signals_by_name_and_number(text: str, name: str) -> None:
    assert signal_name(text) == name
    assert signal_number(text) == signal_number(name)


def test_numbers_are_those_of_the_system() -> None:
    assert all(signal_number(one.name) == one for one in signal.Signals)
    assert signal_number("SIGRTMIN+3") == signal.SIGRTMIN + 3


@pytest.mark.parametrize(
    "text",
    ["", "SIG", "SIGNONE", "0", "32", "33", "65", "-9", "+9", "9" * 50, "RTMIN+31", "RTMAX+1",
     "RTMIN-1", "RTMIN+", "RTMIN+a", "RTMAX-31", "SIGSIGTERM", "TERM ", "１５", "DFL", "SIG_DFL"],
)  # fmt: skip
def test_signals_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no signal"):
        signal_name(text)
