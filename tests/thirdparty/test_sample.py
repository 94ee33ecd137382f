"""A flavor, a transport and a hook from a wheel outside the repository, without a change to core;
and what is said when a plugin is not there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALL = ("fetch_aci", "stage1_fly", "trust_openpgp")
SHELF = Path("/var/tmp/acme-shelf")


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Any], wheel: Path) -> Any:
    """podctl with its plugins and the sample."""
    made = make_installation(*ALL, fresh=True)
    made.pip("install", "--no-deps", "--no-index", str(wheel))
    return made


@pytest.fixture
def shelf() -> Iterator[Path]:
    """The directory the sample's transport takes images from."""
    SHELF.mkdir(mode=0o755)
    yield SHELF
    shutil.rmtree(SHELF)


@pytest.fixture
def data(tmp_path: Path) -> str:
    if os.geteuid() != 0:
        pytest.skip("needs root to run pods")
    return f"--dir={tmp_path / 'data'}"


def test_its_plugins_are_listed(installation: Any) -> None:
    states = installation.plugins()
    assert {states[name] for name in ("bare", "shelf", "acme-diary")} == {"ok"}
    assert {states[name] for name in ("fly", "openpgp", "https", "aci")} == {"ok"}


def test_an_image_comes_by_its_transport_and_runs_in_its_flavor(
    installation: Any, shelf: Path, data: str, write_image: Callable[..., Path]
) -> None:
    write_image(shelf / "env", "acme.example/env", "env")
    options = [data, "--insecure-options=image"]
    fetched = installation.podctl(*options, "fetch", "shelf://env")
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.startswith("sha512-")
    run = ["run", "--stage1=bare", "--net=host", "--uuid-file-save=" + str(shelf / "uuid")]
    ran = installation.podctl(*options, *run, fetched.stdout.strip())
    assert ran.returncode == 0, ran.stderr
    assert "FLAVOR=bare" in ran.stdout.splitlines()
    assert (shelf / "diary").read_text() == "bare env\n"
    listed = installation.podctl(data, "list", "--no-legend")
    assert "acme.example/env" in listed.stdout
    assert "exited" in listed.stdout
    removed = installation.podctl(data, "rm", (shelf / "uuid").read_text().strip())
    assert removed.returncode == 0, removed.stderr


def test_its_policy_keeps_an_image_out(
    installation: Any, shelf: Path, data: str, write_image: Callable[..., Path]
) -> None:
    write_image(shelf / "forbidden", "acme.example/forbidden", "true")
    options = [data, "--insecure-options=image"]
    fetched = installation.podctl(*options, "fetch", "shelf://forbidden")
    assert fetched.returncode == 254
    assert 'image "acme.example/forbidden" is not for this site' in fetched.stderr
    assert "forbidden" not in installation.podctl(data, "image", "list").stdout


def test_its_refusals_are_shown_as_they_are(installation: Any, shelf: Path, data: str) -> None:
    fetched = installation.podctl(data, "--insecure-options=image", "fetch", "shelf://nothing")
    assert fetched.returncode == 254
    assert 'nothing called "nothing" is on the shelf' in fetched.stderr
    assert "acme-podctl" not in fetched.stderr


def test_uninstalled_it_is_missed_by_name(
    make_installation: Callable[..., Any], wheel: Path, data: str
) -> None:
    installation = make_installation(*ALL, fresh=True)
    installation.pip("install", "--no-deps", "--no-index", str(wheel))
    assert "bare" in installation.plugins()
    installation.pip("uninstall", "--yes", "acme-podctl")
    assert "bare" not in installation.plugins()
    fetched = installation.podctl(data, "--insecure-options=image", "fetch", "shelf://env")
    assert fetched.returncode == 254
    assert fetched.stderr == (
        'fetch: transport "shelf" is not installed (install podctl-fetch-shelf)\n'
    )


def test_two_distributions_with_one_flavor_are_both_named(
    make_installation: Callable[..., Any], wheel: Path, data: str
) -> None:
    installation = make_installation(*ALL, fresh=True)
    installation.pip("install", "--no-deps", "--no-index", str(wheel))
    rival = installation.site / "rival-1.0.dist-info"
    rival.mkdir()
    (rival / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (rival / "entry_points.txt").write_text("[podctl.transport]\nshelf = rival:x\n")
    assert installation.plugins()["shelf"] == "conflict"
    fetched = installation.podctl(data, "--insecure-options=image", "fetch", "shelf://env")
    assert fetched.returncode == 254
    assert "acme-podctl 3.2.1" in fetched.stderr
    assert "rival 1.0" in fetched.stderr


@pytest.mark.parametrize(
    ("missing", "arguments", "package"),
    [
        ("fetch_aci", ["fetch", "https://x.example/a.aci"], "podctl-fetch-aci"),
        ("fetch_aci", ["fetch", "x.example/a"], "podctl-fetch-aci"),
        ("fetch_aci", ["fetch", "./image.aci"], "podctl-fetch-aci"),
        ("fetch_aci", ["trust", "--prefix=x.example"], "podctl-fetch-aci"),
        ("trust_openpgp", ["trust", "--root", "/etc/hostname"], "podctl-trust-openpgp"),
        ("", ["fetch", "docker://busybox"], "podctl-fetch-docker"),
    ],
)
def test_a_missing_plugin_is_named_and_nothing_else_suffers(
    make_installation: Callable[..., Any],
    data: str,
    missing: str,
    arguments: list[str],
    package: str,
) -> None:
    installation = make_installation(*(plugin for plugin in ALL if plugin != missing))
    done = installation.podctl(data, *arguments)
    assert done.returncode == 254
    assert f"(install {package}" in done.stderr
    assert done.stderr.count("\n") == 1
    for command in (["list"], ["image", "list"], ["version"], ["plugins"], ["config"]):
        works = installation.podctl(data, *command)
        assert works.returncode == 0, works.stderr


@pytest.mark.parametrize(
    ("flavor", "package"),
    [
        ("fly", "podctl-stage1-fly"),
        ("kvm", "podctl-stage1-kvm"),
        ("nspawn", "podctl-stage1-nspawn"),
    ],
)
def test_a_missing_flavor_is_named_before_anything_is_made(
    make_installation: Callable[..., Any],
    data: str,
    tmp_path: Path,
    write_image: Callable[..., Path],
    flavor: str,
    package: str,
) -> None:
    installation = make_installation("fetch_aci")
    image = write_image(tmp_path / "true.aci", "acme.example/true", "true")
    run = ["run", f"--stage1={flavor}", "--net=host", str(image)]
    done = installation.podctl(data, "--insecure-options=image", *run)
    assert done.returncode == 254
    assert f"(install {package}" in done.stderr
    assert installation.podctl(data, "list", "--no-legend").stdout == ""


def test_core_alone_starts(make_installation: Callable[..., Any], data: str) -> None:
    installation = make_installation()
    assert installation.plugins() == {}
    for command in (["list"], ["version"], ["config"], ["help"]):
        assert installation.podctl(data, *command).returncode == 0
    doctor = installation.podctl(data, "doctor")
    assert doctor.returncode == 254
    assert "podctl-stage1-fly" in doctor.stdout
