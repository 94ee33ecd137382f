"""Distributions that exist for one test: metadata and modules in a directory on sys.path."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from podctl.plugins import index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Install = Callable[..., Path]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty site directory in front of sys.path; what is imported from it is forgotten."""
    directory = tmp_path / "site"
    directory.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(directory))
    # Byte-code of a module that is rewritten within one second would be taken for fresh.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    _forget_entry_points()
    yield directory
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    _forget_entry_points()


def _forget_entry_points() -> None:
    # stevedore keeps what it found for the life of the process.
    extension = sys.modules.get("stevedore.extension")
    if extension is not None:
        extension.ExtensionManager.ENTRY_POINT_CACHE.clear()
        sys.modules["stevedore._cache"]._c._internal.clear()


@pytest.fixture
def install(site: Path) -> Install:
    """Install a distribution: name, {group: {name: target}}, {module: source}."""

    def call(
        distribution: str,
        entry_points: dict[str, dict[str, str]],
        modules: dict[str, str] | None = None,
        version: str = "1.0",
        where: Path | None = None,
    ) -> Path:
        where = where or site
        info = where / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = []
        for group, names in entry_points.items():
            lines += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for name, source in (modules or {}).items():
            (where / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return info

    return call


@pytest.fixture
def index_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the index of this test is."""
    where = tmp_path / "cache" / "podctl"
    monkeypatch.setattr(index, "directory", lambda: str(where))
    return where
