"""The fenced blocks of a Markdown document, and what the comments before them ask of the test.

A comment directly above a block speaks to the test alone:

    <!-- test: skip, REASON -->              not run, and why
    <!-- test: file, PATH -->                the text is written to PATH in the working directory
    <!-- test: fails with CODE -->           the last command ends with this exit code
    <!-- test: answers WORD -->              runs on a terminal, where WORD answers each question
    <!-- test: background until FILE -->     left running; goes on once FILE is there

`sh` blocks are commands. In `console` blocks a command follows `$ ` (continued by `> `), and what
it prints follows; `...` stands for anything.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
#: languages a block may have: those that are run, and those that are read
RUN = frozenset({"console", "sh"})
READ = frozenset({"html", "ini", "json", "python", "text", "toml"})
VERBS = ("skip", "file", "fails with", "answers", "background until")

_FENCE = re.compile(r"^```(?P<language>\S*)\s*$")
_NOTE = re.compile(r"^<!-- test: (?P<text>.+) -->$")


class Note(NamedTuple):
    """A comment to the test: one of VERBS, and what follows it."""

    verb: str
    value: str


class Block(NamedTuple):
    """One fenced block.

    Args:
        path: the document.
        line: number of the line after the fence.
        note: None where nothing was said.
    """

    path: Path
    line: int
    language: str
    lines: tuple[str, ...]
    note: Note | None

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def verb(self) -> str:
        """What the note asks for; empty without one."""
        return self.note.verb if self.note else ""


class Command(NamedTuple):
    """One command of a block; `output` is None where nothing is said of what it prints."""

    line: int
    text: str
    output: tuple[str, ...] | None


def documents() -> list[Path]:
    """Every document a user or contributor reads."""
    tops = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "core" / "README.md"]
    found = [*tops, *ROOT.glob("plugins/*/README.md"), *ROOT.glob("docs/**/*.md")]
    return sorted([*found, *ROOT.glob("news/*.md")])


def blocks(path: Path) -> list[Block]:
    """The blocks of one document, in order."""
    found: list[Block] = []
    inside: tuple[int, str, Note | None] | None = None
    before = ""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if inside is None and fence:
            inside = number + 1, fence["language"], _note(before, f"{path}:{number}")
        elif inside is not None and line == "```":
            start, language, note = inside
            found.append(Block(path, start, language, tuple(lines[start - 1 : number - 1]), note))
            inside = None
        before = line
    assert inside is None, f"{path}: a block is not closed"
    return found


def _note(line: str, where: str) -> Note | None:
    match = _NOTE.match(line)
    if match is None:
        assert "test:" not in line, f"{where}: malformed comment {line!r}"
        return None
    for verb in VERBS:
        value = match["text"].removeprefix(verb)
        if value != match["text"]:
            value = value.strip(", ")
            assert value, f"{where}: {verb} needs more words"
            return Note(verb, value)
    raise AssertionError(f"{where}: unknown comment {line!r}")


def commands(block: Block) -> list[Command]:
    """What a block makes the reader type."""
    if block.language == "sh":
        return [Command(block.line, "\n".join(block.lines), None)]
    found: list[Command] = []
    for number, line in enumerate(block.lines, block.line):
        if line.startswith("$ "):
            found.append(Command(number, line[2:], ()))
        elif line.startswith("> ") and found and found[-1].output == ():
            found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{line[2:]}")
        else:
            assert found, f"{block}: output before the first command"
            found[-1] = found[-1]._replace(output=(*(found[-1].output or ()), line))
    return found


def fits(printed: str, expected: tuple[str, ...]) -> bool:
    """Whether what was printed is what a document shows.

    `...` stands for anything, on a line of its own for any lines; columns may be set differently.
    """
    parts = []
    for line in _single_spaced("\n".join(expected)).split("\n"):
        words = ".*".join(map(re.escape, line.split("...")))
        parts.append(r"(?:.*\n)?" if line == "..." else f"{words}\n")
    return re.fullmatch("".join(parts), _single_spaced(printed) + "\n", re.DOTALL) is not None


def _single_spaced(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())
