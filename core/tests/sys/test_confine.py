"""A process gives up its rights: what is left is read from /proc/self/status."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import pytest

from podctl.model.confinement import Confinement, Rlimit
from podctl.sys import caps, confine
from podctl.sys import constants as c
from podctl.sys.calls import prctl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.sys.confine import Held

pytestmark = pytest.mark.root


def held(**fields: object) -> Held:
    return cast("Held", Confinement(**fields).to_numbers())  # type: ignore[arg-type]


def seen(function: Callable[[], None], *, executed: bool = True) -> dict[str, str]:
    """Fields of /proc/self/status after `function`, before or after an execve."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os.dup2(writer, 1)
            if executed:
                os.execv("/bin/cat", ["cat", "/proc/self/status"])
            with open("/proc/self/status", "rb") as file:
                os.write(1, file.read())
        except BaseException as error:
            os.write(writer, f"Error: {error}\n".encode())
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return {name: value.strip() for name, _, value in (x.partition(":") for x in text.splitlines())}


def everything() -> int:
    return caps.get_permitted()


@pytest.mark.parametrize("uid", [0, 1000])
def test_sets_are_exact(uid: int) -> None:
    names = frozenset({"CAP_KILL", "CAP_CHOWN"})
    found = seen(lambda: confine.apply(held(capabilities=names), uid, uid, (7,)))
    mask = 1 << 5 | 1
    assert int(found["CapBnd"], 16) == mask
    assert int(found["CapPrm"], 16) == int(found["CapEff"], 16) == (mask if uid == 0 else 0)
    assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
    assert found["Groups"].split() == [str(n) for n in sorted({uid, 7})]


def test_without_a_set_root_keeps_what_it_has_but_hands_on_nothing() -> None:
    found = seen(lambda: confine.apply(held(), 0, 0, ()))
    assert int(found["CapPrm"], 16) == everything()
    assert int(found["CapInh"], 16) == 0


ALLOW = b"\x06\x00\x00\x00\x00\x00\xff\x7f"


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("nnp", [True, False])
def test_a_filter_costs_no_capability_and_leaves_none(uid: int, nnp: bool) -> None:
    wanted = held(capabilities=frozenset({"CAP_KILL"}), seccomp=ALLOW, no_new_privileges=nnp)
    found = seen(lambda: confine.apply(wanted, uid, uid, ()))
    assert found["Seccomp"] == "2"
    assert found["NoNewPrivs"] == str(int(nnp))
    assert int(found["CapPrm"], 16) == (1 << 5 if uid == 0 else 0)
    assert int(found["CapBnd"], 16) == 1 << 5


def test_a_filter_the_kernel_refuses_is_an_error() -> None:
    found = seen(lambda: confine.apply(held(seccomp=b"\0" * 8, no_new_privileges=True), 0, 0, ()))
    assert "Error" in found


def test_securebits_of_the_caller_do_not_stay() -> None:
    def apply() -> None:
        prctl(c.PR_SET_SECUREBITS, 1)
        confine.apply(held(capabilities=frozenset({"CAP_KILL"})), 0, 0, ())

    assert int(seen(apply)["CapPrm"], 16) == 1 << 5

    def control() -> None:
        prctl(c.PR_SET_SECUREBITS, 1)

    assert int(seen(control)["CapPrm"], 16) == 0


def test_limits_of_the_process() -> None:
    import resource

    def apply() -> None:
        limit = Rlimit("NOFILE", 32, 64)
        confine.apply(held(rlimits=(limit,)), 0, 0, ())
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (32, 64)

    assert "Error" not in seen(apply)


def test_a_score_is_written_to_procfs_alone(tmp_path: Path) -> None:
    """CVE-2019-16884, CVE-2025-52881."""
    target = tmp_path / str(os.getpid())
    target.mkdir()
    (target / "oom_score_adj").touch()
    with pytest.raises(OSError, match="no procfs"):
        confine.prepare(held(oom_score_adj=5), proc=str(tmp_path))
    (tmp_path / "link").symlink_to("/proc")
    with pytest.raises(OSError):
        confine.prepare(held(oom_score_adj=5), proc=str(tmp_path / "link"))

    def prepare() -> None:
        confine.prepare(held(oom_score_adj=5))
        with open("/proc/self/oom_score_adj") as file:
            assert file.read() == "5\n"

    assert "Error" not in seen(prepare)


def test_a_context_is_refused_by_a_kernel_without_selinux() -> None:
    assert "attr/exec" in seen(lambda: confine.prepare(held(selinux_context="a:b:c:d")))["Error"]
