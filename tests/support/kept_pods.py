"""Detached pods for tests, and their keepers."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "pods.example/busybox"


def detach(world: Any, script: str, *flags: str, flavor: str = "fly") -> str:
    """Start a detached pod of the shell; returns its UUID."""
    line = ["run", f"--stage1={flavor}", "-d", *flags, NAME, "--exec=/bin/sh", "--", "-c", script]
    found: str = world.must(*line).strip()
    return found


def ended(world: Any, script: str, *flags: str, flavor: str = "fly") -> str:
    """Run a detached pod to its end; returns its UUID."""
    uuid = detach(world, script, *flags, flavor=flavor)
    world.must("status", "--wait=60s", uuid)
    return uuid


def keepers(world: Any) -> list[int]:
    """Processes that keep a pod of this data directory."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read()
        except OSError:
            continue
        if b"sys/keeper.py" in words and os.fsencode(world.data) in words:
            found.append(int(name))
    return found


def until(happened: Callable[[], bool]) -> None:
    """Wait until something that is about to happen has happened."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)
