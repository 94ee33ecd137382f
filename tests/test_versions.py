"""One version for all distributions, and one name in all places."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

import podctl

ROOT = Path(__file__).parent.parent
PROJECTS = sorted(
    [
        *ROOT.glob("pyproject.toml"),
        *ROOT.glob("*/pyproject.toml"),
        *ROOT.glob("plugins/*/pyproject.toml"),
    ]
)
PLUGINS = sorted(ROOT.glob("plugins/*"))
#: first word of a plugin directory -> entry-point groups it fills
GROUPS = {
    "fetch": {"podctl.transport", "podctl.format"},
    "trust": {"podctl.trust"},
    "stage1": {"podctl.stage1"},
    "net": {"podctl.network"},
    "isolators": {"podctl.isolator"},
}


def project(path: Path) -> dict[str, Any]:
    return dict(tomllib.loads(path.read_text())["project"])


def requirements(settings: dict[str, Any]) -> list[str]:
    optional = settings.get("optional-dependencies", {})
    return [*settings.get("dependencies", []), *(r for extra in optional.values() for r in extra)]


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_distribution_has_the_one_version(path: Path) -> None:
    from importlib.metadata import version

    settings = project(path)
    assert settings["version"] == podctl.__version__
    assert version(settings["name"]) == podctl.__version__


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_distributions_require_each_other_in_that_version(path: Path) -> None:
    siblings = {project(other)["name"] for other in PROJECTS}
    for requirement in requirements(project(path)):
        name, _, pin = requirement.partition("==")
        if name in siblings or name.startswith("podctl"):
            assert pin == podctl.__version__


def test_the_meta_distribution_brings_all_plugins() -> None:
    required = {
        requirement.partition("==")[0]
        for requirement in requirements(project(ROOT / "pyproject.toml"))
    }
    assert {project(path / "pyproject.toml")["name"] for path in PLUGINS} <= required


@pytest.mark.parametrize("directory", PLUGINS, ids=lambda path: path.name)
def test_names_line_up_in_all_places(directory: Path) -> None:
    settings = project(directory / "pyproject.toml")
    family, _, name = directory.name.partition("_")
    assert settings["name"] == f"podctl-{directory.name.replace('_', '-')}"
    package = f"podctl_{directory.name}"
    assert (directory / "src" / package / "py.typed").exists()
    groups = settings["entry-points"]
    assert set(groups) <= GROUPS[family]
    for names in groups.values():
        assert all(target.startswith(f"{package}.") for target in names.values())
        assert family in ("fetch", "isolators") or name in names


@pytest.mark.parametrize("directory", PLUGINS, ids=lambda path: path.name)
def test_the_hint_for_a_missing_name_leads_to_the_distribution_that_has_it(directory: Path) -> None:
    from podctl.plugins.families import BY_GROUP

    settings = project(directory / "pyproject.toml")
    for group, names in settings["entry-points"].items():
        for name in names:
            assert BY_GROUP[group].package(name) == settings["name"]
