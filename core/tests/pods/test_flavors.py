"""Which flavor runs a pod, and what is refused by name before anything is made."""

from __future__ import annotations

import pytest

from podctl.config import Stage1
from podctl.errors import PluginMissing, Refused, UsageError
from podctl.model.isolators import make_isolator
from podctl.model.manifest import App
from podctl.model.plan import FlavorDescription
from podctl.model.podmanifest import PodManifest, RuntimeApp
from podctl.model.ports import ExposedPort
from podctl.pods.flavors import Stage1Flags, choose, load, refuse_manifest, refuse_pod

NOTHING = Stage1(None, None, None)
PLAIN = FlavorDescription("plain", 1, ("host",), frozenset({"dns"}), frozenset({"resource/cpu"}))
RICH = FlavorDescription("rich", None, ("*",), frozenset({"port"}), frozenset())


@pytest.mark.parametrize(
    ("flags", "flavor"),
    [
        ({"stage1": "fly"}, "fly"),
        ({"stage1": "my-own"}, "my-own"),
        ({"stage1_name": "coreos.com/rkt/stage1-fly"}, "fly"),
        ({"stage1_name": "coreos.com/rkt/stage1-fly:1.30.0"}, "fly"),
        ({"stage1_name": "coreos.com/rkt/stage1-coreos:1.30.0"}, "nspawn"),
        ({"stage1_name": "coreos.com/rkt/stage1-src"}, "nspawn"),
        ({"stage1_name": "coreos.com/rkt/stage1-host"}, "nspawn"),
        ({"stage1_name": "coreos.com/rkt/stage1-kvm,version=1"}, "kvm"),
        ({"stage1_name": "kvm"}, "kvm"),
        ({"stage1_from_dir": "stage1-fly.aci"}, "fly"),
        ({"stage1_path": "/usr/lib/rkt/stage1-images/stage1-coreos.aci"}, "nspawn"),
        ({"stage1_path": "./stage1-kvm.aci"}, "kvm"),
        ({"stage1_url": "https://example.com/stage1-fly.aci"}, "fly"),
        ({}, "nspawn"),
    ],
)
def test_flags_name_a_flavor(flags: dict[str, str], flavor: str) -> None:
    assert choose(Stage1Flags(**flags), NOTHING) == flavor


@pytest.mark.parametrize(
    "flags",
    [
        {"stage1_name": "example.com/my/stage1"},
        {"stage1_name": "coreos.com/rkt/stage1-other"},
        {"stage1_name": "coreos.com/rkt/"},
        {"stage1_path": "/tmp/my.aci"},
        {"stage1_path": "/tmp/stage1-fly"},
        {"stage1_from_dir": "stage1-other.aci"},
        {"stage1_hash": "sha512-abc"},
    ],
)
def test_foreign_stage1_image_is_refused_by_name(flags: dict[str, str]) -> None:
    with pytest.raises(Refused, match="is not one of rkt's") as raised:
        choose(Stage1Flags(**flags), NOTHING)
    assert next(iter(flags.values())) in raised.value.message


def test_flags_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--stage1 and --stage1-name exclude each other"):
        choose(Stage1Flags(stage1="fly", stage1_name="fly"), NOTHING)


@pytest.mark.parametrize(
    ("configured", "flavor"),
    [
        (Stage1("coreos.com/rkt/stage1-fly", "1.0.0", None), "fly"),
        (Stage1("fly", "1", "/x/stage1-kvm.aci"), "fly"),
        (Stage1(None, None, "/usr/lib/rkt/stage1-images/stage1-kvm.aci"), "kvm"),
    ],
)
def test_configuration_is_the_default(configured: Stage1, flavor: str) -> None:
    assert choose(Stage1Flags(), configured) == flavor
    assert choose(Stage1Flags(stage1="other"), configured) == "other"


def test_missing_flavor_names_package_and_way_out() -> None:
    with pytest.raises(PluginMissing) as raised:
        load("no-such-flavor")
    assert "podctl-stage1-no-such-flavor" in (raised.value.hint or "")
    assert "or pass --stage1=fly" in (raised.value.hint or "")


def test_what_the_flavor_offers_passes() -> None:
    refuse_pod(PLAIN, networks=["host"], options={"dns": "1"}, apps=1)
    refuse_pod(RICH, networks=["any", "x:IP=1.2.3.4"], apps=99)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"networks": ["none"]}, '"none"'),
        ({"networks": ["host", "default:IP=1.2.3.4"]}, '"default"'),
        ({"options": {"hostname": "x"}}, "--hostname"),
        ({"apps": 2}, "2"),
    ],
)
def test_what_it_does_not_is_refused(asked: dict[str, object], named: str) -> None:
    with pytest.raises(Refused, match="flavor plain") as raised:
        refuse_pod(PLAIN, **asked)  # type: ignore[arg-type]
    assert named in raised.value.message


def manifest(*isolators: tuple[str, object], pod: bool = False, ports: bool = False) -> PodManifest:
    made = tuple(make_isolator(name, value) for name, value in isolators)
    app = App(exec=("/x",), isolators=() if pod else made)
    return PodManifest(
        apps=(RuntimeApp("a", "sha512-aa", app=app),),
        isolators=made if pod else (),
        ports=(ExposedPort("http", 80),) if ports else (),
    )


CPU = ("resource/cpu", {"limit": "1"})
CAPS = ("os/linux/capabilities-retain-set", {"set": ["CAP_CHOWN"]})
SECCOMP = ("os/linux/seccomp-remove-set", {"set": ["stat"]})
UNKNOWN = ("example.com/new", {"anything": 1})


def test_enforced_isolator_passes() -> None:
    refuse_manifest(PLAIN, manifest(CPU), frozenset())


@pytest.mark.parametrize("isolator", [CAPS, SECCOMP, UNKNOWN], ids=lambda one: one[0])
def test_isolator_that_is_not_enforced_is_refused(isolator: tuple[str, object]) -> None:
    with pytest.raises(Refused, match=f'app "a" has isolator {isolator[0]}'):
        refuse_manifest(PLAIN, manifest(CPU, isolator), frozenset())


@pytest.mark.parametrize(("isolator", "option"), [(CAPS, "capabilities"), (SECCOMP, "seccomp")])
def test_the_matching_insecure_option_excuses(isolator: tuple[str, object], option: str) -> None:
    refuse_manifest(PLAIN, manifest(isolator), frozenset({option}))
    others = frozenset({"capabilities", "seccomp", "paths", "image"}) - {option}
    with pytest.raises(Refused, match=f"--insecure-options={option}"):
        refuse_manifest(PLAIN, manifest(isolator), others)


def test_nothing_excuses_an_unknown_isolator() -> None:
    with pytest.raises(Refused):
        refuse_manifest(PLAIN, manifest(UNKNOWN), frozenset({"capabilities", "seccomp", "paths"}))


def test_isolators_of_the_pod_need_their_own_promise() -> None:
    with pytest.raises(Refused, match="the pod has isolator resource/cpu"):
        refuse_manifest(PLAIN, manifest(CPU, pod=True), frozenset())
    able = PLAIN._replace(isolators=frozenset({"pod:resource/cpu"}))
    refuse_manifest(able, manifest(CPU, pod=True), frozenset())


def test_ports_need_a_promise() -> None:
    with pytest.raises(Refused, match="does not publish ports"):
        refuse_manifest(PLAIN, manifest(ports=True), frozenset())
    refuse_manifest(RICH, manifest(ports=True), frozenset())
