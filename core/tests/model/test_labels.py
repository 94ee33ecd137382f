"""Labels: uniqueness, the platforms appc knows, and those of this host."""

from __future__ import annotations

import os

import pytest

from podctl.errors import InvalidInput
from podctl.model.labels import VALID_OS_ARCH, host_labels, labels_from_pairs, satisfies

PLATFORMS = [(system, arch) for system, arches in VALID_OS_ARCH.items() for arch in arches]


@pytest.mark.parametrize(("system", "arch"), PLATFORMS)
def test_known_platforms(system: str, arch: str) -> None:
    labels = {"os": system, "arch": arch}
    assert labels_from_pairs(labels.items()) == labels


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("os", "linux"), ("arch", "arm64")], 'bad arch "arm64" for linux'),
        ([("os", "linux"), ("arch", "arm")], 'bad arch "arm" for linux'),
        ([("os", "linux"), ("arch", "armv5l")], 'bad arch "armv5l" for linux'),
        ([("os", "linux"), ("arch", "x86_64")], 'bad arch "x86_64" for linux'),
        ([("os", "linux"), ("arch", "ppc64l")], 'bad arch "ppc64l" for linux'),
        ([("os", "linux"), ("arch", "S390x")], 'bad arch "S390x" for linux'),
        ([("os", "linux"), ("arch", "")], 'bad arch "" for linux'),
        ([("os", "freebsd"), ("arch", "armv7b")], 'bad arch "armv7b" for freebsd'),
        ([("os", "darwin"), ("arch", "amd64")], 'bad arch "amd64" for darwin'),
        ([("os", "OS/360"), ("arch", "S/360")], 'bad os "OS/360"'),
        ([("os", "Linux")], 'bad os "Linux"'),
        ([("arch", "amd64")], "without label os"),
        ([("name", "x")], 'invalid label name: "name"'),
        ([("os", "linux"), ("os", "freebsd")], 'duplicate labels of name "os"'),
        ([("version", "1"), ("version", "1")], 'duplicate labels of name "version"'),
        ([("Version", "1")], "label name"),
        ([("", "1")], "label name"),
    ],
)
def test_refused_labels(pairs: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        labels_from_pairs(pairs)


def test_other_labels_are_free_and_keep_their_order() -> None:
    pairs = [("version", ""), ("a.b/c", "\u00e9 any text\n"), ("os", "linux")]
    assert list(labels_from_pairs(pairs).items()) == pairs


def test_no_labels_are_fine() -> None:
    assert labels_from_pairs([]) == {}


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "amd64"), ("i686", "i386"), ("aarch64", "aarch64"), ("ppc64le", "ppc64le")],
)
def test_host_labels_speak_appc(monkeypatch: pytest.MonkeyPatch, machine: str, arch: str) -> None:
    uname = os.uname_result(("Linux", "node", "6.1", "#1", machine))
    monkeypatch.setattr(os, "uname", lambda: uname)
    assert host_labels() == {"os": "linux", "arch": arch}
    assert labels_from_pairs(host_labels().items())


def test_satisfied_when_every_wanted_label_is_there() -> None:
    labels = {"os": "linux", "version": "1"}
    assert satisfies(labels, {})
    assert satisfies(labels, {"version": "1"})
    assert not satisfies(labels, {"version": "2"})
    assert not satisfies(labels, {"channel": ""})
