"""A plan printed: complete, in order, one line each, and the same as JSON."""

from __future__ import annotations

import json

import pytest

from podctl.model.plan import (
    Account,
    Bind,
    Directory,
    Filesystem,
    Identity,
    LaunchPlan,
    Overlay,
    Symlink,
    WriteFile,
)
from podctl.pods.launch import describe, plan_to_json

STEPS = (
    Overlay("/pod/root", ("/l2", "/l1"), "/pod/up", "/pod/work"),
    Bind("/dev", "/dev"),
    Bind("/srv", "/data", recursive=False, read_only=True),
    Filesystem("tmpfs", "/run", "size=1m"),
    WriteFile("/etc/hosts", "é\n", missing_only=True),
    Symlink("/etc/mtab", "../proc/self/mounts"),
    Directory("/tmp", 0o1777),
)


@pytest.fixture
def plan() -> LaunchPlan:
    return LaunchPlan(
        flavor="fly",
        namespaces=("NS", "UTS"),
        root="/pod/root",
        steps=STEPS,
        identity=Account("web", "", (4, 7)),
        working_directory="/srv",
        environment={"PATH": "/bin", "X": "a b"},
        argv=("sh", "-c", "echo 'hi' $X", ""),
        read_only_root=True,
        no_new_privileges=True,
        inherited={"3": "socket"},
        records={"pid": "{pid}\n"},
    )


def test_lines(plan: LaunchPlan) -> None:
    assert describe(plan) == [
        "flavor: fly",
        "new namespaces: NS, UTS",
        "overlay: /l2:/l1 below /pod/up (work /pod/work) on /pod/root",
        "bind: /dev on /dev (read-write, slave, recursive)",
        "bind: /srv on /data (read-only, slave)",
        "mount: tmpfs on /run (nosuid,nodev,noexec,size=1m)",
        "file: /etc/hosts (3 bytes, mode 0644) if missing",
        "link: /etc/mtab -> ../proc/self/mounts if missing",
        "directory: /tmp (mode 1777) if missing",
        "root: /pod/root, read-only",
        "working directory: /srv",
        "record: pid",
        "record: instance",
        "descriptor 3: socket",
        "user: web, group: of that user, groups 4,7",
        "no new privileges",
        "environment: PATH=/bin",
        "environment: X=a b",
        "environment: HOME of that user",
        "environment: LOGNAME of that user",
        "environment: USER of that user",
        "execute: sh -c 'echo '\\''hi'\\'' $X' ''",
    ]


def test_json_says_the_same(plan: LaunchPlan) -> None:
    value = json.loads(json.dumps(plan_to_json(plan)))
    assert [step["step"] for step in value["steps"]] == [type(step).__name__ for step in STEPS]
    assert value["steps"][2] == {
        "step": "Bind",
        "source": "/srv",
        "target": "/data",
        "recursive": False,
        "read_only": True,
        "propagation": "slave",
        "no_devices": False,
        "owners": "kept",
        "scratch": None,
    }
    assert value["identity"] == {"user": "web", "group": "", "groups": [4, 7]}
    assert value["argv"] == ["sh", "-c", "echo 'hi' $X", ""]
    assert value["readOnlyRoot"] is True
    assert value["records"] == {"pid": "{pid}\n"}


def test_host_root_and_numeric_identity(plan: LaunchPlan) -> None:
    lines = describe(plan._replace(root=None, identity=Identity(0, 1), read_only_root=False))
    assert "root: the host" in lines
    assert "user: 0, group: 1" in lines
