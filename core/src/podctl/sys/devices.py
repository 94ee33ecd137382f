"""Device nodes of the host."""

from __future__ import annotations

import os
import stat


def brings_devices(source: str) -> bool:
    """Whether a volume of this host path brings devices: it is one, or lies in the host's /dev."""
    try:
        mode = os.stat(source).st_mode
    except OSError:
        return False
    path = os.path.realpath(source)
    in_dev = path == "/dev" or path.startswith("/dev/")
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or in_dev
