"""What this host must have for fly."""

from __future__ import annotations

import os

from podctl.sys import constants as c
from podctl.sys.inroot import open_in_root
from podctl.sys.mounts import open_tree


def missing() -> list[str]:
    """One line for each thing that is missing."""
    lines = []
    if os.geteuid() != 0:
        lines.append("not root: only root can start pods")
    with open("/proc/filesystems") as file:
        if not any(line.split()[-1] == "overlay" for line in file):
            lines.append("no overlay filesystem in the kernel: modprobe overlay, or --no-overlay")
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(open_in_root(root, ".", os.O_PATH))
        os.close(open_tree(root, ".", c.OPEN_TREE_CLOEXEC))
    except OSError as error:
        lines.append(f"{error.strerror}")
    finally:
        os.close(root)
    return lines
