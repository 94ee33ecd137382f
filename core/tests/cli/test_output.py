"""What is printed cannot steer a terminal, and what a pipe gets is the plain result."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podctl.cli import output

HOSTILE = "a\x1b[31mred\x07\x9b2J\u202egnp.exe\u2066\u200b\r\n\x00\udcff"


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def is_dangerous(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.category(
        character
    ) == "Cf" and unicodedata.bidirectional(character) in (
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "L", "R", "AL",
    )  # fmt: skip


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "L"])))
def test_escaped_text_holds_nothing_a_terminal_obeys(text: str) -> None:
    assert not list(filter(is_dangerous, output.escape(text)))


def test_the_check_above_sees_what_it_should_see() -> None:
    assert len(list(filter(is_dangerous, HOSTILE))) >= 8


def test_ordinary_text_of_any_language_stays() -> None:
    for text in ("plain text", "äöü ß é", "日本語", "עברית", "emoji 🐧"):
        assert output.escape(text) == text


def test_escapes_name_the_character() -> None:
    assert output.escape(HOSTILE) == (
        "a\\x1b[31mred\\x07\\x9b2J\\u202egnp.exe\\u2066\\u200b\\r\\n\\x00\\udcff"
    )


def test_results_are_escaped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    output.out("one\x1b[2J\ntwo")
    assert stream.getvalue() == "one\\x1b[2J\ntwo\n"


def test_results_reach_a_pipe_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    output.out("one\x1b[2J\ntwo")
    assert capsys.readouterr().out == "one\x1b[2J\ntwo\n"


def test_results_survive_a_narrow_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.out("é and \udcff")
    output.sys.stdout.flush()
    assert raw.getvalue() == b"\\xe9 and \\udcff\n"


def test_a_message_is_one_line_wherever_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("run", "name \x1b]0;x\x07\nsecond")
    assert capsys.readouterr().err == "run: name \\x1b]0;x\\x07\\nsecond\n"


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_only_where_it_is_welcome(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool
) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    output.say("run", "failed", error=True)
    assert ("\x1b" in stream.getvalue()) is coloured


def test_no_colour_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("run", "failed", error=True)
    assert capsys.readouterr().err == "run: failed\n"


def test_columns_are_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    output.table([("a", "bbbb", ""), ("ccc", "d", "e")], ("X", "Y", "Z"))
    assert capsys.readouterr().out == "X    Y     Z\na    bbbb\nccc  d     e\n"


def test_a_cell_cannot_start_a_new_row_or_column(capsys: pytest.CaptureFixture[str]) -> None:
    output.table([("a\nb\tc", "d")])
    assert capsys.readouterr().out == "a\\nb\\tc  d\n"


def test_json_is_ascii_and_compact_unless_pretty(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": HOSTILE, "n": [1]}
    output.emit_json(value)
    compact = capsys.readouterr().out
    assert compact.isascii()
    assert "\x1b" not in compact
    assert json.loads(compact) == value
    output.emit_json(value, pretty=True)
    assert json.loads(capsys.readouterr().out) == value
