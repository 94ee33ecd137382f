"""Isolators: what known ones may say, and that unknown ones are kept but marked (row M19)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import ManifestInvalid
from podctl.model import isolators as iso
from podctl.model.isolators import Isolator, make_isolator
from podctl.model.manifest import parse_image_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

VALID: list[tuple[str, Any]] = [
    (iso.CPU_SHARES, 2048),
    (iso.CPU_SHARES, 2),
    (iso.CPU_SHARES, 262144),
    (iso.OOM_SCORE_ADJ, 250),
    (iso.OOM_SCORE_ADJ, -1000),
    (iso.OOM_SCORE_ADJ, 1000),
    (iso.NO_NEW_PRIVILEGES, True),
    (iso.NO_NEW_PRIVILEGES, False),
    (iso.CAPABILITIES_RETAIN, {"set": ["CAP_KILL"]}),
    (iso.CAPABILITIES_RETAIN, {"set": []}),
    (iso.CAPABILITIES_REMOVE, {"set": []}),
    (iso.CAPABILITIES_REMOVE, {"set": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}),
    (iso.SECCOMP_REMOVE, {"set": ["@appc.io/empty"], "errno": "EACCES"}),
    (iso.SECCOMP_REMOVE, {"set": ["chmod", "chown"], "errno": ""}),
    (iso.SECCOMP_REMOVE, {"set": ["_sysctl"], "errno": "E2BIG"}),
    (iso.SECCOMP_RETAIN, {"set": ["clone3", "@rkt/default-whitelist"], "errno": None}),
    (iso.SECCOMP_RETAIN, {"set": ["@systemd/raw-io"]}),
    (iso.BLOCK_BANDWIDTH, {"default": True, "limit": "1G"}),
    (iso.BLOCK_IOPS, {"default": True, "limit": "1000"}),
    (iso.BLOCK_IOPS, {"default": True, "limit": "1000", "request": None}),
    (iso.NETWORK_BANDWIDTH, {"default": True, "limit": "1G"}),
    (iso.CPU, {"request": "30m", "limit": "1m"}),
    (iso.CPU, {"limit": 2}),
    (iso.CPU, {"default": False, "request": "1"}),
    (iso.MEMORY, {"request": "1G", "limit": "2Gi"}),
    (iso.MEMORY, {"request": "", "limit": "2Gi"}),
    (iso.SELINUX_CONTEXT, {"user": "u", "role": "r", "type": "t", "level": "s0:c1,c2"}),
    (iso.APPARMOR_PROFILE, {"profile": "docker-default"}),
    (iso.SYSCTL, {"net.ipv4.tcp_rfc1337": "1"}),
    (iso.SYSCTL, {"net/ipv4/conf/eth0/rp_filter": "1"}),
    (iso.SYSCTL, {}),
]

INVALID: list[tuple[str, Any]] = [
    (iso.CPU_SHARES, 1),
    (iso.CPU_SHARES, 262145),
    (iso.CPU_SHARES, "pants"),
    (iso.CPU_SHARES, "2048"),
    (iso.CPU_SHARES, 2048.0),
    (iso.CPU_SHARES, True),
    (iso.CPU_SHARES, None),
    (iso.OOM_SCORE_ADJ, -2500),
    (iso.OOM_SCORE_ADJ, 1001),
    (iso.OOM_SCORE_ADJ, "pants"),
    (iso.OOM_SCORE_ADJ, True),
    (iso.NO_NEW_PRIVILEGES, 1),
    (iso.NO_NEW_PRIVILEGES, "true"),
    (iso.NO_NEW_PRIVILEGES, None),
    (iso.NO_NEW_PRIVILEGES, {"set": ["CAP_KILL"]}),
    (iso.CAPABILITIES_RETAIN, {"set": ["CAP_PONIES"]}),
    (iso.CAPABILITIES_RETAIN, {"set": ["cap_kill"]}),
    (iso.CAPABILITIES_RETAIN, {"set": ["KILL"]}),
    (iso.CAPABILITIES_RETAIN, {"set": "CAP_KILL"}),
    (iso.CAPABILITIES_RETAIN, {"set": [1]}),
    (iso.CAPABILITIES_RETAIN, {}),
    (iso.CAPABILITIES_RETAIN, {"set": None}),
    (iso.CAPABILITIES_RETAIN, ["CAP_KILL"]),
    (iso.CAPABILITIES_RETAIN, {"Set": ["CAP_KILL"], "set": []}),
    (iso.CAPABILITIES_REMOVE, {"set": ["CAP_SYS_CHROT"]}),
    (iso.SECCOMP_REMOVE, {"set": []}),
    (iso.SECCOMP_REMOVE, {"errno": "EPERM"}),
    (iso.SECCOMP_REMOVE, {"set": ["chmod"], "errno": "-EPERM"}),
    (iso.SECCOMP_REMOVE, {"set": ["chmod"], "errno": "eperm"}),
    (iso.SECCOMP_REMOVE, {"set": ["chmod"], "errno": "EACCESS"}),
    (iso.SECCOMP_REMOVE, {"set": ["chmod"], "errno": "errorcode"}),
    (iso.SECCOMP_REMOVE, {"set": ["chmod"], "errno": 1}),
    (iso.SECCOMP_RETAIN, {"set": ["@all"]}),
    (iso.SECCOMP_RETAIN, {"set": ["@/x"]}),
    (iso.SECCOMP_RETAIN, {"set": ["@a/b/c"]}),
    (iso.SECCOMP_RETAIN, {"set": ["READ"]}),
    (iso.SECCOMP_RETAIN, {"set": ["read write"]}),
    (iso.SECCOMP_RETAIN, {"set": ["read\nExecStart=/x"]}),
    (iso.SECCOMP_RETAIN, {"set": [""]}),
    (iso.BLOCK_BANDWIDTH, {"default": False, "limit": "1G"}),
    (iso.BLOCK_BANDWIDTH, {"limit": "1G"}),
    (iso.BLOCK_BANDWIDTH, {"default": True, "limit": "1G", "request": "1G"}),
    (iso.BLOCK_BANDWIDTH, {"default": True}),
    (iso.BLOCK_IOPS, {"request": "30G", "limit": "1G"}),
    (iso.NETWORK_BANDWIDTH, {"default": False, "limit": "1G"}),
    (iso.MEMORY, {"default": True, "request": "1G", "limit": "2G"}),
    (iso.MEMORY, {"request": "", "limit": ""}),
    (iso.MEMORY, {}),
    (iso.MEMORY, {"limit": "1e999"}),
    (iso.MEMORY, {"limit": "-1"}),
    (iso.MEMORY, {"limit": -1}),
    (iso.MEMORY, {"limit": 1.5}),
    (iso.MEMORY, {"limit": True}),
    (iso.MEMORY, {"Limit": "1G"}),
    (iso.MEMORY, "1G"),
    (iso.CPU, {"request": "1", "limit": "such garbage"}),
    (iso.SELINUX_CONTEXT, {"user": "u", "role": "r", "type": "t"}),
    (iso.SELINUX_CONTEXT, {"user": "u:x", "role": "r", "type": "t", "level": "s0"}),
    (iso.SELINUX_CONTEXT, {"user": "u", "role": "r", "type": "t\n", "level": "s0"}),
    (iso.APPARMOR_PROFILE, {"profile": ""}),
    (iso.APPARMOR_PROFILE, {"profile": "a\nb"}),
    (iso.SYSCTL, {"net.ipv4.tcp_rfc1337": 1}),
    (iso.SYSCTL, ["net.ipv4.tcp_rfc1337"]),
    (iso.SYSCTL, {"../../etc/passwd": "x"}),
    (iso.SYSCTL, {"net..x": "1"}),
    (iso.SYSCTL, {"kernel.hostname": "a\nb"}),
]


@pytest.mark.parametrize(("name", "value"), VALID)
def test_known_isolators_keep_their_value(name: str, value: object) -> None:
    assert make_isolator(name, value) == Isolator(name, value, known=True)


@pytest.mark.parametrize(("name", "value"), INVALID)
def test_malformed_values_are_refused_naming_the_isolator(name: str, value: object) -> None:
    with pytest.raises(ManifestInvalid, match=f"apps.*{re.escape(name)}"):
        make_isolator(name, value, "apps[0].isolators[0]")


def test_every_known_name_is_tested_both_ways() -> None:
    assert {name for name, _ in VALID} == {name for name, _ in INVALID} == iso.KNOWN_ISOLATORS


@pytest.mark.parametrize("value", [0, None, {"any": ["thing"]}])
def test_unknown_isolators_are_kept_and_marked(value: object) -> None:
    isolator = make_isolator("resource/network-ponies", value)
    assert isolator == Isolator("resource/network-ponies", value, known=False)
    known = make_isolator(iso.NO_NEW_PRIVILEGES, True)
    assert iso.unknown_names([known, isolator]) == ["resource/network-ponies"]


@pytest.mark.parametrize("name", ["Resource/cpu", "", "a b", "../x"])
def test_isolator_names_are_identifiers(name: str) -> None:
    with pytest.raises(ManifestInvalid):
        make_isolator(name, 1)


@pytest.mark.parametrize(
    ("isolators", "message"),
    [
        (
            [(iso.CAPABILITIES_RETAIN, {"set": []}), (iso.CAPABILITIES_REMOVE, {"set": []})],
            "exclude each other",
        ),
        (
            [(iso.SECCOMP_RETAIN, {"set": ["read"]}), (iso.SECCOMP_REMOVE, {"set": ["read"]})],
            "too many seccomp isolators",
        ),
        ([(iso.SECCOMP_RETAIN, {"set": ["read"]})] * 2, "too many seccomp isolators"),
        ([(iso.SYSCTL, {})] * 2, "only one isolator os/unix/sysctl"),
    ],
)
def test_contradictions_are_refused(
    app_bytes: Callable[..., bytes], isolators: list[tuple[str, Any]], message: str
) -> None:
    written = [{"name": name, "value": value} for name, value in isolators]
    with pytest.raises(ManifestInvalid, match=message):
        parse_image_manifest(app_bytes(isolators=written))
    for one in written:  # control: each alone is fine
        assert parse_image_manifest(app_bytes(isolators=[one])).app is not None


@pytest.mark.parametrize("entry", [{"name": iso.CPU}, {"value": 1}, 1, {"name": 1, "value": 1}])
def test_entries_need_name_and_value(app_bytes: Callable[..., bytes], entry: object) -> None:
    with pytest.raises(ManifestInvalid, match=r"isolators\[0\]"):
        parse_image_manifest(app_bytes(isolators=[entry]))


def test_effective_capabilities() -> None:
    def effective(*isolators: Isolator) -> frozenset[str]:
        return iso.effective_capabilities(isolators)

    def caps(name: str, *given: str) -> Isolator:
        return make_isolator(name, {"set": list(given)})

    assert len(iso.DEFAULT_CAPABILITIES) == 14
    assert set(iso.CAPABILITIES) >= iso.DEFAULT_CAPABILITIES
    assert effective() == iso.DEFAULT_CAPABILITIES
    assert effective(caps(iso.CAPABILITIES_RETAIN)) == frozenset()
    assert effective(caps(iso.CAPABILITIES_RETAIN, "CAP_BPF")) == {"CAP_BPF"}
    removed = effective(caps(iso.CAPABILITIES_REMOVE, "CAP_MKNOD", "CAP_SYS_ADMIN"))
    assert removed == iso.DEFAULT_CAPABILITIES - {"CAP_MKNOD"}
    last = effective(caps(iso.CAPABILITIES_RETAIN, "CAP_BPF"), caps(iso.CAPABILITIES_RETAIN))
    assert last == frozenset()


def test_capabilities_are_numbered_as_in_the_kernel() -> None:
    numbers = {"CAP_CHOWN": 0, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27}
    numbers.update(CAP_SETFCAP=31, CAP_AUDIT_READ=37, CAP_CHECKPOINT_RESTORE=40)
    assert {name: iso.CAPABILITIES.index(name) for name in numbers} == numbers
    assert len(iso.CAPABILITIES) == 41


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], False), ([False], False), ([True], True), ([False, True], True), ([True, False], True)],
)
def test_any_true_sets_no_new_privileges(values: list[bool], expected: bool) -> None:
    isolators = [make_isolator(iso.NO_NEW_PRIVILEGES, value) for value in values]
    assert iso.no_new_privileges(isolators) is expected


def test_seccomp_filter() -> None:
    assert iso.seccomp([]) is None
    value = {"set": ["stat"], "errno": "EXFULL"}
    found = iso.seccomp([make_isolator(iso.SECCOMP_REMOVE, value)])
    assert found == iso.Seccomp("remove", ("stat",), "EXFULL")
    kept = iso.seccomp([make_isolator(iso.SECCOMP_RETAIN, {"set": ["a", "b"]})])
    assert kept == iso.Seccomp("retain", ("a", "b"), "")


def test_resources_default_to_each_other_and_the_last_wins() -> None:
    def limits(name: str, *values: dict[str, str]) -> tuple[int, int]:
        found = iso.resource([make_isolator(name, value) for value in values], name)
        assert found is not None
        return found.request.milli, found.limit.milli

    assert iso.resource([], iso.CPU) is None
    assert limits(iso.CPU, {"limit": "2"}) == (2000, 2000)
    assert limits(iso.CPU, {"request": "1"}) == (1000, 1000)
    assert limits(iso.CPU, {"limit": "500m", "request": "250m"}) == (250, 500)
    assert limits(iso.MEMORY, {"limit": "1K"}, {"limit": "2K"}) == (2_000_000, 2_000_000)


def test_replacing_isolators() -> None:
    old = [make_isolator(iso.OOM_SCORE_ADJ, 1), make_isolator(iso.CPU_SHARES, 2)]
    new = make_isolator(iso.OOM_SCORE_ADJ, 9)
    assert iso.replace_isolators(old, [new]) == (old[1], new)
    assert iso.replace_isolators(old, [], instead_of=[iso.CPU_SHARES]) == (old[0],)
    assert iso.find(iso.replace_isolators(old, [new]), iso.OOM_SCORE_ADJ) == 9
