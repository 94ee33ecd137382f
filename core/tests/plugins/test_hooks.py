"""Hooks of `podctl.hooks`: policy may refuse and fails closed, observers change nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

import pytest

from podctl.errors import PluginBroken, PluginConflict, Refused
from podctl.model.plan import Identity, LaunchPlan, PreparedPod
from podctl.plugins import discovery, installed
from podctl.plugins.hooks import Events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.model.image import Image

    Install = Callable[..., Path]

POD = PreparedPod("u", "/d", ())
PLAN = LaunchPlan("fly", (), None, (), Identity(0, 0), "/", {}, ("true",))
IMAGE = cast("Image", object())


def site_policy(*methods: str) -> str:
    body = "\n".join(f"    @hookimpl\n    def {method}" for method in methods)
    return (
        "from podctl.api import hookimpl\nfrom podctl.errors import Refused\nimport builtins\n"
        "def note(text):\n    builtins.__dict__.setdefault('noted_by_test', []).append(text)\n"
        f"class Policy:\n{body}\npolicy = Policy()\n"
    )


@pytest.fixture
def noted() -> list[str]:
    """What the hooks of a test noted, in order."""
    import builtins

    builtins.__dict__["noted_by_test"] = notes = []
    return notes


@pytest.fixture
def warnings() -> list[str]:
    return []


def events(warnings: list[str]) -> Events:
    return Events(discovery.Installed(installed.scan(), indexed=False), warnings.append)


def add(install: Install, name: str, *methods: str) -> None:
    module = f"site_{name}"
    install(
        f"site-{name}",
        {"podctl.hooks": {name: f"{module}:policy"}},
        {module: site_policy(*methods)},
    )


def test_without_hooks_nothing_is_imported(warnings: list[str]) -> None:
    found = discovery.Installed([], indexed=True)
    quiet = Events(found, warnings.append)
    quiet.image_verified(IMAGE, None)
    quiet.pod_starting(POD, PLAN)
    quiet.pod_removed("u")
    assert warnings == []


def test_every_hook_is_called_in_the_order_of_names(
    install: Install, noted: list[str], warnings: list[str]
) -> None:
    for name in ("zeta", "alpha"):
        add(
            install,
            name,
            f"image_verified(self, image, verdict): note('{name} image')",
            f"pod_starting(self, pod): note('{name} ' + pod.uuid)",
            f"pod_removed(self, uuid): note('{name} removed ' + uuid)",
        )
    called = events(warnings)
    called.image_verified(IMAGE, None)
    called.pod_starting(POD, PLAN)
    called.pod_removed("x")
    assert noted == [
        "alpha image",
        "zeta image",
        "alpha u",
        "zeta u",
        "alpha removed x",
        "zeta removed x",
    ]


@pytest.mark.parametrize("hook", ["image_verified(self, image)", "pod_starting(self, plan)"])
def test_policy_refuses_by_raising(install: Install, warnings: list[str], hook: str) -> None:
    add(install, "policy", f"{hook}: raise Refused('not on this site')")
    called = events(warnings)
    with pytest.raises(Refused, match="not on this site"):
        called.image_verified(IMAGE, None)
        called.pod_starting(POD, PLAN)


def test_policy_that_breaks_refuses(install: Install, warnings: list[str]) -> None:
    add(install, "policy", "pod_starting(self, plan): return plan.no_such_field")
    with pytest.raises(PluginBroken, match="site-policy"):
        events(warnings).pod_starting(POD, PLAN)


def test_policy_that_cannot_be_loaded_refuses(install: Install, warnings: list[str]) -> None:
    install("site-bad", {"podctl.hooks": {"bad": "site_bad:policy"}}, {"site_bad": "1/0"})
    with pytest.raises(PluginBroken, match="site-bad"):
        events(warnings).image_verified(IMAGE, None)


def test_an_observer_that_breaks_changes_nothing(
    install: Install, noted: list[str], warnings: list[str]
) -> None:
    install("site-bad", {"podctl.hooks": {"bad": "site_bad:policy"}}, {"site_bad": "1/0"})
    add(install, "raises", "pod_removed(self, uuid): raise Refused('no')")
    add(install, "works", "pod_removed(self, uuid): note(uuid)")
    events(warnings).pod_removed("u")
    assert noted == ["u"]
    assert len(warnings) == 2
    assert "site-bad" in warnings[0]


def test_a_contested_name_refuses_policy_and_is_told_to_observers(
    install: Install, warnings: list[str]
) -> None:
    install("site-a", {"podctl.hooks": {"x": "site_a:policy"}})
    install("site-b", {"podctl.hooks": {"x": "site_b:policy"}})
    called = events(warnings)
    with pytest.raises(PluginConflict, match=r"site-a .* site-b"):
        called.pod_starting(POD, PLAN)
    called.pod_removed("u")
    assert "site-a" in warnings[0]
    assert "site_a" not in sys.modules
