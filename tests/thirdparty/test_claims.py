"""Claims about what can be left out and added, by their ids: D3, M4."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from podctl.testing.ociimages import image, write_layout
from podctl.testing.ocilayers import directory, file, layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root

ALL = (
    "fetch_aci",
    "fetch_docker",
    "isolators_linux",
    "stage1_fly",
    "stage1_nspawn",
    "trust_cosign",
    "trust_openpgp",
)


class Shelf:
    """An archive and a layout that say hello, and a data directory."""

    def __init__(self, top: Path, busybox: Path, write_image: Callable[..., Path]) -> None:
        self.top = top
        self.data = f"--dir={top / 'data'}"
        self.archive = str(write_image(top / "a.aci", "acme.example/hello", "echo", "archive"))
        program = layer(directory("bin"), file("bin/busybox", busybox.read_bytes(), mode=0o755))
        made = image(program, config={"Cmd": ["/bin/busybox", "echo", "layout"]})
        self.layout = f"oci:{write_layout(top / 'layout', {'1': made})}"
        (top / "key").write_text("no key\n")

    def run(self, installation: Any, reference: str, flavor: str = "") -> Any:
        words = [f"--stage1={flavor}"] if flavor else []
        options = (self.data, "--insecure-options=image")
        return installation.podctl(*options, "run", *words, "--net=host", reference)


@pytest.fixture
def crate(busybox: Path) -> Iterator[Path]:
    """An archive of somebody else's kind, where everybody can read it: who downloads is nobody."""
    top = Path(tempfile.mkdtemp(prefix="podctl-crate-", dir="/var/tmp"))
    top.chmod(0o755)
    (top / "crate.json").write_text('{"is": "acme.example/crate", "says": "unpacked"}')
    (top / "content").mkdir()
    shutil.copy(busybox, top / "content/busybox")
    words = ["tar", "-C", top, "-cf", top / "x.crate", "crate.json", "content"]
    subprocess.run(words, check=True)
    yield top / "x.crate"
    shutil.rmtree(top)


@pytest.fixture
def shelf(tmp_path: Path, busybox: Path, write_image: Callable[..., Path]) -> Shelf:
    tmp_path.chmod(0o755)
    return Shelf(tmp_path, busybox, write_image)


#: plugin that is left out -> what does not work then, and what does
WITHOUT: dict[str, tuple[tuple[str, str], ...]] = {
    "fetch_aci": (("archive", "nspawn"), ("archive", "fly")),
    "fetch_docker": (("layout", "nspawn"), ("layout", "fly")),
    "stage1_nspawn": (("archive", "nspawn"), ("layout", "nspawn")),
    "stage1_fly": (("archive", "fly"), ("layout", "fly")),
    "isolators_linux": (("archive", "nspawn"), ("layout", "nspawn")),
    "trust_openpgp": (),
    "trust_cosign": (),
}


@pytest.mark.parametrize("missing", WITHOUT)
def test_d3_what_is_left_out_is_missed_by_name_and_the_rest_works(
    make_installation: Callable[..., Any], shelf: Shelf, missing: str
) -> None:
    installation = make_installation(*(name for name in ALL if name != missing))
    package = f"podctl-{missing.replace('_', '-')}"
    for kind in ("archive", "layout"):
        for flavor in ("nspawn", "fly"):
            done = shelf.run(installation, getattr(shelf, kind), flavor)
            if (kind, flavor) in WITHOUT[missing]:
                assert done.returncode == 254, done
                assert package in done.stderr
            else:
                assert (done.returncode, done.stdout) == (0, f"{kind}\n"), done


@pytest.mark.parametrize("scheme", ["openpgp", "cosign"])
def test_d3_without_who_verifies_signatures_nothing_is_let_in(
    make_installation: Callable[..., Any], shelf: Shelf, scheme: str
) -> None:
    installation = make_installation(*(name for name in ALL if name != f"trust_{scheme}"))
    reference = shelf.archive if scheme == "openpgp" else shelf.layout
    done = installation.podctl(shelf.data, "run", "--net=host", reference)
    assert done.returncode == 254
    assert done.stdout == ""


def test_d3_core_alone_starts_and_lists_no_plugin(make_installation: Callable[..., Any]) -> None:
    installation = make_installation()
    assert installation.podctl("version").returncode == 0
    assert installation.plugins() == {}
    assert set(make_installation(*ALL).plugins()) >= {"aci", "oci", "fly", "nspawn", "openpgp"}


#: what somebody else may write: archives whose manifest is `crate.json`, `{"is": ..., "says": ...}`
_FORMAT = """
import json
from podctl.api import hookimpl
from podctl.model.fetching import CacheState, Downloaded, Resolution
from podctl.model.image import parse_aci_image
from podctl.model.labels import host_labels
from podctl.model.layout import ArchiveLayout


class Crate:
    @hookimpl
    def format_layout(self):
        return ArchiveLayout(manifest="crate.json", rootfs="content", whiteouts=False)

    @hookimpl
    def format_image(self, manifest):
        value = json.loads(manifest)
        app = {"exec": ["/busybox", "echo", value["says"]], "user": "0", "group": "0"}
        appc = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": value["is"], "app": app}
        appc["labels"] = [{"name": k, "value": v} for k, v in host_labels().items()]
        read = parse_aci_image(json.dumps(appc).encode())
        return read._replace(format="crate", manifest=manifest)


class Crates:
    @hookimpl
    def transport_resolve(self, reference, request):
        return Resolution(format="crate", location=reference.path_or_url)

    @hookimpl
    def transport_download(self, resolution, resume, sink):
        with open(resolution.location.removeprefix("crates:/"), "rb") as file:
            data = file.read()
        state = CacheState()
        sink.begin(0, len(data), state)
        sink.write(data)
        return Downloaded(len(data), state)


crate, crates = Crate(), Crates()
"""


def test_m4_a_type_of_image_comes_from_outside(
    make_installation: Callable[..., Any], shelf: Shelf, crate: Path
) -> None:
    reference = f"crates:/{crate}"
    installation = make_installation(*ALL, fresh=True)
    assert shelf.run(installation, reference).returncode == 254
    (installation.site / "acme_crates.py").write_text(_FORMAT)
    distribution = installation.site / "acme_crates-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-crates\nVersion: 1\n")
    (distribution / "entry_points.txt").write_text(
        "[podctl.transport]\ncrates = acme_crates:crates\n"
        "[podctl.format]\ncrate = acme_crates:crate\n"
    )
    done = shelf.run(installation, reference)
    assert (done.returncode, done.stdout) == (0, "unpacked\n"), done
    listed = installation.podctl(shelf.data, "image", "list", "--no-legend", "--fields=name,format")
    assert listed.stdout.split() == ["acme.example/crate", "crate"]
