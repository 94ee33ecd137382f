"""What this host must have for nspawn."""

from __future__ import annotations

import os

#: the oldest systemd-nspawn whose options are used
OLDEST = 252
NSPAWN = "/usr/bin/systemd-nspawn"
SHELL = "/bin/sh"
SETPRIV = "/usr/bin/setpriv"


def missing() -> list[str]:
    """One line for each thing that is missing."""
    lines = []
    if os.geteuid() != 0:
        lines.append("not root: only root can start pods")
    if not os.access(NSPAWN, os.X_OK):
        lines.append("no systemd-nspawn: install the package systemd-container")
    if not os.access(SHELL, os.X_OK):
        lines.append("no /bin/sh to be a pod's first process")
    if not os.access(SETPRIV, os.X_OK):
        lines.append("no setpriv to bind a pod to systemd-nspawn: install the package util-linux")
    return lines
