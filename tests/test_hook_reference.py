"""The hook reference says what the specs say, and every hook has a caller."""

from __future__ import annotations

import inspect
from pathlib import Path

import pluggy
import pytest

from podctl.api import hookimpl, hookspecs
from podctl.errors import PluginBroken, PodctlError
from podctl.plugins import handles, hooks
from podctl.plugins.discovery import Installed
from podctl.plugins.families import FAMILIES
from podctl.plugins.provider import Provider
from podctl.testing import hookdocs

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "hooks.md"

SPECS = [getattr(hookspecs, str(family.spec)) for family in FAMILIES]
HOOKS = [
    (spec, name)
    for spec in SPECS
    for name, function in vars(spec).items()
    if hasattr(function, "podctl_spec")
]
IDS = [name for _, name in HOOKS]


class Called(PodctlError):
    """Raised by a hook to show that it was reached."""

    def __init__(self) -> None:
        super().__init__("called")


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == hookdocs.page(), "run script/hook-reference"


def test_every_family_has_its_section() -> None:
    text = PAGE.read_text()
    for family, spec in zip(FAMILIES, SPECS, strict=True):
        assert f"## {spec.__name__}\n" in text
        assert f"`{family.group}`" in text
    in_module = {name for name, value in vars(hookspecs).items() if inspect.isclass(value)}
    assert {spec.__name__ for spec in SPECS} == in_module


def raise_told(text: str) -> None:
    """What an observer raised is only told: here it counts."""
    raise Called if text == "called" else PluginBroken(text)


def handle(spec: type, provider_object: object) -> object:
    """The handle or events of a family, for a provider that has none of the family's hooks."""
    family = next(family for family in FAMILIES if family.spec == spec.__name__)
    provider = Provider(family.group, "bare", "bare", "bare", "bare-dist", "1.0")
    manager = pluggy.PluginManager("podctl")
    manager.add_hookspecs(spec)
    manager.register(provider_object)
    if spec is hookspecs.EventSpec:
        called = hooks.Events(Installed([provider], indexed=True), raise_told)
        called._loaded[provider] = hooks._Listener(provider, manager)
        return called
    kind = {
        "transport": handles.TransportHandle,
        "format": handles.FormatHandle,
        "trust": handles.TrustHandle,
        "stage1": handles.FlavorHandle,
        "isolator": handles.IsolatorHandle,
    }[family.key]
    return kind(provider, manager)


def call(spec: type, name: str, provider_object: object) -> object:
    """Call a hook through its handle, the way core does; every argument is None."""
    target = handle(spec, provider_object)
    method = name if spec is hookspecs.EventSpec else name.partition("_")[2]
    function = getattr(target, method)
    return function(*[None] * len(inspect.signature(function).parameters))


@pytest.mark.parametrize(("spec", "name"), HOOKS, ids=IDS)
def test_every_hook_has_a_heading_and_its_arguments(spec: type, name: str) -> None:
    section = PAGE.read_text().partition(f"### `{name}`\n")[2].partition("\n```\n")[0]
    arguments = list(inspect.signature(getattr(spec, name)).parameters)[1:]
    assert f"{name}(" in section
    assert all(f"{argument}: " in section for argument in arguments)


@pytest.mark.parametrize(("spec", "name"), HOOKS, ids=IDS)
def test_every_hook_has_a_caller_that_hands_over_every_argument(spec: type, name: str) -> None:
    arguments = list(inspect.signature(getattr(spec, name)).parameters)[1:]
    source = f"def {name}(self{''.join(', ' + one for one in arguments)}): raise Called\n"
    scope: dict[str, object] = {"Called": Called}
    exec(source, scope)
    hook = hookimpl(scope[name])  # type: ignore[type-var]
    with pytest.raises(Called):
        call(spec, name, type("Bare", (), {name: hook})())


@pytest.mark.parametrize(("spec", "name"), HOOKS, ids=IDS)
def test_optional_hooks_are_those_a_provider_may_lack(spec: type, name: str) -> None:
    section = PAGE.read_text().partition(f"### `{name}`\n")[2].partition("###")[0]
    try:
        call(spec, name, object())
        optional = True
    except PluginBroken as error:
        assert "does not implement" in str(error)
        optional = False
    assert ("*Optional.*" in section) is optional


def test_values_are_on_the_page_with_their_fields() -> None:
    from podctl.model import fetching, plan

    text = PAGE.read_text()
    for value in (plan.LaunchPlan, plan.PreparedPod, fetching.Resolution, fetching.Sink):
        assert f"#### `{value.__name__}`\n" in text
    for field in plan.LaunchPlan.__annotations__:
        assert f"\n{field}: " in text
