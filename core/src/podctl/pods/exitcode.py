"""How a pod ended: waited for, and told by one number."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podctl.errors import Refused
from podctl.pods.waiting import wait_until_ended

if TYPE_CHECKING:
    from podctl.pods.directories import Pod, PodDirectories


def wait_for_code(pods: PodDirectories, pod: Pod) -> int | None:
    """Wait until the pod has ended; its exit code, None where nobody knows it.

    A fly pod in the foreground has nobody to record its code; the kernel tells those who watched
    its end (Linux 6.15).

    Raises:
        Refused: codes are recorded where the caller may not look.
    """
    _require_codes(pod)
    watched = _watch(pod)
    try:
        ended = wait_until_ended(pods, pod.uuid, None)
        code = pod_code(ended)
        if code is None and watched is not None:
            from podctl.sys.pidinfo import exit_code

            code = exit_code(watched)
        return code
    finally:
        if watched is not None:
            os.close(watched)


def _require_codes(pod: Pod) -> None:
    """Not to be noticed after an hour either; and a code that is there is not unknown."""
    directory = pod.path("status")
    if os.path.isdir(directory) and not os.access(directory, os.R_OK | os.X_OK):
        raise Refused(
            f'exit codes of pod "{pod.uuid}" are for root to see',
            hint="run it as root; podctl status --wait waits without them",
        )


def pod_code(pod: Pod) -> int | None:
    """0 if all apps of a pod that has ended succeeded, else the code of the first that failed; None
    when none was recorded."""
    from podctl.pods.summary import exit_codes

    codes = exit_codes(pod)
    failed = [name for name, code in codes.items() if code != 0]
    if failed:
        return codes[min(failed, key=lambda name: os.stat(pod.path(f"status/{name}")).st_mtime_ns)]
    return 0 if codes else None


def _watch(pod: Pod) -> int | None:
    from podctl.sys.procs import open_instance, read_instance

    try:
        instance = read_instance(pod.directory)
    except (OSError, ValueError):
        return None
    return None if instance is None else open_instance(instance)
