"""Fly keeps the contract of every flavor, and the contract notices who does not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from podctl.model.confinement import UNCONFINED
from podctl.testing.pods import PodFactory
from podctl.testing.stage1 import Stage1Contract
from podctl_stage1_fly.hooks import Fly, fly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from podctl.model.plan import EnterPlan, LaunchPlan, PreparedPod

pytestmark = pytest.mark.root


class TestFly(Stage1Contract):
    provider = fly


class _Changed(Fly):
    """Plans, then changes the plan."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def stage1_plan(self, pod: PreparedPod) -> LaunchPlan:
        plan = super().stage1_plan(pod)
        return plan._replace(**{k: v(plan) if callable(v) else v for k, v in self.changes.items()})


class _LooseEnter(Fly):
    def stage1_enter(self, pod: PreparedPod, app: str, argv: Sequence[str]) -> EnterPlan:
        from podctl.model.plan import Identity

        return super().stage1_enter(pod, app, argv)._replace(identity=Identity(0, 0))


def _without(kind: str) -> Callable[[LaunchPlan], object]:
    return lambda plan: tuple(step for step in plan.steps if type(step).__name__ != kind)


MUTANTS: list[tuple[Fly, str, dict[str, Any]]] = [
    (
        # Ignores what it says it carries out, as rkt's fly did.
        _Changed(confinement=UNCONFINED),
        "test_isolator_is_enforced_or_refused_by_name",
        {"name": "resource/memory"},
    ),
    (_Changed(read_only_root=False), "test_read_only_root", {}),
    (
        _Changed(environment=lambda plan: {**plan.environment, **os.environ}),
        "test_environment_is_exactly_the_app_s",
        {},
    ),
    (
        _Changed(identity=lambda plan: plan.identity._replace(groups=())),
        "test_user_group_and_groups",
        {},
    ),
    (_Changed(steps=_without("WriteFile")), "test_resolv_conf_and_hosts", {}),
    (_Changed(argv=lambda plan: (*plan.argv, "x")), "test_arguments_reach_the_app_unchanged", {}),
    (_LooseEnter(), "test_enter_is_inside_and_no_less_confined", {}),
]


@pytest.mark.parametrize(
    ("mutant", "test", "arguments"), MUTANTS, ids=[test for _, test, _ in MUTANTS]
)
def test_contract_notices(
    tmp_path: Path, mutant: Fly, test: str, arguments: dict[str, Any]
) -> None:
    """Control: each of these flavors breaks one promise, and exactly that test says so."""

    class Suite(Stage1Contract):
        provider = mutant

    needs = {"factory": PodFactory(str(tmp_path)), "tmp_path": tmp_path}
    method = getattr(Suite(), test)
    names = method.__code__.co_varnames[: method.__code__.co_argcount]
    given = {name: value for name, value in needs.items() if name in names}
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        method(**given, **arguments)


def test_contract_notices_a_leaking_descriptor(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    class Suite(Stage1Contract):
        provider = _Changed(inherited={str(fd): "a way out"})

    try:
        with pytest.raises(AssertionError):
            Suite().test_no_descriptor_leaks_into_the_app(PodFactory(str(tmp_path)), tmp_path)
    finally:
        os.close(fd)
