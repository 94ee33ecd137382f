"""What this host has of what isolators need."""

from __future__ import annotations

import os


def selinux_lacks() -> list[str]:
    """Why no app can be given an SELinux context; empty where one can.

    selinuxfs is mounted only where the kernel has SELinux on (selinux(8)).
    """
    if os.path.exists("/sys/fs/selinux/enforce"):
        return []
    return ["SELinux is off on this host"]


def block_devices() -> list[str]:
    """`MAJOR:MINOR` of every whole block device that can do input and output.

    Limits of control groups are set on whole devices; those of a loop device without a file, and
    RAM disks, would be numbers without a meaning.
    """
    found = []
    for name in sorted(os.listdir("/sys/block")):
        if name.startswith(("ram", "zram")):
            continue
        try:
            with open(f"/sys/block/{name}/size") as file:
                size = int(file.read())
            with open(f"/sys/block/{name}/dev") as file:
                device = file.read().strip()
        except (OSError, ValueError):
            # Unplugged in between.
            continue
        if size:
            found.append(device)
    return found
