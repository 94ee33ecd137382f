"""What each isolator adds to a record, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from podctl.errors import InvalidInput, Refused
from podctl.model.confinement import UNCONFINED, CgroupLimits, Confinement, IsolatorContext
from podctl.model.isolators import CAPABILITIES, DEFAULT_CAPABILITIES, Isolator
from podctl_isolators_linux import contributing, host
from podctl_isolators_linux.hooks import linux


def contributed(
    *isolators: tuple[str, Any],
    record: Confinement = UNCONFINED,
    insecure: frozenset[str] = frozenset(),
    default: bool = False,
) -> Confinement:
    """The record of an app with these isolators."""
    found = tuple(Isolator(name, value) for name, value in isolators)
    context = IsolatorContext("app", "nspawn", found, insecure)
    if default:
        record = linux.isolator_contribute("default", None, record, context)
    for isolator in found:
        record = linux.isolator_contribute(isolator.name, isolator.value, record, context)
    return record


def test_every_entry_point_has_its_contribution() -> None:
    import tomllib
    from pathlib import Path

    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    names = tomllib.loads(text)["project"]["entry-points"]["podctl.isolator"]
    assert {name.replace("/", ".") for name in contributing.CONTRIBUTIONS} == set(names)


# The default


def test_the_default_is_the_documented_one() -> None:
    record = contributed(default=True)
    assert record.capabilities == DEFAULT_CAPABILITIES
    assert record.no_new_privileges
    assert record.seccomp
    assert record.cgroup.pids_max == 4096
    assert record.cgroup.devices is not None
    # `runc spec`, 1.1 to 1.3
    assert set(record.masked_paths) >= {
        "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
        "/proc/scsi",
    }  # fmt: skip
    assert set(record.read_only_paths) >= {
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
    }  # fmt: skip


def test_the_default_filter_follows_the_capabilities_the_app_will_have() -> None:
    retain = ("os/linux/capabilities-retain-set", {"set": ["CAP_SYS_ADMIN"]})
    assert contributed(retain, default=True).seccomp != contributed(default=True).seccomp
    everything = contributed(default=True, insecure=frozenset({"capabilities"}))
    assert everything.seccomp != contributed(default=True).seccomp


# What an image may ask for


def asked(name: str, value: object, *, of_image: bool, defaults: bool = True) -> Confinement:
    """The record of an app with one isolator, of its image or of whoever runs it."""
    isolator = Isolator(name, value, of_image=of_image)
    context = IsolatorContext("app", "nspawn", (isolator,), defaults=defaults)
    record = UNCONFINED
    if defaults:
        record = linux.isolator_contribute("default", None, record, context)
    return linux.isolator_contribute(name, value, record, context)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        (
            "os/linux/capabilities-retain-set",
            {"set": ["CAP_KILL", "CAP_SYS_ADMIN"]},
            "--caps-retain=CAP_KILL,CAP_SYS_ADMIN",
        ),
        ("os/linux/seccomp-retain-set", {"set": ["@appc.io/all"]}, "--seccomp=mode=retain"),
        ("os/linux/seccomp-retain-set", {"set": ["read", "mount"]}, "mode=retain,read,mount"),
        ("os/linux/seccomp-retain-set", {"set": ["@docker/default-blacklist"]}, "--seccomp"),
        ("os/linux/oom-score-adj", -1, "--oom-score-adj=-1"),
    ],
)
def test_no_image_lowers_its_own_isolation(name: str, value: object, remedy: str) -> None:
    with pytest.raises(Refused, match="its image asks for") as caught:
        asked(name, value, of_image=True)
    assert remedy in str(caught.value.hint)
    # Who runs it may; and where there are no defaults nothing is lowered.
    asked(name, value, of_image=False)
    asked(name, value, of_image=True, defaults=False)


def test_an_image_may_ask_for_less_than_the_defaults() -> None:
    record = asked("os/linux/capabilities-retain-set", {"set": ["CAP_KILL"]}, of_image=True)
    assert record.capabilities == {"CAP_KILL"}
    assert asked("os/linux/oom-score-adj", 5, of_image=True).oom_score_adj == 5


def test_conditions_of_the_default_filter_hold_for_what_an_image_retains_by_name() -> None:
    calls = {"set": ["read", "write", "clone", "clone3", "socket", "ioctl"]}
    name = "os/linux/seccomp-retain-set"
    theirs, ours = (asked(name, calls, of_image=one).seccomp for one in (True, False))
    assert theirs is not None
    assert theirs != ours


def test_new_privileges_are_not_an_image_s_to_give() -> None:
    name = "os/linux/no-new-privileges"
    assert asked(name, False, of_image=True).no_new_privileges
    assert not asked(name, False, of_image=False).no_new_privileges


# One by one


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("os/linux/capabilities-retain-set", {"set": ["CAP_KILL"]}, {"CAP_KILL"}),
        ("os/linux/capabilities-retain-set", {"set": []}, set()),
        (
            "os/linux/capabilities-remove-set",
            {"set": ["CAP_MKNOD", "CAP_SYS_ADMIN"]},
            DEFAULT_CAPABILITIES - {"CAP_MKNOD"},
        ),
    ],
)
def test_capabilities(name: str, value: Any, expected: set[str]) -> None:
    assert contributed((name, value)).capabilities == frozenset(expected)
    assert contributed((name, value), default=True).capabilities == frozenset(expected)


@pytest.mark.parametrize(
    ("values", "expected"), [((False,), False), ((False, True), True), ((True, False), True)]
)
def test_one_true_is_enough_for_no_new_privileges(values: tuple[bool, ...], expected: bool) -> None:
    isolators = [("os/linux/no-new-privileges", value) for value in values]
    assert contributed(*isolators, default=True).no_new_privileges is expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("resource/memory", {"limit": "64M"}, {"memory_max": 64_000_000}),
        (
            "resource/memory",
            {"request": "32Mi", "limit": "64Mi"},
            {"memory_max": 64 << 20, "memory_low": 32 << 20},
        ),
        ("resource/memory", {"request": "64Mi"}, {"memory_max": 64 << 20}),
        ("resource/cpu", {"limit": "500m"}, {"cpu_milli": 500}),
        ("resource/cpu", {"request": "250m", "limit": "2"}, {"cpu_milli": 2000}),
        ("os/linux/cpu-shares", 512, {"cpu_shares": 512}),
    ],
)
def test_limits(name: str, value: Any, expected: dict[str, Any]) -> None:
    assert contributed((name, value)).cgroup == CgroupLimits(**expected)


def test_of_several_limits_the_last_counts() -> None:
    given = [("resource/memory", {"limit": text}) for text in ("64M", "32M")]
    assert contributed(*given).cgroup.memory_max == 32_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resource/memory", {"limit": "16m"}),
        ("resource/memory", {"limit": "0"}),
        ("resource/memory", {"request": "2M", "limit": "1M"}),
        ("resource/cpu", {"limit": "0"}),
        ("resource/block-bandwidth", {"default": True, "limit": "0"}),
    ],
)
def test_impossible_limits_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(Refused, match=name):
        contributed((name, value))


def test_both_block_isolators_are_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "block_devices", lambda: ["8:0", "253:1"])
    record = contributed(
        ("resource/block-bandwidth", {"default": True, "limit": "2M"}),
        ("resource/block-iops", {"default": True, "limit": "1k"}),
    )
    assert [limit._asdict() for limit in record.cgroup.io] == [
        {
            "device": device,
            "read_bps": 2_000_000,
            "write_bps": 2_000_000,
            "read_iops": 1000,
            "write_iops": 1000,
        }
        for device in ("8:0", "253:1")
    ]


def test_devices_of_this_host_are_whole_and_have_a_size() -> None:
    for device in host.block_devices():
        major, minor = device.split(":")
        assert major.isdecimal()
        assert minor.isdecimal()


def test_an_oom_score_and_a_context() -> None:
    assert contributed(("os/linux/oom-score-adj", -5)).oom_score_adj == -5
    context = {"user": "u", "role": "r", "type": "t", "level": "s0:c1,c2"}
    assert contributed(("os/linux/selinux-context", context)).selinux_context == "u:r:t:s0:c1,c2"


def test_selinux_that_is_off_is_lacking() -> None:
    assert host.selinux_lacks() == ["SELinux is off on this host"]
    assert linux.isolator_lacks("os/linux/selinux-context") == ["SELinux is off on this host"]
    assert linux.isolator_lacks("resource/memory") == ()


def test_a_misspelt_call_is_refused() -> None:
    with pytest.raises(InvalidInput, match="opeen"):
        contributed(("os/linux/seccomp-remove-set", {"set": ["opeen"]}))


# The record itself


def test_a_record_survives_json() -> None:
    import json

    record = contributed(
        ("resource/memory", {"limit": "64M"}),
        ("resource/block-bandwidth", {"default": True, "limit": "2M"}),
        ("os/linux/oom-score-adj", 7),
        default=True,
    )
    assert Confinement.from_value(json.loads(json.dumps(record.to_value()))) == record
    assert Confinement.from_value(json.loads(json.dumps(UNCONFINED.to_value()))) == UNCONFINED


def test_a_record_is_told_in_lines() -> None:
    lines = contributed(("resource/memory", {"limit": "64M"}), default=True).describe()
    assert "no new privileges" in lines
    assert "memory: 64000000 bytes" in lines
    assert not any("\n" in line for line in lines)
    assert UNCONFINED.describe() == []


def test_numbers_of_a_record() -> None:
    numbers = contributed(default=True)._replace(capabilities=frozenset({"CAP_CHOWN"})).to_numbers()
    assert numbers["capabilities"] == 1
    assert contributed(insecure=frozenset()).to_numbers()["capabilities"] is None
    assert len(CAPABILITIES) == 41
