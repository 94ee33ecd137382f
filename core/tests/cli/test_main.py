"""From the words of a command line to a command, its global flags and its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click
import pytest

from podctl.cli import main, version
from podctl.cli.context import INSECURE_OPTIONS, Globals, parse_insecure
from podctl.errors import NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Globals]:
    """Replace what `version` does; the global flags of each call are kept."""
    calls: list[Globals] = []

    @click.pass_obj
    def record(options: Globals, **values: object) -> None:
        calls.append(options)

    monkeypatch.setattr(version.command, "callback", record)
    return calls


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(**values: object) -> None:
        raise error

    monkeypatch.setattr(version.command, "callback", fail)


@pytest.mark.parametrize("arguments", [["--debug", "version"], ["version", "--debug"]])
def test_global_flags_stand_before_or_after_the_command(
    seen: list[Globals], arguments: list[str]
) -> None:
    assert main.run(arguments) == 0
    assert seen[0].debug is True


def test_every_global_flag_reaches_the_command(seen: list[Globals]) -> None:
    before = ["--dir=/data", "--system-config", "/s", "--insecure-options=image"]
    before += ["--insecure-options=seccomp"]
    after = ["--local-config=/l", "--user-config=/u", "--trust-keys-from-https"]
    assert main.run([*before, "version", *after, "--insecure-options=http,tls"]) == 0
    options = seen[0]
    assert (options.dir, options.system_config) == ("/data", "/s")
    assert (options.local_config, options.user_config) == ("/l", "/u")
    assert options.trust_keys_from_https is True
    assert options.insecure == {"image", "seccomp", "http", "tls"}


def test_the_later_global_flag_wins(seen: list[Globals]) -> None:
    main.run(["--dir=/one", "--debug", "version", "--dir=/two", "--debug=false"])
    assert seen[0].dir == "/two"
    assert seen[0].debug is False


def test_flags_of_one_call_do_not_reach_the_next(seen: list[Globals]) -> None:
    main.run(["--debug", "--insecure-options=all", "version"])
    main.run(["version"])
    assert seen[1].debug is False
    assert seen[1].insecure == frozenset()


def test_a_relative_data_directory_becomes_absolute(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    options = Globals()
    options.dir = "data"
    assert options.data_dir == f"{tmp_path}/data"


@pytest.mark.parametrize("name", INSECURE_OPTIONS)
def test_insecure_options_are_resolved(name: str) -> None:
    assert parse_insecure(name) == INSECURE_OPTIONS[name]
    assert not parse_insecure(name) & {"all", "all-run", "all-fetch", "none"}


def test_an_unknown_insecure_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match='unknown value "everything"'):
        parse_insecure("image,everything")
    assert main.run(["--insecure-options=everything", "version"]) == 254
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("word", ["vers", "versio", "version", "v"])
def test_a_unique_prefix_names_a_command(seen: list[Globals], word: str) -> None:
    assert main.run([word]) == 0
    assert seen[0].command == "version"


@pytest.mark.parametrize(
    ("word", "command"), [("stat", "status"), ("t", "trust"), ("l", "list"), ("k", "kill")]
)
def test_a_prefix_unique_among_rkts_commands_stays_so(
    seen: list[Globals], monkeypatch: pytest.MonkeyPatch, word: str, command: str
) -> None:
    monkeypatch.setitem(main.COMMANDS, command, ("version", ""))
    assert main.run([word]) == 0
    assert seen[0].command == command


def test_the_whole_name_wins_over_longer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(main.COMMANDS, "versions", ("version", ""))
    assert main.run(["version"]) == 0


def test_an_ambiguous_prefix_lists_the_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["st"]) == 254
    assert capsys.readouterr().err == (
        "podctl: command \"st\" is ambiguous: status, stop (see 'podctl --help')\n"
    )


def test_an_unknown_command_suggests_a_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["versoin"]) == 254
    assert "did you mean version?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["image"], ["--debug"]])
def test_no_command_shows_help_on_stderr_and_exits_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Commands:" in captured.err


@pytest.mark.parametrize(
    "arguments", [["version", "--nope"], ["version", "word"], ["--nope"], ["version", "--format=x"]]
)
def test_usage_errors_are_one_line_and_254(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main.run(arguments) == 254
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "--help" in captured.err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"], ["image", "--help"]])
def test_help_lists_commands_without_importing_them(podctl: Run, arguments: list[str]) -> None:
    code = (
        "import sys; from podctl.cli.main import run; code = run(sys.argv[1:]);"
        "print(sorted(m for m in sys.modules if m.startswith('podctl.cli.')), file=sys.stderr);"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Commands:" in done.stdout
    imported = {"podctl.cli." + name for name in ("main", "context", "options", "output", "report")}
    assert eval(done.stderr) == sorted(imported)


def commands() -> list[list[str]]:
    top = [[name] for name, (module, _) in main.COMMANDS.items() if module]
    return [*top, *([group, name] for group, table in main.GROUPS.items() for name in table)]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_of_the_table_has_help(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main.run([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: podctl {' '.join(words)}")
    assert "--insecure-options" not in shown
    assert main.run(["help", *words]) == 0
    assert capsys.readouterr().out == shown


def test_modules_of_the_table_are_named_after_their_command() -> None:
    for group, table in {"": main.COMMANDS, **main.GROUPS}.items():
        for name, (module, summary) in table.items():
            assert module.removeprefix(f"{group}_") in ("", name.replace("-", "_"))
            assert summary
            assert not summary.endswith(".")


def test_an_expected_failure_is_one_line_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, NotFound('pod "x" does not exist', hint="see podctl list"))
    assert main.run(["version"]) == 254
    assert capsys.readouterr().err == 'version: pod "x" does not exist (see podctl list)\n'


def test_the_operating_systems_refusal_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, PermissionError(13, "Permission denied", "/x/\x1by"))
    assert main.run(["version"]) == 254
    assert capsys.readouterr().err == "version: /x/\\x1by: Permission denied\n"


def test_a_bug_is_one_line_unless_debug_asks_for_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, ZeroDivisionError("oops"))
    assert main.run(["version"]) == 254
    short = capsys.readouterr().err
    assert (
        short == "version: unexpected ZeroDivisionError: oops (run with --debug for a traceback)\n"
    )
    assert main.run(["version", "--debug"]) == 254
    long = capsys.readouterr().err
    assert "Traceback" in long
    assert all(line.startswith("version: ") for line in long.splitlines())


def test_a_commands_result_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version.command, "callback", lambda **values: 7)
    assert main.run(["version"]) == 7


def test_a_real_interrupt_ends_with_130() -> None:
    code = (
        "import signal, sys; from podctl.cli import main, version;"
        "version.command.callback = lambda **v: (print('ready', flush=True), signal.pause());"
        "sys.exit(main.run(['version']))"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == "version: interrupted\n"


def test_a_reader_that_leaves_ends_the_command_quietly(podctl: Run) -> None:
    receive, send = os.pipe()
    os.close(receive)
    try:
        done = podctl("version", stdout=send)
    finally:
        os.close(send)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_broken_pipe_elsewhere_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, BrokenPipeError(32, "Broken pipe"))
    assert main.run(["version"]) == 254
    assert capsys.readouterr().err == "version: Broken pipe\n"


def test_results_that_cannot_be_written_are_a_failure(podctl: Run) -> None:
    with open("/dev/full", "w") as full:
        done = podctl("version", stdout=full)
    assert done.returncode == 254
    assert done.stderr == "podctl: standard output: No space left on device\n"


@pytest.mark.parametrize(("closing", "code"), [(">&-", 254), ("<&-", 0), ("2>&-", 0)])
def test_closed_descriptors_are_survived(closing: str, code: int) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" -I -m podctl version {closing}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code
    if code:
        assert done.stderr == "podctl: standard output: Bad file descriptor\n"


def test_a_message_on_a_terminal_is_escaped(terminal: Callable[..., str]) -> None:
    shown = terminal("ver\x1b]0;owned\x07", NO_COLOR="1")
    assert "\x1b" not in shown
    assert "\\x1b]0;owned\\x07" in shown


def test_the_interpreter_is_isolated_under_root(tmp_path: object) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    code = "import sys; print('planted'); sys.exit(3)"
    with open(f"{tmp_path}/click.py", "w") as file:
        file.write(code)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "podctl", "version"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "planted" not in done.stdout
    # The plant works where nothing isolates the interpreter.
    control = [sys.executable, "-c", "import click"]
    planted = subprocess.run(control, env=environment, capture_output=True, text=True, check=False)
    assert (planted.returncode, planted.stdout) == (3, "planted\n")


def test_the_version_flag_answers_without_click(podctl: Run) -> None:
    import podctl as package

    assert podctl("--version").stdout == f"podctl {package.__version__}\n"
    assert import_module("podctl.cli.version").APPC_VERSION in podctl("version").stdout
