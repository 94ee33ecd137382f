"""Start-up is a feature: how many modules each command may import, and which never.

Counted in modules, because times are noisy. Ceilings go down as the code gets lighter, never up.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from podctl.model.labels import host_labels

BUSYBOX = Path("/usr/bin/busybox")
if not BUSYBOX.exists():
    BUSYBOX = Path("/bin/busybox")

#: what only discovery without an index needs
DISCOVERY = {"stevedore", "importlib.metadata", "email", "logging"}
HEAVY = {
    *("requests", "urllib3", "http.client", "ssl", "cryptography", "pyroute2", "sqlite3"),
    *("asyncio", "subprocess", "tempfile", "shutil"),
}


class Trace(NamedTuple):
    """What one podctl process imported."""

    modules: list[str]
    returncode: int
    stdout: str
    stderr: str

    def has(self, *names: str) -> set[str]:
        """Those of `names` that were imported, as themselves or by a module below them."""
        return {
            name
            for name in names
            if any(module == name or module.startswith(f"{name}.") for module in self.modules)
        }

    def plugins(self) -> set[str]:
        """The plugin packages that were imported."""
        return {module.split(".")[0] for module in self.modules if module.startswith("podctl_")}


def trace(*arguments: str, isolated: bool = True) -> Trace:
    flags = ["-I"] if isolated else []
    command = [sys.executable, *flags, "-X", "importtime", "-m", "podctl", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    lines = done.stderr.splitlines()
    times = [line for line in lines if line.startswith("import time:")]
    modules = [line.rpartition("|")[2].strip() for line in times[1:]]
    other = "\n".join(line for line in lines if not line.startswith("import time:"))
    return Trace(modules, done.returncode, done.stdout, other)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data directory with one image and one exited pod; the plugin index is fresh."""
    if os.geteuid() != 0:
        pytest.skip("needs root to run a pod")
    if not BUSYBOX.exists():
        pytest.skip("needs busybox-static")
    directory = tmp_path_factory.mktemp("budgets")
    image = directory / "true.aci"
    write_image(image)
    place = str(directory / "data")
    fetched = trace(f"--dir={place}", "--insecure-options=image", "fetch", str(image))
    assert fetched.returncode == 0, fetched.stderr
    ran = trace(*run(place))
    assert ran.returncode == 0, ran.stderr
    return place


def write_image(path: Path) -> None:
    manifest = {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": "budget.example/true",
        "labels": [{"name": k, "value": v} for k, v in host_labels().items()],
        "app": {"exec": ["/bin/true"], "user": "0", "group": "0"},
    }
    with tarfile.open(path, "w") as archive:
        for name, content in (
            ("manifest", json.dumps(manifest).encode()),
            ("rootfs", None),
            ("rootfs/bin", None),
            ("rootfs/bin/true", BUSYBOX.read_bytes()),
        ):
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if content is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def run(data: str) -> list[str]:
    options = ["--stage1=fly", "--net=host", "--pull-policy=never"]
    return [f"--dir={data}", "--insecure-options=image", "run", *options, "budget.example/true"]


def exited_pod(data: str) -> str:
    listed = trace(f"--dir={data}", "list", "--full", "--no-legend")
    return listed.stdout.split()[0]


def test_the_version_flag_imports_no_click() -> None:
    done = trace("--version")
    assert done.returncode == 0
    assert done.has("click", "podctl.cli", "json", "re", "typing") == set()
    assert len(done.modules) <= 45


def test_version_imports_the_frame_alone() -> None:
    done = trace("version")
    assert done.returncode == 0
    assert done.has("click") == {"click"}
    assert done.has("json", "podctl.plugins", "podctl.store", "podctl.pods", *HEAVY) == set()
    assert done.has("pluggy", *DISCOVERY) == set()
    assert len(done.modules) <= 110


def test_list_imports_no_plugin(data: str) -> None:
    done = trace(f"--dir={data}", "list")
    assert done.returncode == 0
    assert done.has("pluggy", *DISCOVERY, *HEAVY) == set()
    assert done.plugins() == set()
    assert len(done.modules) <= 130


def test_status_imports_no_plugin(data: str) -> None:
    done = trace(f"--dir={data}", "status", exited_pod(data))
    assert done.returncode == 0
    assert done.has("pluggy", *DISCOVERY, *HEAVY) == set()
    assert done.plugins() == set()
    assert len(done.modules) <= 130


def test_running_a_cached_image_imports_its_flavor_alone(data: str) -> None:
    done = trace(*run(data))
    assert done.returncode == 0, done.stderr
    assert done.plugins() <= {"podctl_stage1_fly", "podctl_fetch_aci"}
    assert "podctl_stage1_fly" in done.plugins()
    assert done.has(*DISCOVERY, *HEAVY) == set()
    assert len(done.modules) <= 210


def test_fetching_imports_no_flavor(data: str, tmp_path: Path) -> None:
    image = tmp_path / "true.aci"
    write_image(image)
    done = trace(f"--dir={tmp_path}/data", "--insecure-options=image", "fetch", str(image))
    assert done.returncode == 0, done.stderr
    assert done.plugins() <= {"podctl_fetch_aci", "podctl_trust_openpgp"}
    assert done.has("requests", "pyroute2", *DISCOVERY) == set()


def test_the_way_of_counting_sees_a_heavy_import() -> None:
    done = trace("help", isolated=True)
    assert done.has("click") == {"click"}
    command = [sys.executable, "-I", "-X", "importtime", "-c", "import importlib.metadata"]
    heavy = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "importlib.metadata" in heavy
    assert len(heavy.splitlines()) > 90
