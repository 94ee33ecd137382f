"""An installation that hostile surroundings can try to reach: one with user site-packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parent.parent.parent
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"

#: somebody who may call podctl through sudo
MALLORY = 12345


class Installation(NamedTuple):
    """podctl as a distribution installs it: launcher and interpreter side by side."""

    top: Path

    @property
    def launcher(self) -> list[str]:
        """The command users type."""
        return [str(self.top / "bin" / "podctl")]

    @property
    def module(self) -> list[str]:
        """The other way in."""
        return [str(self.top / "bin" / "python3"), "-m", "podctl"]

    def python(self, *arguments: str) -> list[str]:
        """The interpreter itself, for controls."""
        return [str(self.top / "bin" / "python3"), *arguments]


class Surroundings(NamedTuple):
    """What the caller controls: environment, working directory, and files there."""

    home: Path
    marker: Path

    def environment(self, **more: str) -> dict[str, str]:
        """As `sudo -E` would hand it on."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), **more}

    def plant(self, directory: Path, files: Mapping[str, str]) -> Path:
        """Write files; `MARK` in them becomes code that shows it was run."""
        mark = f"open({str(self.marker)!r}, 'a').write('run\\n')"
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("MARK", mark))
        return directory

    def user_site(self, base: Path | None = None) -> Path:
        """Where Python looks for this user's packages."""
        return (base or self.home / ".local") / "lib" / VERSION / "site-packages"

    def sprung(self) -> bool:
        """Whether planted code has run; forgets it."""
        found = self.marker.exists()
        self.marker.unlink(missing_ok=True)
        return found


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """A virtual environment that sees user site-packages, with this checkout in it.

    Not below /tmp: stevedore switches its cache off for interpreters there.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root: it is root that must not believe its caller")
    top = Path(tempfile.mkdtemp(prefix="podctl-isolation-", dir="/var/tmp"))
    try:
        top.chmod(0o755)
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(top)],
            check=True,
        )
        ours = [path for path in sys.path if "site-packages" in path or path.endswith("/src")]
        site = top / "lib" / VERSION / "site-packages"
        (site / "podctl.pth").write_text("\n".join(ours) + "\n")
        shutil.copy(ROOT / "core" / "bin" / "podctl", top / "bin" / "podctl")
        made = Installation(top)
        yield made
        name = subprocess.run(
            made.python("-I", "-c", "from podctl.plugins import index; print(index.file_name())"),
            check=True,
            capture_output=True,
            text=True,
        )
        Path("/var/cache/podctl", name.stdout.strip()).unlink(missing_ok=True)
    finally:
        shutil.rmtree(top)


@pytest.fixture
def surroundings() -> Iterator[Surroundings]:
    """An empty home of somebody who is not root."""
    top = Path(tempfile.mkdtemp(prefix="podctl-mallory-", dir="/var/tmp"))
    try:
        home = top / "home"
        home.mkdir()
        os.chown(top, MALLORY, MALLORY)
        os.chown(home, MALLORY, MALLORY)
        top.chmod(0o755)
        yield Surroundings(home, top / "marker")
    finally:
        shutil.rmtree(top)
