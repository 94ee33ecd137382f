"""Ending a running pod."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from podctl.errors import PodctlError, PodStateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from podctl.pods.directories import Pod


def stop(pod: Pod, *, force: bool, say: Callable[[str], None]) -> None:
    """Ask a running pod to end (`force`: end it). Returns at once.

    The pod's flavor knows how. Where it is not installed any more, or the pod's files are damaged,
    its first process is signalled: that ends every flavor, if less gently.

    Raises:
        PodStateError: the pod does not run, or has no process that can be told from a stranger.
    """
    if pod.state != "running":
        raise PodStateError(f'pod "{pod.uuid}" is not running')
    from podctl.plugins import flavor
    from podctl.pods.prepared import load_prepared
    from podctl.pods.release import flavor_of

    try:
        chosen = flavor(flavor_of(pod.directory))
        prepared = load_prepared(pod.directory)
    except PodctlError as error:
        say(f"{error}: signalling the pod's first process instead")
        _signal(pod, signal.SIGKILL if force else signal.SIGTERM)
    else:
        chosen.stop(prepared, force)


def _signal(pod: Pod, number: signal.Signals) -> None:
    """Signal exactly the process that was recorded, never one that got its number later."""
    from podctl.sys.namespaces import pidfd_send_signal
    from podctl.sys.procs import open_instance, read_instance

    try:
        instance = read_instance(pod.directory)
    except ValueError:
        instance = None
    pidfd = None if instance is None else open_instance(instance)
    if pidfd is None:
        raise PodStateError(f'pod "{pod.uuid}" has no process on record that still runs')
    try:
        pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)
