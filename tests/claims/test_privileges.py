"""D8: every command as root, as a member of each group, and as somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from privilege_world import ARGUMENTS, COLUMNS, PAGE, documented

from podctl.testing import commanddocs

if TYPE_CHECKING:
    from home import Done
    from privilege_world import Scene

pytestmark = pytest.mark.root

TABLE = documented()
PEOPLE = list(COLUMNS.values())


def test_d8_the_documented_table_is_of_all_commands_there_are() -> None:
    names = [name for name, _ in commanddocs.commands()]
    assert sorted(TABLE) == sorted(names)
    assert sorted(ARGUMENTS) == sorted(names)


def test_d8_the_page_has_a_column_for_everybody() -> None:
    assert f"| command | {' | '.join(COLUMNS)} |" in PAGE.read_text()


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("command", TABLE)
def test_d8_who_may_call_what(scene: Scene, command: str, person: str) -> None:
    expected = TABLE[command][person]
    words = scene.words(f"{command} {ARGUMENTS[command]}", person, fresh=expected == "yes")
    before = scene.protected()
    done = scene.by(person, words)
    if expected == "yes":
        assert answered(command, person, done), done
    else:
        assert done.returncode == 254, done
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"{command}: "), done
        assert expected in last, done
        assert done.stdout == "", done
    if expected != "yes" or person == "other":
        assert scene.protected() == before


def answered(command: str, person: str, done: Done) -> bool:
    """Whether a command has done its work."""
    if command == "doctor" and person != "root":
        # It has found out that this caller can run no pod.
        return done.returncode == 254 and "root" in done.stdout and done.stderr == ""
    return done.returncode == 0


def test_d8_members_are_told_no_state_rather_than_a_wrong_one(scene: Scene) -> None:
    (sandbox,) = scene.words("{sandbox}", "root", fresh=True)
    assert "box running" in " ".join(scene.by("root", ["app", "list", sandbox]).stdout.split())
    seen = scene.by("member", ["app", "list", sandbox])
    assert "box unknown" in " ".join(seen.stdout.split()), seen
    assert "state=unknown" in scene.by("member", ["app", "status", sandbox, "--app=box"]).stdout


def test_d8_whoever_is_of_no_group_is_not_told_that_a_pod_is_missing(scene: Scene) -> None:
    for command in ("status", "cat-manifest", "wait"):
        done = scene.by("other", [command, "00000000-0000-4000-8000-000000000000"])
        assert "no matches" not in done.stderr, done
        assert "no matches" in scene.by("member", [command, "0" * 8]).stderr
