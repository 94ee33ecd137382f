"""The completion script, run by a real bash."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from podctl.cli import main
from podctl.cli.completion import bash

if TYPE_CHECKING:
    from pathlib import Path

FAKE = """#!/bin/sh
case "$*" in
'list --full --no-legend') printf 'uuid-one app\\n         second-app\\nuuid-two app\\n' ;;
'image list --full --no-legend --fields=id') printf 'sha512-aa\\nsha512-bb\\n' ;;
esac
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("completion")
    (directory / "podctl").write_text(FAKE)
    (directory / "podctl").chmod(0o755)
    path = directory / "script"
    path.write_text(bash())
    return path


def complete(script: Path, *words: str) -> list[str]:
    code = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _podctl; echo "${COMPREPLY[*]}"'
    done = subprocess.run(
        ["bash", "--norc", "-u", "-c", code, str(script), str(script.with_name("podctl")), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_are_completed(script: Path) -> None:
    assert complete(script, "st") == ["status", "stop", "stats"]
    assert complete(script, "") == list(main.COMMANDS)
    assert complete(script, "image", "") == list(main.IMAGE_COMMANDS)
    assert complete(script, "image", "r") == ["rm", "render"]
    assert complete(script, "app", "") == list(main.APP_COMMANDS)
    assert complete(script, "app", "s") == ["sandbox", "start", "stop", "status"]


def test_options_of_the_command_and_global_ones_are_completed(script: Path) -> None:
    assert complete(script, "version", "--f") == ["--format"]
    assert complete(script, "version", "--insec") == ["--insecure-options"]
    assert complete(script, "config", "--p") == ["--pretty-print"]
    assert "--format" not in complete(script, "config", "--")
    assert complete(script, "--d") == ["--debug", "--dir"]


@pytest.mark.parametrize("before", [["--dir", "/x"], ["--dir", "=", "/x"], ["--debug"]])
def test_values_of_global_options_are_not_taken_for_the_command(
    script: Path, before: list[str]
) -> None:
    assert complete(script, *before, "image", "ver") == ["verify"]


def test_pods_and_images_are_completed(script: Path) -> None:
    assert complete(script, "stop", "") == ["uuid-one", "uuid-two"]
    assert complete(script, "status", "--wait", "uuid-t") == ["uuid-two"]
    assert complete(script, "image", "rm", "sha512-b") == ["sha512-bb"]


def test_other_arguments_are_left_to_bash(script: Path) -> None:
    assert complete(script, "fetch", "./") == []


def test_other_shells_are_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", "tcsh"]) == 254
    assert 'no completion for shell "tcsh" (supported: bash)' in capsys.readouterr().err
