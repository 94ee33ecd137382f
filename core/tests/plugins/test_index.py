"""The index: fresh or rebuilt, ours or ignored, and never believed beyond its form."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from podctl.plugins import index, installed
from podctl.plugins.provider import Provider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[..., Path]


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often the installed distributions are really read."""
    calls: list[int] = []
    real = installed.scan

    def counted() -> list[Provider]:
        calls.append(1)
        return real()

    monkeypatch.setattr(installed, "scan", counted)
    return calls


def names() -> set[str]:
    return {provider.name for provider in index.providers()[0]}


def rewrite(where: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = where / index.file_name()
    content = json.loads(file.read_text())
    changed = change(content)
    file.write_text(json.dumps(content if changed is None else changed))


@pytest.fixture
def planted(install: Install, index_directory: Path) -> Path:
    """A fresh index, changed to offer a flavor nobody installed."""
    index.providers()
    rewrite(
        index_directory,
        lambda content: content["providers"].append(
            ["podctl.stage1", "planted", "evil", "flavor", "evil", "1"]
        ),
    )
    return index_directory / index.file_name()


def test_the_second_look_reads_no_metadata(
    install: Install, index_directory: Path, scans: list[int]
) -> None:
    install("acme", {"podctl.stage1": {"x": "a:b"}})
    first, fresh = index.providers()
    assert (fresh, len(scans)) == (False, 1)
    second, fresh = index.providers()
    assert (fresh, len(scans)) == (True, 1)
    assert first == second
    assert all(isinstance(provider, Provider) for provider in second)


def test_a_fresh_index_needs_no_importlib_metadata(index_directory: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from podctl.plugins import index;"
        f"index.directory = lambda: {str(index_directory)!r};"
        "fresh = index.providers()[1];"
        "print(fresh, 'importlib.metadata' in sys.modules, 'stevedore' in sys.modules)"
    )
    command = [sys.executable, "-I", "-S", "-c", f"sys_path = {sys.path!r};"
               "import sys; sys.path[:] = sys_path;" + code]  # fmt: skip
    said = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in "12"
    ]
    assert said == ["False True False\n", "True False False\n"]


def test_installing_upgrading_and_removing_are_noticed(
    install: Install, index_directory: Path
) -> None:
    assert "x" not in names()
    info = install("acme", {"podctl.stage1": {"x": "a:b"}})
    assert "x" in names()
    shutil.rmtree(info)
    info = install("acme", {"podctl.stage1": {"y": "a:b"}}, version="1.1")
    assert {"y"} == {"x", "y"} & names()
    shutil.rmtree(info)
    assert not {"x", "y"} & names()


def test_entry_points_rewritten_in_place_are_noticed(
    install: Install, index_directory: Path
) -> None:
    info = install("acme", {"podctl.stage1": {"x": "a:b"}})
    assert "x" in names()
    (info / "entry_points.txt").write_text("[podctl.stage1]\nlonger = a:b\n")
    assert "longer" in names()
    state = os.stat(info / "entry_points.txt")
    (info / "entry_points.txt").write_text("[podctl.stage1]\nlongez = a:b\n")
    os.utime(info / "entry_points.txt", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert "longez" in names()


def test_another_search_path_is_another_installation(
    install: Install, index_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    install("acme", {"podctl.stage1": {"x": "a:b"}}, where=elsewhere)
    assert "x" not in names()
    monkeypatch.syspath_prepend(str(elsewhere))
    assert "x" in names()


def test_installations_do_not_overwrite_each_others_index(
    index_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.providers()
    with monkeypatch.context() as elsewhere:
        elsewhere.syspath_prepend(str(tmp_path / "another"))
        assert not index.providers()[1]
    assert index.providers()[1]


def test_a_fresh_index_of_ours_is_believed(planted: Path) -> None:
    # The control of every test below: the plant works where nothing is wrong with the file.
    assert "planted" in names()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
@pytest.mark.parametrize("which", ["file", "directory"])
def test_an_index_of_somebody_else_is_ignored(planted: Path, which: str) -> None:
    os.chown(planted if which == "file" else planted.parent, 65534, -1)
    assert "planted" not in names()


@pytest.mark.parametrize("which", ["file", "directory"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_an_index_others_can_write_is_ignored(planted: Path, which: str, mode: int) -> None:
    target = planted if which == "file" else planted.parent
    target.chmod(target.stat().st_mode | mode)
    assert "planted" not in names()


@pytest.mark.parametrize("which", ["file", "directory"])
def test_an_index_behind_a_link_is_ignored(planted: Path, which: str) -> None:
    target = planted if which == "file" else planted.parent
    moved = target.with_name("moved")
    target.rename(moved)
    target.symlink_to(moved)
    assert "planted" not in names()


def test_a_pipe_in_place_of_the_index_does_not_block(planted: Path) -> None:
    planted.unlink()
    os.mkfifo(planted)
    assert "planted" not in names()


@pytest.mark.parametrize(
    "provider",
    [
        ["podctl.unheard-of", "planted", "evil", "flavor", "evil", "1"],
        ["podctl.stage1", "planted", "evil", "flavor", "evil"],
        ["podctl.stage1", "planted", "evil", 7, "evil", "1"],
        ["podctl.stage1", "", "evil", "flavor", "evil", "1"],
        ["podctl.stage1", "planted", "../evil", "flavor", "evil", "1"],
        ["podctl.stage1", "planted", "", "flavor", "evil", "1"],
        ["podctl.stage1", "planted", "evil", "a b", "evil", "1"],
        "planted",
        None,
    ],
)
def test_an_index_of_the_wrong_form_is_rebuilt(
    index_directory: Path, scans: list[int], provider: object
) -> None:
    index.providers()
    rewrite(index_directory, lambda content: content["providers"].append(provider))
    assert "planted" not in names()
    assert len(scans) == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"fingerprint": 1}', "[" * 100_000, "\x00", "\udcff"]
)
def test_a_damaged_index_is_rebuilt(index_directory: Path, text: str) -> None:
    good = index.providers()[0]
    (index_directory / index.file_name()).write_text(text, errors="surrogateescape")
    assert index.providers() == (good, False)
    assert index.providers() == (good, True)


def test_an_index_that_cannot_be_written_is_done_without(
    index_directory: Path, install: Install
) -> None:
    install("acme", {"podctl.stage1": {"x": "a:b"}})
    index_directory.parent.mkdir(parents=True)
    index_directory.write_text("a file where the directory should be")
    assert "x" in names()


def test_the_index_is_replaced_as_a_whole(index_directory: Path, install: Install) -> None:
    index.providers()
    with open(index_directory / index.file_name()) as old:
        install("acme", {"podctl.stage1": {"x": "a:b"}})
        index.providers()
        assert "acme" not in old.read()
    assert [file.name for file in index_directory.iterdir()] == [index.file_name()]


def test_roots_index_is_never_in_a_place_the_caller_chooses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/mallory/.cache")
    monkeypatch.setenv("HOME", "/home/mallory")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert index.directory() == "/var/cache/podctl"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOME": "/home/u"}, "/home/u/.cache/podctl"),
        ({"HOME": "/home/u", "XDG_CACHE_HOME": "/c"}, "/c/podctl"),
        ({"HOME": "/home/u", "XDG_CACHE_HOME": "relative"}, "/home/u/.cache/podctl"),
        ({"HOME": ""}, None),
        ({}, None),
    ],
)
def test_a_users_index_is_in_their_cache(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert index.directory() == expected
