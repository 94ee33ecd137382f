"""Running podctl the way a user does, and inside the test where a command is replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def podctl() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run podctl in a process of its own; keyword arguments go to subprocess.run."""

    def call(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        settings.setdefault("stdout", subprocess.PIPE)
        settings.setdefault("stderr", subprocess.PIPE)
        return subprocess.run(
            [sys.executable, "-I", "-m", "podctl", *arguments],
            text=True,
            timeout=60,
            check=False,
            **settings,
        )

    return call


@pytest.fixture
def terminal() -> Callable[..., str]:
    """Run podctl with a terminal as stdout and stderr and return what it wrote there."""

    def call(*arguments: str, **environment: str) -> str:
        controller, side = os.openpty()
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", "podctl", *arguments],
                stdout=side,
                stderr=side,
                env={**os.environ, "TERM": "xterm", **environment},
            )
        finally:
            os.close(side)
        written = bytearray()
        try:
            # EIO is how a pseudo-terminal says that its other side is closed.
            while part := os.read(controller, 4096):
                written += part
        except OSError:
            pass
        finally:
            os.close(controller)
            process.wait(timeout=60)
        return written.decode()

    return call
