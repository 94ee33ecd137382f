"""Every command the table of other tools' commands leads to is run on the same page."""

from __future__ import annotations

import re

from doc_blocks import ROOT, blocks

PAGE = ROOT / "docs/reference/coming-from-docker-podman-rkt.md"


def shape(command: str) -> str:
    """The command, and its flags without values."""
    words = [word.split("=")[0] for word in command.split("--mount")[0].split()]
    return " ".join(word for word in words if re.match(r"^(--?)?[a-z][a-z-]*$", word))


def test_every_command_of_the_table_is_run() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    rows += [line for line in PAGE.read_text().splitlines() if line.startswith("| |")]
    table = {found for line in rows for found in re.findall(r"`(podctl [^`]*)`", line)}
    run = {shape(line) for block in blocks(PAGE) for line in block.lines}
    assert len(table) > 40
    missing = sorted(command for command in table if not _is_run(shape(command), run))
    assert missing == []


def _is_run(wanted: str, run: set[str]) -> bool:
    return any(set(wanted.split()) <= set(line.split()) for line in run)
