"""Kill a command at each of its mutating calls, and look at what the next commands make of it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podctl.testing.tracer import run_traced

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import World

ON_X86_64 = pytest.mark.skipif(
    os.uname().machine != "x86_64",
    reason="the tracer knows the system call numbers of x86-64 alone",
)
#: names that are made up: of stages and temporary files, and of pods
_RANDOM = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])"
)
#: How often a point is looked for that is not met again at once.
_TRIES = 3


def sweep(
    world: World,
    template: Path | None,
    arguments: list[str],
    after: Callable[[], object],
    *,
    may_miss: float = 0,
) -> int:
    """Kill `arguments` at each of its points, check the aftermath; return how many there were.

    Points that leave the same behind as one before need no second look. How many writes it takes
    to unpack a file depends on what is in a pipe by then, so that very few points may not be met
    again.

    Args:
        may_miss: share of the points that may not be met again, beside a few: where processes are
            made side by side, their numbers are those of others at times.
    """
    world.reset(template)
    whole = run_traced(world.podctl(*arguments))
    assert whole.status == 0, world.said()
    assert len(whole.points) > 10
    mounts = Path("/proc/self/mountinfo").read_text()
    seen: set[str] = set()
    missed = []
    for point in whole.points:
        for _ in range(_TRIES):
            world.reset(template)
            if run_traced(world.podctl(*arguments), point).killed:
                break
        else:
            missed.append(point)
        state = state_of(world.data)
        if state not in seen:
            seen.add(state)
            try:
                check_aftermath(world, after)
            except AssertionError as error:
                raise AssertionError(f"killed at {point}: {error}") from error
        assert Path("/proc/self/mountinfo").read_text() == mounts, f"killed at {point}"
    assert len(missed) <= 3 + may_miss * len(whole.points), missed
    assert len(seen) > 3
    return len(whole.points)


def check_aftermath(world: World, after: Callable[[], object]) -> None:
    """The next commands accept what is left, and nothing stays behind."""
    world.must("list")
    world.must("image", "list")
    if (world.data / "trees").exists():
        # The last place that is made; until then there is a store in parts only.
        world.must("fsck")
    after()
    world.must("gc", "--grace-period=0s", "--expire-prepared=0s")
    world.must("image", "gc", "--grace-period=0s")
    world.must("fsck")
    for leftover in ("cas/tmp", "layers", "verified"):
        names = [p.name for p in (world.data / leftover).glob("*") if "lock" not in p.name]
        assert not [name for name in names if not name.startswith(("sha", "remotes"))], names


def state_of(data: Path) -> str:
    """A digest of a data directory, made-up names and times aside.

    Of records, and of what pods have, which both hold times and made-up names, the size counts.
    """
    digest = hashlib.sha256()
    for path in sorted(data.rglob("*"), key=lambda path: _RANDOM.sub("*", str(path))):
        status = path.lstat()
        name = _RANDOM.sub("*", str(path.relative_to(data)))
        words = [name, status.st_mode, status.st_nlink]
        if path.is_file() and not path.is_symlink():
            words.append(status.st_size)
            if path.suffix != ".json" and not name.startswith("pods/"):
                words.append(hashlib.sha256(path.read_bytes()).hexdigest())
        digest.update(repr(words).encode())
    return digest.hexdigest()
