"""`podctl trust` before any key is looked at: the prefix, and the schemes that can be asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from podctl import plugins
from podctl.cli import trust
from podctl.errors import PluginBroken, PluginMissing, PodctlError

if TYPE_CHECKING:
    from podctl.images.session import FetchSession


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ("example.com", "example.com"),
        ("example.com/a/b", "example.com/a/b"),
        ("Registry.example:5000/team", "registry.example-5000/team"),
        ("localhost:5000", "localhost-5000"),
        ("index.docker.io/library/redis", "registry-1.docker.io/library/redis"),
        ("quay.io/a__b/c-d", "quay.io/a_b/c-d"),
    ],
)
def test_a_prefix_is_spelt_as_images_are(given: str, prefix: str) -> None:
    assert trust._scope(given, False, True) == prefix


@pytest.mark.parametrize(
    "given",
    [
        *("https://example.com", "example.com:1.0", "example.com/app:1.0", "a/b@sha256:00"),
        *("example.com/", "/example.com", "a//b", "../a", "a/..", "a b", "a\nb", "\u00e4", "a,b"),
    ],
)
def test_what_names_no_images_is_refused(given: str) -> None:
    with pytest.raises(PodctlError):
        trust._scope(given, False, True)


def schemes(monkeypatch: pytest.MonkeyPatch, **found: Exception | None) -> tuple[Any, list[str]]:
    """Load schemes of which some are broken; return the loaded ones and what was said."""

    def load(name: str) -> SimpleNamespace:
        def preload() -> None:
            if (error := found[name]) is not None:
                raise error

        return SimpleNamespace(name=name, preload=preload)

    monkeypatch.setattr(plugins, "trust_scheme_names", lambda: list(found))
    monkeypatch.setattr(plugins, "trust_scheme", load)
    said: list[str] = []
    session = cast("FetchSession", SimpleNamespace(say=said.append))
    return [scheme.name for scheme in trust._schemes(session)], said


def test_a_broken_scheme_is_told_of_and_the_others_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = PluginBroken("acme 1.0 fails to import", hint="remove it")
    loaded, said = schemes(monkeypatch, openpgp=None, acme=broken)
    assert loaded == ["openpgp"]
    assert said == [str(broken)]


def test_without_a_scheme_that_works_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PluginBroken, match="acme"):
        schemes(monkeypatch, acme=PluginBroken("acme 1.0 fails to import"))
    with pytest.raises(PluginMissing, match="openpgp"):
        schemes(monkeypatch, openpgp=PluginMissing("openpgp is not installed"))
