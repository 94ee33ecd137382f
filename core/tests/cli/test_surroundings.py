"""Odd surroundings: no home, no locale, no working directory, few descriptors, any mask."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SURROUNDINGS = {
    "nothing-set": "env -i",
    "locale-c": "env LC_ALL=C LANG=C",
    "locale-unknown": "env LC_ALL=xx_YY.ISO-8859-7",
    "zone-odd": "env TZ=:/no/such/zone",
    "home-missing": "env HOME=/no/such/home",
    "mask-closed": "umask 077;",
    "mask-open": "umask 000;",
    "few-descriptors": "ulimit -n 64;",
    "directory-gone": 'cd "$(mktemp -d)"; rmdir "$PWD";',
    "stdin-closed": "exec <&-;",
    "stdout-and-stdin-closed": "exec <&- 3>&1 >&-;",
}
COMMANDS = (["version"], ["config"], ["plugins"], ["help"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_it_works_or_says_why(name: str, command: list[str]) -> None:
    script = f'{SURROUNDINGS[name]} "$0" -I -m podctl "$@"'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ},
    )
    if "stdout" in name:
        assert done.returncode == 254
        assert "Bad file descriptor" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
