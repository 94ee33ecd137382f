"""Start-up is a feature: how many modules each command may import, and which never.

Counted in modules, because times are noisy. Ceilings go down as the code gets lighter, never up.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from podctl.model.labels import host_labels
from podctl.testing.ociimages import image, write_layout
from podctl.testing.ocilayers import directory, file, layer

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
    top = tmp_path_factory.mktemp("budgets")
    archive = top / "true.aci"
    write_image(archive)
    place = str(top / "data")
    fetched = trace(f"--dir={place}", "--insecure-options=image", "fetch", str(archive))
    assert fetched.returncode == 0, fetched.stderr
    ran = trace(*run(place))
    assert ran.returncode == 0, ran.stderr
    return place


@pytest.fixture(scope="module")
def layered(data: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a Docker image in the same data directory; it has run once."""
    place = tmp_path_factory.mktemp("layered") / "layered"
    made = image(
        layer(directory("bin"), file("bin/true", BUSYBOX.read_bytes(), mode=0o755)),
        layer(directory("etc"), file("etc/conf", "conf")),
        config={"Cmd": ["/bin/true"], "Env": ["A=1"], "Labels": {"a": "1"}},
    )
    write_layout(place, {"1": made})
    fetched = trace(f"--dir={data}", "--insecure-options=image", "fetch", f"oci:{place}")
    assert fetched.returncode == 0, fetched.stderr
    # Whatever was installed since, the first run converts anew.
    assert trace(*run(data, "localhost/layered:1")).returncode == 0
    return "localhost/layered:1"


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


def run(data: str, name: str = "budget.example/true") -> list[str]:
    options = ["--stage1=fly", "--net=host", "--pull-policy=never"]
    return [f"--dir={data}", "--insecure-options=image", "run", *options, name]


def loaded(*arguments: str) -> set[str]:
    """All modules one podctl process loads, also those that are imported by a name in a variable,
    which `trace` does not see."""
    command = [sys.executable, "-I", "-v", "-m", "podctl", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^import '([\w.]+)' #", done.stderr, re.MULTILINE))


def of_packages(modules: set[str], *packages: str) -> set[str]:
    return {module for module in modules if module.split(".")[0] in packages}


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
    assert done.plugins() == {"podctl_stage1_fly"}
    assert done.has(*DISCOVERY, *HEAVY) == set()
    assert len(done.modules) <= 210


def test_running_a_cached_docker_image_imports_no_more_than_that(data: str, layered: str) -> None:
    done = trace(*run(data, layered))
    assert done.returncode == 0, done.stderr
    assert done.plugins() == {"podctl_stage1_fly"}
    assert done.has("hashlib", "_hashlib", "podctl.pods.filling", *DISCOVERY, *HEAVY) == set()
    assert done.has("podctl.model.imagedocument", "podctl.model.signals") == set()
    archive = trace(*run(data))
    # digests without OpenSSL
    assert set(done.modules) - set(archive.modules) <= {
        *("podctl.store.digests", "_sha256", "_sha512", "_sha2"),
    }
    assert len(done.modules) <= 215


def test_running_a_cached_image_loads_no_plugin_of_its_format(data: str, layered: str) -> None:
    formats = ("podctl_fetch_aci", "podctl_fetch_docker")
    for name in ("budget.example/true", layered):
        modules = loaded(*run(data, name))
        assert of_packages(modules, *formats, "hashlib", "_hashlib") == set()
        assert of_packages(modules, "podctl_stage1_fly") != set()
    # The control: without root's view the plugin is loaded, and the view is made anew.
    (view,) = Path(data, "verified").glob("*.image")
    view.unlink()
    assert of_packages(loaded(*run(data, layered)), *formats) != set()
    assert of_packages(loaded(*run(data, layered)), *formats) == set()


def test_fetching_imports_no_flavor(data: str, tmp_path: Path) -> None:
    archive = tmp_path / "true.aci"
    write_image(archive)
    done = trace(f"--dir={tmp_path}/data", "--insecure-options=image", "fetch", str(archive))
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
