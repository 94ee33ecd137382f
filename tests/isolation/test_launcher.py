"""The launcher finds its own interpreter, however it is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PODCTL = Path(sys.executable).parent / "podctl"


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_called_through_links_it_starts_the_interpreter_beside_the_real_file(
    tmp_path: Path, depth: int
) -> None:
    program = PODCTL
    for number in range(depth):
        link = tmp_path / str(number) / "podctl"
        link.parent.mkdir()
        # An interpreter beside the link must not be taken for ours.
        (link.parent / "python3").symlink_to("/bin/false")
        link.symlink_to(program)
        program = link
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "podctl" in done.stdout


def test_called_by_its_name_alone_it_is_found_in_the_path() -> None:
    done = subprocess.run(
        ["podctl", "--version"],
        env={"PATH": f"{PODCTL.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
