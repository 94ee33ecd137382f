"""Options follow pflag's grammar: explicit booleans, values only after `=` where optional."""

from __future__ import annotations

import click
import pytest

from podctl.cli.options import flag, normalise, optional_value


@click.command()
@flag("--quiet")
@flag("--pretty", default=True)
@optional_value("--net", bare="default")
@optional_value("-w", "--wait", bare="true")
@click.option("--name")
@click.option("--pair", nargs=2)
@click.option("--plain", is_flag=True)
@click.argument("words", nargs=-1)
def command(**values: object) -> dict[str, object]:
    """Return what click made of the arguments."""
    return values


def parse(*arguments: str, interspersed: bool = True) -> dict[str, object]:
    command.allow_interspersed_args = interspersed
    words = normalise(command.params, arguments, interspersed=interspersed)
    with command.make_context("test", words) as context:
        return dict(context.params)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], False),
        (["--quiet"], True),
        (["--quiet=true"], True),
        (["--quiet=false"], False),
        (["--quiet=1"], True),
        (["--quiet", "--quiet=false"], False),
    ],
)
def test_a_flag_takes_an_explicit_value(arguments: list[str], expected: bool) -> None:
    assert parse(*arguments)["quiet"] is expected


def test_a_flag_that_is_on_can_be_switched_off() -> None:
    assert parse()["pretty"] is True
    assert parse("--pretty=false")["pretty"] is False


def test_a_plain_click_flag_takes_an_explicit_value_too() -> None:
    assert parse("--plain")["plain"] is True
    assert parse("--plain=true")["plain"] is True
    assert parse("--plain=false")["plain"] is False


def test_a_flag_refuses_what_is_no_boolean() -> None:
    with pytest.raises(click.UsageError):
        parse("--quiet=maybe")


def test_an_optional_value_never_swallows_the_next_word() -> None:
    values = parse("--net", "image")
    assert values["net"] == "default"
    assert values["words"] == ("image",)
    # What click does with the same declaration when left alone.
    naive = click.Command(
        "naive",
        params=[
            click.Option(["--net"], is_flag=False, flag_value="default"),
            click.Argument(["words"], nargs=-1),
        ],
    )
    with naive.make_context("naive", ["--net", "image"]) as context:
        assert context.params["net"] == "image"


def test_an_optional_value_stands_after_an_equals_sign() -> None:
    assert parse("--net=none", "image")["net"] == "none"
    assert parse("--net=")["net"] == ""


def test_a_short_optional_value_can_stand_alone() -> None:
    values = parse("-w", "uuid")
    assert values["wait"] == "true"
    assert values["words"] == ("uuid",)


def test_values_of_other_options_are_left_alone() -> None:
    assert parse("--name", "--net")["name"] == "--net"
    assert parse("--name=--quiet")["name"] == "--quiet"
    assert parse("--pair", "--net", "--quiet")["pair"] == ("--net", "--quiet")


def test_words_after_two_dashes_are_left_alone() -> None:
    assert parse("image", "--", "--net", "--quiet=false")["words"] == (
        "image",
        "--net",
        "--quiet=false",
    )


def test_without_interspersing_all_after_the_first_argument_is_left_alone() -> None:
    values = parse("--net", "image", "--net", "--quiet", interspersed=False)
    assert values["words"] == ("image", "--net", "--quiet")
    assert values["quiet"] is False


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-it", "x"], ["-i", "true", "-t", "true", "x"]),
        (["-ti=false", "x"], ["-t", "true", "-i", "false", "x"]),
        (["-ie", "A=1", "x"], ["-i", "true", "-e", "A=1", "x"]),
        (["-ieA=1", "x"], ["-i", "true", "-eA=1", "x"]),
        (["-iz", "x"], ["-i", "true", "-z", "x"]),
    ],
)
def test_short_options_may_share_a_dash(words: list[str], expected: list[str]) -> None:
    @click.command
    @flag("-i", "--interactive")
    @flag("-t", "--tty")
    @click.option("-e", "--env")
    def command() -> None: ...

    assert normalise(command.params, words, interspersed=False) == expected
