"""Filters, judged by what the kernel does with every call: X13."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from podctl.errors import InvalidInput
from podctl.model.isolators import CAPABILITIES, DEFAULT_CAPABILITIES, Seccomp
from podctl_isolators_linux import bpf, policy
from podctl_isolators_linux.policy import default_filter, denied_by_default, isolator_filter
from podctl_isolators_linux.syscalls import X32_BIT, Abi, abis, every_name

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="the sweeper speaks the calls of x86-64"
)

ALLOWED, KILLED = 777, 778
NATIVE, X32, I386 = abis("x86_64")
#: each way of making a call: table, bits of the instruction, first number
WAYS = [
    pytest.param(NATIVE, 64, 0, id="x86_64"),
    pytest.param(X32, 64, X32_BIT, id="x32"),
    pytest.param(I386, 32, 0, id="i386"),
]
#: what the kernel asks no filter about (see sweeper.c)
UNASKED = ("uretprobe", "uprobe")
#: today's profile of other engines, where this host has it
PROFILE = Path("/usr/share/containers/seccomp.json")


def program(found: policy.Filter) -> bytes:
    assert found.program is not None
    return found.program


def expected(name: str, denied: frozenset[str]) -> int:
    if not name or name == "clone3":
        return errno.ENOSYS
    return errno.EPERM if name in denied else ALLOWED


@pytest.mark.parametrize(("abi", "bits", "first"), WAYS)
def test_every_call_is_answered_as_the_policy_says(
    sweep: Callable[..., list[int]], abi: Abi, bits: int, first: int
) -> None:
    denied = denied_by_default(DEFAULT_CAPABILITIES)
    found = sweep(program(default_filter(DEFAULT_CAPABILITIES)), bits=bits, first=first)
    names = [*abi.calls, *[""] * (600 - len(abi.calls))]
    # `personality` of 0 and a socket of family 0 are allowed, as far as the filter goes.
    wrong = {
        (number, name): answer
        for number, (name, answer) in enumerate(zip(names, found, strict=True))
        if answer != expected(name, denied) and name not in UNASKED
    }
    assert not wrong


@pytest.mark.parametrize(("abi", "bits", "first"), WAYS)
def test_without_a_filter_the_sweep_finds_everything_allowed(
    sweep: Callable[..., list[int]], abi: Abi, bits: int, first: int
) -> None:
    """Control: the sweeper sees what a filter does not deny."""
    everything = bpf.compile_filter(abis("x86_64"), lambda _name: bpf.ALLOW, bpf.ALLOW)
    found = sweep(everything, bits=bits, first=first)
    names = [*abi.calls, *[""] * (600 - len(abi.calls))]
    asked = {answer for name, answer in zip(names, found, strict=True) if name not in UNASKED}
    assert asked == {ALLOWED}


@pytest.mark.parametrize(
    "name",
    [
        "keyctl", "add_key", "request_key", "bpf", "userfaultfd", "perf_event_open",
        "open_by_handle_at", "mount", "move_mount", "fsopen", "open_tree", "io_uring_setup",
        "kexec_load", "init_module", "finit_module", "setns", "unshare", "pivot_root", "ptrace",
        "process_vm_writev", "reboot", "swapon", "iopl", "acct", "quotactl", "syslog",
    ],
)  # fmt: skip
def test_no_way_leads_to_a_dangerous_call(name: str) -> None:
    code = program(default_filter(DEFAULT_CAPABILITIES))
    for abi in (NATIVE, X32, I386):
        for number, known in enumerate(abi.calls):
            if known == name:
                called = number | X32_BIT if abi.x32 else number
                assert bpf.run(code, abi.arch, called) == bpf.errno_answer(errno.EPERM)


@pytest.mark.parametrize(
    ("call", "first", "second", "allowed"),
    [
        ("clone", 0x11, 0, True),
        ("clone", 0x10000000 | 0x11, 0, False),
        ("clone", 0x00020000, 0, False),
        ("personality", 0xFFFFFFFF, 0, True),
        ("personality", 0x0400000, 0, False),
        ("socket", 2, 0, True),
        ("socket", 16, 0, True),
        ("socket", 38, 0, False),
        ("socket", 40, 0, False),
        ("ioctl", 0, 0x5413, True),
        ("ioctl", 0, 0x5412, False),
        # What stands above an int must not hide it (CVE-2019-10063).
        ("ioctl", 0, 0x1_0000_5412, False),
        ("ioctl", 0, 0x541C, False),
        ("socket", 0x1_0000_0026, 0, False),
    ],
)
def test_arguments_decide(
    sweep: Callable[..., list[int]], call: str, first: int, second: int, allowed: bool
) -> None:
    code = program(default_filter(DEFAULT_CAPABILITIES))
    number = NATIVE.calls.index(call)
    found = sweep(code, first=number, count=1, arguments=(first, second))
    assert found == [ALLOWED if allowed else errno.EPERM]


def test_another_architecture_ends_the_process() -> None:
    code = program(default_filter(DEFAULT_CAPABILITIES))
    assert bpf.run(code, 0xC00000B7, 0) == bpf.KILL


def test_what_a_modern_libc_calls_is_allowed() -> None:
    denied = denied_by_default(DEFAULT_CAPABILITIES)
    used = {
        "statx", "rseq", "openat2", "close_range", "faccessat2", "epoll_pwait2", "pidfd_open",
        "pidfd_send_signal", "futex_waitv", "clock_gettime64", "getrandom", "membarrier", "mseal",
        "copy_file_range", "memfd_create", "prlimit64", "landlock_create_ruleset", "fchmodat2",
        "cachestat", "set_robust_list", "waitid", "execveat", "renameat2", "sched_getattr",
    }  # fmt: skip
    assert used <= every_name()
    assert not used & denied


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("CAP_SYS_ADMIN", "mount"), ("CAP_SYS_ADMIN", "clone3"), ("CAP_BPF", "bpf"),
        ("CAP_SYS_PTRACE", "ptrace"), ("CAP_SYS_BOOT", "reboot"), ("CAP_SYS_TIME", "settimeofday"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"), ("CAP_SYSLOG", "syslog"),
    ],
)  # fmt: skip
def test_a_capability_brings_its_calls(capability: str, call: str) -> None:
    assert call in denied_by_default(DEFAULT_CAPABILITIES)
    assert call not in denied_by_default(DEFAULT_CAPABILITIES | {capability})


def test_what_no_capability_is_about_stays_denied_with_all() -> None:
    assert {"io_uring_setup", "kexec_load", "keyctl"} <= denied_by_default(frozenset(CAPABILITIES))


def test_every_denied_name_is_a_call() -> None:
    assert denied_by_default(frozenset()) <= every_name()


def test_nothing_is_allowed_that_other_engines_deny() -> None:
    """But for calls that are younger than the profile on this host, and rseq's kin."""
    if not PROFILE.exists():
        pytest.skip(f"{PROFILE} is not installed (golang-github-containers-common)")
    rules = json.loads(PROFILE.read_text())["syscalls"]
    theirs = {
        name
        for rule in rules
        if rule["action"] == "SCMP_ACT_ALLOW"
        and DEFAULT_CAPABILITIES.issuperset(rule.get("includes", {}).get("caps") or ())
        for name in rule["names"]
    }
    ours = every_name() - denied_by_default(DEFAULT_CAPABILITIES)
    assert ours - theirs <= {
        "cachestat", "fchmodat2", "file_getattr", "futex_requeue", "futex_wait", "futex_waitv",
        "futex_wake", "getxattrat", "io_pgetevents", "io_pgetevents_time64", "listmount",
        "listxattrat", "map_shadow_stack", "mseal", "removexattrat", "setxattrat", "statmount",
        "uretprobe", "vmsplice",
    }  # fmt: skip


# Isolators


def answers(seccomp: Seccomp, *names: str) -> list[int]:
    code = program(isolator_filter(seccomp, DEFAULT_CAPABILITIES))
    return [bpf.run(code, NATIVE.arch, NATIVE.calls.index(name)) for name in names]


def test_a_retain_set_allows_exactly_its_calls_and_the_life_cycle(
    sweep: Callable[..., list[int]],
) -> None:
    code = program(isolator_filter(Seccomp("retain", ("read", "mount")), DEFAULT_CAPABILITIES))
    found = sweep(code, count=len(NATIVE.calls))
    allowed = {
        name for name, answer in zip(NATIVE.calls, found, strict=True) if answer == ALLOWED and name
    }
    assert {"read", "mount", "execve", "exit_group", "rt_sigreturn"} <= allowed
    assert len(allowed) <= 2 + 20
    assert found[NATIVE.calls.index("write")] == KILLED
    # What no table has, a kernel does not have either: probing for it is no violation.
    assert found[NATIVE.calls.index("")] == errno.ENOSYS


def test_a_retain_set_with_errno_kills_nobody() -> None:
    seccomp = Seccomp("retain", ("read",), "EACCES")
    assert answers(seccomp, "read", "write") == [bpf.ALLOW, bpf.errno_answer(errno.EACCES)]


def test_a_remove_set_adds_to_what_is_denied_anyway() -> None:
    found = answers(Seccomp("remove", ("mkdir",)), "mkdir", "read", "mount")
    assert found == [bpf.KILL, bpf.ALLOW, bpf.errno_answer(errno.EPERM)]
    found = answers(Seccomp("remove", ("mkdir",), "ENOTSUP"), "mkdir", "read")
    assert found == [bpf.errno_answer(errno.ENOTSUP), bpf.ALLOW]


def test_everything_retained_is_no_filter() -> None:
    found = isolator_filter(Seccomp("retain", ("@appc.io/all", "read")), DEFAULT_CAPABILITIES)
    assert found.program is None


def test_nothing_removed_is_the_default() -> None:
    found = isolator_filter(Seccomp("remove", ("@appc.io/empty", "read")), DEFAULT_CAPABILITIES)
    assert found == default_filter(DEFAULT_CAPABILITIES)


@pytest.mark.parametrize("scope", ["docker", "rkt"])
def test_whitelists_keep_the_conditions_of_the_default(scope: str) -> None:
    seccomp = Seccomp("retain", (f"@{scope}/default-whitelist", "mount"), "EPERM")
    code = program(isolator_filter(seccomp, DEFAULT_CAPABILITIES))
    number = NATIVE.calls.index("socket")
    assert bpf.run(code, NATIVE.arch, number, {0: 2}) == bpf.ALLOW
    assert bpf.run(code, NATIVE.arch, number, {0: 38}) == bpf.errno_answer(errno.EPERM)
    assert answers(seccomp, "mount", "umount2") == [bpf.ALLOW, bpf.errno_answer(errno.EPERM)]


@pytest.mark.parametrize("scope", ["docker", "rkt"])
def test_blacklists_are_what_the_default_denies(scope: str) -> None:
    seccomp = Seccomp("remove", (f"@{scope}/default-blacklist",))
    assert answers(seccomp, "mount", "read") == [bpf.errno_answer(errno.EPERM), bpf.ALLOW]


@pytest.mark.parametrize("entry", ["nosuchcall", "@docker/nosuch", "@appc.io/none", "@x/y"])
def test_what_nothing_has_is_refused(entry: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(entry)):
        isolator_filter(Seccomp("retain", ("read", entry)), DEFAULT_CAPABILITIES)


# Tables


def test_tables_agree_with_the_host_s_headers() -> None:
    folder = Path("/usr/include/x86_64-linux-gnu/asm")
    for abi, file in ((NATIVE, "unistd_64.h"), (X32, "unistd_x32.h"), (I386, "unistd_32.h")):
        pattern = r"#define __NR_(\w+)\s+(?:\(__X32_SYSCALL_BIT \+ )?(\d+)"
        found = re.findall(pattern, (folder / file).read_text())
        assert len(found) > 300
        for name, number in found:
            assert abi.calls[int(number)] == name, (abi.name, number)


def test_there_is_no_table_of_a_machine_nobody_wrote_one_for() -> None:
    assert abis("sparc64") == ()
    assert [abi.name for abi in abis("aarch64")] == ["aarch64"]
