"""What a generated unit says, and that no argument can say more."""

from __future__ import annotations

import pytest

from podctl.errors import UsageError
from podctl.pods.unitfile import Raw, Unit, command_line


def test_plain_words_stay_as_they_are() -> None:
    assert command_line(("/usr/bin/podctl", "run", "--net=none", "a.example/b:1")) == (
        "/usr/bin/podctl run --net=none a.example/b:1"
    )


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("", '""'),
        ("two words", '"two words"'),
        (";", '";"'),
        ('say "x"', '"say \\"x\\""'),
        ("it's", '"it\'s"'),
        ("$HOME ${A}", '"$$HOME $${A}"'),
        ("100%", '"100%%"'),
        ("a\\b", '"a\\\\b"'),
        ("line\nExecStartPre=/bin/evil", '"line\\nExecStartPre=/bin/evil"'),
    ],
)
def test_what_means_something_to_systemd_is_written_so_that_it_does_not(
    word: str, written: str
) -> None:
    assert command_line(("/bin/x", word)) == f"/bin/x {written}"


def test_a_specifier_of_ours_is_resolved_by_systemd() -> None:
    assert command_line(("/bin/x", Raw("--file=%t/%N"))) == "/bin/x --file=%t/%N"


def test_control_characters_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot stand in a unit"):
        command_line(("/bin/x", "a\x1b[31m"))


def test_a_description_is_one_line() -> None:
    text = Unit("a\nExecStart=/bin/evil 5% $x", ("/bin/x",)).text()
    assert "Description=a\\nExecStart=/bin/evil 5%% $x\n" in text
    assert text.count("\nExecStart=") == 1


def test_limits_are_written_where_there_are_some() -> None:
    plain = Unit("x", ("/bin/x",)).text()
    limited = Unit("x", ("/bin/x",), memory="5000", cpu_percent=150, tasks=9).text()
    for line in ("MemoryMax=5000\n", "CPUQuota=150%\n", "TasksMax=9\n"):
        assert line in limited
        assert line.split("=")[0] not in plain


def test_who_cannot_tell_is_not_waited_for() -> None:
    assert "Type=exec\n" in Unit("x", ("/bin/x",), notifies=False).text()
    told = Unit("x", ("/bin/x",), hears_apps=True).text()
    assert "Type=notify\nNotifyAccess=all\n" in told
