"""Installations with a chosen set of distributions, made of links to this checkout's."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib import metadata  # noqa: TID253 (tests may)
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from podctl.model.labels import host_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent.parent
PLUGINS = {path.name: f"podctl_{path.name}" for path in (ROOT / "plugins").iterdir()}

_INDEX_NAME = "from podctl.plugins import index; print(index.file_name())"


class Installation:
    """A virtual environment with podctl in it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.site = next(top.glob("lib/python3*/site-packages"))

    def podctl(self, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run the launcher, as root does, in mounts of its own."""
        command = [str(self.top / "bin" / "podctl"), *arguments]
        if os.geteuid() == 0:
            command = ["unshare", "--mount", "--propagation", "slave", *command]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=100, **settings
        )

    def plugins(self) -> dict[str, str]:
        """State of each plugin by name."""
        done = self.podctl("plugins", "--format=json")
        assert done.returncode == 0, done.stderr
        return {plugin["name"]: plugin["state"] for plugin in json.loads(done.stdout)}

    def pip(self, *arguments: str) -> None:
        """Run pip for this environment."""
        python = str(self.top / "bin" / "python3")
        subprocess.run(
            [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check",
             "--python", python, *arguments],
            check=True,
        )  # fmt: skip


def requirements(name: str) -> set[str]:
    """A distribution and all it needs, by name."""
    found = {name}
    for text in metadata.requires(name) or ():
        needed = re.match(r"[\w.-]+", text)
        if needed and "extra ==" not in text and _installed(needed[0]):
            found |= requirements(needed[0])
    return found


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _link(site: Path, source: Path) -> None:
    if not (site / source.name).exists():
        (site / source.name).symlink_to(source)


def _link_distribution(site: Path, name: str) -> None:
    distribution = metadata.distribution(name)
    for file in distribution.files or ():
        top = file.parts[0]
        if top not in ("..", "__pycache__") and not top.endswith(".pth"):
            _link(site, Path(str(distribution.locate_file(top))))


@pytest.fixture(scope="session")
def make_installation(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Installation]]:
    """Make an environment with core and the plugin directories named.

    `fresh`: one that no other test has, to install into and to uninstall from.
    """
    made: list[Path] = []
    shared: dict[tuple[str, ...], Installation] = {}

    def get(*plugins: str, fresh: bool = False) -> Installation:
        if fresh:
            return make(plugins)
        if plugins not in shared:
            shared[plugins] = make(plugins)
        return shared[plugins]

    def make(plugins: tuple[str, ...]) -> Installation:
        top = tmp_path_factory.mktemp("installation")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(top)], check=True)
        made.append(top)
        installation = Installation(top)
        needed = requirements("podctl-core")
        _link(installation.site, ROOT / "core" / "src" / "podctl")
        for plugin in plugins:
            package = PLUGINS[plugin]
            needed |= requirements(f"podctl-{plugin.replace('_', '-')}")
            _link(installation.site, ROOT / "plugins" / plugin / "src" / package)
        for name in sorted(needed):
            _link_distribution(installation.site, name)
        shutil.copy(ROOT / "core" / "bin" / "podctl", top / "bin" / "podctl")
        return installation

    yield get
    for top in made:
        name = subprocess.run(
            [str(top / "bin" / "python3"), "-I", "-c", _INDEX_NAME],
            check=True,
            capture_output=True,
            text=True,
        )
        Path("/var/cache/podctl", name.stdout.strip()).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample plugin, built from a copy outside of this repository."""
    top = tmp_path_factory.mktemp("acme")
    source = shutil.copytree(Path(__file__).parent / "sample", top / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(top), str(source)], check=True)
    (built,) = top.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def busybox() -> Path:
    """A program that needs no library."""
    for place in ("/usr/bin/busybox", "/bin/busybox"):
        if Path(place).exists():
            return Path(place)
    pytest.skip("needs busybox-static")


@pytest.fixture
def write_image(busybox: Path) -> Callable[..., Path]:
    """Write an unsigned ACI that runs a busybox applet."""

    def write(path: Path, name: str, *argv: str) -> Path:
        manifest = {
            "acKind": "ImageManifest",
            "acVersion": "0.8.11",
            "name": name,
            "labels": [{"name": k, "value": v} for k, v in host_labels().items()],
            "app": {"exec": ["/bin/busybox", *argv], "user": "0", "group": "0"},
        }
        files = {"manifest": json.dumps(manifest).encode()}
        files["rootfs/bin/busybox"] = busybox.read_bytes()
        with tarfile.open(path, "w") as archive:
            for directory in ("rootfs", "rootfs/bin", "rootfs/proc"):
                entry = tarfile.TarInfo(directory)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            for member, content in files.items():
                entry = tarfile.TarInfo(member)
                entry.size, entry.mode = len(content), 0o755
                archive.addfile(entry, io.BytesIO(content))
        return path

    return write
