"""What every refusal has in common: one line, exit code 254, and nothing of it in the store."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clean_home import Clean

BAD = "docker://registry.example/bad:1"


def content(home: Clean) -> list[str]:
    """Everything in the data directory that an image could have brought there."""
    return [
        str(path.relative_to(home.data))
        for path in home.data.rglob("*")
        if path.is_file() and "lock" not in str(path.relative_to(home.data))
    ]


def unfinished(path: str) -> bool:
    """Whether a file is what a broken download left for the next attempt."""
    return "/cas/tmp/" in f"/{path}" and path.endswith((".part", ".state"))


def assert_refused(home: Clean, rule: str, *arguments: str, broken: bool = False) -> str:
    """Run a command that must fail by `rule` (a pattern), and leave nothing; return the line.

    Args:
        broken: it is the transfer that failed, so that what had arrived may be kept.
    """
    before = content(home)
    done = home.podctl(*(arguments or ("fetch", BAD)))
    assert done.returncode == 254, done
    assert done.stdout == ""
    *said, line = done.stderr.splitlines()
    assert re.search(rule, line), done.stderr
    assert all(one.startswith("image: ") for one in said), done.stderr
    left = [path for path in content(home) if path not in before]
    left += home.leftovers()
    if broken:
        left = [path for path in left if not unfinished(path)]
    assert not left, f"{line}\n{left}"
    return line
