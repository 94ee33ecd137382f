"""Images that lie on this host as directories and archives, and podctl that takes them in."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "support"), str(_HERE.parent / "registry")]

if TYPE_CHECKING:
    from collections.abc import Callable

    from home import Home

    from podctl.testing.realimages import Workshop


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty installation that asks for no signatures."""
    from home import Home

    return Home(tmp_path / "installation")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Images by real tools, each built once."""
    from podctl.testing.realimages import Workshop

    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def tool() -> Callable[..., str]:
    """Run a program that must succeed; its output."""

    def run(*words: str | Path) -> str:
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Every file below a directory, locks aside, by its digest; links by their target."""

    def read(top: Path) -> dict[str, str]:
        found = {}
        for path in sorted(top.rglob("*")):
            name = str(path.relative_to(top))
            if path.is_symlink():
                found[name] = f"-> {os.readlink(path)}"
            elif path.is_file() and "lock" not in name:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    return read
