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
    from collections.abc import Callable, Iterator

    from home import Home
    from scene import Scene

    from podctl.testing.ociimages import Image, Index
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


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A good layout, to be spoilt."""
    from scene import Scene

    return Scene(tmp_path)


@pytest.fixture
def refuse(
    home: Home, scene: Scene, contents: Callable[[Path], dict[str, str]]
) -> Iterator[Callable[..., str]]:
    """Fetch what must be refused: one line, 254, and all is as before."""
    from scene import SECRET, little_memory

    home.install("example.com/bystander")
    canary = scene.canary()

    def fetch(*words: str) -> str:
        before = contents(home.data)
        done = home.podctl("fetch", *words, preexec_fn=little_memory)
        assert done.returncode == 254, done
        assert done.stdout == ""
        *said, line = done.stderr.splitlines()
        assert all(one.startswith("image: using image from ") for one in said), done.stderr
        assert SECRET not in done.stderr
        assert contents(home.data) == before
        assert not list((home.data / "cas/tmp").iterdir())
        assert not [path for path in (home.data / "layers").iterdir() if path.name[0] == "."]
        return line

    yield fetch
    assert scene.canary() == canary
    home.must("fsck")


@pytest.fixture
def bring(home: Home, tmp_path: Path) -> Callable[..., str]:
    """Take an image in under exported.NAME; return its ID."""
    from exported import NAME
    from made import IMAGE_NAME, REF_NAME, rename

    from podctl.testing.ociimages import write_layout

    def fetch(made: Image | Index, tag: str = "1") -> str:
        place = write_layout(tmp_path / f"layout-{os.urandom(4).hex()}", {tag: made})
        rename(place, **{REF_NAME: tag, IMAGE_NAME: f"{NAME}:{tag}"})
        return home.must("fetch", "--full", f"oci:{place}").strip()

    return fetch
