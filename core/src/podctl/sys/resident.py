"""What the programs have in common that stay beside a pod."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]


def stay_alive() -> None:
    """An app would end with us (SIGPIPE, SIGHUP): end with the pod only."""
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_IGN)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
    except OSError:
        # Without CAP_SYS_RESOURCE the value may not go down.
        return
