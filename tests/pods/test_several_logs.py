"""The output of detached pods with several apps, and of apps that open /dev/stdout by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kept_pods import NAME, keepers, until

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.root


def app(name: str, script: str) -> list[str]:
    return [NAME, f"--name={name}", "--exec=/bin/sh", "--", "-c", script, "---"]


def test_each_app_has_its_own(world: World) -> None:
    uuid = world.must(
        "run", "--detach",
        *app("a", "echo one; echo problem >&2; printf 'no end'"),
        *app("b", "echo two; echo trouble >&2"),
    ).strip()  # fmt: skip
    assert world.must("wait", uuid) == "0\n"
    assert world.podctl("logs", "--app=a", uuid) == (0, "one\nno end", "problem\n")
    assert world.podctl("logs", "--app=b", uuid) == (0, "two\n", "trouble\n")
    both = world.podctl("logs", uuid)
    assert sorted(both.out.replace("no end", "").splitlines()) == ["one", "two"]
    assert sorted(both.err.splitlines()) == ["problem", "trouble"]
    assert 'no app "c"' in world.podctl("logs", "--app=c", uuid).err
    until(lambda: not keepers(world))


def test_nothing_is_lost_at_the_end(world: World) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"
    uuid = world.must("run", "--detach", *app("a", script), *app("b", script)).strip()
    world.must("wait", uuid)
    expected = "".join(f"line {number}\n" for number in range(3000))
    for name in ("a", "b"):
        assert world.must("logs", f"--app={name}", uuid) == expected


@pytest.mark.parametrize("flavor", ["fly", "nspawn"])
@pytest.mark.parametrize("user", ["0", "web"])
def test_standard_output_can_be_opened_by_its_name(world: World, flavor: str, user: str) -> None:
    """As images do that link their log files to /dev/stdout."""
    line = ("run", f"--stage1={flavor}", "-d", NAME, f"--user={user}", "--exec=/bin/sh")
    uuid = world.must(*line, "--", "-c", "echo out >/dev/stdout; echo err >/dev/stderr").strip()
    assert world.must("wait", uuid) == "0\n"
    assert world.podctl("logs", uuid) == (0, "out\n", "err\n")


def test_so_it_can_with_several_apps(world: World) -> None:
    script = "echo out >/dev/stdout"
    uuid = world.must(
        "run", "-d", NAME, "--name=a", "--user=web", "--exec=/bin/sh", "--", "-c", script, "---",
        *app("b", "true"),
    ).strip()  # fmt: skip
    assert world.must("wait", uuid) == "0\n"
    assert world.must("logs", "--app=a", uuid) == "out\n"
