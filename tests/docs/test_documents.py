"""What documents tell a reader to type works, in their order, and prints what they show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from doc_blocks import READ, ROOT, RUN, Block, Note, blocks, documents, fits

if TYPE_CHECKING:
    from pathlib import Path

    from doc_world import World

#: a command line of podctl, behind a prompt or not
COMMAND = re.compile(r"^\s*(\$ |# )?(sudo )?([\w./-]*/)?podctl ")
#: shows command lines that are no invitation to type them
REFERENCE = ROOT / "docs" / "reference" / "commands.md"


def runnable(path: Path) -> list[Block]:
    return [b for b in blocks(path) if b.language in RUN or b.verb == "file"]


RUNNABLE = [path for path in documents() if runnable(path)]
BLOCKS = [block for path in documents() for block in blocks(path)]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.root
@pytest.mark.parametrize("path", RUNNABLE, ids=name)
def test_every_command_of_a_document_does_what_it_says(path: Path, world: World) -> None:
    world.run(runnable(path))


@pytest.mark.root
@pytest.mark.parametrize(
    "lines",
    [
        ("$ podctl list --no-such-flag",),
        ("$ podctl version --format=json", "{}"),
        ("$ false",),
    ],
)
def test_control_a_document_that_errs_is_noticed(lines: tuple[str, ...], world: World) -> None:
    """Control: a wrong flag, a wrong output and a failing command are each found."""
    from doc_world import Failed

    block = Block(ROOT / "README.md", 1, "console", lines, None)
    with pytest.raises(Failed):
        world.run([block])


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_run_or_says_why_not(block: Block) -> None:
    assert block.language in RUN | READ, "name the language of the block"
    if block.verb == "skip":
        assert block.language in RUN
        assert block.note is not None
        assert len(block.note.value.split()) > 2, "say why it cannot run here"
    if block.verb == "file":
        assert block.language in READ
    typed = [line for line in block.lines if COMMAND.match(line)]
    if block.language in READ and block.path != REFERENCE:
        assert not typed, "commands stand in sh and console blocks, where they are run"


def test_the_readme_begins_with_its_two_commands() -> None:
    first = next(block for block in blocks(ROOT / "README.md"))
    assert [line.split("#")[0].strip() for line in first.lines] == ["script/demo", "script/test"]


@pytest.mark.parametrize(
    ("printed", "shown", "fit"),
    [
        ("a\nb\n", ("a", "b"), True),
        ("a\nb\n", ("a",), False),
        ("a\nb\nc", ("a", "...", "c"), True),
        ("a\nc", ("a", "...", "c"), True),
        ("pid=4711", ("pid=...",), True),
        ("pid=4711\nmore", ("pid=...", "less"), False),
        ("a.b", ("a-b",), False),
    ],
)
def test_shown_output_is_compared_with_dots_for_anything(
    printed: str, shown: tuple[str, ...], fit: bool
) -> None:
    assert fits(printed, shown) is fit


@pytest.mark.root
def test_the_unit_shown_for_systemd_starts_stops_and_cleans_up(world: World) -> None:
    """Its Exec lines, in the order in which systemd runs them; systemd itself is not process 1."""
    page = ROOT / "docs/how-to/run-under-systemd.md"
    shown = runnable(page)
    unit = next(block for block in shown if block.note == Note("file", "own.service"))
    trust = shown[shown.index(unit) + 1]
    lines = "\n".join(unit.lines).replace("\\\n", "").splitlines()
    exec_lines = dict(line.split("=", 1) for line in lines if line.startswith("Exec"))
    assert list(exec_lines) == ["ExecStartPre", "ExecStart", "ExecStopPost"]
    started = Note("background until", "/run/redis.uuid")
    steps = [
        # The world's own root is an overlay, whose files cannot be given to a pod's users.
        (["mkdir /var/lib/redis-pod", "mount -t tmpfs volume /var/lib/redis-pod"], None),
        ([exec_lines["ExecStartPre"]], None),
        ([exec_lines["ExecStart"]], started),
        (["podctl stop --uuid-file=/run/redis.uuid", "wait", exec_lines["ExecStopPost"][1:]], None),
        (['test -z "$(podctl list --no-legend)"'], None),
    ]
    script = [Block(page, 100 + n, "sh", tuple(s), note) for n, (s, note) in enumerate(steps)]
    world.run([unit, trust, *script])
