"""What a pod's flavor and the site's observers have to do with its end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FLAVOR = "flavor"
#: record of the pod's control groups (podctl.pods.grouping)
GROUPS = "cgroups"
_MAX_NAME = 64


def flavor_of(directory: str) -> str:
    """Name of the flavor a pod was prepared for.

    Raises:
        StoreCorrupt: its record is missing or damaged.
    """
    from podctl.errors import StoreCorrupt
    from podctl.sys.files import read_small

    try:
        return read_small(f"{directory}/{FLAVOR}", _MAX_NAME).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise StoreCorrupt(f"{directory}: the record of its flavor: {error}") from None


def release(directory: str) -> None:
    """Let the flavor of a dead pod release what the pod still holds on the host.

    Raises:
        PodctlError: the flavor is not installed, or failed; the pod must be kept.
    """
    from podctl.plugins import flavor
    from podctl.pods.prepared import load_prepared

    flavor(flavor_of(directory)).gc(load_prepared(directory))
    if os.path.exists(f"{directory}/{GROUPS}"):
        from podctl.pods.grouping import remove_groups

        remove_groups(directory)


def announce_removed(uuids: Sequence[str], warn: Callable[[str], None]) -> None:
    """Tell the installed observers which pods are gone."""
    if not uuids:
        return
    from podctl.plugins import events

    observers = events(warn)
    for uuid in uuids:
        observers.pod_removed(uuid)
