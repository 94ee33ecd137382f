"""Every case of the table under every flavor: one answer, or a refusal by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from box_world import DOMAIN, Done
from table import TABLE, Case

if TYPE_CHECKING:
    import re
    from pathlib import Path

    from box_world import World
    from flavor_columns import Flavor

pytestmark = pytest.mark.root


def run(world: World, flavor: Flavor, case: Case) -> Done:
    """Carry out one case."""
    for name, content in case.files.items():
        _place(world.top / name, content)
    pod = [flag.replace("{top}", str(world.top)) for flag in case.pod]
    line = ["run", flavor.flag, *pod, f"{DOMAIN}/{case.image}", *case.app]
    if case.script:
        line += ["--exec=/bin/sh", "--", "-c", case.script]
    elif case.arguments:
        line += ["--", *case.arguments]
    return world.podctl(*line, stdin=case.stdin, env={**os.environ, **case.environment})


def _place(path: Path, content: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.mkdir()
    elif content.startswith("-> "):
        path.symlink_to(content[3:])
    else:
        path.write_text(content)


def fits(found: bytes, wanted: str | re.Pattern[str]) -> bool:
    text = found.decode(errors="surrogateescape")
    return text == wanted if isinstance(wanted, str) else bool(wanted.fullmatch(text))


@pytest.mark.parametrize("name", TABLE)
def test_case(world: World, flavor: Flavor, name: str) -> None:
    case = TABLE[name]
    done = run(world, flavor, case)
    if case.needs and flavor.lacks(case.needs):
        # "event handler" in a sentence is "event-handlers" in a list.
        word = case.needs.split()[-1]
        assert done.code == 254, done
        assert word in done.err.decode() or word[:-1].replace("-", " ") in done.err.decode(), done
        assert done.out == b""
        return
    same = done.code == case.code and fits(done.out, case.out) and fits(done.err, case.err)
    assert same or flavor.name in case.otherwise, done
    # What is no exception any more is to be taken from the table.
    assert not same or flavor.name not in case.otherwise
