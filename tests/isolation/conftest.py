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

    from box_world import World

ROOT = Path(__file__).parent.parent.parent
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"

TRAP = "hostile.example/trap"

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


#: code that tells of itself when somebody runs it, by name below the root filesystem of an image
TRAP_MARK = "run where it must not"
TRAPS = {
    "etc/ld.so.preload": "/lib/evil.so\n",
    "etc/nsswitch.conf": "passwd: evil\ngroup: evil\n",
    "lib/libnss_evil.so.2": "\x7fELF",
    "lib/evil.so": "\x7fELF",
    "sitecustomize.py": f"raise SystemExit('{TRAP_MARK}')\n",
    "usr/lib/python3/dist-packages/usercustomize.py": f"raise SystemExit('{TRAP_MARK}')\n",
    "usr/bin/modprobe": f"#!/bin/sh\necho {TRAP_MARK}\n",
    "usr/bin/systemd-notify": f"#!/bin/sh\necho {TRAP_MARK}\n",
    "usr/bin/setpriv": f"#!/bin/sh\necho {TRAP_MARK}\n",
    "usr/lib/locale/locale-archive": "evil",
    "etc/systemd/nspawn/podctl.nspawn": "[Exec]\nPrivateUsers=no\n",
}


def set_traps(root: Path) -> None:
    """Plant them, and the programs of the tests, in a root filesystem."""
    from hostile_pods import compile_program

    for name, text in TRAPS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    for program in ("push", "zombies"):
        compile_program(program, str(root / "bin" / program))


@pytest.fixture(scope="session")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with an image full of traps, called `TRAP`."""
    import box_images
    from box_world import World

    top = tmp_path_factory.mktemp("trapped")
    top.chmod(0o755)
    world = World(top, top / "data")
    world.must("fetch", str(box_images.make(top / "trap.aci", TRAP, set_traps)))
    return top / "data"


@pytest.fixture
def world(trapped: Path, tmp_path: Path) -> Iterator[World]:
    """That data directory without pods; whatever is run in it leaves nothing on the host."""
    from box_world import World

    tmp_path.chmod(0o755)
    world = World(tmp_path, trapped)
    yield world
    world.end()
    world.collect()
    assert world.left() == []
