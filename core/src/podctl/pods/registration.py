"""Whether a pod is a machine of systemd-machined."""

from __future__ import annotations

import os

#: where machined keeps a file for each machine it knows, as sd-login(3) reads them
_MACHINES = "/run/systemd/machines"


def is_registered(uuid: str) -> bool:
    """Whether machined knows the pod, by the name a flavor registers it by (podctl-UUID)."""
    return os.path.exists(f"{_MACHINES}/podctl-{uuid}")
