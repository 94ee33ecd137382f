"""The command reference is what the commands declare, and nothing is missing from it."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from podctl.cli.context import INSECURE_OPTIONS, global_options
from podctl.model.settings import ALIASES, APP_FLAGS
from podctl.testing import commanddocs

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "commands.md"
COMMANDS = list(commanddocs.commands())
IDS = [name for name, _ in COMMANDS]


def section(name: str) -> str:
    """What the page says of one command."""
    return PAGE.read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == commanddocs.page(), "run script/command-reference"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=IDS)
def test_every_flag_of_a_command_is_in_its_section(name: str, command: click.Command) -> None:
    text = section(name)
    everywhere = {option.opts[0] for option in global_options()}
    for option in command.params:
        if isinstance(option, click.Option) and option.opts[0] not in everywhere:
            assert f"`{option.opts[0]}" in text


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=IDS)
def test_every_flag_shown_says_what_it_does(name: str, command: click.Command) -> None:
    shown = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    assert [option.opts[0] for option in shown if not option.help] == []


def test_every_global_option_and_insecure_value_is_on_the_page() -> None:
    text = section("Global options")
    assert all(f"`{option.opts[0]}" in text for option in global_options())
    assert list(commanddocs.INSECURE) == list(INSECURE_OPTIONS)


def test_every_flag_of_an_image_is_on_the_page() -> None:
    assert set(commanddocs.APP_FLAGS) == {*APP_FLAGS, "--volume"}
    valued = {flag for flag, (value, _) in commanddocs.APP_FLAGS.items() if value}
    assert valued == {*(flag for flag, wants in APP_FLAGS.items() if wants), "--volume"}
    text = section("Flags of an image")
    assert all(f"`{flag}" in text for flag in (*APP_FLAGS, *ALIASES))
