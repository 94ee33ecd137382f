"""The system call sweeper, compiled."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podctl_isolators_linux.bpf import ALLOW, KILL, errno_answer

if TYPE_CHECKING:
    from collections.abc import Callable

#: stand for "allowed" and for the end by SIGSYS where a filter is swept; no errnos of the kernel's
ALLOWED, KILLED = 777, 778
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARGUMENT, _EXIT_GROUP = 0, 16, 231


@pytest.fixture(scope="session")
def sweeper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("sweeper") / "sweeper"
    source = Path(__file__).parent / "sweeper.c"
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True)
    return program


@pytest.fixture
def sweep(sweeper: Path, tmp_path: Path) -> Callable[..., list[int]]:
    """Make calls under a program that does what a filter does, but nothing; returns the errnos."""

    def run(
        program: bytes,
        *,
        bits: int = 64,
        first: int = 0,
        count: int = 600,
        arguments: tuple[int, int] = (0, 0),
    ) -> list[int]:
        filter_path, results = tmp_path / "filter", tmp_path / "results"
        filter_path.write_bytes(harmless(program))
        results.write_bytes(b"\1" * 8 * count)
        words = [sweeper, filter_path, results, bits, first, *arguments]
        done = subprocess.run([str(word) for word in words], check=False)
        assert done.returncode == 42
        data = results.read_bytes()
        numbers = (data[at : at + 8] for at in range(0, len(data), 8))
        return [-int.from_bytes(number, "little", signed=True) for number in numbers]

    return run


def harmless(program: bytes) -> bytes:
    """The program with an errno for "allowed" and for "killed"; it lets exit_group(42) through."""
    swapped = {ALLOW: errno_answer(ALLOWED), KILL: errno_answer(KILLED)}
    steps = [
        (code, true, false, swapped.get(operand, operand) if code == _RETURN else operand)
        for code, true, false, operand in struct.iter_unpack("=HBBI", program)
    ]
    ending = [
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 0, 3, _EXIT_GROUP),
        (_LOAD, 0, 0, _ARGUMENT),
        (_EQUAL, 0, 1, 42),
        (_RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in (*ending, *steps))
