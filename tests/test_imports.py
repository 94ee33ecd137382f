"""Imports go down only: core's packages, and plugins that know nothing but the front door."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
CORE = ROOT / "core" / "src" / "podctl"

BASE = {"errors", "sys", "model"}
#: package of core -> packages of core it may import, besides itself
ALLOWED = {
    "errors": set(),
    "sys": {"errors"},
    "model": {"errors"},
    "http": {"model", "errors"},
    "api": {"model", "errors"},
    "plugins": {"api"} | BASE,
    "store": BASE,
    "trust": BASE,
    "config": BASE,
    "images": {"store", "trust", "config", "plugins"} | BASE,
    "pods": {"images", "store", "trust", "config", "plugins"} | BASE,
    "testing": {"api", "cli", "config", "http", "images", "plugins", "pods", "store", "trust"}
    | BASE,
    "cli": {"api", "config", "images", "plugins", "pods", "store", "trust"} | BASE,
    "__main__": {"cli"},
}
#: what a plugin distribution may import of podctl
FRONT_DOOR = {"api", "http", "sys", "model", "errors"}

#: third-party module -> the modules of core that may import it
THIRD_PARTY = {
    # The command reference is made from the commands themselves.
    "click": {"cli", "testing.commanddocs"},
    "pluggy": {"api", "plugins"},
    "requests": {"http"},
    "urllib3": {"http"},
    "stevedore": {"plugins.installed"},
    "importlib.metadata": {"plugins.installed"},
}


class Import:
    """One imported module, and where."""

    def __init__(self, source: str, target: str, line: int, *, top: bool, typing: bool) -> None:
        self.source = source
        self.target = target
        self.line = line
        self.top = top
        self.typing = typing

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


class Collector(ast.NodeVisitor):
    """Finds the imports of a module, at its top, in functions and under TYPE_CHECKING."""

    def __init__(self, name: str, package: bool) -> None:
        self.name = name
        self.parent = name if package else name.rpartition(".")[0]
        self.found: list[Import] = []
        self._depth = 0
        self._typing = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def visit_If(self, node: ast.If) -> None:
        guarded = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        self._typing += guarded
        for child in node.body:
            self.visit(child)
        self._typing -= guarded
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parents = self.parent.split(".")
            base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
        for alias in node.names:
            # `from podctl.sys import caps` imports podctl.sys.caps; `caps` may be a function too.
            self._add(f"{base}.{alias.name}", node.lineno)

    def _add(self, target: str, line: int) -> None:
        self.found.append(
            Import(self.name, target, line, top=not self._depth, typing=bool(self._typing))
        )


def imports_of(path: Path, source: Path) -> list[Import]:
    parts = list(path.relative_to(source).with_suffix("").parts)
    package = parts[-1] == "__init__"
    collector = Collector(".".join(parts[:-1] if package else parts), package)
    collector.visit(ast.parse(path.read_text(), str(path)))
    return collector.found


def all_imports(source: Path) -> Iterator[Import]:
    for path in sorted(source.rglob("*.py")):
        yield from imports_of(path, source)


def part(module: str) -> str:
    """The part of core a module belongs to: `podctl.sys.caps` -> `sys`."""
    return (module.split(".") + [""])[1]


def core_faults(imports: Iterator[Import]) -> list[str]:
    return [
        str(one)
        for one in imports
        if one.target.startswith("podctl.")
        and part(one.target) in ALLOWED
        and part(one.source) not in ("", part(one.target))
        and part(one.target) not in ALLOWED[part(one.source)]
    ]


def plugin_faults(package: str, imports: Iterator[Import]) -> list[str]:
    return [
        str(one)
        for one in imports
        if (one.target.startswith("podctl_") and one.target.split(".")[0] != package)
        or (one.target.split(".")[0] == "podctl" and part(one.target) not in FRONT_DOOR)
    ]


def third_party_faults(imports: Iterator[Import]) -> list[str]:
    return [
        str(one)
        for one in imports
        for name, users in THIRD_PARTY.items()
        if f"{one.target}.".startswith(f"{name}.")
        and not one.typing
        and not any(f"{one.source}.".startswith(f"podctl.{user}.") for user in users)
    ]


def eager_faults(imports: Iterator[Import]) -> list[str]:
    """What the command line's frame imports at its top, and with it every command pays for."""
    light = {"cli", "errors", "__version__"}
    frame = {f"podctl.cli.{name}" for name in ("main", "context", "options", "output", "report")}
    return [
        str(one)
        for one in imports
        if one.source in frame
        and one.target.split(".")[0] == "podctl"
        and one.top
        and not one.typing
        and part(one.target) not in light
    ]


def plugins() -> list[Path]:
    return sorted((ROOT / "plugins").glob("*/src/podctl_*"))


def test_every_part_of_core_has_its_rule() -> None:
    parts = {path.stem for path in CORE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__init__", "py", "__pycache__"} == set(ALLOWED)


def test_core_imports_downwards_only() -> None:
    assert core_faults(all_imports(ROOT / "core" / "src")) == []


def test_third_party_packages_stay_in_their_rooms() -> None:
    assert third_party_faults(all_imports(ROOT / "core" / "src")) == []


def test_the_frame_of_the_command_line_stays_light() -> None:
    assert eager_faults(all_imports(ROOT / "core" / "src")) == []


@pytest.mark.parametrize("package", plugins(), ids=lambda path: path.name)
def test_plugins_know_the_front_door_only(package: Path) -> None:
    assert plugin_faults(package.name, all_imports(package.parent)) == []


@pytest.mark.parametrize("package", plugins(), ids=lambda path: path.name)
def test_a_plugins_package_imports_nothing_by_itself(package: Path) -> None:
    found = imports_of(package / "__init__.py", package.parent)
    assert [str(one) for one in found if not one.target.startswith("__future__")] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("podctl/sys/x.py", "import podctl.model.plan"),
        ("podctl/model/x.py", "from podctl import store"),
        ("podctl/store/x.py", "def f():\n    from podctl.pods import run"),
        ("podctl/images/x.py", "from ..pods import run"),
        ("podctl/errors.py", "from podctl.sys import caps"),
        ("podctl/pods/x.py", "if TYPE_CHECKING:\n    from podctl.cli.context import Globals"),
    ],
)
def test_an_upward_import_is_seen(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert len(core_faults(all_imports(tmp_path))) == 1


def test_the_other_checks_see_what_they_should(tmp_path: Path) -> None:
    path = tmp_path / "podctl" / "cli" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text("import stevedore.driver\nfrom podctl.store import Store\n")
    assert len(third_party_faults(all_imports(tmp_path))) == 1
    path = path.rename(path.with_name("main.py"))
    assert len(eager_faults(all_imports(tmp_path))) == 1
    path.write_text("import podctl_b.hooks\nfrom podctl.pods import run\nimport podctl.sys.caps\n")
    assert len(plugin_faults("podctl_a", all_imports(tmp_path))) == 2
