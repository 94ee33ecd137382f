"""Which provider a name means, and what is said when there is none or more than one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from podctl.errors import PluginConflict, PluginMissing
from podctl.plugins import discovery, installed
from podctl.plugins.families import FORMAT, HOOKS, STAGE1, TRANSPORT, TRUST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from podctl.plugins.families import Family

    Install = Callable[..., Path]

TRAP = "raise RuntimeError('discovery imported a plugin')"


def scanned() -> discovery.Installed:
    return discovery.Installed(installed.scan(), indexed=False)


def test_a_name_is_found_without_an_import(install: Install) -> None:
    install("acme-wasm", {"podctl.stage1": {"wasm": "acme_wasm:flavor"}}, {"acme_wasm": TRAP})
    provider = scanned().find(STAGE1, "wasm")
    assert (provider.distribution, provider.version) == ("acme-wasm", "1.0")
    assert (provider.module, provider.attribute) == ("acme_wasm", "flavor")
    assert "acme_wasm" not in sys.modules


@pytest.mark.parametrize(
    ("family", "name", "package"),
    [
        (STAGE1, "nspawn", "podctl-stage1-nspawn"),
        (STAGE1, "kvm", "podctl-stage1-kvm"),
        (TRANSPORT, "docker", "podctl-fetch-docker"),
        (TRANSPORT, "ipfs", "podctl-fetch-ipfs"),
        (FORMAT, "oci", "podctl-fetch-docker"),
        (TRUST, "cosign", "podctl-trust-cosign"),
    ],
)
def test_a_missing_name_says_what_to_install(family: Family, name: str, package: str) -> None:
    with pytest.raises(PluginMissing) as caught:
        discovery.Installed([], indexed=True).find(family, name)
    assert caught.value.hint == f"install {package}"
    assert f'"{name}"' in caught.value.message


@pytest.mark.parametrize("name", ["https", "http", "file", "appc"])
def test_aci_transports_come_with_one_distribution(name: str) -> None:
    assert TRANSPORT.package(name) == FORMAT.package("aci") == "podctl-fetch-aci"


def test_a_contested_name_names_both_distributions_and_imports_neither(install: Install) -> None:
    install("acme-one", {"podctl.stage1": {"x": "one:flavor"}}, {"one": TRAP})
    install("acme-two", {"podctl.stage1": {"x": "two:flavor"}}, {"two": TRAP}, version="2.5")
    with pytest.raises(PluginConflict) as caught:
        scanned().find(STAGE1, "x")
    text = str(caught.value)
    assert "acme-one 1.0 (one:flavor)" in text
    assert "acme-two 2.5 (two:flavor)" in text
    assert not {"one", "two"} & set(sys.modules)


def test_stevedore_alone_would_have_imported_both(install: Install) -> None:
    marks = "import builtins as b; b.loaded_by_test = getattr(b, 'loaded_by_test', 0) + 1"
    install("acme-one", {"podctl.stage1": {"x": "one:a"}}, {"one": f"{marks}\ndef a(): pass"})
    install("acme-two", {"podctl.stage1": {"x": "two:a"}}, {"two": f"{marks}\ndef a(): pass"})
    import builtins

    from stevedore.driver import DriverManager
    from stevedore.exception import MultipleMatches

    with pytest.raises(MultipleMatches):
        DriverManager("podctl.stage1", "x")
    assert builtins.__dict__.pop("loaded_by_test") == 2


def test_a_conflict_elsewhere_does_not_matter(install: Install) -> None:
    install("acme-one", {"podctl.stage1": {"x": "one:a", "y": "one:b"}})
    install("acme-two", {"podctl.stage1": {"x": "two:a"}})
    assert scanned().find(STAGE1, "y").module == "one"


def test_one_name_in_two_families_is_no_conflict(install: Install) -> None:
    install("acme-one", {"podctl.stage1": {"x": "one:a"}, "podctl.transport": {"x": "one:b"}})
    assert scanned().find(STAGE1, "x").attribute == "a"
    assert scanned().find(TRANSPORT, "x").attribute == "b"


def test_a_distribution_found_twice_counts_once(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme-one", {"podctl.stage1": {"x": "one:a"}}, version="2.0")
    shadowed = tmp_path / "later"
    install("acme-one", {"podctl.stage1": {"x": "one:old"}}, version="1.0", where=shadowed)
    monkeypatch.setattr(sys, "path", [*sys.path, str(shadowed)])
    assert scanned().find(STAGE1, "x").version == "2.0"


def test_hooks_are_listed_by_name(install: Install) -> None:
    install("b-dist", {"podctl.hooks": {"zeta": "b:z", "alpha": "b:a"}})
    install("a-dist", {"podctl.hooks": {"mid": "a:m"}})
    assert [provider.name for provider in scanned().family(HOOKS)] == ["alpha", "mid", "zeta"]


def test_groups_of_others_are_not_listed(install: Install) -> None:
    install("acme", {"console_scripts": {"fly": "a:b"}, "podctl.unheard-of": {"x": "a:b"}})
    assert all(provider.distribution != "acme" for provider in installed.scan())


def test_the_first_party_plugins_are_found() -> None:
    found = scanned()
    assert found.find(STAGE1, "fly").distribution == "podctl-stage1-fly"
    assert found.find(TRUST, "openpgp").distribution == "podctl-trust-openpgp"
    assert found.find(FORMAT, "aci").distribution == "podctl-fetch-aci"
