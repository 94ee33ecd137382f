"""Records of apps: who contributes, who carries out, and what is refused before anything starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import HostLacks, PluginMissing, Refused
from podctl.model.confinement import UNCONFINED, CgroupLimits, Confinement
from podctl.model.isolators import Isolator
from podctl.model.manifest import App
from podctl.model.plan import Bind, FlavorDescription
from podctl.model.podmanifest import PodManifest, RuntimeApp
from podctl.pods.confining import (
    allow_volumes,
    confine,
    confine_app,
    records_from_bytes,
    records_to_bytes,
)

if TYPE_CHECKING:
    from pathlib import Path

    from podctl.model.confinement import IsolatorContext

EVERYTHING = frozenset(Confinement._fields)
DEFAULTS = Confinement(
    capabilities=frozenset({"CAP_KILL"}),
    no_new_privileges=True,
    seccomp=b"filter",
    seccomp_summary="a filter",
    masked_paths=("/proc/x",),
    read_only_paths=("/proc/y",),
    cgroup=CgroupLimits(pids_max=5, devices=("c 1:3 rwm",)),
)


def flavor(*, confines: frozenset[str] = EVERYTHING, defaults: bool = False) -> FlavorDescription:
    return FlavorDescription("test", None, ("host",), frozenset(), frozenset(), confines, defaults)


class Provider:
    """Stands for every isolator that is provided: `default`, `a.example/score`, `a.example/no`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def contribute(
        self, name: str, value: Any, record: Confinement, context: IsolatorContext
    ) -> Confinement:
        if name == "default":
            return DEFAULTS
        if name.endswith("set"):
            return record._replace(seccomp=b"own", capabilities=frozenset())
        return record._replace(oom_score_adj=value)

    def lacks(
        self, name: str, value: Any, record: Confinement, context: IsolatorContext
    ) -> list[str]:
        return ["this host is too old"] if name == "a.example/no" else []


@pytest.fixture(autouse=True)
def provided(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Provider:
        if name.startswith("nobody") or name == "resource/memory":
            raise PluginMissing(f"no {name}", hint="install podctl-isolators-linux")
        return Provider(name)

    monkeypatch.setattr("podctl.plugins.isolator", load)
    monkeypatch.setattr(
        "podctl.sys.cgroups.Hierarchies.controllers", lambda _self: {"pids", "devices", "memory"}
    )


def record(
    *isolators: tuple[str, Any],
    description: FlavorDescription | None = None,
    insecure: frozenset[str] = frozenset(),
    said: list[str] | None = None,
) -> Confinement:
    found = [Isolator(name, value) for name, value in isolators]
    lines: list[str] = [] if said is None else said
    return confine_app(description or flavor(), "app", found, insecure, lines.append)


def test_without_defaults_and_isolators_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Provider:
        raise AssertionError(name)

    monkeypatch.setattr("podctl.plugins.isolator", refuse)
    assert record() == UNCONFINED
    manifest = PodManifest(apps=(RuntimeApp("app", "sha512-" + "0" * 64, app=App()),))
    assert confine(flavor(), manifest, frozenset(), lambda _line: None) == {}


def test_defaults_come_first_and_isolators_in_order() -> None:
    description = flavor(defaults=True)
    found = record(("a.example/score", 5), ("a.example/score", 7), description=description)
    assert found == DEFAULTS._replace(oom_score_adj=7)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("capabilities", DEFAULTS._replace(capabilities=None)),
        ("seccomp", DEFAULTS._replace(seccomp=None, seccomp_summary="")),
        (
            "paths",
            DEFAULTS._replace(masked_paths=(), read_only_paths=(), cgroup=CgroupLimits(pids_max=5)),
        ),
        ("image", DEFAULTS),
    ],
)
def test_insecure_options_waive_their_part(option: str, expected: Confinement) -> None:
    assert record(description=flavor(defaults=True), insecure=frozenset({option})) == expected


@pytest.mark.parametrize("option", ["capabilities", "seccomp"])
def test_a_waived_isolator_contributes_nothing(option: str) -> None:
    name = f"os/linux/{option}-retain-set"
    assert record((name, {}), insecure=frozenset({option})) == UNCONFINED
    assert record((name, {})) != UNCONFINED


def test_what_a_flavor_does_not_carry_out_is_refused_by_name() -> None:
    description = flavor(confines=EVERYTHING - {"oom_score_adj"})
    with pytest.raises(Refused, match="a.example/score.*flavor test") as caught:
        record(("a.example/score", 5), description=description)
    assert caught.value.hint
    # Defaults are the flavor's own choice.
    assert record(description=description._replace(defaults=True)) == DEFAULTS


def test_what_nobody_provides_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="nobody.example/x"):
        record(("nobody.example/x", 1))


def test_what_is_not_installed_names_the_package() -> None:
    with pytest.raises(PluginMissing) as caught:
        record(("resource/memory", {"limit": "64M"}))
    assert "podctl-isolators-linux" in str(caught.value.hint)


def test_what_the_host_lacks_is_refused() -> None:
    with pytest.raises(HostLacks, match="too old"):
        record(("a.example/no", 1))


def test_a_default_the_host_cannot_have_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("podctl.sys.cgroups.Hierarchies.controllers", lambda _self: set())
    said: list[str] = []
    found = record(description=flavor(defaults=True), said=said)
    assert found.cgroup == CgroupLimits()
    assert len(said) == 2


def test_a_limit_that_was_asked_for_is_refused_where_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = UNCONFINED._replace(cgroup=CgroupLimits(cpu_milli=5))
    monkeypatch.setattr(Provider, "contribute", lambda *_args: limited)
    with pytest.raises(HostLacks, match='CPU time.*"cpu"'):
        record(("a.example/cpu", 1))


def test_volumes_that_are_devices_may_be_used(tmp_path: Path) -> None:
    binds = [
        Bind("/dev/full", "/x", read_only=True),
        Bind("/dev/null", "/y"),
        Bind(str(tmp_path), "/z"),
    ]
    found = allow_volumes(DEFAULTS, binds).cgroup.devices
    assert found == ("c 1:3 rwm", "c 1:7 r", "c 1:3 rw")
    assert allow_volumes(UNCONFINED, binds) == UNCONFINED
    everything = allow_volumes(DEFAULTS, [Bind("/dev", "/dev")]).cgroup.devices
    assert everything is not None
    assert "a *:* rwm" in everything


def test_a_directory_of_devices_brings_all_of_them() -> None:
    found = allow_volumes(DEFAULTS, [Bind("/dev/pts", "/x")]).cgroup.devices
    assert found is not None
    status = os.stat("/dev/pts/ptmx")
    assert f"c {os.major(status.st_rdev)}:{os.minor(status.st_rdev)} rw" in found


def test_records_survive_the_file() -> None:
    records = {"a": DEFAULTS, "b": UNCONFINED}
    assert records_from_bytes(records_to_bytes(records)) == records
    with pytest.raises(ValueError):
        records_from_bytes(b'{"a": {"capabilities": null}}')
